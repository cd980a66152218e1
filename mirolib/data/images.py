"""Encoded images: listed in their folders, decoded and brought to size on the processor, in training an image a thread.

Pillow decodes, since torchvision's decoder is to be removed; `benchmarks/jpeg_path.py` compares the two.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Samples
from mirolib.data.files import list_files

_IMAGE = r"[^.].*\.(jpe?g|png|webp|bmp)"  # macOS leaves a file ._name beside each on foreign disks
_THREADS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="miro-decoder")
_LEAST_AREA, _WIDEST = 0.08, 4 / 3  # torchvision's
_LARGE = 96  # pixels; images of one size below it are kept as they are
_SIDE = 64  # pixels that larger ones are brought to, unless told otherwise
_TURNED = range(5, 9)  # orientations that swap width and height (Exif 2.3, tag 274)
_LIVING: WeakSet[ImageFiles] = WeakSet()


class ImageFiles:
    """Encoded images in files, `names` below a folder, read when they are asked for; an index of 30 bytes an image."""

    def __init__(self, folder: Path, names: np.ndarray, size_bytes: np.ndarray) -> None:
        self._folder, self.names, self.size_bytes = folder, names, size_bytes
        _LIVING.add(self)

    def paths(self, rows: np.ndarray | slice = slice(None)) -> list[Path]:
        """Where some images lie."""
        return [self._folder / os.fsdecode(name) for name in self.names[rows]]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of some images, `(k,)` objects; an `InputError` if a file is gone or can't be read."""
        found = np.empty(len(rows), dtype=object)
        for position, path in enumerate(self.paths(rows)):
            try:
                found[position] = path.read_bytes()
            except OSError as error:
                raise InputError(f"The image {path} can't be read ({error.strerror}); restore it.") from error
        return found


def entries(
    folder: Path, part: str, classes: Sequence[str], pattern: str = _IMAGE
) -> Iterator[tuple[str, int, int, int]]:
    """Path below the folder, label, size and time of change of images in `part/<class>`, or in `images` in that."""
    for label, name in enumerate(tqdm(classes, desc=f"listing {part}", unit="class", disable=len(classes) < 100)):
        place = os.path.join(part, name)
        place = inner if (folder / (inner := os.path.join(place, "images"))).is_dir() else place
        for file, size_bytes, changed in list_files(folder / place, pattern):
            yield os.path.join(place, file), label, size_bytes, changed


def listed(folder: Path, part: str, classes: Sequence[str]) -> Samples:
    """The images of some classes, by class and name, where `entries` finds them; an `InputError` if one is empty."""
    # as bytes, since a character of NumPy's texts takes four
    found = [(os.fsencode(path), label, size) for path, label, size, _ in entries(folder, part, classes)]
    if not found:
        raise InputError(f"There are no images in the folders of classes in {folder / part}; put them there.")
    names, labels, sizes = (np.array(column) for column in zip(*found, strict=True))
    files = ImageFiles(folder, names, sizes.astype(np.int32))
    if not sizes.all():
        raise InputError(f"The image {files.paths(sizes == 0)[0]} is empty; replace or remove it.")
    return Samples(files, labels, np.arange(len(names)))


@contextlib.contextmanager
def opened(source: Path | bytes, where: str = "") -> Iterator[Image.Image]:
    """An image whose head is read; what goes wrong with it is an `InputError` that says where it is.

    Without `where`, bytes are looked for in the files that were listed, since they may have been through a store.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except Exception as error:  # a decoder meets damage in many ways
        mend = "replace it, or leave it out (?broken=skip)"
        if isinstance(source, Path):
            where = str(source)
        elif not where:
            where, mend = _origin(source), "replace its file"
        why = "it is none" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{where} can't be decoded ({why}); {mend}.") from error


def _origin(data: bytes) -> str:
    """Where an image lies."""
    for files in list(_LIVING):
        for path in files.paths(np.flatnonzero(files.size_bytes == len(data))):
            with contextlib.suppress(OSError):
                if path.read_bytes() == data:
                    return f"The image {path}"
    return f"An image of {len(data)} bytes"


def common_shape(sources: Iterable[Path | bytes], size: int = 0, skip: bool = False) -> tuple[int, int, int]:
    """The shape `(channels, height, width)` that images are brought to, with `skip` that of those that are images.

    It is their own where all have one size of at most 96 pixels a side, else a square; grey where all are grey.
    """
    looks = set()
    for source in sources:
        with contextlib.suppress(*[InputError] * skip), opened(source, "An image") as image:
            # not PNG's own, which decodes all of it
            width, height = image.size[:: -1 if Image.Image.getexif(image).get(274) in _TURNED else 1]
            looks.add((image.mode in ("1", "L", "I", "I;16", "I;16B"), height, width))
    if not looks:
        raise InputError("None of the files is an image that can be read; replace them.")
    (height, width), *others = {look[1:] for look in looks}
    if size or others or max(height, width) > _LARGE:
        height = width = size or _SIDE
    return 1 if all(grey for grey, *_ in looks) else 3, height, width


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


def cut(data: bytes, size: Sequence[int], draw: Sequence[float] | None = None) -> np.ndarray:
    """An encoded image decoded and brought to `size`, height and width: `(height, width, 3) uint8`.

    A random window takes 8 to 100 % of the area, at an aspect ratio of 3/4 to 4/3, as in torchvision's
    `RandomResizedCrop`; four numbers in [0, 1) choose it. The middle, without them, is seven eighths of the shorter
    side, which is resizing to 256 and cropping 224. There is an `InputError` if it is no image, or cut short.
    """
    with opened(data) as image:
        width, height = image.size
        if draw is None:
            share = 7 / 8 * min(height / size[0], width / size[1])
            rows, columns, down, across = share * size[0], share * size[1], 0.5, 0.5
        else:
            area = (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0]) * height * width
            aspect = _WIDEST ** (2 * draw[1] - 1)
            rows, columns, down, across = (area / aspect) ** 0.5, (area * aspect) ** 0.5, draw[2], draw[3]
        rows, columns = min(height, rows), min(width, columns)
        top, left = down * (height - rows), across * (width - columns)
        right, bottom = left + columns, top + rows
        enough = size[1] / (right - left), size[0] / (bottom - top)
        # a JPEG decodes faster at a half, a quarter or an eighth of its size
        drafted = image.draft("RGB", (int(enough[0] * width) + 1, int(enough[1] * height) + 1))
        scale = drafted[1][2] / width if drafted else 1.0
        whole = image if image.mode == "RGB" else image.convert("RGB")  # which would copy one that is RGB
        window = scale * left, scale * top, scale * right, scale * bottom
        return np.asarray(whole.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=window))


def decoded(samples: np.ndarray, size: Sequence[int], draws: Tensor | None = None) -> Tensor:
    """Images `(n, 3, height, width) uint8` of `(n,)` bytes objects, each `cut` by its row of `draws`, `(n, 4)`."""
    windows = [None] * len(samples) if draws is None else draws.tolist()
    images = list(_THREADS.map(lambda data, draw: cut(data, size, draw), samples, windows))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
