"""Ways to profile that were measured and are not the library's: see `benchmarks.miro_2023`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirolib.controller.profiler import Profiler, ProfileRequest
from mirolib.controller.trials import train_on_copy
from mirolib.learning.learner import Learner


def _seeds(request: ProfileRequest, count: int) -> list[int]:
    return np.random.SeedSequence(request.seed).generate_state(count).tolist()


def _finished(clone: Learner, request: ProfileRequest) -> float:
    """Validation accuracy of a clone if its training ended here; it can be trained on."""
    judged = clone.clone(request.seed)
    judged.method.finish(judged, request.task, request.memory)
    return request.accuracy(judged)


@dataclass(frozen=True)
class HalvingProfiler(Profiler):
    """Successive halving (Jamieson and Talwalkar, 2016): each round trains the better half of the clones twice as long.

    A clone that leaves scores less than every one that stays.

    Attributes:
        epochs: Epochs of the first round.
    """

    epochs: int = 1
    name = "halving"

    def scores(self, request: ProfileRequest) -> np.ndarray:
        """Accuracy in the last round a candidate took part in, plus the number of that round."""
        candidates = request.candidates
        clones = [request.learner.clone(seed) for seed in _seeds(request, len(candidates))]
        found, left, epochs, round_ = np.zeros(len(candidates)), np.arange(len(candidates)), self.epochs, 0
        while True:
            for k in left:
                train_on_copy(clones[k], request.memory, request.seed + round_, candidates[k], epochs)
                found[k] = round_ + _finished(clones[k], request)
            if len(left) == 1 or 2 * epochs > request.learner.epochs:
                return found
            left = left[np.argsort(-found[left], kind="stable")[: -(-len(left) // 2)]]
            epochs, round_ = 2 * epochs, round_ + 1


@dataclass(frozen=True)
class ExtrapolatingProfiler(Profiler):
    """Learning curves continued as a power law: the error after each epoch, a line in logarithms, up to the last epoch.

    Attributes:
        epochs: Epochs that are trained.
    """

    epochs: int = 4
    name = "extrapolated"

    def scores(self, request: ProfileRequest) -> np.ndarray:
        """Accuracy that each candidate's curve points to."""
        seeds = _seeds(request, len(request.candidates))
        return np.array([self._end(request, k, seed) for k, seed in enumerate(seeds)])

    def _end(self, request: ProfileRequest, k: int, seed: int) -> float:
        clone, errors = request.learner.clone(seed), []
        for epoch in range(self.epochs):
            train_on_copy(clone, request.memory, seed + epoch, request.candidates[k], 1)
            errors.append(max(1 - _finished(clone, request), 0.005))
        slope, intercept = np.polyfit(np.log(np.arange(1, self.epochs + 1)), np.log(errors), 1)
        return 1 - float(np.exp(intercept + slope * np.log(request.learner.epochs)))
