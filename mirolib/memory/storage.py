"""The storage tier: every sample ever seen, once, on disk, in flat files (see `store_file`).

Samples go by ids (`label << 32 | ordinal`), and the ordinals of a class have no gaps. They are written in the order in
which they are given: where that is class-balanced and random, as in `TieredMemory.store`, neighbours in the file are a
random sample, and reading them is nearly as fast as the disk. Data are brought to the medium before the rows that point
to them: after `kill -9` or a power cut the store is as the last `put` left it. What a medium does to it later is found
when the store is opened (its rows) and when a record is read (its checksum), and costs the records it was done to.
"""

import contextlib
import heapq
import json
import logging
import math
import os
import threading
import weakref
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mirolib.base.errors import CorruptRecordError, InputError, StorageError
from mirolib.base.files import folder_held, read_bounded, write_atomic
from mirolib.data.stream import ORDINAL_BITS, ORDINAL_MASK
from mirolib.memory import store_file as files
from mirolib.memory.store_check import StoreReport, verify
from mirolib.memory.store_file import DATA, FINGERPRINT, INDEX, PARTS, ROW, Fingerprint

__all__ = ["PARTS", "Fingerprint", "Storage", "StoreReport", "verify"]

_HELD_OUT = 1 << 31  # from here on upper halves of keys are those of validation samples

logger = logging.getLogger(__name__)


