"""The storage tier: every sample ever seen, once, on disk, in LMDB.

A record (see `store_file`) carries a checksum. Records are keyed by id (`label << 32 | ordinal`, big-endian)
and the ordinals of a class have no gaps, so the number of samples of a class is found from its last key: the store
needs no index in RAM. LMDB commits by copy-on-write: after `kill -9` or a power cut the store is as its last commit
left it. What a medium does to it later is found when the store is opened (its pages) and when a record is read (its
checksum).
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import lmdb
import numpy as np

from mirolib.base.errors import CorruptRecordError, InputError, StorageError
from mirolib.base.files import folder_held
from mirolib.data.stream import ORDINAL_BITS, ORDINAL_MASK, labels_of
from mirolib.memory.store_check import DATA, FINGERPRINT, StoreReport, inspect, reason, salvage, verify
from mirolib.memory.store_file import CHECKSUM_BYTES, PARTS, Fingerprint, checksums, encode, footprint, key_of, keys_of

__all__ = ["PARTS", "Fingerprint", "Storage", "StoreReport", "verify"]

_FIRST_MAP = 1 << 26  # bytes of address space; doubled whenever the store outgrows it
_READERS_BYTES = 1 << 14  # at least what LMDB's table of readers takes

logger = logging.getLogger(__name__)


class Storage:
    """Samples by id in an LMDB environment; one process writes, threads of it may read."""

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: Fingerprint, *, size_budget: int | None = None
    ) -> None:
        """Opens the store at `path`, or creates it where there is none.

        A store whose file is damaged or cut short is rebuilt from its sound records first.

        Args:
            path: Folder of the store.
            fingerprint: What the store must have been, or will be, written for.
            size_budget: Most bytes that the records may take on LMDB's pages; None for no limit. Beyond it, the largest
                classes lose their last training samples, so that all keep about as many; validation samples stay.
                The file is larger by what the pages leave free: see docs/robustness.md for how much.

        Raises:
            StorageError: If the folder can't be written, the store is in use, damaged beyond rebuilding, or was written
                for another data set, class order, seed or format.
        """
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.size_budget = size_budget
        self.bytes_written = 0
        self.bytes_read = 0
        self.damaged: dict[str, set[int]] = {part: set() for part in PARTS}
        self.rebuilt = False
        self._used = 0  # bytes that the records take on pages
        self.before_read: Callable[[int], None] | None = None  # for experiments: is told the bytes, and may wait
        self._limit = 1 << ORDINAL_BITS  # ordinals from here on are not kept
        self._reading = threading.Lock()  # the map must not grow under a reader
        self._lock = ExitStack()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(folder_held(self.path))
        except OSError as error:
            raise self._unopened(error) from error
        try:
            self._env = self._open()
        except BaseException:
            self._lock.close()
            raise
        try:
            self._page_size = self._env.stat()["psize"]
            self._databases = {part: self._env.open_db(part.encode()) for part in PARTS}
            self._check_fingerprint()
            self._write([], "train")  # a budget may be smaller than that of the last run
        except lmdb.Error as error:
            self.close()
            raise self._unopened(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> lmdb.Environment:
        """The environment, rebuilt before where it is damaged: LMDB would end the process on a bad page."""
        data = self.path / DATA
        if data.exists() and data.stat().st_size:
            problems, self._used = inspect(self.path)
            if problems:
                self._rebuild(problems)
        try:
            # LMDB maps its table of readers: a page of it that the disk has no room for would end the process (SIGBUS).
            (self.path / "lock.mdb").write_bytes(bytes(_READERS_BYTES))
            return lmdb.open(str(self.path), map_size=_FIRST_MAP, max_dbs=len(PARTS), readahead=False)
        except (OSError, lmdb.Error) as error:
            raise self._unopened(error) from error

    def _rebuild(self, problems: list[str]) -> None:
        """Replaces a damaged store by what is left of it."""
        self.rebuilt = True
        saved = salvage(self.path)
        logger.warning("The store %s was damaged (%s); %d records are left.", self.path, "; ".join(problems), saved)
        _, self._used = inspect(self.path)

    def _unopened(self, error: Exception) -> StorageError:
        return StorageError(
            f"The store {self.path} can't be opened: {reason(error)}. "
            "Free space, make the folder writable, or name another."
        )

    def _check_fingerprint(self) -> None:
        """Writes the fingerprint into a new store, or compares it with the one found."""
        mine = json.loads(json.dumps(asdict(self.fingerprint)))
        with self._env.begin() as transaction:
            found = transaction.get(FINGERPRINT)
        if found is None:
            self._commit(lambda transaction: transaction.put(FINGERPRINT, json.dumps(mine).encode()))
            return
        try:
            theirs = json.loads(found)
            differing = [name for name in mine if theirs.get(name) != mine[name]]
        except (ValueError, AttributeError) as error:
            raise StorageError(f"The store {self.path} has an unreadable fingerprint; delete the folder.") from error
        if differing:
            raise StorageError(
                f"The store {self.path} was written for another {', '.join(differing)} "
                f"({'; '.join(f'{n}: {_short(theirs.get(n))}, not {_short(mine[n])}' for n in differing)}); "
                "name another folder or delete this one."
            )

    @contextmanager
    def _transaction(self, part: str) -> Iterator[lmdb.Transaction]:
        """A reading transaction, one at a time."""
        try:
            with self._reading, self._env.begin(self._databases[part], buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise StorageError(
                f"The store {self.path} can't be read: {reason(error)}. Open it anew: it is checked then."
            ) from error

    def count(self, label: int, part: str = "train") -> int:
        """Number of stored samples of a class."""
        with self._transaction(part) as transaction:
            cursor = transaction.cursor()
            beyond = cursor.set_range(key_of((label + 1) << ORDINAL_BITS))
            if not (cursor.prev() if beyond else cursor.last()):
                return 0
            last = int.from_bytes(cursor.key(), "big")
        return (last & ORDINAL_MASK) + 1 if last >> ORDINAL_BITS == label else 0

    def counts(self, num_labels: int, part: str = "train") -> np.ndarray:
        """Number of stored samples of the labels `0 … num_labels - 1`, `(num_labels,) int64`."""
        return np.array([self.count(label, part) for label in range(num_labels)], dtype=np.int64)

    def put(self, ids: np.ndarray, samples: np.ndarray, part: str = "train") -> int:
        """Stores samples in one transaction: all of them or, when it fails, none.

        Samples already there are left as they are, so that receiving a task again after a crash is harmless.

        Args:
            ids: `(n,) int64`; the ordinals of each class must continue those stored, without a gap.
            samples: `(n, *sample_shape)`; `(n,)` bytes objects where samples are encoded.
            part: `train` or `validation`.

        Returns:
            How many samples were new.

        Raises:
            InputError: If a sample has another shape or type, or ids leave a gap.
            StorageError: If the disk is full or can't be written; the store is then as it was.
        """
        expected = (tuple(self.fingerprint.sample_shape), np.dtype(self.fingerprint.sample_dtype))
        if (samples.shape[1:], samples.dtype) != expected or len(ids) != len(samples):
            raise InputError(
                f"The store holds samples {expected[0]} {expected[1]}; got {samples.shape[1:]} {samples.dtype}."
            )
        new = self._new(ids, part)
        records = encode(samples[new], ids[new], part)
        self._write(list(zip(keys_of(ids[new]), records, strict=True)), part)
        return len(records)

    def _new(self, ids: np.ndarray, part: str) -> np.ndarray:
        """Which ids are to be kept and not stored yet, or no longer sound, `(n,) bool`.

        Raises:
            InputError: If the ordinals of a class would have a gap.
        """
        labels, ordinals = labels_of(ids), ids & ORDINAL_MASK
        kept = (ordinals < self._limit) | (part == "validation")
        new = np.zeros(len(ids), dtype=bool)
        for label in np.unique(labels):
            stored, of_class = self.count(int(label), part), (labels == label) & kept
            new |= of_class & (ordinals >= stored)
            given = np.unique(ordinals[of_class & (ordinals >= stored)])
            if not np.array_equal(given, np.arange(stored, stored + len(given))):
                raise InputError(
                    f"Samples of label {label} must continue at ordinal {stored}; give them without a gap."
                )
        again = np.flatnonzero(kept & ~new)
        if len(again):
            new[again] = ~self.read_sound(ids[again], part)[1]
        return new

    def _write(self, items: list[tuple[bytes, bytes | memoryview]], part: str) -> None:
        """Writes records and, where a budget asks for it, evicts others, in one transaction."""
        size_bytes = sum(len(record) for _, record in items)

        def write(transaction: lmdb.Transaction) -> tuple[int, int]:
            database, used = self._databases[part], self._used
            for key, record in items:
                before = transaction.get(key, db=database)
                used += footprint(len(record), self._page_size)
                used -= 0 if before is None else footprint(len(before), self._page_size)
            transaction.cursor(database).putmulti(items)
            return self._evict(transaction, used)

        if items or (self.size_budget is not None and self._used > self.size_budget):
            self._used, self._limit = self._commit(write, size_bytes)
            self.bytes_written += size_bytes

    def _evict(self, transaction: lmdb.Transaction, used: int) -> tuple[int, int]:
        """Takes the last training sample of the largest class, the latest among equals, until the rest fits.

        The order of arrival of a class is drawn from the seed: its last samples are random ones.

        Returns:
            Bytes that the records take then, and the ordinal from which on nothing is kept.
        """
        if self.size_budget is None or used <= self.size_budget:
            return used, self._limit
        cursor = transaction.cursor(self._databases["train"])
        largest = [(-count, -label) for label, count in _last_keys(cursor)]
        heapq.heapify(largest)
        while used > self.size_budget:
            count, label = (-largest[0][0], -largest[0][1]) if largest else (0, 0)
            if count <= 1:
                raise InputError(
                    f"The store's budget of {self.size_budget} bytes does not hold the validation samples and one "
                    f"training sample of each class, which take {used} bytes; raise it."
                )
            heapq.heapreplace(largest, (1 - count, -label))
            if cursor.set_key(key_of(label << ORDINAL_BITS | count - 1)):
                used -= footprint(len(cursor.value()), self._page_size)
                cursor.delete()
        return used, -largest[0][0]

    def _commit(self, write, size_bytes: int = 0):  # type: ignore[no-untyped-def]
        """Runs `write(transaction)` in a transaction, making the map larger when it is full."""
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    return write(transaction)
            except lmdb.MapFullError:
                with self._reading:
                    self._env.set_mapsize(2 * self._env.info()["map_size"] + 2 * size_bytes)
            except (lmdb.Error, OSError) as error:
                raise StorageError(
                    f"The store {self.path} could not be written: {reason(error)}. "
                    "Free space or make the folder writable, then run again; nothing already stored is lost."
                ) from error

    def read_sound(self, ids: np.ndarray, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """Reads samples by id, leaving out what is missing or damaged: it is named in the log and kept in `damaged`.

        Args:
            ids: `(n,) int64`.
            part: `train` or `validation`.

        Returns:
            The sound samples `(k, *sample_shape)`, and which of the ids they are, `(n,) bool`.
        """
        try:
            return self.read(ids, part), np.ones(len(ids), dtype=bool)
        except CorruptRecordError:
            sound = np.array([self._reads(id_, part) for id_ in ids])
            return self.read(ids[sound], part), sound

    def _reads(self, id_: np.int64, part: str) -> bool:
        """Whether a record is sound; one that is not is named in the log the first time."""
        try:
            self.read(np.array([id_]), part)
        except CorruptRecordError:
            if int(id_) not in self.damaged[part]:
                label, ordinal = int(id_) >> ORDINAL_BITS, int(id_) & ORDINAL_MASK
                logger.warning(
                    "Record %d of label %d (%s) in %s is damaged or missing; it is not used.",
                    *(ordinal, label, part, self.path),
                )
            self.damaged[part].add(int(id_))
            return False
        return True

    def read(self, ids: np.ndarray, part: str = "train") -> np.ndarray:
        """Reads samples by id, verifying each checksum; the interpreter lock is free while the disk is read.

        Args:
            ids: `(n,) int64`.
            part: `train` or `validation`.

        Returns:
            `(n, *sample_shape)`, read-only; `(n,)` bytes objects where samples are encoded.

        Raises:
            CorruptRecordError: If a record is missing, cut short or fails its checksum; the sentence names it.
        """
        size = CHECKSUM_BYTES + self.fingerprint.sample_bytes
        keys = keys_of(ids)
        if (before_read := self.before_read) is not None:  # another thread may take it away
            before_read(len(ids) * size)
        with self._transaction(part) as transaction:
            views = [transaction.get(key, b"") for key in keys]
            if self.fingerprint.encoded:
                records = [bytes(view) for view in views]
                self.bytes_read += sum(map(len, records))
            else:
                joined = b"".join(views)
                self.bytes_read += len(joined)
                if len(joined) != len(keys) * size:
                    at = next(k for k, view in enumerate(views) if len(view) != size)
                    raise self._corrupt(int(ids[at]), part, "cut short" if len(views[at]) else "missing")
        return self._samples(records, ids, part) if self.fingerprint.encoded else self._arrays(joined, ids, part)

    def _arrays(self, joined: bytes, ids: np.ndarray, part: str) -> np.ndarray:
        """Samples of one size out of their records, one behind the other."""
        size = CHECKSUM_BYTES + self.fingerprint.sample_bytes
        records = np.frombuffer(joined, dtype=np.uint8).reshape(len(ids), size)
        payload, stored = records[:, CHECKSUM_BYTES:], records[:, :CHECKSUM_BYTES].copy().view("<u8")[:, 0]
        self._compare(checksums(payload, ids, part), stored, ids, part)
        if self.fingerprint.sample_dtype != "uint8":
            payload = np.ascontiguousarray(payload).view(self.fingerprint.sample_dtype)
        return payload.reshape(len(ids), *self.fingerprint.sample_shape)

    def _samples(self, records: list[bytes], ids: np.ndarray, part: str) -> np.ndarray:
        """Encoded samples out of their records."""
        for record, id_ in zip(records, ids.tolist(), strict=True):
            if len(record) <= CHECKSUM_BYTES:
                raise self._corrupt(id_, part, "cut short" if record else "missing")
        samples = np.empty(len(records), dtype=object)
        samples[:] = [record[CHECKSUM_BYTES:] for record in records]
        stored = np.frombuffer(b"".join(record[:CHECKSUM_BYTES] for record in records), dtype="<u8")
        self._compare(checksums(samples, ids, part), stored, ids, part)
        return samples

    def _compare(self, found: np.ndarray, stored: np.ndarray, ids: np.ndarray, part: str) -> None:
        """Checksums found against those stored."""
        damaged = np.flatnonzero(found != stored)
        if len(damaged):
            raise self._corrupt(int(ids[damaged[0]]), part, "damaged: its bytes do not match their checksum")

    def _corrupt(self, id_: int, part: str, what: str) -> CorruptRecordError:
        label, ordinal = id_ >> ORDINAL_BITS, id_ & ORDINAL_MASK
        return CorruptRecordError(
            f"Record {ordinal} of label {label} ({part}) in the store {self.path} is {what}. "
            "Delete the folder and run again from the data set."
        )

    @property
    def size_bytes(self) -> int:
        """Bytes the store takes on disk."""
        return (self.path / DATA).stat().st_blocks * 512

    def close(self) -> None:
        """Closes the store; a closed store may be closed again."""
        self._env.close()
        self._lock.close()


def _last_keys(cursor: lmdb.Cursor) -> Iterator[tuple[int, int]]:
    """Each label of a part, the last one first, with the number of its samples."""
    found = cursor.last()
    while found:
        last = int.from_bytes(cursor.key(), "big")
        yield last >> ORDINAL_BITS, (last & ORDINAL_MASK) + 1
        found = cursor.set_range(key_of(last >> ORDINAL_BITS << ORDINAL_BITS)) and cursor.prev()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
