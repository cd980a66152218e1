"""The probe: a linear head for each candidate on features that are extracted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mirolib.base.errors import InputError
from mirolib.controller.profiler import Profiler, ProfileRequest, smoothed
from mirolib.data.stream import Task, labels_of, rank_in_class
from mirolib.learning.learner import Learner
from mirolib.memory.available_memory import check_available
from mirolib.memory.buffers import balanced_quotas
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory

_LEAST_SHARE = 0.25  # at a quarter it still ranks nearly as well as on all samples (docs/controller.md)


@dataclass(frozen=True)
class ProbeProfiler(Profiler):
    """Ridge regression on features of the live model.

    Features of the largest candidate's samples and of validation samples are extracted once, without training. A
    candidate's head is fitted, on the processor, on its own samples: a prefix of the new task's and a prefix of the old
    ones, so that the sums that ridge regression needs are shared by all candidates. Where the episodic memory is
    swapped, training sees more old samples than it holds at a time: the head is fitted on as many as are expected,
    weighted so that together they count as those held. Where all this would cost more than `work_share` of a training,
    every candidate is probed on the same fraction of its samples, down to a quarter of those held.

    Attributes:
        work_share: Most work as a share of training the middle candidate, a forward pass counting as a third of a
            training step's sample visit.
        penalty: Ridge penalty as a share of the mean eigenvalue of the Gram matrix.
        smooth: Whether scores are drawn to a smooth surface over the sizes.
        size_weight: What that surface grants to mere size (see `smoothed`): a refitted head can't tell how much more
            samples would improve the features, which training them does.
        swapping: Whether old samples that swapping brings in are taken into account.
    """

    work_share: float = 0.03
    penalty: float = 0.1
    smooth: bool = True
    size_weight: float = 1.0
    swapping: bool = True
    name = "probe"
    needs_past = True

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not (self.work_share > 0 and self.penalty > 0 and self.size_weight >= 0):
            raise InputError("The probe's work_share and penalty must be above 0, its size_weight 0 or more.")

    def request(
        self, task: Task, learner: Learner, memory: TieredMemory, candidates: Sequence[MemoryConfig], seed: int
    ) -> ProfileRequest:
        """At most a third of the work goes into validation samples, ten a class at least."""
        most = max(self._affordable(learner, candidates) // 3, 10 * learner.num_classes)
        return ProfileRequest(task, learner, memory, candidates, seed, most)

    def _old_samples(self, request: ProfileRequest, candidate: MemoryConfig) -> tuple[float, float]:
        """Old samples that a candidate's episodic memory holds at a time, and that training is expected to see."""
        stored = int(request.memory.reachable().sum()) if request.learner.method.replays else 0
        held = min(candidate.episodic_size, stored)
        if not held:
            return 0.0, 0.0
        # After each epoch but the last that share of the memory is exchanged for samples drawn anew.
        draws = 1 + self.swapping * candidate.swap_ratio * (request.learner.epochs - 1)
        return held, stored * (1 - (1 - held / stored) ** draws)

    def _affordable(self, learner: Learner, candidates: Sequence[MemoryConfig]) -> int:
        """Forward passes that the work share pays for."""
        middle = float(np.median([c.stream_size + c.episodic_size for c in candidates]))
        return int(3 * self.work_share * learner.epochs * middle)

    def scores(self, request: ProfileRequest) -> np.ndarray:
        """Validation accuracy of each candidate's head."""
        new = max(c.stream_size for c in request.candidates)
        held, seen = np.array([self._old_samples(request, c) for c in request.candidates]).T
        left = self._affordable(request.learner, request.candidates) - len(request.validation_ids)
        share = min(1.0, max(left / (new + held.max()), _LEAST_SHARE))
        old_share = min(1.0, max(left - share * new, share * held.max()) / max(seen.max(), 1))
        classes, old_classes = len(request.task.classes), request.task.classes[0]
        sizes = [
            (max(round(share * c.stream_size), classes), max(round(old_share * count), old_classes))
            for c, count in zip(request.candidates, seen, strict=True)
        ]
        rng = np.random.default_rng(request.seed)
        memory = request.memory
        width = request.validation_features.shape[1] + 1
        what = f"Probing {len(sizes)} candidates on {width - 1} features"
        check_available(6 * len(sizes) * width**2 * 8, what, "a model with fewer features, or profiler='trial'")
        scaling = _Scaling(request.validation_features)
        streamed = _Prefixes(request, scaling, memory.stream_buffer.first(max(s for s, _ in sizes)))
        gram, moment = streamed.sums([s for s, _ in sizes])
        if seen.any():
            replayed = _Prefixes(request, scaling, old_ids(memory, max(e for _, e in sizes), rng))
            old_gram, old_moment = replayed.sums([e for _, e in sizes])
            weight = torch.from_numpy(share * held / (old_share * seen))[:, None, None]
            gram, moment = gram + weight * old_gram, moment + weight * old_moment
        found = self._accuracies(gram, moment, scaling.of(request.validation_features), request.validation_labels)
        return smoothed(request.candidates, found, self.size_weight) if self.smooth else found

    def _accuracies(self, gram: Tensor, moment: Tensor, features: Tensor, labels: np.ndarray) -> np.ndarray:
        """Share of the validation samples that each candidate's head gets right.

        Args:
            gram: Gram matrices `(candidates, d, d)`.
            moment: Moments `(candidates, d, classes)`.
            features: Of the validation samples, `(n, d)`.
            labels: Theirs, `(n,)`.
        """
        ridge = self.penalty * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        weights = torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype), moment)
        predicted = (features @ weights).argmax(dim=2).numpy()
        return (predicted == labels).mean(axis=1)


