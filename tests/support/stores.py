"""Small stores."""

from pathlib import Path

import numpy as np
from samples import SHAPE, tagged

from mirolib import Fingerprint, Storage
from mirolib.data.stream import make_ids

PRINT = Fingerprint("arrays", "abc", (1, 0, 2), 0, 0.1, SHAPE, "uint8")


def ids_of(label: int, start: int, stop: int) -> np.ndarray:
    return make_ids(np.full(stop - start, label), np.arange(start, stop))


def opened(path: Path, fingerprint: Fingerprint = PRINT) -> Storage:
    return Storage(path, fingerprint)


def filled(path: Path, fingerprint=PRINT, count: int = 200) -> None:
    """A store of `count` samples of each of two labels, and a tenth held out, written bit by bit."""
    storage = opened(path, fingerprint)
    for part, each in (("validation", count // 10), ("train", count)):
        for start in range(0, each, 20):
            for label in (0, 1):
                ids = ids_of(label, start, min(each, start + 20))
                storage.put(ids, tagged(ids, fingerprint.sample_shape), part)
    storage.close()
