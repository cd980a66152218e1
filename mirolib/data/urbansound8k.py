"""UrbanSound8K: clips of ten street sounds of at most 4 s, each kept as a log-mel image.

soundfile (libsndfile) reads the wavs, SciPy resamples and transforms them: SciPy is there anyway, while librosa brings
a compiler of 200 MB and a release of torchaudio loads beside few builds of torch.
"""

from __future__ import annotations

import csv
import importlib
import logging
import math
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.files import cached_array, find_folder

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
        "small": Preset("small-cnn", tasks=5, epochs=20, batch_size=10, lr=0.05, stream_size=18, episodic_size=20,
                        swap_ratio=1.0, per_class=10, test_per_class=50),
        "paper": Preset("resnet18", tasks=10, epochs=100, batch_size=10, lr=1e-3, weight_decay=1e-3,
                        milestones=(30, 60), gamma=2.0, stream_size=1000, episodic_size=100, swap_ratio=0.5),
    },
    source="https://urbansounddataset.weebly.com/urbansound8k.html, doi:10.5281/zenodo.1203745; 8,732 clips",
    licence="CC BY-NC 3.0, as the data set's own README states; attributions in its FREESOUNDCREDITS.txt",
    citation="Salamon, Jacoby and Bello (2014), A Dataset and Taxonomy for Urban Sound Research, ACM Multimedia, "
    "doi:10.1145/2647868.2655045",
)  # fmt: skip


@dataclass(frozen=True)
class MelSettings:
    """How a clip becomes an image: one row a mel band, lowest first, one column a frame.

    Attributes:
        rate: Sampling rate in Hz that clips are brought to; bands reach from 0 to half of it.
        seconds: Length clips are cut or padded with zeros to.
        window: Length of the Hann window in samples, also that of the Fourier transform.
        bands: Triangular bands of peak 1, evenly spaced in mel = 2595 log10(1 + Hz / 700).
        frames: Frames, evenly spaced over the clip, the first centred on its first sample.
        range_db: Loudness range kept below the loudest point of the clip, in dB; a pixel is a step of
            `range_db / 255` (0.31 dB), 255 at the loudest point and 0 at `range_db` below it or less.
    """

    rate: int = 22_050
    seconds: int = 4
    window: int = 2048
    bands: int = 100
    frames: int = 100
    range_db: int = 80


MEL = MelSettings()

_WHERE = (
    "Get UrbanSound8K.tar.gz (about 6 GB) at https://urbansounddataset.weebly.com/urbansound8k.html and unpack it to "
    "UrbanSound8K/audio/fold1/*.wav to fold10 and UrbanSound8K/metadata/UrbanSound8K.csv."
)
_REPAIR = "unpack it again from the original archive"
_COLUMNS = ("slice_file_name", "fold", "classID")
_RATES = range(1_000, 192_001)
_MOST_CHUNKS = 1_000
_THREADS = 2
_BATCH = 64


class _Clip(NamedTuple):
    """A wav that is there: its place in the set and its length in bytes."""

    fold: int
    name: str
    label: int
    size: int


def load(root: Path) -> Dataset:
    """The clips found under `root`: the highest fold that is there for testing (10 in the full set), the rest to train.

    Rows of the csv whose wav is absent are skipped, and so are classes without a clip in either part; what was found
    is logged. Images are computed once and kept in the cache below `root`, by the settings and the names and lengths
    of the wavs.

    Raises:
        InputError: If files are missing, damaged or no wavs, if fewer than two folds are there, if no class has clips
            in both parts, if the cache can't be written, or if the library soundfile is missing.
    """
    folder = find_folder(root, ("UrbanSound8K",), _WHERE)
    clips = _clips(folder)
    folds = np.array([clip.fold for clip in clips])
    labels = np.array([clip.label for clip in clips])
    tests = folds == folds.max()
    if tests.all():
        raise InputError(
            f"Only fold {folds.max()} has wavs in {folder / 'audio'}; add one more, one is kept for testing."
        )
    both = np.intersect1d(labels[tests], labels[~tests])
    if not len(both):
        raise InputError(
            f"No class has wavs both in fold {folds.max()} (the test fold) and in another fold of {folder / 'audio'}; "
            "add more of them."
        )
    left_out = [CLASS_NAMES[label] for label in np.setdiff1d(labels, both)]
    if left_out:
        logger.warning("Left out, for want of a clip to train or to test: %s.", ", ".join(left_out))
    images = _images(root, folder, clips)
    train, test = (np.flatnonzero(part & np.isin(labels, both)) for part in (~tests, tests))
    return Dataset.from_arrays(
        images[train],
        labels[train],
        images[test],
        labels[test],
        spec=URBANSOUND8K,
        class_names=[CLASS_NAMES[label] for label in both],
    )


def _clips(folder: Path) -> list[_Clip]:
    """The rows of the csv whose wav is there, by fold and name."""
    table = folder / "metadata" / "UrbanSound8K.csv"
    rows = _rows(table)
    sizes = {fold: _wavs(folder / "audio" / f"fold{fold}") for fold in sorted({fold for fold, _ in rows})}
    clips = [
        _Clip(fold, name, label, sizes[fold][name])
        for (fold, name), label in sorted(rows.items())
        if name in sizes[fold]
    ]
    if not clips:
        raise InputError(f"None of the wavs that {table} lists is in {folder / 'audio'}/fold1 to fold10. {_WHERE}")
    found = ", ".join(str(fold) for fold in sorted({clip.fold for clip in clips}))
    logger.info(
        "UrbanSound8K: %d of the %d clips that %s lists are there, in folds %s.", len(clips), len(rows), table, found
    )
    return clips


