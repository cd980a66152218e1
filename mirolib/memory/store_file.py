"""What lies in a store: what it was written for, records that tell whether they are sound, and rows that tell where.

`store.json` holds the fingerprint. `data.bin` holds the records: the sample's key (its id, the highest bit telling the
part), an XXH3 checksum seeded with it, and the raw sample: neither flipped bytes nor a record that turns up in the
place of another passes for a sound one. Where all samples are of one size, record `k` lies in slot `k`; encoded ones
lie where there was room. Row `k` of `index.bin` says whose record that is and where it lies; a row of zeros is free. A
row has room for a group beside the label, and its number can be that of a row in a file of extras, such as logits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

from mirolib.data.open_stream import OpenStream
from mirolib.data.stream import ORDINAL_BITS, ORDINAL_MASK, TaskStream
from mirolib.memory.buffers import OBJECT_BYTES, POINTER_BYTES

FORMAT_VERSION = 3
FINGERPRINT, DATA, INDEX = "store.json", "data.bin", "index.bin"
PARTS = ("train", "validation")
HEADER = np.dtype([("key", "<u8"), ("checksum", "<u8")])
ROW = np.dtype(
    [("key", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("group", "<u4"), ("spare", "<u4"), ("check", "<u4")]
)
_NOWAIT = getattr(os, "RWF_NOWAIT", None)  # not in a Python that was built for an old C library
_MIX = np.random.default_rng(3).integers(1 << 63, 1 << 64, 8, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class Fingerprint:
    """What a store was written for; it opens for nothing else."""

    dataset: str  # name of the data set
    content: str  # hash of its samples and labels
    class_order: tuple[int, ...]  # the data set's class at each label
    seed: int  # seed of the order of arrival and of the held-out samples
    validation_share: float  # share of the samples held out
    sample_shape: tuple[int, ...]  # shape of a record's sample; `()` where samples are bytes of any length
    sample_dtype: str  # numPy type of a record's sample; `object` where samples are bytes of any length
    mean_bytes: int = 0  # mean length of such samples; 0 otherwise
    format_version: int = FORMAT_VERSION  # version of the record format

    @classmethod
    def of(cls, stream: TaskStream | OpenStream) -> Fingerprint:
        """The fingerprint of a stream."""
        spec, shape = stream.spec, () if stream.spec.encoded else stream.spec.sample_shape
        about = stream.class_order, stream.seed, stream.validation_share, shape
        if isinstance(stream, OpenStream) or not spec.encoded:
            return cls(spec.name, stream.content, *about, spec.sample_dtype)
        return cls(spec.name, stream.content, *about, "object", stream.dataset.train.mean_bytes)

    @property
    def encoded(self) -> bool:
        """Whether samples are bytes of any length."""
        return self.sample_dtype == "object"

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, the mean where they differ."""
        size = int(np.prod(self.sample_shape)) * np.dtype(self.sample_dtype).itemsize
        return self.mean_bytes if self.encoded else size

    @property
    def slot_bytes(self) -> int:
        """Bytes of RAM that one sample takes in a buffer, label and id included; the mean where they differ."""
        return self.sample_bytes + 16 + (POINTER_BYTES + OBJECT_BYTES if self.encoded else 0)


def keys_of(ids: np.ndarray, part: str) -> np.ndarray:
    """Ids as records carry them, `(n,) uint64`."""
    return ids.astype(np.uint64) | np.uint64(PARTS.index(part) << 63)


def split(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The halves of keys, `(n,) int64` each: the label, from 2^31 on of validation samples, and the ordinal."""
    return (keys >> np.uint64(ORDINAL_BITS)).astype(np.int64), (keys & ORDINAL_MASK).astype(np.int64)


def checksums(payload: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The checksum, `(n,) uint64`, of each of `n` pieces, `(n, size) uint8` or `(n,)` bytes objects, by their keys."""
    pieces = zip(payload, keys.tolist(), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(piece, seed=key) for piece, key in pieces], dtype=np.uint64)


