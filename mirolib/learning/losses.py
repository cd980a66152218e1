"""Losses by name, of logits `(n, classes)` against labels `(n,) int64`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on one-hot targets, mean over samples and classes (the paper's loss)."""
    targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
    return functional.binary_cross_entropy_with_logits(logits, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    # summed over classes: what one class teaches does not shrink as others are added
    "bce-sum": lambda logits, labels: binary_cross_entropy(logits, labels) * logits.shape[1],
    "ce": functional.cross_entropy,
}
