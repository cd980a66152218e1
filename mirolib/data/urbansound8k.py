"""UrbanSound8K: clips of ten street sounds of at most 4 s, each kept as a log-mel image.

soundfile (libsndfile) reads the wavs, SciPy resamples and transforms them: SciPy is there anyway, while librosa brings
a compiler of 200 MB and a release of torchaudio loads beside few builds of torch.
"""

from __future__ import annotations

import csv
import importlib
import io
import logging
import math
import os
import struct
from functools import cache
from pathlib import Path

import numpy as np

from mirolib.base.errors import InputError
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


# How a clip becomes an image: one row a mel band, lowest first, one column a frame.
RATE = 22_050  # Hz that clips are brought to; bands reach from 0 to half of it
SECONDS = 4  # that clips are cut or padded with zeros to
WINDOW = 2048  # samples of the Hann window and of the Fourier transform
BANDS = 100  # triangular, of peak 1, evenly spaced in mel = 2595 log10(1 + Hz / 700)
FRAMES = 100  # evenly spaced over the clip, the first centred on its first sample
RANGE_DB = 80  # kept below the loudest point, which is 255; a pixel is a step of RANGE_DB / 255 (0.31 dB)

_ARCHIVE = ARCHIVES["urbansound8k"]
_REPAIR = "unpack it again from the original archive"
_COLUMNS = ("slice_file_name", "fold", "classID")
_FOLDS, _LABELS = ({str(number): number for number in numbers} for numbers in (range(1, 11), range(10)))
_MOST_TABLE_BYTES = 1 << 24
_RATES = range(1_000, 192_001)  # for the 2 GHz that a header may claim, the resampling filter would fill memory
_MOST_CHUNKS = 1_000  # else a file of empty chunks would be read to its end, eight bytes at a time


def load(root: Path) -> Dataset:
    """The clips found under `root`: the highest fold that is there for testing (10 in the full set), the rest to train.

    Rows of the csv whose wav is absent are skipped, and so are classes without a clip in either part; what was found
    is logged. Images are computed once and kept in the cache below `root`, by the settings and the names and lengths
    of the wavs.

    Raises:
        InputError: If files are missing, damaged or no wavs, if fewer than two folds are there, if no class has clips
            in both parts, if the cache can't be written, or if the library soundfile is missing.
    """
    folder = _ARCHIVE.find(root)
    audio = folder / "audio"
    rows = _rows(folder / "metadata" / "UrbanSound8K.csv")
    clips = _clips(audio, rows)
    folds = np.array([fold for fold, *_ in clips])
    labels = np.array([rows[fold, name] for fold, name, _ in clips])
    last = folds.max()
    tests = folds == last
    if tests.all():
        raise InputError(f"Only fold {last} has wavs in {audio}; add one more, one is kept for testing.")
    both = np.intersect1d(labels[tests], labels[~tests])
    if not len(both):
        raise InputError(f"No class has wavs both in fold {last}, for testing, and in another of {audio}; add some.")
    if left_out := [CLASS_NAMES[label] for label in np.setdiff1d(labels, both)]:
        logger.warning("Left out, for want of a clip to train or to test: %s.", ", ".join(left_out))
    wavs = [audio / f"fold{fold}" / name for fold, name, _ in clips]
    stamp = stamp_of((RATE, SECONDS, WINDOW, BANDS, FRAMES, RANGE_DB), clips)
    images = cached_samples(root, URBANSOUND8K, stamp, wavs, log_mel)
    train, test = (np.flatnonzero(part & np.isin(labels, both)) for part in (~tests, tests))
    parts = images[train], labels[train], images[test], labels[test]
    return Dataset.from_arrays(*parts, spec=URBANSOUND8K, class_names=[CLASS_NAMES[label] for label in both])