class Storage:
    """Samples by id in a folder; one process writes, threads of it may read."""

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: Fingerprint, *, size_budget: int | None = None
    ) -> None:
        """Opens the store at `path`, or creates it where there is none.

        What was not written to its end is cut off.

        Args:
            path: Folder of the store; `~` stands for the user's.
            fingerprint: What the store must have been, or will be, written for.
            size_budget: Most bytes that records and their rows may take; None for no limit. Beyond it, the largest
                classes lose their last training samples, so that all keep about as many; validation samples stay.

        Raises:
            InputError: If the budget does not hold the validation samples and a training sample of each class.
            StorageError: If the folder can't be written, the store is in use, of another format, or was written for
                another data set, class order or seed.
        """
        self.path, self.fingerprint, self.size_budget = Path(path).expanduser(), fingerprint, size_budget
        self.bytes_written = self.bytes_read = 0
        self.damaged: dict[str, set[int]] = {part: set() for part in PARTS}
        self.before_read: Callable[[int], None] | None = None  # for experiments: is told the bytes, and may wait
        self._lock = threading.RLock()  # readers see what is known of the rows before a change or after it
        # by class, which is the upper half of a key: the row of each sample by its ordinal, -1 where it is lost
        self._places: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))
        self._keys = np.zeros(0, dtype=np.uint64)  # by row; empty until neighbours are asked for after a change
        with contextlib.ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(folder_held(self.path))
                self._check_fingerprint()
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._data, self._index = (
                    held.enter_context(os.fdopen(os.open(self.path / name, flags, 0o644), "r+b", buffering=0))
                    for name in (DATA, INDEX)
                )
                self._load()
            except OSError as error:
                raise StorageError(
                    f"The store {self.path} can't be opened: {error.strerror}. "
                    "Free space, make the folder writable, or name another."
                ) from error
            self._write(np.zeros(0, dtype=np.uint64), np.zeros(0))  # a budget may be smaller than that of the last run
            # also where nobody closes it: what is forgotten must not stay locked
            self._release = weakref.finalize(self, held.pop_all().close)

    def _check_fingerprint(self) -> None:
        """Writes the fingerprint of a new store, or compares it with the one found."""
        file, mine = self.path / FINGERPRINT, json.loads(json.dumps(asdict(self.fingerprint)))
        if not file.exists():
            if found := [name for name in ("data.mdb", DATA, INDEX) if (self.path / name).exists()]:
                raise StorageError(
                    f"The store {self.path} holds {found[0]} without {FINGERPRINT}, as those of former versions do; "
                    "delete the folder: it is written again from the data."
                )
            write_atomic(file, json.dumps(mine))
            return
        try:
            theirs = json.loads(read_bounded(file))
            differing = [name for name in mine if theirs.get(name) != mine[name]]
        except (ValueError, AttributeError, RecursionError) as error:
            raise StorageError(f"The store {self.path} has an unreadable fingerprint; delete the folder.") from error
        if differing:
            raise StorageError(
                f"The store {self.path} was written for another {', '.join(differing)} "
                f"({'; '.join(f'{n}: {theirs.get(n)!s:.40}, not {mine[n]!s:.40}' for n in differing)}); "
                "name another folder or delete this one."
            )

    def _load(self) -> None:
        """Learns from the index what is stored and where, and cuts off what is no whole record."""
        rows, sound, lost = files.read_rows(self._index.fileno(), self._data.fileno())
        order = np.flatnonzero(sound)[np.argsort(rows["key"][sound])]
        names, ordinals = files.split(rows["key"])
        for same in np.split(order, np.flatnonzero(np.diff(names[order])) + 1) if len(order) else ():
            places = np.full(ordinals[same[-1]] + 1, -1, dtype=np.int32)
            places[ordinals[same]] = same
            self._places[int(names[same[0]])] = array("i", places.tobytes())
        self._rows = int(order.max(initial=-1)) + 1
        self._free = np.flatnonzero(~sound[: self._rows]).tolist()
        self._end = int((rows["offset"] + rows["length"]).max(initial=0, where=sound))
        self._used = int(rows["length"].sum(where=sound)) + ROW.itemsize * len(order)
        if lost.any():
            logger.warning("The store %s has lost %d records: their rows or data are not whole.", self.path, lost.sum())
            files.write_rows(self._index.fileno(), np.flatnonzero(lost))
        for file, end in ((self._index, self._rows * ROW.itemsize), (self._data, self._end)):
            if os.fstat(file.fileno()).st_size > end:
                file.truncate(end)

    def _extents(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the records of rows begin, and their bytes, `(n,) int64` each."""
        header = files.HEADER.itemsize
        if self.fingerprint.encoded:
            found, sound, _ = files.read_rows(self._index.fileno(), self._data.fileno(), rows)
            # of a row that was damaged since: a header that is another's
            starts, lengths = np.where(sound, found["offset"], 0), np.where(sound, found["length"], header)
            return starts.astype(np.int64), lengths.astype(np.int64)
        return rows * (slot := header + self.fingerprint.sample_bytes), np.full(len(rows), slot)

    def count(self, label: int, part: str = "train") -> int:
        """Number of stored samples of a class."""
        return len(self._places.get(label + _HELD_OUT * PARTS.index(part), ()))

    def counts(self, num_labels: int, part: str = "train") -> np.ndarray:
        """Number of stored samples of the labels `0 … num_labels - 1`, `(num_labels,) int64`."""
        return np.array([self.count(label, part) for label in range(num_labels)], dtype=np.int64)

    def holds(self, ids: np.ndarray, part: str = "train") -> np.ndarray:
        """Which samples are stored, whether or not they are still sound, `(n,) bool`."""
        return self.rows(ids, part) >= 0

    def rows(self, ids: np.ndarray, part: str = "train") -> np.ndarray:
        """The row of each sample, `(n,) int64`, in the order of the file; -1 where it is not stored."""
        pairs = zip(*(half.tolist() for half in files.split(files.keys_of(ids, part))), strict=True)
        found = ((self._places.get(name, ()), ordinal) for name, ordinal in pairs)
        return np.array([rows[at] if at < len(rows) else -1 for rows, at in found], dtype=np.int64)

    def neighbours(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Training samples that lie from each of `ids` on in the file, `count` at most, `(k,) int64` ids.

        Asked for in this order, they are read at nearly the speed of reading in sequence.
        """
        if not len(self._keys):
            found, sound, _ = files.read_rows(self._index.fileno(), self._data.fileno())
            self._keys = np.where(sound, found["key"], np.uint64(1 << 63))  # a free row stands for no training sample
        firsts = self.rows(ids)
        rows = (firsts[firsts >= 0, None] + np.arange(count)).ravel()
        keys = self._keys[rows[rows < len(self._keys)]]
        return keys[keys >> 63 == 0].astype(np.int64)

    def put(self, ids: np.ndarray, samples: np.ndarray, part: str = "train") -> int:
        """Stores samples, all of them or, when it fails, none; killed on the way, it leaves each there whole or not.

        Samples already there are left as they are, so that receiving a task again after a crash is harmless; returned
        is how many were not there. Samples are `(n, *sample_shape)` or, where they are encoded, `(n,)` bytes objects;
        the ordinals in their `(n,) int64` ids must continue those stored of each class, without a gap.

        There is an `InputError` if a sample has another shape or type, ids leave a gap, or a budget is too small, and a
        `StorageError` if the disk is full or can't be written; what was stored is then still there.
        """
        expected = (tuple(self.fingerprint.sample_shape), np.dtype(self.fingerprint.sample_dtype))
        if (samples.shape[1:], samples.dtype) != expected or len(ids) != len(samples):
            raise InputError(
                f"The store holds samples {expected[0]} {expected[1]}; got {samples.shape[1:]} {samples.dtype}."
            )
        order = np.argsort(ids & ORDINAL_MASK, kind="stable")
        order = order[~self.holds(ids[order], part)]
        self._write(files.keys_of(ids[order], part), samples[order])
        return len(order)

    def _write(self, keys: np.ndarray, samples: np.ndarray) -> None:
        """Writes samples that are not there, by their ordinals, once there is the room that a budget leaves them."""
        sizes = np.array([len(sample) for sample in samples] if self.fingerprint.encoded else samples[:1].nbytes)
        sizes = np.broadcast_to(files.HEADER.itemsize + sizes, len(keys)).astype(np.int64)
        with self._lock:
            self._keys = np.zeros(0, dtype=np.uint64)
            keep, counts = self._planned(keys, sizes.tolist())
            gone = [row for name, places in self._places.items() for row in places[counts[name] :] if row >= 0]
            keys, sizes = keys[keep], sizes[keep]
            try:
                if gone:  # on the medium before others take their places
                    taken = self._taken(gone)
                    files.write_rows(self._index.fileno(), np.array(sorted(gone)))
                    self._used, self._free = self._used - taken, sorted([*self._free, *gone])
                for name, places in self._places.items():
                    del places[counts[name] :]
                numbers = np.concatenate([self._free, self._rows + np.arange(len(keys))]).astype(np.int64)[: len(keys)]
                rows = np.zeros(len(keys), dtype=ROW)
                rows["key"], rows["length"], rows["offset"] = keys, sizes, (starts := self._room(numbers, sizes))
                rows["check"] = files.row_checks(rows, numbers)
                if len(keys):  # data before the rows that point to them
                    files.write_pieces(self._data.fileno(), starts, sizes, files.encode(samples[keep], keys))
                    files.write_rows(self._index.fileno(), numbers, rows)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._data.truncate(self._end)
                raise StorageError(
                    f"The store {self.path} could not be written: {error.strerror}. "
                    "Free space or make the folder writable, then run again; nothing already stored is lost."
                ) from error
            self._free, self._rows = self._free[len(rows) :], max(self._rows, int(numbers.max(initial=-1)) + 1)
            self._end = max(self._end, int((starts + sizes).max(initial=0)))
            self._used += (written := int(sizes.sum()) + rows.nbytes)
            self.bytes_written += written
            for name, ordinal, row in zip(*(half.tolist() for half in (*files.split(keys), numbers)), strict=True):
                self._places[name][ordinal : ordinal + 1] = array("i", [row])

    def _planned(self, keys: np.ndarray, sizes: list[int]) -> tuple[list[int], dict[int, int]]:
        """Which of the new records are kept, and how many there will be of each class.

        Beyond a budget the largest class, the latest among equals, loses its last training sample until the rest fits.
        The order of arrival of a class is drawn from the seed: its last samples are random ones.
        """
        counts, new = {name: len(places) for name, places in self._places.items()}, {}
        for k, (name, ordinal) in enumerate(zip(*(half.tolist() for half in files.split(keys)), strict=True)):
            count = counts.get(name, 0)
            if ordinal > count and self.size_budget is None:
                raise InputError(
                    f"Samples of label {name % _HELD_OUT} must continue at ordinal {count}; give them without a gap."
                )
            if ordinal <= count:  # else those before it have been evicted
                counts[name], new[name, ordinal] = max(count, ordinal + 1), k
        used = self._used + sum(sizes[k] + ROW.itemsize for k in new.values())
        largest = [(-count, -name) for name, count in counts.items() if name < _HELD_OUT]
        heapq.heapify(largest)
        while self.size_budget is not None and used > self.size_budget:
            count, name = (-largest[0][0], -largest[0][1]) if largest else (0, 0)
            if count <= 1:
                raise InputError(
                    f"The store's budget of {self.size_budget} bytes does not hold the validation samples and one "
                    f"training sample of each class, which take {used} bytes; raise it."
                )
            heapq.heapreplace(largest, (1 - count, -name))
            counts[name] = count - 1
            if (name, count - 1) in new:
                used -= sizes[new.pop((name, count - 1))] + ROW.itemsize
            else:
                used -= self._taken([row for row in self._places[name][count - 1 :] if row >= 0][:1])
        return sorted(new.values()), counts

    def _taken(self, rows: list[int]) -> int:
        """Bytes that the records of some rows and these themselves take."""
        return int(self._extents(np.array(rows, dtype=np.int64))[1].sum()) + len(rows) * ROW.itemsize

    def _room(self, numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Where records of these rows and lengths go, `(n,) int64`: encoded ones into gaps that hold them."""
        if not self.fingerprint.encoded:
            return self._extents(numbers)[0]
        gaps = iter([(self._end, math.inf)])
        if self._free:
            rows, sound, _ = files.read_rows(self._index.fileno(), self._data.fileno())
            starts = np.sort(rows["offset"][sound])
            ends = np.sort((rows["offset"] + rows["length"])[sound])  # in the same order, for none overlap
            gaps = zip([0, *ends.tolist()], [*starts.tolist(), math.inf], strict=True)
        room, (at, stop) = [], next(gaps)
        for length in lengths.tolist():
            while at + length > stop:
                at, stop = next(gaps)
            room.append(at)
            at += length
        return np.array(room, dtype=np.int64)

    def read_sound(self, ids: np.ndarray, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """Reads samples by id, verifying each checksum; the interpreter lock is free while the disk is read.

        What is missing or damaged is left out: it is named in the log and kept in `damaged`.

        Returns:
            The sound samples, `(k, *sample_shape)` or, where they are encoded, `(k,)` bytes objects, and which of the
            `(n,) int64` ids they are, `(n,) bool`.

        Raises:
            StorageError: If the store is closed.
        """
        kind = self.fingerprint
        with self._lock:
            rows = self.rows(ids, part)
            sound = rows >= 0
            offsets, lengths = self._extents(rows[sound])
        if (before_read := self.before_read) is not None:  # another thread may take it away
            before_read(int(lengths.sum()))
        try:
            samples, found, right = files.read_records(self._data.fileno(), offsets, lengths, encoded=kind.encoded)
        except ValueError as error:  # of a file that is closed
            raise StorageError(f"The store {self.path} can't be read: it is closed; open it anew.") from error
        self.bytes_read += int(lengths.sum())
        if not kind.encoded:
            samples = samples.view(kind.sample_dtype).reshape(len(found), *kind.sample_shape)
        right &= found == files.keys_of(ids[sound], part)
        sound[sound] = right
        for id_ in ids[~sound].tolist():
            if id_ not in self.damaged[part]:
                logger.warning(
                    "Record %d of label %d (%s) in %s is damaged or missing; it is not used.",
                    *(id_ & ORDINAL_MASK, id_ >> ORDINAL_BITS, part, self.path),
                )
            self.damaged[part].add(id_)
        return samples if right.all() else samples[right], sound

    def read(self, ids: np.ndarray, part: str = "train") -> np.ndarray:
        """Like `read_sound`, of samples that must all be sound.

        Raises:
            CorruptRecordError: If one is missing, can't be read or does not match its checksum; the sentence names it.
        """
        samples, sound = self.read_sound(ids, part)
        if not sound.all():
            first = int(ids[~sound][0])
            raise CorruptRecordError(
                f"Record {first & ORDINAL_MASK} of label {first >> ORDINAL_BITS} ({part}) in the store {self.path} is "
                "missing or damaged. Delete the folder and run again from the data set."
            )
        return samples

    @property
    def size_bytes(self) -> int:
        """Bytes the store takes on disk."""
        return sum((self.path / name).stat().st_blocks * 512 for name in (DATA, INDEX))

    @property
    def index_bytes(self) -> int:
        """Bytes of RAM that say where records lie: four a sample, and eight where neighbours are asked for."""
        return sum(len(places) * places.itemsize for places in self._places.values()) + self._keys.nbytes

    def close(self) -> None:
        """Closes the store; a closed store may be closed again."""
        self._release()
