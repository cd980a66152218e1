"""Folders of data sets and of what is computed from them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.base.files import clear, replacing
from mirolib.data.dataset import DatasetSpec

logger = logging.getLogger(__name__)

_PROJECT = Path(__file__).resolve().parents[2]
_THREADS = 2  # Pillow and SciPy let go of the interpreter's lock while they work
_BATCH = 64  # files read before they are written: Tiny-ImageNet's take 0.8 MB


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets: the one given, what `MIRO_DATA` names, or `data` in the repository."""
    return Path(root or os.environ.get("MIRO_DATA") or _PROJECT / "data").expanduser().absolute()


def read_file(path: Path, most_bytes: int, what: str) -> bytes:
    """The bytes of a file, if it is one of a size to be expected.

    Raises:
        InputError: If it is missing or too large, with the sentence `what` on what to do, or can't be read.
    """
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
        if len(missing := np.setdiff1d(list(names), labels)):
            raise InputError(
                f"Class {names[int(missing[0])]} has no {part} sample in {folder}{needs}; add some or remove the class."
            )
    counts = len(names), of, len(train_labels), len(test_labels)
    logger.info("%s: %d of %d classes, %d training and %d test samples found", folder, *counts)


def stamp_of(*facts: object) -> str:
    """A short text that is another one wherever a fact is another one; for names of what is computed from them."""
    return xxhash.xxh3_64_hexdigest(repr(facts).encode())


def cached_samples(
    root: Path, spec: DatasetSpec, stamp: str, paths: Sequence[Path], read: Callable[[Path], np.ndarray]
) -> np.ndarray:
    """The samples in some files, read once and kept in the cache of a root.

    They are written part by part, so they need not fit RAM, and take their place when all are there; those of the same
    data set and another stamp are then removed.

    Args:
        root: The folder of the data sets.
        spec: Their shape and type.
        stamp: What they were computed from; see `stamp_of`.
        paths: The files, in order.
        read: Reads the sample in one; called from several threads.

    Returns:
        The samples, read-only and mapped: what is read of them takes RAM, the rest none.

    Raises:
        InputError: If the cache can't be written; and what `read` raises.
    """
    folder, shape = root / "cache", (len(paths), *spec.sample_shape)
    path = folder / f"{spec.name}-{stamp}.npy"
    if (found := _mapped(path, shape, spec.sample_dtype)) is not None:
        return found
    kind = np.dtype(spec.sample_dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in _parts(spec.name, paths, read):
                file.write(np.ascontiguousarray(part, dtype=kind).data)
    except OSError as error:
        raise InputError(
            f"The cache {folder} can't be written ({error.strerror}); make it writable and see to free space."
        ) from error
    clear(folder, {*folder.glob(f"{spec.name}-{'[0-9a-f]' * len(stamp)}.npy")} - {path})
    if (found := _mapped(path, shape, spec.sample_dtype)) is None:
        raise InputError(f"The cache {path} can't be read back; remove it and look after the disk.")
    return found


def _parts(name: str, paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
    # what takes less than two seconds needs no bar
    with ThreadPoolExecutor(_THREADS) as pool, tqdm(total=len(paths), desc=name, unit="file", delay=2) as bar:
        for start in range(0, len(paths), _BATCH):
            yield np.stack(list(pool.map(read, paths[start : start + _BATCH])))
            bar.update(min(_BATCH, len(paths) - start))


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