def encode(samples: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The records of samples `(n, *sample_shape)`, or `(n,)` bytes objects, one behind the other, `(bytes,) uint8`."""
    if not samples.dtype.hasobject:
        samples = np.ascontiguousarray(samples).reshape(len(keys), -1).view(np.uint8)
    headers = np.empty(len(keys), dtype=HEADER)
    headers["key"], headers["checksum"] = keys, checksums(samples, keys)
    pieces = (piece for header, sample in zip(headers, samples, strict=True) for piece in (header.tobytes(), sample))
    return np.frombuffer(b"".join(pieces), dtype=np.uint8)


def read_records(
    data: int, offsets: np.ndarray, lengths: np.ndarray, *, encoded: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads records by the descriptor of `data.bin`, their beginnings and lengths, header included, `(n,) int64` each.

    Returns:
        Their samples, `(n, sample_bytes) uint8` or, if `encoded`, `(n,)` bytes objects of any length, their keys,
        `(n,) uint64`, and which are whole and match their checksums, `(n,) bool`.
    """
    size, out, starts = HEADER.itemsize, np.empty(lengths.sum(), dtype=np.uint8), np.cumsum(lengths) - lengths
    whole = _read_pieces(data, out, offsets, lengths)
    if encoded:
        headers = out[starts[:, None] + np.arange(size)]
        samples, bounds = np.empty(len(offsets), dtype=object), zip(starts.tolist(), lengths.tolist(), strict=True)
        samples[:] = [out[start + size : start + length].tobytes() for start, length in bounds]
    else:
        records = out.reshape(len(offsets), int(lengths.max(initial=size)))
        samples, headers = records[:, size:], records[:, :size].copy()
    header = headers.view(HEADER)[:, 0]
    return samples, header["key"], whole & (checksums(samples, header["key"]) == header["checksum"])


def row_checks(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """What must stand as `check` in the rows of these numbers, `(n,) uint32`.

    Multiply-shift hashing (Dietzfelbinger 1996, "Universal hashing and k-wise independent random variables via integer
    arithmetic without primes"), which takes in the row's number: a row in another's place is no sound one.
    """
    words = rows.view("<u4").reshape(len(rows), 8).astype(np.uint64)
    words[:, 7] = numbers + 1
    return ((words * _MIX).sum(axis=1) >> np.uint64(32)).astype(np.uint32)


def read_rows(index: int, data: int, numbers: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, which stand for a record that lies within the data, and which for none though not free, `(n,) bool` each.

    `index` and `data` are descriptors of the files, `numbers` the rows', `(n,) int64`; all by default.
    """
    if numbers is None:
        numbers = np.arange(os.fstat(index).st_size // ROW.itemsize)
    rows = np.zeros(len(numbers), dtype=ROW)
    _read_pieces(index, rows.view(np.uint8), ROW.itemsize * numbers, np.full(len(numbers), ROW.itemsize))
    ends = rows["offset"] + rows["length"].astype(np.uint64)
    sound = (rows["length"] > HEADER.itemsize) & (ends <= os.fstat(data).st_size)
    sound &= rows["check"] == row_checks(rows, numbers)
    return rows, sound, (rows.view("<u8").reshape(-1, 4) != 0).any(axis=1) & ~sound


def write_rows(index: int, numbers: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Writes rows, or zeros, which frees them."""
    rows = np.zeros(len(numbers), dtype=ROW) if rows is None else rows
    write_pieces(index, numbers * ROW.itemsize, np.full(len(rows), ROW.itemsize), rows.view(np.uint8))


def write_pieces(file: int, starts: np.ndarray, lengths: np.ndarray, content: np.ndarray) -> None:
    """Writes pieces that lie one behind the other in `content` to where they belong, and brings them to the medium."""
    for to, at, stop in _runs(starts, lengths):
        while at < stop:
            written = os.pwrite(file, content.data[at:stop], to)
            to, at = to + written, at + written
    os.fdatasync(file)


def _runs(starts: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Pieces that touch in a file, as one: where it begins there, and its bounds where all lie one behind the other."""
    firsts = np.flatnonzero(np.diff(starts, prepend=-1) != np.r_[0, lengths][: len(starts)])
    places = (np.cumsum(lengths) - lengths)[firsts].tolist()
    return zip(starts[firsts].tolist(), places, [*places, int(lengths.sum())][1:], strict=True)


def _read_pieces(file: int, out: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Reads pieces of a file into `out`, one behind the other, neighbours in one go; which are whole, `(n,) bool`."""
    ends, whole, view = np.cumsum(lengths), np.ones(len(lengths), dtype=bool), out.data
    waiting = []  # not in RAM, announced before any of it is waited for: the medium then has all of it in hand
    for start, at, stop in _runs(starts, lengths):
        try:
            got = os.preadv(file, (view[at:stop],), start, _NOWAIT) if _NOWAIT else 0
        except OSError:  # EAGAIN, or EOPNOTSUPP of a file system that can't tell
            got = 0
        if got < stop - at:
            os.posix_fadvise(file, start, stop - at, os.POSIX_FADV_WILLNEED)
            waiting.append((start - at, at, stop))
    for ahead, at, stop in waiting:
        while at < stop:
            try:
                got = os.preadv(file, (view[at:stop],), at + ahead)
            except OSError:
                got = 0
            if not got:  # behind the end, or refused by the medium: go on behind the piece that lies here
                piece = int(np.searchsorted(ends, at, side="right"))
                whole[piece], got = False, int(ends[piece]) - at
            at += got
    return whole
