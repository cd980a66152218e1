"""From raw samples to the tensors a model sees: crop, mirror and normalise, a whole batch at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from mirolib.data import DatasetSpec
from mirolib.data.images import decoded


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
