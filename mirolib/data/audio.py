"""Sounds as log-mel images.

soundfile (libsndfile) reads files, SciPy resamples and transforms them: SciPy is there anyway, while librosa brings a
compiler of 200 MB and a release of torchaudio loads beside few builds of torch.
"""

import importlib
import os
import struct
from functools import cache
from pathlib import Path

import numpy as np

from mirolib.base.errors import InputError

# How a clip becomes an image: one row a mel band, lowest first, one column a frame.
RATE = 22_050  # Hz that clips are brought to; bands reach from 0 to half of it
SECONDS = 4  # that clips are cut or padded with zeros to
WINDOW = 2048  # samples of the Hann window and of the Fourier transform
BANDS = 100  # triangular, of peak 1, evenly spaced in mel = 2595 log10(1 + Hz / 700)
FRAMES = 100  # evenly spaced over the clip, the first centred on its first sample
RANGE_DB = 80  # kept below the loudest point, which is 255; a pixel is a step of RANGE_DB / 255 (0.31 dB)

_RATES = range(1_000, 192_001)  # for the 2 GHz that a header may claim, the resampling filter would fill memory
_CHUNKS = {b"RIFFWAVE": ("<4sI", b"data")} | dict.fromkeys((b"FORMAIFF", b"FORMAIFC"), (">4sI", b"SSND"))
_MOST_CHUNKS = 1_000  # else a file of empty chunks would be read to its end, eight bytes at a time


def facts(seconds: float = SECONDS) -> tuple[float, ...]:
    """What an image depends on beside its file; for stamps."""
    return RATE, seconds, WINDOW, BANDS, FRAMES, RANGE_DB


def log_mel(path: Path, seconds: float = SECONDS, repair: str = "replace the file") -> np.ndarray:
    """The sound in a file as a log-mel image `(1, BANDS, FRAMES) uint8` as the settings above say; zeros for silence.

    The file is WAV (PCM, float or ADPCM), FLAC, AIFF or whatever else libsndfile reads (of others, such as Ogg, it
    takes what is there of a truncated file), mono or stereo (averaged), any rate from 1 to 192 kHz. What exceeds the
    seconds, 0.1 to 600, is cut off, what is missing is silence. There is an `InputError` if it is no sound, is
    truncated or empty, or holds NaN or infinite samples; `repair` is what that says to do.
    """
    from scipy import signal

    if not 0.1 <= seconds <= 600:
        raise InputError(f"Sounds are cut to {seconds} seconds; give 0.1 to 600.")
    sound, rate = _read(path, seconds, repair)
    sound, length = signal.resample_poly(sound, RATE, rate), round(RATE * seconds)
    sound = np.pad(sound[:length], (0, max(0, length - len(sound))))
    transform = signal.ShortTimeFFT(signal.get_window("hann", WINDOW), length // FRAMES, RATE)
    power = mel_bands() @ transform.spectrogram(sound, p0=0, p1=FRAMES)
    if (loudest := power.max()) <= 0:
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


def _read(path: Path, seconds: float, repair: str) -> tuple[np.ndarray, int]:
    """The first seconds of a sound, channels averaged, `(n,) float64`, and its sampling rate in Hz."""
    try:
        soundfile = importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError where the package is there and libsndfile is not
        how = "install it by pip install 'mirolib[audio]'"
        raise InputError(f"Reading sound needs the library soundfile ({error}); {how}.") from error
    try:
        _check_whole(path, repair)
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if rate not in _RATES or channels not in (1, 2):
                may = f"one or two at {_RATES[0]:,} to {_RATES[-1]:,} Hz"
                raise InputError(f"{path} claims {channels} channels at {rate} Hz, but clips have {may}; {repair}.")
            wanted = min(file.frames, round(rate * seconds))
            sound = file.read(wanted, dtype="float64", always_2d=True).mean(axis=1)
            if wanted < file.frames:
                file.seek(file.frames - 1)  # which fails where the end is missing
    except InputError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path} can't be read as sound ({reason}); {repair}.") from error
    if len(sound) < max(wanted, 1):
        raise InputError(f"{path} is empty or truncated: {len(sound):,} of {wanted:,} samples are there; {repair}.")
    if not np.isfinite(sound).all() or np.abs(sound).max() > 1e100:  # whose square is still a finite number
        raise InputError(f"{path} holds samples that are NaN, infinite or beyond any sound; {repair}.")
    return sound, rate


def _check_whole(path: Path, repair: str) -> None:
    """Refuses a WAV or AIFF that is shorter than its header says (libsndfile reads those without a word)."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if (kind := _CHUNKS.get(head[:4] + head[8:])) is None:
            return
        for _ in range(_MOST_CHUNKS):
            if len(chunk := file.read(8)) < 8:
                break
            name, length = struct.unpack(kind[0], chunk)
            if name == kind[1]:
                if length > (there := size - file.tell()):
                    raise InputError(f"{path} is truncated: {there:,} of {length:,} bytes of sound; {repair}.")
                return
            file.seek(length + length % 2, os.SEEK_CUR)
    raise InputError(f"{path} is a file without sound, truncated or damaged; {repair}.")
