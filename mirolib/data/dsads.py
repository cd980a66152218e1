"""Daily and Sports Activities (UCI) from its original text files; they are parsed once into the cache."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import cached_samples, check_classes, list_files, read_file, stamp_of

DSADS = DatasetSpec(
    name="dsads",
    sample_shape=(1, 125, 45),
    sample_dtype="float32",
    presets={
        "small": Preset("cnn1d", tasks=6, epochs=11, batch_size=16, lr=0.05, stream_size=300, episodic_size=100,
                        swap_ratio=1.0, per_class=96, test_per_class=24),
        "medium": Preset("cnn1d", tasks=9, epochs=20, batch_size=16, lr=0.05, stream_size=180, episodic_size=400,
                         swap_ratio=1.0, per_class=96, test_per_class=24),
        "paper": Preset("resnet18", tasks=10, epochs=10, batch_size=16, lr=1e-3, weight_decay=1e-4,
                        epoch_of="buffers", loss="bce", schedule="constant", stream_size=768, episodic_size=500,
                        swap_ratio=0.25),
    },
    source="https://archive.ics.uci.edu/dataset/256/daily+and+sports+activities, 9,120 segments of 5 s at 25 Hz from "
    "45 sensor channels",
    licence="CC BY 4.0 (UCI)",
    citation="Barshan and Altun (2010), Daily and Sports Activities, UCI, doi:10.24432/C5C59F; Altun, Barshan and "
    "Tunçel (2010), Comparative study on classifying human activities with miniature inertial and magnetic sensors, "
    "Pattern Recognition 43(10), doi:10.1016/j.patcog.2010.04.019",
)  # fmt: skip

ACTIVITIES = (
    "sitting", "standing", "lying on back", "lying on right side", "ascending stairs", "descending stairs",
    "standing still in an elevator", "moving around in an elevator", "walking in a parking lot",
    "walking on a flat treadmill at 4 km/h", "walking on an inclined treadmill at 4 km/h",
    "running on a treadmill at 8 km/h", "exercising on a stepper", "exercising on a cross trainer",
    "cycling in horizontal position", "cycling in vertical position", "rowing", "jumping", "playing basketball",
)  # fmt: skip
"""What a01 to a19 are, after the data set's description."""

_ARCHIVE = ARCHIVES["dsads"]
_ANEW = "Unpack the archive anew."
_SEGMENT = r"s[0-9]{2}\.txt"
_MOST_BYTES = 1 << 20  # the original files have 48,000


def load(root: Path, group: Literal["", "subject"] = "") -> Dataset:
    """Segments `(1, 125, 45) float32`, time by sensor, of the people and activities found; fewer of any will do.

    Of each person's segments of an activity, in order, every fifth is for the test, from the third on: 12 of 60; with
    `group`, each sample has its person, 1 to 8. Each of the 45 columns is standardised here, with the mean and standard
    deviation of all training segments found. Parsed segments are kept in the cache, before standardisation; activities
    without a folder are left out. There is an `InputError` if a file holds anything but 125 rows of 45 numbers, an
    activity has a folder but no training or no test segment, or the cache can't be written.
    """
    folder = _ARCHIVE.find(root)
    present = {label: f"a{label + 1:02d}" for label in range(19) if (folder / f"a{label + 1:02d}").is_dir()}
    segments = [
        (f"{activity}/p{person}/{name}", label, rank, size_bytes, changed)
        for label, activity in present.items()
        for person in range(1, 9)
        for rank, (name, size_bytes, changed) in enumerate(list_files(folder / activity / f"p{person}", _SEGMENT))
    ]
    if not segments:
        raise InputError(f"There is no segment a01/p1/s01.txt or the like in {folder}. {_ARCHIVE.advice}")
    labels = np.array([label for _, label, *_ in segments], dtype=np.int64)
    test = np.array([rank % 5 == 2 for _, _, rank, *_ in segments])
    needs = ", which takes three segments of a person at least"
    check_classes(folder, present, len(ACTIVITIES), labels[~test], labels[test], needs)
    raw, _ = cached_samples(root, DSADS, stamp_of(segments), [folder / path for path, *_ in segments], _segment)
    train_samples, test_samples = raw[~test], raw[test]
    mean = train_samples.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    # a sensor that stood still would divide by zero
    std = np.maximum(train_samples.std(axis=(0, 1, 2), dtype=np.float64), 1e-6).astype(np.float32)
    for samples in (train_samples, test_samples):
        samples -= mean
        samples /= std
    parts = train_samples, labels[~test], test_samples, labels[test]
    subjects = np.array([int(path.split("/")[1][1:]) for path, *_ in segments])
    groups, test_groups = (subjects[~test], subjects[test]) if group else (None, None)
    names = [ACTIVITIES[label] for label in present]
    return Dataset.from_arrays(*parts, spec=DSADS, class_names=names, groups=groups, test_groups=test_groups)


def _segment(path: Path) -> np.ndarray:
    """The numbers of a segment, `(1, 125, 45) float32`."""
    text = read_file(path, _MOST_BYTES, _ANEW).strip() or b"nothing"  # since NumPy takes no text for no numbers
    try:
        # with comments, NumPy would drop the part of a damaged line that follows a #
        values = np.loadtxt(io.BytesIO(text), np.float64, comments=None, delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} does not hold numbers separated by commas ({error}). {_ANEW}") from error
    if values.shape != DSADS.sample_shape[1:]:
        raise InputError(f"{path} has {len(values)} lines of {values.shape[1]} numbers, not 125 of 45. {_ANEW}")
    # asked this way round, since no comparison is true for NaN
    finite = np.abs(values) < np.finfo(np.float32).max
    if not finite.all():
        raise InputError(f"{path}, line {finite.all(axis=1).argmin() + 1}, has a number that is not finite. {_ANEW}")
    return values[None].astype(np.float32)
