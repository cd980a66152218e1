"""Tiny-ImageNet from its original folders; images are decoded once into the cache."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.files import cached_array, find_folder, list_files, read_file, stamp_of

logger = logging.getLogger(__name__)

TINY_IMAGENET = DatasetSpec(
    name="tiny-imagenet",
    sample_shape=(3, 64, 64),
    sample_dtype="uint8",
    scale=255.0,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    crop_padding=4,
    flip=True,
    presets={
        "small": Preset("small-cnn", tasks=5, epochs=60, batch_size=32, lr=0.1, stream_size=360, episodic_size=100,
                        swap_ratio=1.0, classes=20, per_class=100, test_per_class=20),
        "paper": Preset("resnet18", tasks=10, epochs=70, batch_size=128, lr=2.0, weight_decay=1e-5,
                        milestones=(20, 30, 40, 50), gamma=0.2, stream_size=5000, episodic_size=2000, swap_ratio=1.0),
    },
    source="http://cs231n.stanford.edu/tiny-imagenet-200.zip, 200 classes of 500 + 50 labelled images of 64x64",
    licence="ImageNet's terms of access: non-commercial research and education; images belong to their owners",
    citation="Le and Yang (2015), Tiny ImageNet Visual Recognition Challenge, CS 231N, Stanford University; "
    "Russakovsky et al. (2015), ImageNet Large Scale Visual Recognition Challenge, IJCV, "
    "doi:10.1007/s11263-015-0816-y",
)  # fmt: skip

_WHERE = (
    "Get http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it to tiny-imagenet-200/wnids.txt, "
    "tiny-imagenet-200/train/<wnid>/images/*.JPEG and tiny-imagenet-200/val/."
)
_SIDE = 64
_MOST_IMAGE_BYTES = 1 << 20
_MOST_TEXT_BYTES = 1 << 24
_IMAGE = r"[^.].*\.jpe?g"
_AT_ONCE = 500
"""Images decoded before they are written."""


def load(root: Path) -> Dataset:
    """The images of `train`, with those of `val` as the test set; fewer images or classes will do.

    Classes come in the order of `wnids.txt`; one without a folder in `train` is left out, and so are lines of
    `val_annotations.txt` of other classes or of images that are not there. Decoded images are kept in the cache
    under a stamp of names, sizes and times of change.

    Returns:
        Samples `(3, 64, 64) uint8`; greyscale and CMYK images become RGB.

    Raises:
        InputError: If a file is missing, damaged or no JPEG of 64x64, a class has a folder but no image or no test
            image, or the cache can't be written.
    """
    folder = find_folder(root, ("tiny-imagenet-200", "tiny-imagenet"), _WHERE)
    listed = _wnids(folder / "wnids.txt")
    wnids = [wnid for wnid in listed if (folder / "train" / wnid).is_dir()]
    if not wnids:
        raise InputError(f"{folder / 'train'} has no folder of a class in wnids.txt. {_WHERE}")
    train = [
        (f"train/{wnid}/images/{name}", label, size_bytes, changed)
        for label, wnid in enumerate(wnids)
        for name, size_bytes, changed in list_files(folder / "train" / wnid / "images", _IMAGE)
    ]
    test = _test_files(folder, wnids)
    train_labels, test_labels = (np.array([entry[1] for entry in part], dtype=np.int64) for part in (train, test))
    for labels, place in ((train_labels, "train"), (test_labels, "val")):
        empty = np.flatnonzero(np.bincount(labels, minlength=len(wnids)) == 0)
        if len(empty):
            raise InputError(
                f"Class {wnids[empty[0]]} has no image in {folder / place}; add some, or remove the folder "
                f"{folder / 'train' / wnids[empty[0]]}."
            )
    logger.info(
        "tiny-imagenet: %d of %d classes, %d training and %d test images",
        len(wnids), len(listed), len(train), len(test),
    )  # fmt: skip
    names = _class_names(folder / "words.txt", wnids)
    paths = [entry[0] for entry in (*train, *test)]
    images = cached_array(
        root,
        TINY_IMAGENET.name,
        stamp_of(train, test),
        (len(paths), *TINY_IMAGENET.sample_shape),
        "uint8",
        partial(_decoded, folder, paths),
    )
    count = len(train)
    return Dataset.from_arrays(
        images[:count], train_labels, images[count:], test_labels, spec=TINY_IMAGENET, class_names=names
    )


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    text = read_file(path, _MOST_TEXT_BYTES, _WHERE).decode("utf-8", "replace")
    return [line for line in text.split("\n") if line.strip()]


def _wnids(path: Path) -> list[str]:
    """The classes, by their WordNet ids."""
    wnids = [line.strip() for line in _lines(path)]
    for number, wnid in enumerate(wnids, start=1):
        if not re.fullmatch(r"n[0-9]{8}", wnid):
            raise InputError(f"{path} has {wnid[:40]!r} for class {number}, which is no WordNet id; restore the file.")
    return list(dict.fromkeys(wnids))


def _test_files(folder: Path, wnids: list[str]) -> list[tuple[str, int, int, int]]:
    """Path, label, size and time of change of each test image of these classes, in the order of the annotations."""
    path = folder / "val" / "val_annotations.txt"
    listed = list_files(folder / "val" / "images", _IMAGE)
    present = {name: (size_bytes, changed) for name, size_bytes, changed in listed}
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    found: dict[str, tuple[str, int, int, int]] = {}
    absent = 0
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) < 2:
            raise InputError(f"{path} has no image and WordNet id in entry {number}; restore the file.")
        name, wnid = fields[:2]
        if wnid in label_of and name in present:
            found[name] = (f"val/images/{name}", label_of[wnid], *present[name])
        else:
            absent += wnid in label_of
    if absent:
        logger.info("tiny-imagenet: %d images of %s are not there and left out", absent, path)
    return list(found.values())


def _class_names(path: Path, wnids: list[str]) -> list[str]:
    """The first word for each class, or its WordNet id where `words.txt` has none."""
    words: dict[str, str] = {}
    for line in _lines(path):
        wnid, _, synonyms = line.partition("\t")
        words[wnid.strip()] = synonyms.partition(",")[0].strip()
    return [words.get(wnid) or wnid for wnid in wnids]


def _decoded(folder: Path, paths: list[str]) -> Iterator[np.ndarray]:
    """The images, some at a time, `(k, 3, 64, 64) uint8`."""
    with tqdm(total=len(paths), desc="decoding images", unit="image", disable=len(paths) < 20_000) as bar:
        for start in range(0, len(paths), _AT_ONCE):
            images = [_image(folder / path) for path in paths[start : start + _AT_ONCE]]
            yield np.stack(images).transpose(0, 3, 1, 2)
            bar.update(len(images))


def _image(path: Path) -> np.ndarray:
    """An image, `(64, 64, 3) uint8`."""
    encoded = read_file(path, _MOST_IMAGE_BYTES, "Unpack the archive anew.")
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            size = image.size
            if size == (_SIDE, _SIDE):
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # a decoder meets damage in many ways
        raise InputError(f"{path} is cut short or no JPEG image; unpack the archive anew.") from error
    raise InputError(f"{path} is {size[0]}x{size[1]} pixels where images have 64x64; unpack the archive anew.")
