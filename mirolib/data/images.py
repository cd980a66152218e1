"""Encoded images: decoded and cut to size on the processor, an image a thread.

Pillow decodes, since torchvision's decoder is to be removed; `benchmarks/jpeg_path.py` compares the two.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mirolib.base.errors import InputError

_THREADS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="miro-decoder")
_LEAST_AREA, _WIDEST = 0.08, 4 / 3  # torchvision's


def cut(data: bytes, size: Sequence[int], draw: Sequence[float] | None = None) -> np.ndarray:
    """An encoded image decoded and brought to a size.

    A random window takes 8 to 100 % of the area, at an aspect ratio of 3/4 to 4/3, as in torchvision's
    `RandomResizedCrop`; four numbers in [0, 1) choose it. The middle, without them, is seven eighths of the shorter
    side, which is resizing to 256 and cropping 224.

    Returns:
        `(height, width, 3) uint8`, where `size` is height and width.
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
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"An image of {len(data)} bytes can't be decoded ({error}); replace its file.") from error
    left, top, right, bottom = (scale * edge for edge in window)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _window(
    width: int, height: int, size: Sequence[int], draw: Sequence[float] | None
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is cut from an image, see `cut`."""
    if draw is None:
        share = 7 / 8 * min(height / size[0], width / size[1])
        wanted = share * size[0], share * size[1]
        place = 0.5, 0.5
    else:
        area = (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0]) * height * width
        aspect = _WIDEST ** (2 * draw[1] - 1)
        wanted = (area / aspect) ** 0.5, (area * aspect) ** 0.5
        place = draw[2], draw[3]
    rows, columns = min(height, wanted[0]), min(width, wanted[1])
    top, left = place[0] * (height - rows), place[1] * (width - columns)
    return left, top, left + columns, top + rows


def decoded(samples: np.ndarray, size: Sequence[int], draws: Tensor | None = None) -> Tensor:
    """Encoded images, `(n,)` bytes objects, each decoded and cut by its row of `draws`, `(n, 4)`; see `cut`.

    Returns:
        `(n, 3, height, width) uint8`.

    Raises:
        InputError: If one is no image, or cut short.
    """
    windows = [None] * len(samples) if draws is None else draws.tolist()
    images = list(_THREADS.map(lambda data, draw: cut(data, size, draw), samples, windows))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
