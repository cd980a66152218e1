"""What a model is given: the user's samples checked against the spec, and features taken from them in batches."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from mirolib.base.errors import InputError
from mirolib.base.files import read_bounded
from mirolib.data import DatasetSpec
from mirolib.data.arrays import arranged, checked
from mirolib.data.audio import log_mel
from mirolib.data.images import decoded, picture
from mirolib.learning.models import evaluating, features_of

FORWARD_BATCH = 512
"""Samples in a forward pass without training, which bounds its memory, however many are given."""


@dataclass
class Tally:
    """Samples that went through a training step, or a forward pass alone, so far; a learner's clones count with it."""

    visits: int = 0
    forward_visits: int = 0


class Transform:
    """The augmentation and normalisation of a data set's spec.

    Encoded images are decoded and cut to size first. Crop and mirror act on raw bytes in RAM, where a sample is four
    times smaller than its float form; zero padding is therefore black, as in torchvision's `RandomCrop` before
    `ToTensor`.
    """

    def __init__(self, spec: DatasetSpec, device: torch.device, seed: int) -> None:
        """Draws come from an own generator, seeded with `seed`, and are the same on every device."""
        self._spec, self._device = spec, device
        self.generator = torch.Generator().manual_seed(seed)
        shape = [1] * len(spec.sample_shape)
        shape[spec.channel_axis] = -1
        mean = torch.tensor(spec.mean, device=device).reshape(shape)
        std = torch.tensor(spec.std, device=device).reshape(shape)
        self.gain, self.offset = 1 / (spec.scale * std), -mean / std

    def train(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to augmented, normalised float32 on the device."""
        raw = self._cut(samples, torch.rand(len(samples), 4, generator=self.generator) if self._spec.encoded else None)
        return self._normalised(self._crop_and_mirror(raw) if self._spec.crop_padding or self._spec.flip else raw)

    def evaluate(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to normalised float32 on the device."""
        return self._normalised(self._cut(samples, None))

    def _cut(self, samples: np.ndarray, draws: Tensor | None) -> np.ndarray:
        """Encoded images decoded and cut to size; other samples as they are."""
        return decoded(samples, self._spec.sample_shape[1:], draws).numpy() if self._spec.encoded else samples

    def _crop_and_mirror(self, raw: np.ndarray) -> np.ndarray:
        """A window of the original size at a random place of each zero-padded image, mirrored or not."""
        (n, channels, height, width), p = raw.shape, self._spec.crop_padding
        padded = np.zeros((n, channels, height + 2 * p, width + 2 * p), dtype=raw.dtype)
        padded[:, :, p : p + height, p : p + width] = raw
        rows, columns = torch.randint(0, 2 * p + 1, (2, n), generator=self.generator).numpy()
        draws = torch.rand(n, generator=self.generator).numpy() if self._spec.flip else np.ones(n)
        windows, cut = sliding_window_view(padded, (height, width), axis=(2, 3)), np.empty_like(raw)
        for is_mirrored, step in ((False, 1), (True, -1)):
            those = np.flatnonzero((draws < 0.5) == is_mirrored)
            cut[those] = windows[those, :, rows[those], columns[those], :, ::step]
        return cut

    def _normalised(self, raw: np.ndarray) -> Tensor:
        # a view of stored bytes is read-only, of which PyTorch would warn
        samples = torch.from_numpy(np.require(raw, requirements="W")).to(self._device)
        # a copy, since what follows writes to it, and samples that are float32 may be the memory's own
        return samples.to(torch.float32, copy=True).mul_(self.gain).add_(self.offset)


def taken(samples: Any, spec: DatasetSpec) -> np.ndarray:
    """The user's samples as a model of the spec takes them, `(n, *sample_shape)` in its type.

    They may have the spec's own shape (which goes first), the layout that the user's arrays had, or lack the first axis
    where it has length 1, as grey images do. Numbers become float32 where the spec says so; nothing else is converted.
    Encoded images, `(n,)`, are bytes, or paths of their files; paths may also be given where the data set was read from
    files of images or sounds. Data frames are brought into the order of the training columns. There is an `InputError`
    if they have another shape or type, or hold NaN or infinite values.
    """
    many = hasattr(samples, "__len__") and not isinstance(samples, str | bytes)
    if not many or not getattr(samples, "ndim", 1) or not len(samples):
        raise InputError(f"The given samples are {samples!r:.40}; give an array (n, ...) with n > 0.")
    if spec.encoded:
        found = np.empty(len(samples), dtype=object)
        found[:] = [_encoded(number, one) for number, one in enumerate(samples)]
        return found
    if spec.layout == "images" and all(isinstance(one, str | os.PathLike) for one in samples):
        read = partial(log_mel, seconds=spec.seconds) if spec.seconds else partial(picture, shape=spec.sample_shape)
        samples = np.stack([read(Path(one)) for one in samples])
    found, _ = checked(samples, np.zeros(len(samples), dtype=int), "given", spec.columns)
    given = f"{found.shape[1:]} {found.dtype}"
    if spec.layout and found.shape[1:] != spec.sample_shape:
        found = arranged(found, spec.layout)
    elif (1, *found.shape[1:]) == spec.sample_shape:
        found = found[:, None]
    if found.ndim == 4 and found.shape[1:] != spec.sample_shape == (found.shape[-1], *found.shape[1:3]):
        found = arranged(found, "channels-last")
    if (found.shape[1:], str(found.dtype)) != (spec.sample_shape, spec.sample_dtype):
        layout = f", or laid out as {spec.layout}" if spec.layout else ""
        layout += ", one or more at once" * (np.shape(samples) == spec.sample_shape)
        raise InputError(
            f"The given samples are {given}, but this model takes {spec.sample_shape} {spec.sample_dtype} as those of "
            f"{spec.name:.99} are{layout}; give such ones, of the same size and scale."
        )
    return np.ascontiguousarray(found)


def _encoded(number: int, one: object) -> bytes:
    """An encoded image, read from its file where it is a path."""
    if isinstance(one, str | os.PathLike):
        try:
            return read_bounded(one)
        except (OSError, ValueError) as error:
            raise InputError(f"The image {one} can't be read: {getattr(error, 'strerror', error)}.") from error
    if not isinstance(one, bytes):
        raise InputError(f"Sample {number} is {type(one).__name__}; give encoded images as bytes, or their paths.")
    return one


def features_in_batches(
    backbone: nn.Module, transform: Transform, layout: torch.memory_format, samples: np.ndarray
) -> Tensor:
    """Features `(n, d) float32` on the device of raw samples `(n, *sample_shape)`, without augmentation.

    The model is left as it was, the statistics of its normalisation layers included.
    """
    with evaluating(backbone), torch.no_grad():
        parts = np.array_split(samples, max(1, -(-len(samples) // FORWARD_BATCH)))
        inputs = (transform.evaluate(part).contiguous(memory_format=layout) for part in parts)
        return torch.cat([features_of(backbone, part) for part in inputs])


def layout_of(model: nn.Module, name: str) -> torch.memory_format:
    """The memory layout for a model: channels last, which trains convolutions faster, if it has any."""
    # one of the user's own, which has no name, may count on what PyTorch does by itself
    convolves = name and any(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolves else torch.contiguous_format


def usable_device(device: str) -> torch.device:
    """A device on which a tensor can be made, or a sentence on why not."""
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"no training on {chosen.type}")
        torch.zeros(1, device=chosen)  # only now a driver that is missing or out of memory is noticed
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"Device {device!r} can't be used here ({str(error).splitlines()[0]}); use cpu.") from error
    return chosen
