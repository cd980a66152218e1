"""UrbanSound8K: clips of ten street sounds of at most 4 s, each kept as a log-mel image."""

import csv
import io
import logging
from functools import partial
from pathlib import Path

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.audio import facts, log_mel
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import cached_samples, list_files, read_file, stamp_of

logger = logging.getLogger(__name__)

CLASS_NAMES = ("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot",
               "jackhammer", "siren", "street_music")  # fmt: skip
"""Name of each `classID` of the csv."""

URBANSOUND8K = DatasetSpec(
    name="urbansound8k",
    sample_shape=(1, 100, 100),
    sample_dtype="uint8",
    scale=255.0,
    # of 100 training clips, ten a class of folds 1 and 2, already at 22,050 Hz, mono and 4 s long
    mean=(0.56,),
    std=(0.21,),
    presets={
        "small": Preset("cnn", tasks=5, epochs=17, batch_size=10, lr=0.05, stream_size=18, episodic_size=20,
                        swap_ratio=1.0, per_class=10, test_per_class=50),
        "paper": Preset("resnet18", tasks=10, epochs=100, batch_size=10, lr=1e-3, weight_decay=1e-3,
                        epoch_of="buffers", loss="bce", schedule="milestones", milestones=(30, 60), gamma=2.0,
                        stream_size=1000, episodic_size=100, swap_ratio=0.5),
    },
    source="https://urbansounddataset.weebly.com/urbansound8k.html, doi:10.5281/zenodo.1203745; 8,732 clips",
    licence="CC BY-NC 3.0, as the data set's own README states; attributions in its FREESOUNDCREDITS.txt",
    citation="Salamon, Jacoby and Bello (2014), A Dataset and Taxonomy for Urban Sound Research, ACM Multimedia, "
    "doi:10.1145/2647868.2655045",
)  # fmt: skip

_ARCHIVE = ARCHIVES["urbansound8k"]
_REPAIR = "unpack it again from the original archive"
_COLUMNS = ("slice_file_name", "fold", "classID")
_FOLDS, _LABELS = ({str(number): number for number in numbers} for numbers in (range(1, 11), range(10)))
_MOST_TABLE_BYTES = 1 << 24


def load(root: Path, fold: int = 0) -> Dataset:
    """The clips found under `root`: a fold for testing, by default the highest that is there, the rest to train.

    Rows of the csv whose wav is absent are skipped, and so are classes without a clip in either part; what was found is
    logged. Images are computed once and cached, by the settings and the names and lengths of the wavs. There is an
    `InputError` if files are missing, damaged or no wavs, if fewer than two folds are there, if no class has clips in
    both parts, if the cache can't be written, or if the library soundfile is missing.
    """
    folder = _ARCHIVE.find(root)
    # some copies have the folds and the csv side by side
    audio, metadata = (place if (place := folder / name).is_dir() else folder for name in ("audio", "metadata"))
    rows = _rows(metadata / "UrbanSound8K.csv")
    places = [(fold, audio / f"fold{fold}") for fold in sorted({fold for fold, _ in rows})]
    sizes = {(fold, name): size for fold, place in places for name, size, _ in list_files(place, r".*")}
    clips = [(*clip, sizes[clip]) for clip in sorted(rows) if clip in sizes]
    if not clips:
        raise InputError(f"None of the wavs that the csv lists is in {audio}/fold1 to fold10. {_ARCHIVE.advice}")
    folds, labels = np.array([(fold, rows[fold, name]) for fold, name, _ in clips]).T
    there = ", ".join(map(str, np.unique(folds)))
    logger.info("UrbanSound8K: %d of the %d clips listed are there, in folds %s.", len(clips), len(rows), there)
    tests = folds == (last := fold or folds.max())
    if not tests.any():
        raise InputError(f"There is no wav in fold {fold} of {audio}; choose one of {there}.")
    if tests.all():
        raise InputError(f"Only fold {last} has wavs in {audio}; add one more, one is kept for testing.")
    both = np.intersect1d(labels[tests], labels[~tests])
    if not len(both):
        raise InputError(f"No class has wavs both in fold {last}, for testing, and in another of {audio}; add some.")
    if left_out := [CLASS_NAMES[label] for label in np.setdiff1d(labels, both)]:
        logger.warning("Left out, for want of a clip to train or to test: %s.", ", ".join(left_out))
    wavs = [audio / f"fold{fold}" / name for fold, name, _ in clips]
    images, _ = cached_samples(root, URBANSOUND8K, stamp_of(facts(), clips), wavs, partial(log_mel, repair=_REPAIR))
    train, test = (np.flatnonzero(part & np.isin(labels, both)) for part in (~tests, tests))
    parts = images[train], labels[train], images[test], labels[test]
    return Dataset.from_arrays(*parts, spec=URBANSOUND8K, class_names=[CLASS_NAMES[label] for label in both])


def _rows(table: Path) -> dict[tuple[int, str], int]:
    """The class of each `(fold, name)` that the csv lists."""
    content = read_file(table, _MOST_TABLE_BYTES, _ARCHIVE.advice)
    rows: dict[tuple[int, str], int] = {}
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for row in reader:
            name, fold, label = (row.get(column) or "" for column in _COLUMNS)
            if not name or fold not in _FOLDS or label not in _LABELS or (_FOLDS[fold], name) in rows:
                raise InputError(
                    f"Line {reader.line_num} of {table} is no clip of its own with the columns "
                    f"{', '.join(_COLUMNS)} (fold 1 to 10, classID 0 to 9); {_REPAIR}."
                )
            rows[_FOLDS[fold], name] = _LABELS[label]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} can't be read as a table ({error}); {_REPAIR}.") from error
    if not rows:
        raise InputError(f"{table} lists no clips; {_REPAIR}.")
    return rows
