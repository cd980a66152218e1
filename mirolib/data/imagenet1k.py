"""ImageNet-1k (ILSVRC 2012), read where it lies: images stay encoded until they are used."""

import logging
import re
from pathlib import Path

import numpy as np
import xxhash

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset, Samples
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import check_classes, list_folders, read_file
from mirolib.data.images import listed

logger = logging.getLogger(__name__)

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
_ROW = re.compile(r'(?:^|,)"?([^,"\n]+)"?,"?(n[0-9]{8})\b', re.MULTILINE)  # an image's name and its class


def load(root: Path) -> Dataset:
    """The classes found in `train`, with the images of `val` as the test set; any part of the set will do.

    Class folders bear the WordNet ids. The images of `val` lie in such folders too, or all in one, and then
    LOC_val_solution.csv, there or up to three folders above, says their classes. Where there is no `val`, or nothing
    says its classes, every tenth image of each class is the test set. There is an `InputError` if there is no folder,
    no class or a class without images, or an image is empty.
    """
    folder = _ARCHIVE.find(root)
    if not (wnids := list_folders(folder / "train")):
        raise InputError(f"{folder} has no folder train with one for each class. {_ARCHIVE.advice}")
    train = listed(folder, "train", wnids)
    digest = xxhash.xxh3_128()  # of names and lengths, which stand for the 144 GB of content
    if any((folder / "val" / wnid).is_dir() for wnid in wnids):
        test = listed(folder, "val", wnids)
    elif (flat := _flat(folder, wnids)) is not None:
        test = flat
        digest.update(test.labels.tobytes())  # which the names don't say
    else:
        tenth = np.concatenate([np.arange(count) % 10 == 9 for count in np.bincount(train.labels)])
        train, test = (train.select(rows) for rows in map(np.flatnonzero, (~tenth, tenth)))
    check_classes(folder, dict(enumerate(wnids)), 1000, train.labels, test.labels)
    for part in (train, test):
        digest.update(part.data.names.tobytes() + part.data.size_bytes.tobytes() + part.rows.tobytes())
    return Dataset(IMAGENET1K, train, test, tuple(wnids), digest.hexdigest())


def _flat(folder: Path, wnids: list[str]) -> Samples | None:
    """The images in `val` itself, if there is a list of their classes."""
    val = folder / "val"
    tables = (place / "LOC_val_solution.csv" for place in (val, folder, *folder.parents[:3]))
    table = next(filter(Path.is_file, tables), None)
    if val.is_dir() and table is None:
        logger.warning("No LOC_val_solution.csv is there for %s: every tenth training image is for the test.", val)
    if not val.is_dir() or table is None:
        return None
    # behind the class, a row has the boxes around what is shown
    rows = _ROW.findall(read_file(table, 1 << 26, "Restore it.").decode("utf-8", "replace"))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    label_of_image = {image: label_of.get(wnid, -1) for image, wnid in rows}
    files = listed(folder, "", ["val"])
    labels = np.array([label_of_image.get(path.stem, -1) for path in files.data.paths()])
    return files.select(np.flatnonzero(labels >= 0), labels[labels >= 0])
