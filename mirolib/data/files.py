"""Folders of data sets and of what is computed from them."""

import contextlib
import glob
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import xxhash
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.base.files import clear, replacing
from mirolib.data.dataset import DatasetSpec

logger = logging.getLogger(__name__)

_Reader = Callable[[Path], np.ndarray]

_THREADS = 2  # Pillow and SciPy let go of the interpreter's lock while they work
_BATCH = 64  # files read before they are written: Tiny-ImageNet's take 0.8 MB


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets: the one given, what `MIRO_DATA` names, or `data` in the repository."""
    project = Path(__file__).resolve().parents[2]
    return Path(root or os.environ.get("MIRO_DATA") or project / "data").expanduser().absolute()


def read_file(path: Path, most_bytes: int, what: str) -> bytes:
    """The bytes of a file; an `InputError`, with `what` to do, where it is missing or larger than expected."""
    try:
        if not path.is_file():
            raise InputError(f"There is no file {path}. {what}")
        if (size_bytes := path.stat().st_size) > most_bytes:
            raise InputError(f"{path} has {size_bytes:,} bytes where {most_bytes:,} are the most to expect. {what}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); make it readable.") from error


def list_files(folder: Path, pattern: str) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change in nanoseconds of a folder's files, by name; none where it is missing.

    The regular expression `pattern` is matched with the whole name, upper or lower case.
    """
    matches = re.compile(pattern, re.IGNORECASE).fullmatch
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if matches(entry.name) and entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"The folder {folder} can't be read ({error.strerror}); repair it.") from error
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def list_folders(folder: Path) -> list[str]:
    """Names of a folder's folders, in order; hidden ones and those such as __MACOSX are left out."""
    return sorted(path.name for path in folder.glob("[!.]*") if path.is_dir() and not path.name.startswith("__"))


def check_classes(
    folder: Path, names: Mapping[int, str], of: int, train_labels: np.ndarray, test_labels: np.ndarray, needs: str = ""
) -> None:
    """Logs what was found of the `of` classes; an `InputError` where one lacks a part, with what it `needs`."""
    for part, labels in (("training", train_labels), ("test", test_labels)):
        if len(missing := np.setdiff1d(list(names), labels)):
            which = f"Class {names[int(missing[0])]} has no {part} sample in {folder}"
            raise InputError(f"{which}{needs}; add some or remove the class.")
    counts = len(names), of, len(train_labels), len(test_labels)
    logger.info("%s: %d of %d classes, %d training and %d test samples found", folder, *counts)


def stamp_of(*facts: object) -> str:
    """A short text that is another one wherever a fact is another one; for names of what is computed from them."""
    return xxhash.xxh3_64_hexdigest(repr(facts).encode())


def cached_samples(
    root: Path, spec: DatasetSpec, stamp: str, paths: Sequence[Path], read: _Reader, skip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The samples in some files, read once and kept: in the folder that `MIRO_CACHE` names, or `cache` below the root.

    They are written part by part, so they need not fit RAM, and take their place when all are there; those of the same
    name and another stamp are then removed. The spec gives their shape and type, and a name that no other set has; the
    stamp says what they were computed from. Several threads read; with `skip`, files that `read` refuses are left out,
    and named in the log.

    Returns:
        The samples, read-only and mapped: what is read of them takes RAM, the rest none; and for each of the files
        whether its sample is there, `(len(paths),) bool`.

    Raises:
        InputError: If the cache can't be written; and what `read` raises.
    """
    name, count, folder = spec.name, len(paths), root / "cache"
    if cache := os.environ.get("MIRO_CACHE"):
        # of its own for each root, since sets of two roots may bear one name
        folder = Path(cache).expanduser().absolute() / stamp_of(str(root))
    path = folder / f"{name}-{stamp}.npy"
    if (found := _mapped(path, spec, count, skip)) is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                _write(file, spec, paths, read, skip)
        except OSError as error:
            what = "make it writable and see to free space, or name another folder with MIRO_CACHE"
            raise InputError(f"The cache {folder} can't be written ({error.strerror}); {what}.") from error
        clear(folder, {*folder.glob(f"{glob.escape(name)}-{'[0-9a-f]' * len(stamp)}.npy")} - {path})
        if (found := _mapped(path, spec, count, skip)) is None:
            raise InputError(f"The cache {path} can't be read back; remove it and look after the disk.")
    if left_out := [str(paths[row]) for row in np.flatnonzero(~found[1]).tolist()]:
        some = ", ".join(left_out[:10]) + ", ..." * (len(left_out) > 10)
        logger.warning("%s: %d of %d files can't be read and are left out: %s", name, len(left_out), count, some)
    return found


def _write(file: IO[bytes], spec: DatasetSpec, paths: Sequence[Path], read: _Reader, skip: bool) -> None:
    """The samples that can be read and, if those are not all, a byte for each file that says whether it can."""

    def tried(path: Path) -> np.ndarray | None:
        with contextlib.suppress(*[InputError] * skip):
            return read(path)
        return None

    kind = np.dtype(spec.sample_dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, header | {"shape": (len(paths), *spec.sample_shape)})
    kept: list[bool] = []
    # what takes less than two seconds needs no bar
    with ThreadPoolExecutor(_THREADS) as pool, tqdm(total=len(paths), desc=spec.name, unit="file", delay=2) as bar:
        for start in range(0, len(paths), _BATCH):
            part = list(pool.map(tried, paths[start : start + _BATCH]))
            kept += [sample is not None for sample in part]
            if samples := [sample for sample in part if sample is not None]:
                file.write(np.ascontiguousarray(np.stack(samples), dtype=kind).data)
            bar.update(len(part))
    if not any(kept):
        read(paths[0])  # which says why
    if not all(kept):
        file.write(bytes(kept))
        file.seek(0)  # NumPy leaves room in a header for any number of rows
        np.lib.format.write_array_header_1_0(file, header | {"shape": (sum(kept), *spec.sample_shape)})


def _mapped(path: Path, spec: DatasetSpec, files: int, skip: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The array in a file, if there is one of that shape and type, and which files its samples are from."""
    if not path.is_file():
        return None
    try:
        array, kept = np.lib.format.open_memmap(path, mode="r"), np.ones(files, dtype=bool)
        if skip and len(array) < files:
            kept = np.fromfile(path, np.uint8, offset=array.offset + array.nbytes) == 1
    except Exception:  # whatever is wrong with it, it is written anew
        logger.warning("The cache %s is damaged and is made anew", path)
        return None
    fits = len(kept) == files and array.shape == (kept.sum(), *spec.sample_shape) and array.dtype == spec.sample_dtype
    return (np.asarray(array), kept) if fits else None
