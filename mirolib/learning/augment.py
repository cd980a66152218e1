"""From raw samples to the tensors a model sees: crop, mirror and normalise, a whole batch at a time on its device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mirolib.data import DatasetSpec
from mirolib.data.images import decoded


class Transform:
    """The augmentation and normalisation of a data set's spec.

    Encoded images are decoded and cut to size first. Crop and mirror act on raw bytes, where a
    sample is four times smaller than its float form; zero padding is therefore black, as in torchvision's `RandomCrop`
    before `ToTensor`.
    """

    def __init__(self, spec: DatasetSpec, device: torch.device, seed: int) -> None:
        """Draws come from an own generator on `device`, seeded with `seed`."""
        self._spec, self._device = spec, device
        self.generator = torch.Generator(device).manual_seed(seed)
        shape = [1] * len(spec.sample_shape)
        shape[spec.channel_axis] = -1
        mean = torch.tensor(spec.mean, device=device).reshape(shape)
        std = torch.tensor(spec.std, device=device).reshape(shape)
        self._gain, self._offset = 1 / (spec.scale * std), -mean / std

    def with_seed(self, seed: int) -> Transform:
        """The same transform with draws of its own."""
        return Transform(self._spec, self._device, seed)

    def train(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to augmented, normalised float32 on the device."""
        raw = self._uploaded(samples, random=True)
        if self._spec.crop_padding or self._spec.flip:
            raw = self._crop_and_mirror(raw)
        return self._normalise(raw)

    def evaluate(self, samples: np.ndarray) -> Tensor:
        """Raw samples `(n, *sample_shape)` to normalised float32 on the device."""
        return self._normalise(self._uploaded(samples, random=False))

    def _uploaded(self, samples: np.ndarray, random: bool) -> Tensor:
        if not self._spec.encoded:
            # a view of stored bytes is read-only, of which PyTorch would warn
            return torch.from_numpy(np.require(samples, requirements="W")).to(self._device)
        draws = torch.rand(len(samples), 4, generator=self.generator, device=self._device) if random else None
        return decoded(samples, self._spec.sample_shape[1:], draws).to(self._device)

    def _crop_and_mirror(self, raw: Tensor) -> Tensor:
        """A window of the original size at a random place of each zero-padded image, mirrored or not."""
        (n, channels, height, width), p = raw.shape, self._spec.crop_padding
        padded = functional.pad(raw, (p, p, p, p)).flatten(2)
        at = torch.randint(0, 2 * p + 1, (2, n, 1), generator=self.generator, device=self._device)
        rows, columns = (torch.arange(size, device=self._device) for size in (height, width))
        columns = columns.expand(n, width)
        if self._spec.flip:
            mirrored = torch.rand(n, 1, generator=self.generator, device=self._device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        # one gather, since a loop over images would launch a kernel or more for each
        places = ((at[0] + rows) * (width + 2 * p))[:, :, None] + (at[1] + columns)[:, None, :]
        return padded.gather(2, places.view(n, 1, -1).expand(n, channels, -1)).view(raw.shape)

    def _normalise(self, raw: Tensor) -> Tensor:
        # a copy, since what follows writes to it, and samples that are float32 may be the memory's own
        return raw.to(torch.float32, copy=True).mul_(self._gain).add_(self._offset)