class _Scaling:
    """Takes mean and deviation of the validation samples out of features and puts a constant beside them.

    What does not vary over the validation samples, as a unit that never fires, is left out of account.
    """

    def __init__(self, reference: Tensor) -> None:
        """Measures the validation samples' features `(n, d)`."""
        reference = reference.cpu().double()
        deviation = reference.std(dim=0, correction=0)
        self._mean = reference.mean(dim=0)
        self._scale = torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation.clamp_min(1e-30), 0.0)

    def of(self, features: Tensor) -> Tensor:
        """Scaled features `(n, d + 1) float64`."""
        scaled = (features.cpu().double() - self._mean) * self._scale
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1)


class _Prefixes:
    """Gram matrix and moments of every prefix of some samples that is asked for, each sample added once."""

    def __init__(self, request: ProfileRequest, scaling: _Scaling, ids: np.ndarray) -> None:
        """Extracts the features of the samples `ids`."""
        self._features = scaling.of(request.features(ids))
        labels = torch.from_numpy(labels_of(ids))
        self._targets = torch.full((len(ids), request.learner.num_classes), -1.0, dtype=torch.float64)
        self._targets.scatter_(1, labels[:, None], 1.0)
        width = self._features.shape[1]
        zeros = self._features.new_zeros
        self._sums = {0: (zeros(width, width), zeros(width, self._targets.shape[1]))}

    def sums(self, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Gram matrices `(len(counts), d, d)` and moments `(len(counts), d, classes)` of the first samples."""
        grams, moments = zip(*(self._sum(min(count, len(self._features))) for count in counts), strict=True)
        return torch.stack(grams), torch.stack(moments)

    def _sum(self, count: int) -> tuple[Tensor, Tensor]:
        """Gram matrix `(d, d)` and moments `(d, classes)` of the first `count` samples."""
        if count not in self._sums:
            known = max(size for size in self._sums if size < count)
            gram, moment = self._sums[known]
            features, targets = self._features[known:count], self._targets[known:count]
            self._sums[count] = (gram + features.T @ features, moment + features.T @ targets)
        return self._sums[count]


def old_ids(memory: TieredMemory, count: int, rng: np.random.Generator) -> np.ndarray:
    """Ids of old samples in an order of which every prefix is class-balanced: those held first, then of storage.

    An episodic memory of `k` samples holds about what the first `k` are.

    Args:
        memory: The memory.
        count: Most ids.
        rng: Draws the order.

    Returns:
        `(n,) int64`, `n <= count` where fewer can be reached.
    """
    quotas = balanced_quotas(count, memory.reachable())
    held = rng.permutation(memory.episodic_memory.array.ids)
    kept = held[rank_in_class(labels_of(held)) < quotas[labels_of(held)]]
    lacking = quotas - np.bincount(labels_of(kept), minlength=len(quotas))
    absent = memory.episodic_memory.draw_absent(np.repeat(np.arange(len(quotas)), lacking), rng)
    ids = np.concatenate([kept, absent[absent >= 0]])
    return ids[np.argsort(rank_in_class(labels_of(ids)), kind="stable")]
