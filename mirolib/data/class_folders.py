"""Images or sounds in a folder a class, as torchvision's `ImageFolder` and Keras have them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mirolib.base.errors import InputError
from mirolib.data.audio import BANDS, FRAMES, log_mel
from mirolib.data.dataset import Dataset
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


def opened(source: Path | bytes, where: str = "") -> Image.Image:
    """An image whose head is read.

    Raises:
        InputError: If it is none; the sentence names its path.
    """
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where or source} is no image ({error}); replace it, or leave it out.") from error


def common_shape(sources: Iterable[Path | bytes], size: int = 0) -> tuple[int, int, int]:
    """The shape `(channels, height, width)` that images are brought to.

    It is their own where all have one size of at most 96 pixels a side, else a square; grey where all are grey.
    """
    looks = set()
    for source in sources:
        with opened(source) as image:
            width, height = image.size[:: -1 if image.getexif().get(274) in _TURNED else 1]
            looks.add((image.mode in ("1", "L", "I", "I;16", "I;16B"), height, width))
    channels = 1 if all(grey for grey, *_ in looks) else 3
    shapes = {(height, width) for _, height, width in looks}
    if size or len(shapes) > 1 or max(next(iter(shapes))) > _LARGE:
        return channels, size or _SIDE, size or _SIDE
    return channels, *shapes.pop()


def picture(source: Path | bytes, shape: Sequence[int], where: str = "") -> np.ndarray:
    """An image `(channels, height, width) uint8`: upright, the middle of it in that proportion, scaled.

    Raises:
        InputError: If it can't be decoded; the sentence names its path.
    """
    channels, height, width = shape
    try:
        with opened(source, where) as image:
            image.draft("RGB" if channels == 3 else "L", (width, height))  # a JPEG decodes faster at a part of its size
            if image.mode[0] == "I":  # 16 bits a pixel, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where or source} can't be decoded ({error}); replace it, or leave it out.") from error


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
        shape = common_shape(files, size)
        read = partial(picture, shape=shape)
    stamp = stamp_of(about, shape, seconds)
    samples, kept = cached_samples(data_folder(), name, shape, stamp, files, read, skip=skip)
    taken = {part: np.flatnonzero(kept & (which == part)) for part in ("train", "test", "validation")}
    given = {part: (samples[rows], labels[rows]) for part, rows in taken.items() if len(rows)}
    return Dataset.from_parts(given, name=name, layout="images", test_share=test_share)
