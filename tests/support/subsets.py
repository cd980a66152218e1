"""The shared subsets of the real data sets, and mutants of files."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from mirolib import InputError

SHARED = os.environ.get("MIRO_SHARED_DATA")
MUTANTS = int(os.environ.get("MIRO_FUZZ", "200"))
ARCHIVES = {
    "cifar100": "cifar-100-python.tar.gz",
    "tiny-imagenet": "tiny-imagenet-200-subset.tar.gz",
    "dsads": "dsads-subset.tar.xz",
    "urbansound8k": "urbansound8k-subset-22k.tar.xz",
    "urbansound8k, original": "urbansound8k-original10.tar.xz",
    "imagenet1k": "imagenet-10x100-224px.tar.gz",
    "imagenet1k, one a class": "imagenet-1k-100x1.tar.gz",
}
real = pytest.mark.skipif(not SHARED, reason="MIRO_SHARED_DATA names no folder with subsets of the data sets")


def mutated(content: bytes, rng: np.random.Generator, head: int = 700) -> bytes:
    """Some flipped, removed, inserted or doubled bytes, half of them in the head, or a shorter file."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(content) + 1))
        at = at if rng.random() < 0.5 else int(rng.integers(0, head)) % (len(content) + 1)
        end = at + int(rng.choice([1, 1, 2, 4, 40]))
        kind = rng.integers(0, 7)
        if kind <= 1:
            content[at:end] = rng.bytes(len(content[at:end]))
        elif kind == 2:
            del content[at:end]
        elif kind == 3:
            content[at:at] = bytes([int(rng.choice([0, 1, 255, 46, 40, 44, 10, 127]))]) * (end - at)
        elif kind == 4:
            content[at:at] = content[at - 30 if at > 30 else 0 : at]
        elif kind == 5 and at < len(content):
            content[at] ^= 1 << rng.integers(8)
        elif rng.random() < 0.3:
            del content[at:]
    return bytes(content)


def fuzz(read, root: Path, paths: list[Path], mutants: int = MUTANTS, head: int = 700) -> None:
    """Has mutants of some files read or refused with a sentence that names the place; any other error ends the test."""
    rng, refused = np.random.default_rng(0), 0
    originals = [path.read_bytes() for path in paths]
    for number in range(mutants):
        path, original = paths[number % len(paths)], originals[number % len(paths)]
        path.write_bytes(mutated(original, rng, head))
        start = time.perf_counter()
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000 and str(root) in str(error)
            refused += 1
        assert time.perf_counter() - start < 5
        path.write_bytes(original)
    for path in paths:
        read(path)
    assert mutants < 100 or 0 < refused < mutants
