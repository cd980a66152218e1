"""A subset of CIFAR-100 for the benchmarks, read from its original archive in the folder MIRO_SHARED_DATA."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mirolib import Dataset

_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
            ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, lists and texts; anything else is refused."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the archive names {module}.{name}, which is no array")
        return super().find_class(module, name)


def cifar100_subset(classes: int) -> Dataset:
    """The first `classes` classes; the archive has 100 training and 20 test images of each."""
    archive = Path(os.environ["MIRO_SHARED_DATA"]) / "cifar-100-python.tar.gz"
    parts = []
    with tarfile.open(archive) as tar:
        for part in ("train", "test"):
            file = tar.extractfile(f"cifar-100-python/{part}")
            assert file is not None
            content = _ArraysOnly(io.BytesIO(file.read()), encoding="bytes").load()
            labels = np.array(content[b"fine_labels"])
            chosen = labels < classes
            parts += [content[b"data"].reshape(-1, 3, 32, 32)[chosen], labels[chosen]]
    dataset = Dataset.from_arrays(*parts)
    preset = replace(dataset.spec.preset(), epochs=15, batch_size=32, lr=0.05, tasks=classes // 5)
    return replace(
        dataset,
        spec=replace(dataset.spec, name=f"cifar100-{classes}", crop_padding=4, flip=True, presets={"small": preset}),
    )
