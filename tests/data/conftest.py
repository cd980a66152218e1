"""The shared subsets, each unpacked once and only when a test wants it."""

import tarfile
from functools import cache
from pathlib import Path

import pytest
from subsets import ARCHIVES, SHARED


@pytest.fixture(scope="session")
def subset(tmp_path_factory):
    """Gives the folder that a subset lies in, by its name."""

    @cache
    def unpacked(name: str) -> Path:
        folder = tmp_path_factory.mktemp("subset")
        with tarfile.open(Path(SHARED) / ARCHIVES[name]) as archive:
            archive.extractall(folder / ("imagenet" if name.startswith("imagenet") else ""), filter="data")
        return folder

    return unpacked
