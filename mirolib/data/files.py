"""Folders of data sets and of what is computed from them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import DatasetSpec

logger = logging.getLogger(__name__)

_PROJECT = Path(__file__).resolve().parents[2]
_THREADS = 2  # Pillow and SciPy let go of the interpreter's lock while they work
_BATCH = 64  # files read before they are written: Tiny-ImageNet's take 0.8 MB


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets: the one given, what `MIRO_DATA` names, or `data` in the repository."""
    return Path(root or os.environ.get("MIRO_DATA") or _PROJECT / "data").expanduser().absolute()


def find_folder(root: Path, names: Sequence[str], what: str, holding: str = "") -> Path:
    """A data set's own folder under a root: the root itself if it bears one of the names, else that below it.

    Args:
        root: Where to look.
        names: Names the folder may have; paths below the root, too.
        what: What is missing and where it comes from, for the sentence if there is none.
        holding: Pattern of a name that must occur in the folder, where its own name says too little.

    Raises:
        InputError: If there is no such folder.
    """
    last = {Path(name).name for name in names}
    for folder in (root, *(root / name for name in names)):
        if folder.name in last and folder.is_dir() and (not holding or any(folder.glob(holding))):
            return folder
    raise InputError(
        f"There is no folder {names[0]} in {root}. {what} Another folder of data sets is named with root=, the "
        "parameter data, or MIRO_DATA."
    )


def read_file(path: Path, most_bytes: int, what: str) -> bytes:
    """The bytes of a file, if it is one of a size to be expected.

    Args:
        path: The file.
        most_bytes: Its largest size.
        what: What to do if it is missing or too large, for the sentence.

    Raises:
        InputError: If it is missing, too large or can't be read.
    """
    try:
        if not path.is_file():
            raise InputError(f"There is no file {path}. {what}")
        size_bytes = path.stat().st_size
        if size_bytes > most_bytes:
            raise InputError(f"{path} has {size_bytes:,} bytes where {most_bytes:,} are the most to expect. {what}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); make it readable.") from error


def list_files(folder: Path, pattern: str) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change in nanoseconds of a folder's files, by name.

    Args:
        folder: The folder; there are no files where it is missing.
        pattern: Regular expression of the whole name, upper or lower case.

    Raises:
        InputError: If it can't be read.
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


def check_classes(
    folder: Path, names: Mapping[int, str], of: int, train_labels: np.ndarray, test_labels: np.ndarray, needs: str = ""
) -> None:
    """Logs what was found of the `of` classes, and refuses a class that lacks a part; `needs` is what it takes.

    Raises:
        InputError: If a label does not occur in both.
    """
    for part, labels in (("training", train_labels), ("test", test_labels)):
        missing = np.setdiff1d(list(names), labels)
        if len(missing):
            raise InputError(
                f"Class {names[int(missing[0])]} has no {part} sample in {folder}{needs}; add some or remove the class."
            )
    counts = len(names), of, len(train_labels), len(test_labels)
    logger.info("%s: %d of %d classes, %d training and %d test samples found", folder, *counts)


def stamp_of(*facts: object) -> str:
    """A short text that is another one wherever a fact is another one; for names of what is computed from them."""
    return xxhash.xxh3_64_hexdigest(repr(facts).encode())


def cached_array(
    root: Path, name: str, stamp: str, shape: tuple[int, ...], dtype: str, compute: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """An array that is computed once and kept in the cache of a root.

    It is written part by part, so it need not fit RAM, and takes its place when it is complete; those of the same
    name and another stamp are then removed.

    Args:
        root: The folder of the data sets.
        name: What is cached.
        stamp: What it was computed from; see `stamp_of`.
        shape: Its shape.
        dtype: Its type.
        compute: Gives its parts, in order, along the first axis.

    Returns:
        The array, read-only and mapped: what is read of it takes RAM, the rest none.

    Raises:
        InputError: If the cache can't be written; and what `compute` raises.
    """
    folder = root / "cache"
    path = folder / f"{name}-{stamp}.npy"
    if (found := _mapped(path, shape, dtype)) is not None:
        return found
    temporary = folder / f".{path.stem}.{os.getpid()}.tmp"  # one a process, since several may begin at once
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in compute():
                file.write(np.ascontiguousarray(part, dtype=dtype).data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave a file of its full length that holds zeros
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"The cache {folder} can't be written ({error.strerror}); make it writable and see to free space."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    for old in folder.glob(f"{name}-*.npy"):
        if old != path:
            with suppress(OSError):  # another run may hold it open
                old.unlink()
    if (found := _mapped(path, shape, dtype)) is None:
        raise InputError(f"The cache {path} can't be read back; remove it and look after the disk.")
    return found


def _mapped(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """The array in a file, if there is one of that shape and type."""
    if not path.is_file():
        return None
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # whatever is wrong with it, it is written anew
        logger.warning("The cache %s is damaged and is made anew", path)
        return None
    return np.asarray(array) if (array.shape, array.dtype) == (shape, np.dtype(dtype)) else None


def cached_samples(
    root: Path, spec: DatasetSpec, stamp: str, paths: Sequence[Path], read: Callable[[Path], np.ndarray]
) -> np.ndarray:
    """The samples in some files, read once and kept by `cached_array`.

    Args:
        root: The folder of the data sets.
        spec: Their shape and type.
        stamp: What they were computed from; see `stamp_of`.
        paths: The files, in order.
        read: Reads the sample in one; called from several threads.
    """

    def compute() -> Iterator[np.ndarray]:
        # what takes less than two seconds needs no bar
        with ThreadPoolExecutor(_THREADS) as pool, tqdm(total=len(paths), desc=spec.name, unit="file", delay=2) as bar:
            for start in range(0, len(paths), _BATCH):
                yield np.stack(list(pool.map(read, paths[start : start + _BATCH])))
                bar.update(min(_BATCH, len(paths) - start))

    return cached_array(root, spec.name, stamp, (len(paths), *spec.sample_shape), spec.sample_dtype, compute)
