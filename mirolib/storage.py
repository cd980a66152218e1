"""The storage tier: every sample ever seen, once, on disk, in LMDB.

A record is an 8-byte XXH3 checksum, seeded with the sample's id, and the raw sample. Records are keyed by id
(`label << 32 | ordinal`, big-endian) and the ordinals of a class have no gaps, so the number of samples of a class is
found from its last key: the store needs no index in RAM and opens at once, however large it is. LMDB commits by
copy-on-write: after `kill -9` or a power cut the store is as its last commit left it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
import xxhash

from mirolib.errors import CorruptRecordError, InputError, StorageError
from mirolib.stream import ORDINAL_BITS, ORDINAL_MASK, TaskStream, labels_of

FORMAT_VERSION = 1
CHECKSUM_BYTES = 8
PARTS = ("train", "validation")
_FIRST_MAP = 1 << 26  # bytes of address space; doubled whenever the store outgrows it

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """What a store was written for; it opens for nothing else.

    Attributes:
        dataset: Name of the data set.
        content: Hash of its samples and labels.
        class_order: The data set's class at each label.
        seed: Seed of the order of arrival and of the held-out samples.
        validation_share: Share of the samples held out.
        sample_shape: Shape of a record's sample; `()` where samples are bytes of any length.
        sample_dtype: NumPy type of a record's sample; `object` where samples are bytes of any length.
        mean_bytes: Mean length of such samples; 0 otherwise.
        format_version: Version of the record format.
    """

    dataset: str
    content: str
    class_order: tuple[int, ...]
    seed: int
    validation_share: float
    sample_shape: tuple[int, ...]
    sample_dtype: str
    mean_bytes: int = 0
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(cls, stream: TaskStream) -> Fingerprint:
        """The fingerprint of a stream."""
        spec = stream.dataset.spec
        shape, dtype = ((), "object") if spec.encoded else (spec.sample_shape, spec.sample_dtype)
        return cls(
            dataset=spec.name,
            content=stream.dataset.fingerprint,
            class_order=stream.class_order,
            seed=stream.seed,
            validation_share=stream.validation_share,
            sample_shape=shape,
            sample_dtype=dtype,
            mean_bytes=stream.dataset.train.mean_bytes if spec.encoded else 0,
        )

    @property
    def encoded(self) -> bool:
        """Whether samples are bytes of any length."""
        return self.sample_dtype == "object"

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, the mean where they differ."""
        if self.encoded:
            return self.mean_bytes
        return int(np.prod(self.sample_shape)) * np.dtype(self.sample_dtype).itemsize


