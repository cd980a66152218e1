"""Whether a store is sound, and what is damaged dropped from it: one pass over its data, as they lie in the file."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mirolib.base.errors import StorageError
from mirolib.base.files import PROCESS_LOCK, clear, folder_held
from mirolib.data.stream import ORDINAL_MASK, labels_of
from mirolib.memory.store_file import DATA, FINGERPRINT, INDEX, PARTS, read_records, read_rows, write_rows

_CHUNK_BYTES = 1 << 24  # of data, read in one go


@dataclass(frozen=True)
class StoreReport:
    """What `verify` found."""

    path: Path  # folder of the store
    # a row for each part and label: `part`, `label`, `records` (sound ones), `size_bytes` of their samples and
    # checksums, `damaged` (their bytes don't match their checksum), `missing` (ordinals left out)
    classes: pd.DataFrame
    damaged: tuple[tuple[str, int], ...]  # part and id of each damaged record
    problems: tuple[str, ...]  # what is damaged around the records, a sentence each

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged and nothing missing."""
        return not self.damaged and not self.problems and not self.classes["missing"].any()


def verify(path: str | os.PathLike[str], *, progress: bool = True) -> StoreReport:
    """Checks every row and every record of the store in a folder, without changing it.

    There is a `StorageError` if there is no store, it can't be read at all, or a process has it open.
    """
    path = Path(path).expanduser()
    with _alone(path, may_write=False) as (data, index):
        found, lost = _examined(data, index, progress=progress)
    table = found.groupby(["part", "label"], as_index=False).agg(
        records=("sound", "sum"), size_bytes=("kept", "sum"), rows=("sound", "size"), last=("ordinal", "max")
    )
    table = table.assign(damaged=table["rows"] - table["records"], missing=table["last"] + 1 - table["rows"])
    damaged = found.loc[~found["sound"], ["part", "id"]].itertuples(index=False, name=None)
    problems = (f"{len(lost)} rows of {INDEX} that are damaged or point behind the data",) if len(lost) else ()
    return StoreReport(path, table.drop(columns=["rows", "last"]), tuple(damaged), problems)


def repair(path: str | os.PathLike[str]) -> int:
    """Drops what is damaged from a store and says how many records are left; a run writes anew what it finds missing.

    There is a `StorageError` if there is no store, it is in use, or can't be written.
    """
    with _alone(Path(path).expanduser()) as (data, index):
        found, lost = _examined(data, index, progress=False)
        write_rows(index, np.union1d(found.index[~found["sound"]], lost))
    return int(found["sound"].sum())


def delete_store(path: Path) -> None:
    """Deletes a store's files, and its folder if nothing else is in it."""
    clear(path, [path / name for name in (DATA, INDEX, FINGERPRINT, PROCESS_LOCK)])


def _examined(data: int, index: int, *, progress: bool) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of records by row, `kept` being a sound one's bytes; and rows that stand for none, though not free."""
    rows, usable, lost = read_rows(index, data)
    offsets, lengths = rows["offset"].astype(np.int64), rows["length"].astype(np.int64)
    order, sound = np.flatnonzero(usable), np.zeros(len(rows), dtype=bool)
    order = order[np.argsort(offsets[order])]
    with tqdm(total=len(order), unit="record", disable=not progress) as bar:
        for chunk in np.split(order, np.flatnonzero(np.diff(offsets[order] // _CHUNK_BYTES)) + 1):
            _, keys, right = read_records(data, offsets[chunk], lengths[chunk], encoded=True)
            sound[chunk] = right & (keys == rows["key"][chunk])
            bar.update(len(chunk))
    ids, parts = (rows["key"] << 1 >> 1).astype(np.int64), np.array(PARTS)[(rows["key"] >> 63).astype(np.int64)]
    table = {"part": parts, "id": ids, "label": labels_of(ids), "ordinal": ids & ORDINAL_MASK, "sound": sound}
    return pd.DataFrame(table).assign(kept=np.where(sound, lengths, 0))[usable], np.flatnonzero(lost)


@contextmanager
def _alone(path: Path, *, may_write: bool = True) -> Iterator[tuple[int, int]]:
    """Holds a store for this process, with descriptors of its data and index; where there is none, makes nothing."""
    with ExitStack() as held:
        try:
            if not (path / FINGERPRINT).is_file():
                raise FileNotFoundError(errno.ENOENT, f"there is no {FINGERPRINT}")
            held.enter_context(folder_held(path, may_write=may_write))
            flags = (os.O_RDWR if may_write else os.O_RDONLY) | os.O_CLOEXEC
            files = [os.open(path / name, flags) for name in (DATA, INDEX)]
            for file in files:
                held.callback(os.close, file)
        except OSError as error:
            raise StorageError(
                f"The store {path} can't be opened: {error.strerror}; name the folder of a store, readable and, for "
                "repair, writable."
            ) from error
        yield files[0], files[1]
