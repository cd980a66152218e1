"""Small data sets, each sample of which can be told from any other."""

import numpy as np

from mirolib import Dataset

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


def make_grouped(classes: int = 4, groups: int = 3, each: int = 8, seed: int = 0) -> Dataset:
    """As `make_dataset`, each class of each group a little brighter than the last; groups are named a, b and so on."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in (each, 3):
        labels, of = (part.ravel() for part in np.mgrid[:classes, :groups, :count][:2])
        images = rng.integers(0, 60, (len(labels), *SHAPE)) + (40 * labels + 10 * of)[:, None, None, None]
        parts.append((images.astype(np.uint8), labels, np.array([*"abcdefgh"])[of]))
    (x, y, groups_), (test_x, test_y, test_groups) = parts
    return Dataset.from_arrays(x, y, test_x, test_y, groups=groups_, test_groups=test_groups)
