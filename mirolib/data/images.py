"""Encoded images: listed in their folders, and decoded and cut to size on the processor, an image a thread.

Pillow decodes, since torchvision's decoder is to be removed; `benchmarks/jpeg_path.py` compares the two.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Samples
from mirolib.data.files import list_files

_IMAGE = r"[^.].*\.(jpe?g|png|webp|bmp)"  # macOS leaves a file ._name beside each on foreign disks
_THREADS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="miro-decoder")
_LEAST_AREA, _WIDEST = 0.08, 4 / 3  # torchvision's
_LIVING: WeakSet[ImageFiles] = WeakSet()


class ImageFiles:
    """Encoded images in files, read when they are asked for; an index of some 30 bytes an image.

    Attributes:
        names: Path of each file below the folder, `(n,)` byte strings.
        size_bytes: Length of each file, `(n,) int32`.
    """

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


def listed(folder: Path, part: str, classes: Sequence[str]) -> Samples:
    """The images of some classes, by class and name: those in `folder/part/<class>`.

    Raises:
        InputError: If there is none, one is empty, or a folder can't be read.
    """
    names, sizes, labels = [], [], []
    for label, name in enumerate(tqdm(classes, desc=f"listing {part}", unit="class", disable=len(classes) < 100)):
        found, place = list_files(folder / part / name, _IMAGE), os.path.join(part, name, "")
        # as bytes, since a character of NumPy's texts takes four
        names += [os.fsencode(place + file) for file, *_ in found]
        sizes += [size_bytes for _, size_bytes, _ in found]
        labels += [label] * len(found)
    if not names:
        raise InputError(f"There are no images in the folders of classes in {folder / part}; put them there.")
    files = ImageFiles(folder, np.array(names), np.array(sizes, dtype=np.int32))
    if not files.size_bytes.all():
        raise InputError(f"The image {files.paths(files.size_bytes == 0)[0]} is empty; replace or remove it.")
    return Samples(files, np.array(labels, dtype=np.int64), np.arange(len(names)))


def cut(data: bytes, size: Sequence[int], draw: Sequence[float] | None = None) -> np.ndarray:
    """An encoded image decoded and brought to `size`, height and width: `(height, width, 3) uint8`.

    A random window takes 8 to 100 % of the area, at an aspect ratio of 3/4 to 4/3, as in torchvision's
    `RandomResizedCrop`; four numbers in [0, 1) choose it. The middle, without them, is seven eighths of the shorter
    side, which is resizing to 256 and cropping 224. There is an `InputError` if it is no image, or cut short.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            window = _window(width, height, size, draw)
            enough = size[1] / (window[2] - window[0]), size[0] / (window[3] - window[1])
            # a JPEG decodes faster at a half, a quarter or an eighth of its size
            drafted = image.draft("RGB", (int(enough[0] * width) + 1, int(enough[1] * height) + 1))
            scale = drafted[1][2] / width if drafted else 1.0
            image.load()
            image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy one that is RGB
    except Exception as error:  # a decoder meets damage in many ways
        why = "it is none" if isinstance(error, UnidentifiedImageError) else error
        which = f"The image {path}" if (path := _origin(data)) else f"An image of {len(data)} bytes"
        raise InputError(f"{which} can't be decoded ({why}); replace its file.") from error
    left, top, right, bottom = (scale * edge for edge in window)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _origin(data: bytes) -> Path | None:
    """Where an image lies, which may have been through a store since it was read."""
    for files in list(_LIVING):
        for path in files.paths(np.flatnonzero(files.size_bytes == len(data))):
            with contextlib.suppress(OSError):
                if path.read_bytes() == data:
                    return path
    return None


def _window(
    width: int, height: int, size: Sequence[int], draw: Sequence[float] | None
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is cut from an image, see `cut`."""
    if draw is None:
        share = 7 / 8 * min(height / size[0], width / size[1])
        rows, columns, down, across = share * size[0], share * size[1], 0.5, 0.5
    else:
        area = (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0]) * height * width
        aspect = _WIDEST ** (2 * draw[1] - 1)
        rows, columns, down, across = (area / aspect) ** 0.5, (area * aspect) ** 0.5, draw[2], draw[3]
    rows, columns = min(height, rows), min(width, columns)
    top, left = down * (height - rows), across * (width - columns)
    return left, top, left + columns, top + rows


def decoded(samples: np.ndarray, size: Sequence[int], draws: Tensor | None = None) -> Tensor:
    """Images `(n, 3, height, width) uint8` of `(n,)` bytes objects, each `cut` by its row of `draws`, `(n, 4)`."""
    windows = [None] * len(samples) if draws is None else draws.tolist()
    images = list(_THREADS.map(lambda data, draw: cut(data, size, draw), samples, windows))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
