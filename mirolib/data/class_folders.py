"""Images or sounds in a folder a class, as torchvision's `ImageFolder` and Keras have them."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from mirolib.base.errors import InputError
from mirolib.data.arrays import derived_preset
from mirolib.data.audio import BANDS, FRAMES, SECONDS, facts, log_mel
from mirolib.data.dataset import Dataset, DatasetSpec
from mirolib.data.files import cached_samples, data_folder, list_folders, stamp_of

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)
"""The part that a file, folder or split of some name is."""

_Part = TypeVar("_Part")
_SOUNDS = (".wav", ".flac")
_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", *_SOUNDS)
_LARGE = 96  # pixels; images of one size below it are kept as they are
_SIDE = 64  # pixels that larger ones are brought to, unless told otherwise
_MOST = 1024  # pixels; a set of larger ones fills memory and disk
_TURNED = range(5, 9)  # orientations that swap width and height (Exif 2.3, tag 274)

logger = logging.getLogger(__name__)


def parts_of(found: Mapping[str, _Part]) -> dict[str, _Part]:
    """What is found under the names of parts, by their order."""
    parts = {PARTS[name.lower()]: one for name, one in found.items() if name.lower() in PARTS}
    return {part: parts[part] for part in ("train", "test", "validation") if part in parts}


def files_of(folder: Path) -> list[tuple[str, Path]]:
    """Class and path of each image or sound in class folders, in order, those in folders within them too.

    Hidden files and folders, and those of systems such as `__MACOSX`, are none. There must be a class, and none empty.
    """
    found: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    for name in list_folders(folder):
        before = len(found)
        for place, folders, files in os.walk(folder / name):
            folders[:] = sorted(one for one in folders if not one.startswith((".", "__")))
            kept = sorted(file for file in files if file[0] != "." and file.lower().endswith(_KINDS))
            found += [(name, Path(place, file)) for file in kept]
            others.update(os.path.splitext(file)[1].lower() for file in {*files} - {*kept} if file[0] != ".")
        if len(found) == before:
            kinds = ", ".join(_KINDS)
            raise InputError(f"The class folder {folder / name} holds no file {kinds}; add some or remove it.")
    if left := {suffix: count for suffix, count in others.items() if suffix not in (".db", ".ini", ".txt")}:
        logger.warning("%s: files of other kinds are left out: %s", folder, left)
    if not found:
        raise InputError(f"There is no class folder in {folder}; put each class's files into one: {folder}/cat/1.png.")
    return found


@contextmanager
def opened(source: Path | bytes, where: str = "An image") -> Iterator[Image.Image]:
    """An image whose head is read; what goes wrong with it is an `InputError` that says where it is."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except Exception as error:  # a decoder meets damage in many ways
        where = str(source) if isinstance(source, Path) else where
        raise InputError(f"{where} can't be decoded ({error}); replace it, or leave it out (?broken=skip).") from error


def common_shape(sources: Iterable[Path | bytes], size: int = 0, skip: bool = False) -> tuple[int, int, int]:
    """The shape `(channels, height, width)` that images are brought to, with `skip` that of those that are images.

    It is their own where all have one size of at most 96 pixels a side, else a square; grey where all are grey.
    """
    looks = set()
    for source in sources:
        with suppress(*[InputError] * skip), opened(source) as image:
            # not PNG's own, which decodes all of it
            width, height = image.size[:: -1 if Image.Image.getexif(image).get(274) in _TURNED else 1]
            looks.add((image.mode in ("1", "L", "I", "I;16", "I;16B"), height, width))
    if not looks:
        raise InputError("None of the files is an image that can be read; replace them.")
    channels = 1 if all(grey for grey, *_ in looks) else 3
    shapes = {(height, width) for _, height, width in looks}
    if size or len(shapes) > 1 or max(next(iter(shapes))) > _LARGE:
        return channels, size or _SIDE, size or _SIDE
    return channels, *shapes.pop()


def picture(source: Path | bytes, shape: Sequence[int], where: str = "An image") -> np.ndarray:
    """An image `(channels, height, width) uint8`: upright, the middle of it in that proportion, scaled."""
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    with opened(source, where) as image:
        image.draft(mode, (width, height))  # a JPEG decodes faster at a part of its size
        if image.mode[0] == "I":  # 16 bits a pixel, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        upright = ImageOps.exif_transpose(image).convert(mode)
        if upright.size != (width, height):
            upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(upright).reshape(height, width, channels).transpose(2, 0, 1)


def read_class_folders(
    path: Path, *, name: str, size: int = 0, broken: Literal["refuse", "skip"] = "refuse", seconds: float = 0.0,
    test_share: float = 0.2,
) -> Dataset:  # fmt: skip
    """A data set of class folders, or of `train`, `test` and `validation` with those, decoded once into the cache.

    Images are brought to `size` pixels a side, or to their `common_shape`; sounds are cut or padded to `seconds`, by
    default 4. What can't be decoded is refused, or left out and counted: `broken`.

    Raises:
        InputError: If a file can't be decoded, a class folder is empty, or images and sounds are mixed.
    """
    parts = parts_of({child.name: child for child in sorted(path.iterdir()) if child.is_dir()})
    parts = parts if "train" in parts else {"train": path}
    found = [(part, label, file) for part, folder in parts.items() for label, file in files_of(folder)]
    which, labels = (np.array([one[column] for one in found]) for column in (0, 1))
    files = [file for *_, file in found]
    kinds = {file.suffix.lower() in _SOUNDS for file in files}
    if len(kinds) > 1:
        raise InputError(f"{name} has images and sounds; keep them in data sets of their own.")
    if not 0 <= size <= _MOST or (size and kinds == {True}) or (seconds and kinds == {False}):
        raise InputError(f"{name}: size is for images, up to {_MOST} pixels, and seconds are for sounds; leave it out.")
    stats = [(str(file), os.stat(file) if os.path.exists(file) else None) for file in files]  # a link may be broken
    about = [(file, stat and (stat.st_size, stat.st_mtime_ns)) for file, stat in stats]
    if kinds == {True}:
        seconds = seconds or SECONDS
        shape, read = (1, BANDS, FRAMES), partial(log_mel, seconds=seconds)
    else:
        shape = common_shape(files, size, broken == "skip")
        read = partial(picture, shape=shape)
    own = f"{name}-{stamp_of(*parts.values())}"  # two folders of one name take turns else
    spec = DatasetSpec(own, shape, "uint8", {"small": derived_preset("cnn", 1, 1, 1)}, 255.0)
    stamp = stamp_of(about, shape, facts(seconds))
    samples, kept = cached_samples(data_folder(), spec, stamp, files, read, broken == "skip")
    ends = np.cumsum([np.sum(which[kept] == part) for part in parts])[:-1]
    pieces = zip(np.split(samples, ends), np.split(labels[kept], ends), strict=True)  # slices of the map, not copies
    made = Dataset.from_parts(dict(zip(parts, pieces, strict=True)), name=name, layout="images", test_share=test_share)
    return replace(made, spec=replace(made.spec, seconds=seconds))
