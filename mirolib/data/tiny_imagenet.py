"""Tiny-ImageNet from its original folders; images are decoded once into the cache."""

import io
import logging
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import cached_samples, check_classes, read_file, stamp_of
from mirolib.data.images import entries

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
        "small": Preset("cnn", tasks=5, epochs=33, batch_size=32, lr=0.05, stream_size=360, episodic_size=100,
                        swap_ratio=1.0, classes=20, per_class=100, test_per_class=20),
        "medium": Preset("cnn", tasks=10, epochs=6.5, batch_size=32, lr=0.05, stream_size=900, episodic_size=900,
                         swap_ratio=1.0, classes=100, per_class=100, test_per_class=20),
        "paper": Preset("resnet18", tasks=10, epochs=70, batch_size=128, lr=2.0, weight_decay=1e-5,
                        epoch_of="buffers", loss="bce", schedule="milestones", milestones=(20, 30, 40, 50), gamma=0.2,
                        stream_size=5000, episodic_size=2000, swap_ratio=1.0),
    },
    source="http://cs231n.stanford.edu/tiny-imagenet-200.zip, 200 classes of 500 + 50 labelled images of 64x64",
    licence="ImageNet's terms of access: non-commercial research and education; images belong to their owners",
    citation="Le and Yang (2015), Tiny ImageNet Visual Recognition Challenge, CS 231N, Stanford University; "
    "Russakovsky et al. (2015), ImageNet Large Scale Visual Recognition Challenge, IJCV, "
    "doi:10.1007/s11263-015-0816-y",
)  # fmt: skip

_ARCHIVE = ARCHIVES["tiny-imagenet"]
_MOST_IMAGE_BYTES = 1 << 20
_MOST_TEXT_BYTES = 1 << 24
_IMAGE = r"[^.].*\.jpe?g"  # macOS leaves a file ._name beside each on foreign disks


def load(root: Path) -> Dataset:
    """The images of `train`, with those of `val` as the test set; fewer images or classes will do.

    Samples are `(3, 64, 64) uint8`; greyscale and CMYK images become RGB. Classes come in the order of `wnids.txt`,
    named by the first word of `words.txt`; one without a folder in `train` is left out, and so are lines of
    `val_annotations.txt` of other classes or of images that are not there. Test images may also lie in a folder of
    their class each, and those of a class in a folder `images` or not. Decoded images are kept in the cache. There is
    an `InputError` if a file is missing, damaged or no JPEG of 64x64, a class has a folder but no image or no test
    image, or the cache can't be written.
    """
    folder = _ARCHIVE.find(root)
    listed = list(dict.fromkeys(_lines(table := folder / "wnids.txt")))
    for number, wnid in enumerate(listed, start=1):
        if not re.fullmatch(r"n[0-9]{8}", wnid):
            raise InputError(f"{table} has {wnid[:40]!r} for class {number}, which is no WordNet id; restore the file.")
    wnids = [wnid for wnid in listed if (folder / "train" / wnid).is_dir()]
    if not wnids:
        raise InputError(f"{folder / 'train'} has no folder of a class in wnids.txt. {_ARCHIVE.advice}")
    train, sorted_test = (list(entries(folder, part, wnids, _IMAGE)) for part in ("train", "val"))
    test = sorted_test or _annotated(folder, wnids)
    train_labels, test_labels = (np.array([label for _, label, *_ in part], np.int64) for part in (train, test))
    check_classes(folder, dict(enumerate(wnids)), len(listed), train_labels, test_labels)
    named = (line.partition("\t") for line in _lines(folder / "words.txt"))
    words = {wnid.strip(): synonyms.partition(",")[0].strip() for wnid, _, synonyms in named}
    names = [words.get(wnid) or wnid for wnid in wnids]
    paths = [folder / path for path, *_ in (*train, *test)]
    images, _ = cached_samples(root, TINY_IMAGENET, stamp_of(train, test), paths, _image)
    parts = images[: len(train)], train_labels, images[len(train) :], test_labels
    return Dataset.from_arrays(*parts, spec=TINY_IMAGENET, class_names=names)


def _lines(path: Path) -> list[str]:
    text = read_file(path, _MOST_TEXT_BYTES, _ARCHIVE.advice).decode("utf-8", "replace")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _annotated(folder: Path, wnids: list[str]) -> list[tuple[str, int, int, int]]:
    """The entries of the test images of these classes in a single folder, in the order of the annotations."""
    path = folder / "val" / "val_annotations.txt"
    present = {os.path.basename(entry[0]): entry for entry in entries(folder, "", ["val"], _IMAGE)}
    label_of_image: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if len(fields := line.split()) < 2:
            raise InputError(f"{path} has no image and WordNet id in entry {number}; restore the file.")
        if fields[1] in wnids:
            label_of_image[fields[0]] = wnids.index(fields[1])
    here = [(present[name], label) for name, label in label_of_image.items() if name in present]
    if absent := len(label_of_image) - len(here):
        logger.info("tiny-imagenet: %d images of %s are not there and left out", absent, path)
    return [(entry[0], label, *entry[2:]) for entry, label in here]


def _image(path: Path) -> np.ndarray:
    """An image, `(3, 64, 64) uint8`."""
    encoded = read_file(path, _MOST_IMAGE_BYTES, "Unpack the archive anew.")
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            if (size := image.size) == (64, 64):
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # a decoder meets damage in many ways
        raise InputError(f"{path} is cut short or no JPEG image; unpack the archive anew.") from error
    raise InputError(f"{path} is {size[0]}x{size[1]} pixels where images have 64x64; unpack the archive anew.")
