"""From raw samples to the tensors a model sees: crop, mirror and normalise, a whole batch at a time on its device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mirolib.datasets import DatasetSpec


class Transform:
    """The augmentation and normalisation of a data set's spec.

    Crop and mirror act on raw bytes, where a sample is four times smaller than its float form; zero padding is
    therefore black, as in torchvision's `RandomCrop` before `ToTensor`.
    """

    def __init__(self, spec: DatasetSpec, device: torch.device, seed: int) -> None:
        """Draws come from an own generator on `device`, seeded with `seed`."""
        self._padding, self._flip = spec.crop_padding, spec.flip
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        shape = (-1, *(1,) * (len(spec.sample_shape) - 1)) if len(spec.mean) > 1 else ()
        mean = torch.tensor(spec.mean, device=device).reshape(shape)
        std = torch.tensor(spec.std, device=device).reshape(shape)
        self._gain, self._offset = 1 / (spec.scale * std), -mean / std

    def train(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to augmented, normalised float32 on the device."""
        raw = self._upload(samples)
        if self._padding:
            raw = self._crop(raw)
        if self._flip:
            mirrored = torch.rand(len(raw), generator=self._generator, device=self._device) < 0.5
            raw = torch.where(mirrored.view(-1, *(1,) * (raw.ndim - 1)), raw.flip(-1), raw)
        return self._normalise(raw)

    def evaluate(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to normalised float32 on the device."""
        return self._normalise(self._upload(samples))

    def _upload(self, samples: np.ndarray) -> Tensor:
        return torch.from_numpy(np.require(samples, requirements="W")).to(self._device)

    def _crop(self, raw: Tensor) -> Tensor:
        """A window of the original size at a random place of each zero-padded image."""
        p, (height, width) = self._padding, raw.shape[-2:]
        windows = functional.pad(raw, (p, p, p, p)).unfold(2, height, 1).unfold(3, width, 1)
        at = torch.randint(0, 2 * p + 1, (2, len(raw)), generator=self._generator, device=self._device)
        return windows[torch.arange(len(raw), device=self._device), :, at[0], at[1]]

    def _normalise(self, raw: Tensor) -> Tensor:
        return torch.mul(raw, self._gain).add_(self._offset)
