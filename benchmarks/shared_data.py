"""Subsets of data sets for the benchmarks, read from archives in the folder that MIRO_SHARED_DATA names."""

from __future__ import annotations

import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mirolib import Dataset
from mirolib.data.cifar100 import read_pickle


def cifar100_subset(classes: int) -> Dataset:
    """The first `classes` classes; the archive has 100 training and 20 test images of each."""
    archive = Path(os.environ["MIRO_SHARED_DATA"]) / "cifar-100-python.tar.gz"
    parts = []
    with tarfile.open(archive) as tar:
        for part in ("train", "test"):
            file = tar.extractfile(f"cifar-100-python/{part}")
            assert file is not None
            content = {
                str(key, "ascii") if isinstance(key, bytes) else key: v for key, v in read_pickle(file.read()).items()
            }
            labels = np.array(content["fine_labels"])
            chosen = labels < classes
            parts += [content["data"].array.reshape(-1, 3, 32, 32)[chosen], labels[chosen]]
    dataset = Dataset.from_arrays(*parts)
    preset = replace(dataset.spec.preset(), epochs=15, batch_size=32, lr=0.05, tasks=classes // 5)
    return replace(
        dataset,
        spec=replace(dataset.spec, name=f"cifar100-{classes}", crop_padding=4, flip=True, presets={"small": preset}),
    )


def dsads_subset() -> Dataset:
    """Daily and Sports Activities: 19 activities, 8 people, 12 segments each for training and 3 for the test.

    A segment is 125 x 45 numbers; each of the 45 channels is standardised with the training segments' mean and
    deviation.
    """
    archive = Path(os.environ["MIRO_SHARED_DATA"]) / "dsads-subset.tar.xz"
    segments: dict[tuple[int, int, int], np.ndarray] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            found = re.search(r"a(\d+)/p(\d+)/s(\d+)\.txt$", member.name)
            file = tar.extractfile(member) if found else None
            if found and file is not None:
                activity, person, segment = (int(part) for part in found.groups())
                numbers = np.array(file.read().replace(b"\n", b",").strip(b",").split(b","), dtype=np.float32)
                segments[activity, person, segment] = numbers.reshape(125, 45)
    keys = sorted(segments)
    of_person = [key[:2] for key in keys]
    rank = np.array([number - of_person.index(pair) for number, pair in enumerate(of_person)])
    samples, labels = np.stack([segments[key] for key in keys]), np.array([key[0] - 1 for key in keys])
    training = rank % 5 != 2
    samples = (samples - samples[training].mean(axis=(0, 1))) / samples[training].std(axis=(0, 1))
    samples = samples.reshape(len(samples), -1)
    return Dataset.from_arrays(samples[training], labels[training], samples[~training], labels[~training])
