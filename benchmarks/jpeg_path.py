"""The path of encoded images, against decoders alone.

Images of ImageNet's usual sizes are made from random smooth pictures, encoded at quality 90. Decoding alone runs in one
thread, with torchvision's decoder (deprecated, to be removed) and with Pillow's. The path reads the same images from
storage, verifies their checksums, decodes them in as many threads as there are cores, cuts a random window and resizes
it to 224 x 224. Rounds take turns; values are medians. The last rows write 5 GB of such images through storage and swap
through an episodic memory of them once.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.common import row, seconds, table
from mirolib import Fingerprint, MemoryConfig, Storage, TieredMemory
from mirolib.data import Samples
from mirolib.data.images import decoded
from mirolib.data.stream import Task, make_ids

IMAGES, BATCH, ROUNDS, CLASSES = 256, 64, 5, 10
STORED_BYTES, STEPS = 5_000_000_000, 60


def run() -> pd.DataFrame:
    """Measures decoding, the path, and a store of real size."""
    images = _images()
    mean_bytes = int(np.mean([len(data) for data in images]))
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        storage = Storage(Path(folder) / "store", _fingerprint(mean_bytes))
        ids = make_ids(np.arange(IMAGES) % CLASSES, np.arange(IMAGES) // CLASSES)
        storage.put(ids, images)
        generator = torch.Generator().manual_seed(0)

        def path(part: np.ndarray) -> None:
            decoded(storage.read(ids[part]), (224, 224), torch.rand(len(part), 4, generator=generator))

        ways: dict[str, Callable[[np.ndarray], object]] = {
            "torchvision": lambda part: [_torchvision(data) for data in images[part]],
            "Pillow": lambda part: [Image.open(io.BytesIO(data)).convert("RGB") for data in images[part]],
            "path": path,
        }
        speed = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                for part in np.array_split(np.arange(IMAGES), IMAGES // BATCH):
                    speed[name].append(len(part) / seconds(lambda: way(part)))  # noqa: B023
        storage.close()
        rows = _store(Path(folder) / "large", images, mean_bytes)
    medians = {name: float(np.median(values)) for name, values in speed.items()}
    return table(
        [
            row("images, mean length", mean_bytes / 1000, "kB"),
            row("torchvision's decoder alone, one thread", medians["torchvision"], "images/s"),
            row("Pillow's decoder alone, one thread", medians["Pillow"], "images/s"),
            row("storage to 224 x 224", medians["path"], "images/s"),
            row("path / torchvision's decoder alone", medians["path"] / medians["torchvision"], "ratio", at_least=0.8),
            *rows,
        ]
    )


def _images() -> np.ndarray:
    """Encoded images of many sizes around 500 x 400, `(n,)` objects."""
    rng, images = np.random.default_rng(0), np.empty(IMAGES, dtype=object)
    for k in range(IMAGES):
        coarse = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        size = (int(rng.integers(400, 600)), int(rng.integers(300, 500)))
        file = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
        images[k] = file.getvalue()
    return images


def _torchvision(data: bytes) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def _fingerprint(mean_bytes: int) -> Fingerprint:
    return Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, (), "object", mean_bytes)


def _store(path: Path, images: np.ndarray, mean_bytes: int) -> list[dict[str, object]]:
    """Writes images until there are 5 GB, then trains' own exchange over an episodic memory of a tenth of them."""
    count = STORED_BYTES // mean_bytes // CLASSES * CLASSES
    labels = np.arange(count) % CLASSES
    ids = make_ids(labels, np.arange(count) // CLASSES)
    storage = Storage(path, _fingerprint(mean_bytes))
    memory = TieredMemory(storage, MemoryConfig(100, count // 10, 1.0), CLASSES)
    repeated = Samples(_Repeated(images), labels, np.arange(count))
    nothing = Samples(_Repeated(images), labels[:0], np.arange(0))
    task = Task(0, tuple(range(CLASSES)), repeated, ids, nothing, ids[:0])
    with memory:
        written = seconds(lambda: memory.receive(task))
        memory.retain(task)
        memory.stream_buffer.clear()
        start, swapped = time.perf_counter(), memory.counts.swapped
        for step, batch in enumerate(memory.batches(BATCH)):
            memory.swap(batch)
            if step == STEPS:
                break
        memory.settle()
        passed = time.perf_counter() - start
        swapped = memory.counts.swapped - swapped
    return [
        row("5 GB written, with fsync", count * mean_bytes / 1e6 / written, "MB/s"),
        row("images swapped in, nothing else to do", swapped / passed, "images/s"),
        row("… which is", swapped / passed * mean_bytes / 1e6, "MB/s"),
    ]


class _Repeated:
    """The same images over and over, as many as are asked for."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._images[rows % len(self._images)]