class Storage:
    """Samples by id in an LMDB environment; one process writes, threads of it may read."""

    def __init__(self, path: str | os.PathLike[str], fingerprint: Fingerprint) -> None:
        """Opens the store at `path`, or creates it where there is none.

        Args:
            path: Folder of the store.
            fingerprint: What the store must have been, or will be, written for.

        Raises:
            StorageError: If the folder can't be written, the store is damaged, already open in this process, or
                was written for another data set, class order, seed or format.
        """
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.bytes_written = 0
        self.bytes_read = 0
        self.before_read: Callable[[int], None] | None = None  # for experiments: is told the bytes, and may wait
        self._reading = threading.Lock()  # the map must not grow under a reader
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(str(self.path), map_size=_FIRST_MAP, max_dbs=len(PARTS), readahead=False)
        except (OSError, lmdb.Error) as error:
            raise StorageError(
                f"The store {self.path} can't be opened: {_reason(error)}. Free the folder, or name another."
            ) from error
        try:
            self._check_size()
            self._databases = {part: self._env.open_db(part.encode()) for part in PARTS}
            self._check_fingerprint()
        except BaseException:
            self.close()
            raise

    def _check_size(self) -> None:
        """Refuses a file that ends before its last committed page: reading there would kill the process."""
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        actual = (self.path / "data.mdb").stat().st_size
        if actual < needed:
            raise StorageError(
                f"The store {self.path} is cut short: {actual} of {needed} bytes are left. "
                "Delete the folder and run again from the data set."
            )

    def _check_fingerprint(self) -> None:
        """Writes the fingerprint into a new store, or compares it with the one found."""
        mine = json.loads(json.dumps(asdict(self.fingerprint)))
        with self._env.begin() as transaction:
            found = transaction.get(b"fingerprint")
        if found is None:
            self._commit(lambda transaction: transaction.put(b"fingerprint", json.dumps(mine).encode()))
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
            raise StorageError(f"The store {self.path} can't be read: {_reason(error)}. Open it anew.") from error

    def count(self, label: int, part: str = "train") -> int:
        """Number of stored samples of a class."""
        with self._transaction(part) as transaction:
            cursor = transaction.cursor()
            beyond = cursor.set_range(_key((label + 1) << ORDINAL_BITS))
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
        records = self._records(ids[new], samples[new])
        items = list(zip(_keys(ids[new]), records, strict=True))
        size_bytes = sum(map(len, records))

        def write(transaction: lmdb.Transaction) -> int:
            return transaction.cursor(self._databases[part]).putmulti(items, overwrite=False)[1]

        added = self._commit(write, size_bytes)
        self.bytes_written += size_bytes
        return added

    def _records(self, ids: np.ndarray, samples: np.ndarray) -> list[bytes | memoryview]:
        """The records of some samples: checksum, then bytes."""
        if self.fingerprint.encoded:
            return [digest.tobytes() + sample for digest, sample in zip(_checksums(samples, ids), samples, strict=True)]
        payload = np.ascontiguousarray(samples).reshape(len(ids), -1).view(np.uint8)
        records = np.empty((len(ids), CHECKSUM_BYTES + payload.shape[1]), dtype=np.uint8)
        records[:, CHECKSUM_BYTES:] = payload
        records[:, :CHECKSUM_BYTES] = _checksums(payload, ids)[:, None].view(np.uint8)
        return [row.data for row in records]

    def _new(self, ids: np.ndarray, part: str) -> np.ndarray:
        """Which ids are not stored yet, `(n,) bool`.

        Raises:
            InputError: If the ordinals of a class would have a gap.
        """
        labels, ordinals = labels_of(ids), ids & ORDINAL_MASK
        new = np.zeros(len(ids), dtype=bool)
        for label in np.unique(labels):
            stored, of_class = self.count(int(label), part), labels == label
            new |= of_class & (ordinals >= stored)
            given = np.unique(ordinals[of_class & (ordinals >= stored)])
            if not np.array_equal(given, np.arange(stored, stored + len(given))):
                raise InputError(
                    f"Samples of label {label} must continue at ordinal {stored}; give them without a gap."
                )
        return new

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
                    f"The store {self.path} could not be written: {_reason(error)}. "
                    "Free space or make the folder writable, then run again; nothing already stored is lost."
                ) from error

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
        keys = _keys(ids)
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
        self._compare(_checksums(payload, ids), stored, ids, part)
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
        self._compare(_checksums(samples, ids), stored, ids, part)
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
        return (self.path / "data.mdb").stat().st_blocks * 512

    def close(self) -> None:
        """Closes the store; a closed store may be closed again."""
        self._env.close()


def _checksums(payload: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The checksum of each of `n` pieces of bytes, rows `(n, size) uint8` for one, seeded with its id, `(n,) <u8`."""
    rows = zip(payload, ids.tolist(), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(row, seed=id_) for row, id_ in rows], dtype="<u8")


def _key(id_: int) -> bytes:
    return id_.to_bytes(8, "big")


def _keys(ids: np.ndarray) -> list[bytes]:
    """The keys of ids, big-endian so that LMDB keeps a class together."""
    joined = ids.astype(">u8").tobytes()
    return [joined[start : start + 8] for start in range(0, len(joined), 8)]


def _reason(error: Exception) -> str:
    """The operating system's words, without the path it repeats."""
    return str(error).split(": ", 1)[-1].rstrip(".")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
