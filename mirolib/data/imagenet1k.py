"""ImageNet-1k (ILSVRC 2012), read where it lies: images stay encoded until they are used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xxhash
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset, Samples
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import check_classes, list_files

IMAGENET1K = DatasetSpec(
    name="imagenet1k",
    sample_shape=(3, 224, 224),
    sample_dtype="jpeg",
    scale=255.0,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    flip=True,
    presets={
        "small": Preset("cnn", tasks=5, epochs=52.5, batch_size=16, lr=0.05, stream_size=100, episodic_size=50,
                        swap_ratio=1.0, classes=10, per_class=80, test_per_class=20, image_size=32),
        "paper": Preset("resnet18", tasks=50, epochs=60, batch_size=128, lr=2.0, weight_decay=1e-5,
                        epoch_of="buffers", loss="bce", schedule="milestones", milestones=(20, 30, 40, 50), gamma=0.2,
                        stream_size=26000, episodic_size=20000, swap_ratio=1.0),
    },
    source="https://image-net.org/challenges/LSVRC/2012/, training and validation images of the classification task",
    licence="ImageNet's terms of access: non-commercial research and education; images belong to their owners",
    citation="Russakovsky et al. (2015), ImageNet Large Scale Visual Recognition Challenge, IJCV, "
    "doi:10.1007/s11263-015-0816-y",
)  # fmt: skip

_ARCHIVE = ARCHIVES["imagenet1k"]


class ImageFiles:
    """Encoded images in files, read when they are asked for; an index of some 30 bytes an image.

    Attributes:
        names: Path of each file below the folder, `(n,)` byte strings.
        size_bytes: Length of each file, `(n,) int32`.
    """

    def __init__(self, folder: Path, names: np.ndarray, size_bytes: np.ndarray) -> None:
        self._folder, self.names, self.size_bytes = folder, names, size_bytes

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of some images, `(k,)` objects.

        Raises:
            InputError: If a file is gone or can't be read.
        """
        found = np.empty(len(rows), dtype=object)
        for position, name in enumerate(self.names[rows]):
            path = self._folder / os.fsdecode(name)
            try:
                found[position] = path.read_bytes()
            except OSError as error:
                raise InputError(f"The image {path} can't be read ({error.strerror}); restore it.") from error
        return found


def load(root: Path) -> Dataset:
    """The classes found in `train`, with the images of `val` as the test set; any part of the set will do.

    Class folders bear the WordNet ids. Where there is no `val`, every tenth image of each class is the test set.

    Raises:
        InputError: If there is no folder, no class or a class without images.
    """
    folder = _ARCHIVE.find(root)
    if not (folder / "train").is_dir():
        raise InputError(f"{folder} has no folder train. {_ARCHIVE.advice}")
    wnids = sorted(entry.name for entry in os.scandir(folder / "train") if entry.is_dir())
    train = _listed(folder, "train", wnids)
    if (folder / "val").is_dir():
        test = _listed(folder, "val", wnids)
    else:
        tenth = np.concatenate([np.arange(count) % 10 == 9 for count in np.bincount(train.labels)])
        train, test = (train.select(rows, train.labels[rows]) for rows in map(np.flatnonzero, (~tenth, tenth)))
    check_classes(folder, dict(enumerate(wnids)), 1000, train.labels, test.labels)
    digest = xxhash.xxh3_128()  # of names and lengths, which stand for the 144 GB of content
    for part in (train, test):
        digest.update(part.data.names.tobytes() + part.data.size_bytes.tobytes() + part.rows.tobytes())
    return Dataset(IMAGENET1K, train, test, tuple(wnids), digest.hexdigest())


def _listed(folder: Path, part: str, wnids: list[str]) -> Samples:
    names, sizes, labels = [], [], []
    for label, wnid in enumerate(tqdm(wnids, desc=f"listing {part}", unit="class", disable=len(wnids) < 100)):
        found = list_files(folder / part / wnid, r".*\.jpe?g")
        # as bytes, since a character of NumPy's texts takes four
        names += [os.fsencode(f"{part}/{wnid}/{name}") for name, *_ in found]
        sizes += [size_bytes for _, size_bytes, _ in found]
        labels += [label] * len(found)
    if not names:
        raise InputError(f"There are no images in {folder / part}. {_ARCHIVE.advice}")
    files = ImageFiles(folder, np.array(names), np.array(sizes, dtype=np.int32))
    return Samples(files, np.array(labels, dtype=np.int64), np.arange(len(names)))
