"""What lies in a store: its fingerprint, and records that say themselves whether they are sound.

A record is an 8-byte XXH3 checksum and the raw sample. The checksum is seeded with the sample's id and its part, so
that neither flipped bytes nor a record that turns up in another's place passes for a sound one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from mirolib.data.stream import TaskStream
from mirolib.memory.buffers import OBJECT_BYTES, POINTER_BYTES

FORMAT_VERSION = 2
CHECKSUM_BYTES = 8
PARTS = ("train", "validation")
_PART_BIT = 63


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

    @property
    def slot_bytes(self) -> int:
        """Bytes of RAM that one sample takes in a buffer, label and id included; the mean where they differ."""
        return self.sample_bytes + 16 + (POINTER_BYTES + OBJECT_BYTES if self.encoded else 0)


def checksums(payload: np.ndarray, ids: np.ndarray, part: str) -> np.ndarray:
    """The checksum of each of `n` pieces of bytes, rows `(n, size) uint8` for one, `(n,) <u8`."""
    bit = PARTS.index(part) << _PART_BIT
    rows = zip(payload, ids.tolist(), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(row, seed=id_ | bit) for row, id_ in rows], dtype="<u8")


def is_sound(record: bytes, id_: int, part: str) -> bool:
    """Whether a record is that of this sample, whole and unchanged."""
    seed = id_ | PARTS.index(part) << _PART_BIT
    found = xxhash.xxh3_64_intdigest(record[CHECKSUM_BYTES:], seed=seed)
    return len(record) > CHECKSUM_BYTES and found == int.from_bytes(record[:CHECKSUM_BYTES], "little")


def encode(samples: np.ndarray, ids: np.ndarray, part: str) -> list[bytes | memoryview]:
    """The records of samples `(n, *sample_shape)`, or `(n,)` bytes objects."""
    if samples.dtype.hasobject:
        digests = checksums(samples, ids, part)
        return [digest.tobytes() + sample for digest, sample in zip(digests, samples, strict=True)]
    payload = np.ascontiguousarray(samples).view(np.uint8).reshape(len(ids), samples[:1].nbytes)
    records = np.empty((len(ids), CHECKSUM_BYTES + payload.shape[1]), dtype=np.uint8)
    records[:, CHECKSUM_BYTES:] = payload
    records[:, :CHECKSUM_BYTES] = checksums(payload, ids, part)[:, None].view(np.uint8)
    return [row.data for row in records]


def key_of(id_: int) -> bytes:
    """The key of a sample, big-endian so that LMDB keeps a class together."""
    return id_.to_bytes(8, "big")


def keys_of(ids: np.ndarray) -> list[bytes]:
    """The keys of samples `(n,) int64`."""
    joined = ids.astype(">u8").tobytes()
    return [joined[start : start + 8] for start in range(0, len(joined), 8)]


def footprint(record_bytes: int, page_size: int) -> int:
    """Bytes that a record takes on LMDB's pages: its place on a leaf, and pages of its own where it is long."""
    node = 8 + 8 + record_bytes  # header, key, value
    if node <= (page_size - 16) // 2 - 2:
        return node + node % 2 + 2
    return 8 + 8 + 8 + 2 + -(-(16 + record_bytes) // page_size) * page_size