def _clips(audio: Path, rows: dict[tuple[int, str], int]) -> list[tuple[int, str, int]]:
    """Fold, name and length in bytes of the clips whose wav is there."""
    folds = sorted({fold for fold, _ in rows})
    sizes = {(fold, name): size for fold in folds for name, size, _ in list_files(audio / f"fold{fold}", r".*")}
    clips = [(*clip, sizes[clip]) for clip in sorted(rows) if clip in sizes]
    if not clips:
        raise InputError(f"None of the wavs that the csv lists is in {audio}/fold1 to fold10. {_ARCHIVE.advice}")
    there = ", ".join(str(fold) for fold in folds if any(clip[0] == fold for clip in clips))
    logger.info("UrbanSound8K: %d of the %d clips listed are there, in folds %s.", len(clips), len(rows), there)
    return clips


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


def log_mel(path: Path) -> np.ndarray:
    """A wav as a log-mel image as the settings above say.

    Args:
        path: PCM, float or ADPCM, mono or stereo (averaged), any rate from 1 to 192 kHz. What exceeds `SECONDS` is
            cut off, what is missing is silence.

    Returns:
        `(1, BANDS, FRAMES) uint8`; zeros for silence.

    Raises:
        InputError: If the file is no wav, is truncated or empty, or holds NaN or infinite samples.
    """
    from scipy import signal

    sound, rate = _read(path)
    divisor = math.gcd(RATE, rate)
    sound = signal.resample_poly(sound, RATE // divisor, rate // divisor) if rate != RATE else sound
    length = RATE * SECONDS
    sound = np.pad(sound[:length], (0, max(0, length - len(sound))))
    hann = signal.get_window("hann", WINDOW)
    transform = signal.ShortTimeFFT(hann, length // FRAMES, RATE)
    power = mel_bands() @ transform.spectrogram(sound, p0=0, p1=FRAMES)
    loudest = power.max()
    if loudest <= 0:
        return np.zeros((1, *power.shape), np.uint8)
    decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE_DB / 10)))
    return np.rint(255 * (1 + decibels / RANGE_DB)).astype(np.uint8)[None]


@cache
def mel_bands() -> np.ndarray:
    """Weight of each frequency of the Fourier transform in each mel band, `(BANDS, WINDOW // 2 + 1)`."""
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    low, middle, high = (edges[shift : shift + BANDS, None] for shift in range(3))
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    return np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)


def _read(path: Path) -> tuple[np.ndarray, int]:
    """The first seconds of a wav, channels averaged, `(n,) float64`, and its sampling rate in Hz."""
    try:
        soundfile = importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError where the package is there and libsndfile is not
        raise InputError(
            f"UrbanSound8K needs the library soundfile ({error}); install it by pip install 'mirolib[audio]'."
        ) from error
    try:
        _check_whole(path)
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if rate not in _RATES or channels not in (1, 2):
                raise InputError(
                    f"{path} claims {channels} channels at {rate} Hz, but clips have one or two at {_RATES[0]:,} to "
                    f"{_RATES[-1]:,} Hz; {_REPAIR}."
                )
            wanted = min(file.frames, rate * SECONDS)
            sound = file.read(wanted, dtype="float64", always_2d=True).mean(axis=1)
    except InputError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path} can't be read as a wav file ({reason}); {_REPAIR}.") from error
    if len(sound) < max(wanted, 1):
        raise InputError(f"{path} is empty or truncated: {len(sound):,} of {wanted:,} samples are there; {_REPAIR}.")
    if not np.isfinite(sound).all() or np.abs(sound).max() > 1e100:  # whose square is still a finite number
        raise InputError(f"{path} holds samples that are NaN, infinite or beyond any sound; {_REPAIR}.")
    return sound, rate


def _check_whole(path: Path) -> None:
    """Refuses a file that is no wav, or shorter than its header says (libsndfile reads those without a word)."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise InputError(f"{path} is no wav file (no RIFF header); {_REPAIR}.")
        for _ in range(_MOST_CHUNKS):
            chunk = file.read(8)
            if len(chunk) < 8:
                break
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                there = size - file.tell()
                if length > there:
                    raise InputError(f"{path} is truncated: {there:,} of {length:,} bytes of sound; {_REPAIR}.")
                return
            file.seek(length + length % 2, os.SEEK_CUR)
    raise InputError(f"{path} is a wav file without sound, truncated or damaged; {_REPAIR}.")