def _rows(table: Path) -> dict[tuple[int, str], int]:
    """The class of each `(fold, name)` that the csv lists."""
    rows: dict[tuple[int, str], int] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                values = [row.get(column) or "" for column in _COLUMNS]
                name, fold, label = values[0], *(int(value) if value.isdecimal() else -1 for value in values[1:])
                if not name or not 1 <= fold <= 10 or not 0 <= label < len(CLASS_NAMES) or (fold, name) in rows:
                    raise InputError(
                        f"Line {reader.line_num} of {table} is no clip of its own with the columns "
                        f"{', '.join(_COLUMNS)} (fold 1 to 10, classID 0 to 9); {_REPAIR}."
                    )
                rows[fold, name] = label
    except FileNotFoundError:
        raise InputError(f"There is no file {table}. {_WHERE}") from None
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{table} can't be read as a table ({error}); {_REPAIR}.") from error
    if not rows:
        raise InputError(f"{table} lists no clips; {_REPAIR}.")
    return rows


def _wavs(fold: Path) -> dict[str, int]:
    """Length in bytes of each file in a fold's folder; none if there is no such folder."""
    try:
        with os.scandir(fold) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"The folder {fold} can't be listed ({error.strerror}); make it readable.") from error


def _images(root: Path, folder: Path, clips: Sequence[_Clip]) -> np.ndarray:
    """The clips as images `(n, 1, bands, frames) uint8`, from the cache if they are there."""
    of_clips = [(clip.fold, clip.name, clip.size) for clip in clips]
    stamp = xxhash.xxh3_128_hexdigest(repr((astuple(MEL), of_clips)).encode())
    wavs = [folder / "audio" / f"fold{clip.fold}" / clip.name for clip in clips]

    def computed() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(_THREADS) as pool, tqdm(total=len(wavs), desc="spectrograms", unit="clip") as bar:
            for start in range(0, len(wavs), _BATCH):
                batch = wavs[start : start + _BATCH]
                yield np.stack(list(pool.map(log_mel, batch)))
                bar.update(len(batch))

    return cached_array(root, "urbansound8k", stamp, (len(clips), 1, MEL.bands, MEL.frames), "uint8", computed)


def log_mel(path: Path) -> np.ndarray:
    """A wav as a log-mel image by the settings in `MEL`.

    Args:
        path: PCM, float or ADPCM, mono or stereo (averaged), any rate from 1 to 192 kHz. What exceeds `MEL.seconds` is
            cut off, what is missing is silence.

    Returns:
        `(1, bands, frames) uint8`; zeros for silence.

    Raises:
        InputError: If the file is no wav, is truncated or empty, or holds NaN or infinite samples.
    """
    from scipy import signal

    sound, rate = _read(path)
    divisor = math.gcd(MEL.rate, rate)
    sound = signal.resample_poly(sound, MEL.rate // divisor, rate // divisor) if rate != MEL.rate else sound
    length = MEL.rate * MEL.seconds
    sound = np.pad(sound[:length], (0, max(0, length - len(sound))))
    hann = signal.get_window("hann", MEL.window)
    transform = signal.ShortTimeFFT(hann, length // MEL.frames, MEL.rate)
    power = mel_bands(MEL) @ transform.spectrogram(sound, p0=0, p1=MEL.frames)
    loudest = power.max()
    if loudest <= 0:
        return np.zeros((1, *power.shape), np.uint8)
    decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-MEL.range_db / 10)))
    return np.rint(255 * (1 + decibels / MEL.range_db)).astype(np.uint8)[None]


@lru_cache(maxsize=4)
def mel_bands(settings: MelSettings) -> np.ndarray:
    """Weight of each frequency of the Fourier transform in each mel band, `(bands, window // 2 + 1)`."""
    highest = 2595 * np.log10(1 + settings.rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, settings.bands + 2) / 2595) - 1)
    low, middle, high = (edges[shift : shift + settings.bands, None] for shift in range(3))
    hertz = np.fft.rfftfreq(settings.window, 1 / settings.rate)
    return np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)


def _read(path: Path) -> tuple[np.ndarray, int]:
    """The first seconds of a wav, channels averaged, `(n,) float64`, and its sampling rate in Hz."""
    soundfile = _soundfile()
    try:
        _check_whole(path)
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if rate not in _RATES or channels not in (1, 2):
                raise InputError(
                    f"{path} claims {channels} channels at {rate} Hz, but clips have one or two at {_RATES[0]:,} to "
                    f"{_RATES[-1]:,} Hz; {_REPAIR}."
                )
            wanted = min(file.frames, rate * MEL.seconds)
            sound = file.read(wanted, dtype="float64", always_2d=True).mean(axis=1)
    except InputError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path} can't be read as a wav file ({reason}); {_REPAIR}.") from error
    if len(sound) == 0:
        raise InputError(f"{path} holds no samples, only a header; {_REPAIR}.")
    if len(sound) < wanted:
        raise InputError(f"{path} is truncated: {len(sound):,} of {wanted:,} samples are there; {_REPAIR}.")
    if not np.isfinite(sound).all() or np.abs(sound).max() > 1e100:
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


def _soundfile() -> Any:
    """The library that reads wavs, which is an optional one."""
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError) as error:
        raise InputError(
            f"UrbanSound8K needs the library soundfile ({error}); install it by pip install 'mirolib[audio]'."
        ) from error
