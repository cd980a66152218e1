"""Encoded images."""

import io

import numpy as np
from PIL import Image


def encoded(width=64, height=64, mode="RGB", kind="JPEG", seed=0, colour=None, **options) -> bytes:
    """An image file: a few colours that run into each other, or a single one."""
    if colour is None:
        few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    else:
        image = Image.new(mode, (width, height), colour)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
