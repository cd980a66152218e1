"""Whether a store is sound, and a sound store made of what is left of a damaged one."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import lmdb
import pandas as pd
from tqdm.auto import tqdm

from mirolib.base.errors import StorageError
from mirolib.base.files import PROCESS_LOCK, clear, folder_held
from mirolib.data.stream import ORDINAL_BITS, ORDINAL_MASK
from mirolib.memory.store_file import PARTS, footprint, is_sound, key_of
from mirolib.memory.store_pages import Snapshot, Tree, snapshots

DATA = "data.mdb"
FINGERPRINT = b"fingerprint"
_CHUNK = 256  # records in a transaction
_PATIENCE_S = 2.0  # what takes longer shows its progress
_SALVAGED = "salvaged"


@dataclass(frozen=True)
class StoreReport:
    """What `verify` found.

    Attributes:
        path: Folder of the store.
        classes: A row for each part and label: `part`, `label`, `records` (sound ones), `size_bytes` of their
            samples and checksums, `damaged` (their bytes don't match their checksum), `missing` (ordinals left out).
        damaged: Part and id of each damaged record.
        problems: What is damaged in the file around the records, a sentence each.
    """

    path: Path
    classes: pd.DataFrame
    damaged: tuple[tuple[str, int], ...]
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged and nothing missing."""
        return not self.damaged and not self.problems and not self.classes["missing"].any()


def verify(path: str | os.PathLike[str], *, progress: bool = True) -> StoreReport:
    """Checks every record and every page of a store, without trusting the file and without changing it.

    Args:
        path: Folder of the store.
        progress: Whether to show a progress bar.

    Raises:
        StorageError: If there is no store, it can't be read at all, or a process has it open.
    """
    path, damaged = Path(path), []
    rows: dict[tuple[str, int], list[int]] = {}
    with _alone(path, may_write=False), _states(path) as states:
        state = states[0]
        _, trees = _contents(state)
        count = sum(tree.entries for tree in trees)
        for part, id_, record in tqdm(_records(state, trees), total=count, unit="record", disable=not progress):
            row = rows.setdefault((part, id_ >> ORDINAL_BITS), [0, 0, 0, 0])
            if is_sound(record, id_, part):
                row[0] += 1
                row[1] += len(record)
            else:
                row[2] += 1
                damaged.append((part, id_))
            row[3] = (id_ & ORDINAL_MASK) + 1 - row[0] - row[2]
        state.check_free()
        problems = _header_problems(states) + state.problems
    columns = ["part", "label", "records", "size_bytes", "damaged", "missing"]
    table = pd.DataFrame([[*place, *row] for place, row in rows.items()], columns=columns)
    return StoreReport(path, table, tuple(damaged), tuple(problems))


def inspect(path: Path) -> tuple[list[str], int]:
    """Follows the pages that LMDB will follow; the records themselves are not read.

    Args:
        path: Folder of the store.

    Returns:
        What is damaged, a sentence each, and the footprint of the records in bytes.

    Raises:
        StorageError: If there is not even the beginning of a store.
    """
    with _states(path) as states:
        state = states[0]
        _, trees = _contents(state)
        sizes: Counter[int] = Counter()
        count = sum(tree.entries for tree in trees)
        with tqdm(desc=f"Checking {path.name}", total=count, unit="record", delay=_PATIENCE_S, leave=False) as bar:
            for leaf in (leaf for tree in trees for leaf in state.leaves(tree)):
                sizes.update(leaf.sizes.tolist())
                bar.update(len(leaf))
        used = sum(count * footprint(size, state.page_size) for size, count in sizes.items())
        state.check_free()
        return _header_problems(states) + state.problems, used


def salvage(path: Path) -> int:
    """Replaces a damaged store by one of every sound record that can still be reached.

    LMDB never overwrites the state before the last one, so that what the last has lost is looked for there too.
    The new file takes the old one's place when it is complete; until then nothing is changed.

    Returns:
        How many records were saved.

    Raises:
        StorageError: If not even the fingerprint is left, or the disk has no room for the new file.
    """
    target = path / _SALVAGED
    try:
        shutil.rmtree(target, ignore_errors=True)
        with _states(path) as states:
            room = 2 * (path / DATA).stat().st_size + (1 << 26)
            with lmdb.open(str(target), map_size=room, max_dbs=len(PARTS), sync=False, lock=False) as env:
                saved = _copy(states, env)
                env.sync(True)
        os.replace(target / DATA, path / DATA)
        _sync(path)
    except (OSError, lmdb.Error) as error:
        raise StorageError(
            f"The store {path} is damaged and could not be rebuilt: {reason(error)}. "
            "Free as much space as it takes, or delete the folder and run again from the data set."
        ) from error
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return saved


def delete_store(path: Path) -> None:
    """Deletes a store's files, and its folder if nothing else is in it."""
    names = (DATA, "lock.mdb")  # the second is made by LMDB
    clear(path / _SALVAGED, [path / _SALVAGED / name for name in names])
    clear(path, [path / name for name in (*names, PROCESS_LOCK)])


def repair(path: str | os.PathLike[str]) -> int:
    """Drops what is damaged from a store that no process has open; a run writes anew what it finds missing.

    Returns:
        How many records are left.

    Raises:
        StorageError: If there is no store, it is in use, damaged beyond rebuilding, or there is no room.
    """
    with _alone(Path(path)):
        return salvage(Path(path))


def _copy(states: list[Snapshot], env: lmdb.Environment) -> int:
    """Copies fingerprint and sound records into a new environment; how many records it has then."""
    databases = {part: env.open_db(part.encode()) for part in PARTS}
    for state in states:
        fingerprint, trees = _contents(state)
        with env.begin(write=True) as transaction:
            if fingerprint:
                transaction.put(FINGERPRINT, fingerprint, overwrite=False)
        records = (record for record in _records(state, trees) if is_sound(record[2], record[1], record[0]))
        while chunk := list(islice(records, _CHUNK)):
            with env.begin(write=True) as transaction:
                for part, id_, record in chunk:
                    transaction.put(key_of(id_), record, db=databases[part], overwrite=False)
    with env.begin() as transaction:
        saved = sum(transaction.stat(database)["entries"] for database in databases.values())
        if saved and transaction.get(FINGERPRINT) is None:
            raise lmdb.CorruptedError("nothing says any more what it was written for")
    return saved


def _contents(state: Snapshot) -> tuple[bytes, list[Tree]]:
    """The fingerprint, empty where it is lost, and the trees of the parts."""
    fingerprint, trees = b"", []
    for entry in state.names():
        name = entry.key.decode(errors="replace")
        if entry.key == FINGERPRINT:
            fingerprint = state.value(entry.offset, entry.size)
        elif name in PARTS and entry.is_tree:
            trees += state.tree(name, entry)
        else:
            state.problems.append(f"an entry {name!r} that no store has")
    return fingerprint, trees


def _records(state: Snapshot, trees: list[Tree]) -> Iterator[tuple[str, int, bytes]]:
    """Part, id and bytes of every record that can be reached."""
    for tree in trees:
        for id_, record in state.records(tree):
            yield tree.name, id_, record


def _header_problems(states: list[Snapshot]) -> list[str]:
    """LMDB commits to its two meta pages in turn, so that their transactions tell whether either is damaged."""
    transactions = {state.slot: state.transaction for state in states}
    new = transactions == {0: 0, 1: 0}
    in_turn = len(states) == 2 and states[0].transaction == states[1].transaction + 1
    if new or (in_turn and all(number % 2 == slot for slot, number in transactions.items())):
        return []
    return [f"meta pages of the transactions {transactions}"]


@contextmanager
def _alone(path: Path, *, may_write: bool = True) -> Iterator[None]:
    """Holds a store for this process; where there is none, nothing is left behind."""
    with _states(path):
        pass
    with ExitStack() as lock:
        try:
            lock.enter_context(folder_held(path, may_write=may_write))
        except OSError as error:
            raise StorageError(
                f"The store {path} can't be locked: {error.strerror}; free space, or make the folder writable."
            ) from error
        yield


@contextmanager
def _states(path: Path) -> Iterator[list[Snapshot]]:
    """The committed states of a store, newest first, while its file is open.

    Raises:
        StorageError: If there is none.
    """
    try:
        file = os.open(path / DATA, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"The store {path} can't be read: {reason(error)}; name the folder of a store.") from error
    try:
        if not (states := snapshots(file)):
            raise StorageError(f"{path / DATA} can't be opened: it is no store; delete it or name another folder.")
        yield states
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    """Brings a rename in a folder to the medium."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """The operating system's words, without the path it repeats."""
    words = error.strerror if isinstance(error, OSError) else None
    words = words or str(error).split(": ", 1)[-1].rstrip(".")
    short = isinstance(error, lmdb.Error) and words == os.strerror(errno.EIO)
    return f"{words}, which LMDB says of a full disk too" if short else words  # of a write that came out short
