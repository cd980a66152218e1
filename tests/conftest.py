"""Small real parts shared by the tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from media import Card, Medium

from mirolib import Dataset, Fingerprint, MemoryConfig, Storage, TaskStream, TieredMemory

SHAPE = (1, 4, 4)


def tagged(ids: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Samples that can be told from any other by their content: pixel `k` of sample `id` is `7 id + k`."""
    pixels = np.arange(int(np.prod(shape)))
    return ((ids[:, None] % 1_000_003 * 7 + pixels) % 251).astype(np.uint8).reshape(-1, *shape)


def make_dataset(classes: int = 6, per_class: int = 20, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Dataset:
    """Random images; class `c` is a little brighter than class `c - 1`."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    images = rng.integers(0, 100, (len(labels), *shape)) + 20 * labels[:, None, None, None]
    test_labels = np.repeat(np.arange(classes), 5)
    test_images = rng.integers(0, 100, (len(test_labels), *shape)) + 20 * test_labels[:, None, None, None]
    return Dataset.from_arrays(images.astype(np.uint8), labels, test_images.astype(np.uint8), test_labels)


@pytest.fixture
def stream() -> TaskStream:
    return TaskStream(make_dataset(), num_tasks=3, seed=0)


@pytest.fixture
def make_memory(tmp_path: Path):
    """Makes tiered memories for a stream and closes them in the end."""
    made: list[TieredMemory] = []

    def make(stream: TaskStream, config: MemoryConfig, wrap: Callable = lambda storage: storage, **options):
        storage = wrap(Storage(tmp_path / f"store{len(made)}", Fingerprint.of(stream)))
        made.append(TieredMemory(storage, config, stream.num_classes, **options))
        return made[-1]

    yield make
    for memory in made:
        memory.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Medium]:
    """A disk of 8 MB, in RAM; only root may mount one."""
    medium = Medium(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m,nr_inodes=0", "tmpfs")
    yield medium
    medium.unmount()


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    """A card of 16 MB, in a file; only root may mount one."""
    medium = Card(tmp_path / "card")
    yield medium
    medium.unmount()
