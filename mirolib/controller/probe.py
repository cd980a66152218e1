"""The probe: a linear head for each candidate on features that are extracted once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mirolib.base.errors import InputError
from mirolib.controller.profiler import Profiler, ProfileRequest, smoothed
from mirolib.data.stream import Task, labels_of, rank_in_class
from mirolib.learning.learner import Learner
from mirolib.memory.available_memory import check_available
from mirolib.memory.buffers import balanced_quotas
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory

_LEAST_SHARE = 0.25  # at a quarter it still ranks nearly as well as on all samples (docs/miro_2023.md)


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
        classes, old_classes = len(request.task.classes), len(request.memory.episodic_memory.classes)
        sizes = [
            (max(round(share * c.stream_size), classes), max(round(old_share * count), old_classes))
            for c, count in zip(request.candidates, seen, strict=True)
        ]
        memory = request.memory
        width = request.validation_features.shape[1] + 1
        what = f"Probing {len(sizes)} candidates on {width - 1} features"
        check_available(6 * len(sizes) * width**2 * 8, what, "a model with fewer features, or profiler='trial'")
        streamed, replayed = zip(*sizes, strict=True)
        gram, moment = _sums(request, memory.stream_buffer.order[: max(streamed)], streamed)
        if seen.any():
            ids = old_ids(memory, max(replayed), np.random.default_rng(request.seed))
            old_gram, old_moment = _sums(request, ids, replayed)
            weight = torch.from_numpy(share * held / (old_share * seen))[:, None, None]
            gram, moment = gram + weight * old_gram, moment + weight * old_moment
        ridge = self.penalty * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        weights = torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(width, dtype=gram.dtype), moment)
        predicted = (_scaled(request, request.validation_features) @ weights).argmax(dim=2).numpy()
        found = (predicted == request.validation_labels).mean(axis=1)
        return smoothed(request.candidates, found, self.size_weight) if self.smooth else found


def _scaled(request: ProfileRequest, features: Tensor) -> Tensor:
    """Features `(n, d)` without mean and deviation of the validation samples, with a constant: `(n, d + 1) float64`."""
    reference = request.validation_features.cpu().double()
    deviation = reference.std(dim=0, correction=0)
    # what does not vary over the validation samples, as a unit that never fires, is left out of account
    scale = torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation.clamp_min(1e-30), 0.0)
    scaled = (features.cpu().double() - reference.mean(dim=0)) * scale
    return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1)


def _sums(request: ProfileRequest, ids: np.ndarray, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gram matrices `(len(counts), d, d)` and moments `(len(counts), d, classes)` of the first so many samples."""
    features = _scaled(request, request.features(ids))
    targets = 2 * one_hot(torch.from_numpy(labels_of(ids)), request.learner.num_classes).double() - 1
    counts = [min(count, len(ids)) for count in counts]
    zeros, width = features.new_zeros, features.shape[1]
    found = {0: (zeros(width, width), zeros(width, targets.shape[1]))}
    for count in counts:
        if count not in found:  # each sample is added once
            known = max(size for size in found if size < count)
            more, (gram, moment) = features[known:count], found[known]
            found[count] = (gram + more.T @ more, moment + more.T @ targets[known:count])
    grams, moments = zip(*(found[count] for count in counts), strict=True)
    return torch.stack(grams), torch.stack(moments)


def old_ids(memory: TieredMemory, count: int, rng: np.random.Generator) -> np.ndarray:
    """Ids of old samples in an order of which every prefix is class-balanced: those held first, then of storage.

    An episodic memory of `k` samples holds about what the first `k` are. They are `(n,) int64`, `n < count` where fewer
    can be reached.
    """
    quotas = balanced_quotas(count, memory.reachable())
    held = rng.permutation(memory.episodic_memory.array.ids)
    kept = held[rank_in_class(labels_of(held)) < quotas[labels_of(held)]]
    lacking = quotas - np.bincount(labels_of(kept), minlength=len(quotas))
    absent = memory.episodic_memory.draw_absent(np.repeat(np.arange(len(quotas)), lacking), rng)
    ids = np.concatenate([kept, absent[absent >= 0]])
    return ids[np.argsort(rank_in_class(labels_of(ids)), kind="stable")]
