"""Small real parts shared by the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from media import Card, Medium
from samples import make_dataset

from mirolib import Fingerprint, MemoryConfig, Storage, TaskStream, TieredMemory

# a machine that has other work to do may stall any test: seconds say nothing of what is checked
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def stream() -> TaskStream:
    return TaskStream(make_dataset(), num_tasks=3, seed=0)


@pytest.fixture
def make_memory(tmp_path: Path):
    """Makes tiered memories for a stream and closes them in the end."""
    made: list[TieredMemory] = []

    def make(stream: TaskStream, config: MemoryConfig, **options):
        storage = Storage(tmp_path / f"store{len(made)}", Fingerprint.of(stream))
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
