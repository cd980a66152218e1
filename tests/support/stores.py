"""Small stores."""

from pathlib import Path

import numpy as np
from samples import SHAPE, tagged

from mirolib import Fingerprint, Storage
from mirolib.data.stream import make_ids
from mirolib.memory.store_file import ROW

PRINT = Fingerprint("arrays", "abc", (1, 0, 2), 0, 0.1, SHAPE, "uint8")


def ids_of(label: int, start: int, stop: int) -> np.ndarray:
    return make_ids(np.full(stop - start, label), np.arange(start, stop))


def opened(path: Path, fingerprint: Fingerprint = PRINT) -> Storage:
    return Storage(path, fingerprint)


def put(storage: Storage, ids: np.ndarray, part: str = "train") -> int:
    """Stores the samples that go by these ids."""
    return storage.put(ids, tagged(ids, storage.fingerprint.sample_shape), part)


def assert_holds(storage: Storage, ids: np.ndarray, part: str = "train") -> None:
    """The samples of these ids are read as they were put."""
    np.testing.assert_array_equal(storage.read(ids, part), tagged(ids, storage.fingerprint.sample_shape))


def flip(path: Path, id_: int, offset: int = 0, part: str = "train") -> None:
    """Flips a bit of a stored sample, `offset` bytes behind its first, or before it where that is negative."""
    content, needle = bytearray((path / "data.bin").read_bytes()), int(id_ | (part == "validation") << 63)
    at = content.index(needle.to_bytes(8, "little"))
    content[at + 16 + offset] ^= 4
    (path / "data.bin").write_bytes(content)


def drop(path: Path, id_: int) -> None:
    """Frees the row of a stored training sample."""
    rows = np.fromfile(path / "index.bin", dtype=ROW)
    rows[rows["key"] == id_] = np.zeros((), dtype=ROW)
    rows.tofile(path / "index.bin")


def filled(path: Path, fingerprint=PRINT, count: int = 200) -> None:
    """A store of `count` samples of each of two labels, and a tenth held out, written bit by bit."""
    storage = opened(path, fingerprint)
    for part, each in (("validation", count // 10), ("train", count)):
        for start in range(0, each, 20):
            for label in (0, 1):
                put(storage, ids_of(label, start, min(each, start + 20)), part)
    storage.close()
