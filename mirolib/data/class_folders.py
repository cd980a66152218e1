"""Images or sounds in a folder a class, as torchvision's `ImageFolder` and Keras have them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mirolib.base.errors import InputError
from mirolib.data.arrays import derived_preset
from mirolib.data.audio import BANDS, FRAMES, facts, log_mel
from mirolib.data.dataset import Dataset, DatasetSpec
from mirolib.data.files import cached_samples, data_folder, stamp_of

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SOUNDS = (".wav", ".flac")
_LARGE = 96  # pixels; images of one size below it are kept as they are
_SIDE = 64  # pixels that larger ones are brought to, unless told otherwise
_TURNED = range(5, 9)  # orientations that swap width and height (Exif 2.3, tag 274)


def files_of(folder: Path) -> list[tuple[str, Path]]:
    """Class and path of each image or sound in class folders, in order, those in folders within them too.

    Hidden files and folders, and those of systems such as `__MACOSX`, are none.

    Raises:
        InputError: If there is no class folder, or one without files.
    """
    found: list[tuple[str, Path]] = []
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] not in "._")
    for name in classes:
        before = len(found)
        for place, folders, files in os.walk(folder / name):
            folders[:] = sorted(one for one in folders if one[0] not in "._")
            kept = sorted(file for file in files if file[0] != "." and file.lower().endswith((*IMAGES, *SOUNDS)))
            found += [(name, Path(place, file)) for file in kept]
        if len(found) == before:
            kinds = ", ".join((*IMAGES, *SOUNDS))
            raise InputError(f"The class folder {folder / name} holds no file {kinds}; add some or remove it.")
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
        raise InputError(f"{where} can't be decoded ({error}); replace it, or leave it out.") from error


def common_shape(sources: Iterable[Path | bytes], size: int = 0, skip: bool = False) -> tuple[int, int, int]:
    """The shape `(channels, height, width)` that images are brought to.

    It is their own where all have one size of at most 96 pixels a side, else a square; grey where all are grey. With
    `skip` it is that of those that are images.
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
    """An image `(channels, height, width) uint8`: upright, the middle of it in that proportion, scaled.

    Raises:
        InputError: If it can't be decoded; the sentence names its path.
    """
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
    name: str, parts: Mapping[str, Path], size: int, *, skip: bool, seconds: float, test_share: float
) -> Dataset:
    """A data set of class folders, decoded once into the cache.

    Args:
        name: What results call it.
        parts: Its folders `train` and, if there, `test` and `validation`.
        size: Height and width that images are brought to; 0 for `common_shape`.
        skip: Whether what can't be decoded is left out, and counted, instead of refused.
        seconds: That sounds are cut or padded to.
        test_share: See `Dataset.from_arrays`.

    Raises:
        InputError: If a file can't be decoded, a class folder is empty, or images and sounds are mixed.
    """
    listed = {part: files_of(folder) for part, folder in parts.items()}
    files = [file for part in listed.values() for _, file in part]
    kinds = {file.suffix.lower() in SOUNDS for file in files}
    if len(kinds) > 1:
        raise InputError(f"{name} has images and sounds; keep them in data sets of their own.")
    labels = np.array([label for part in listed.values() for label, _ in part])
    which = np.repeat(np.array(list(listed)), [len(part) for part in listed.values()])
    about = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    if kinds == {True}:
        shape, read = (1, BANDS, FRAMES), partial(log_mel, seconds=seconds)
    else:
        shape = common_shape(files, size, skip)
        read = partial(picture, shape=shape)
    spec = DatasetSpec(name, shape, "uint8", {"small": derived_preset("cnn", 1, 1, 1)}, 255.0)
    own = f"{name}-{stamp_of(*parts.values())}"  # two folders of one name take turns else
    stamp = stamp_of(about, shape, facts(seconds))
    samples, kept = cached_samples(data_folder(), spec, stamp, files, read, own, skip)
    labels, which = labels[kept], which[kept]
    ends = [0, *np.cumsum([np.sum(which == part) for part in listed])]  # slices of the map, not copies
    rows = {part: slice(*ends[number : number + 2]) for number, part in enumerate(listed)}
    given = {part: (samples[those], labels[those]) for part, those in rows.items()}
    return Dataset.from_parts(given, name=name, layout="images", test_share=test_share)
