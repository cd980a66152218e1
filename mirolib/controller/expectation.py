"""What training with a configuration is expected to reach and to cost: each finished task is a free measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.optimize import nnls

from mirolib.energy import Reading, in_windows, total_energy_j

# Intercept and slope of the calibration's line and how far they may be off, set on tables of runs with other seeds
# than those that docs/miro_2023.md reports.
_PRIOR, _DEVIATIONS = (-0.3, 0.7), (1.0, 0.15)
_NOISE = 0.3  # standard deviation of a measurement, in logarithms of the error
_PSEUDO_NOISE = 0.8  # wide: that one task will be like the last is less than a measurement
_LEAST_ERROR = 0.005  # the logarithm of no error at all would be infinite
_LEAST_SLOPE = 0.05  # above zero, so that a better score never means a lower accuracy
_NEARLY_ALL = -0.05  # logarithm of an error of 95 %

# Visits of the largest task over those of the smallest from which on a fixed part can be told from the rest.
_SPREAD = 1.5
_DRAWN = 0.1  # weight, beside a task's relative error, that draws fixed and per-byte part to zero


@dataclass
class Calibration:
    """Bayesian regression of the logarithm of the error that training reached on that of the profiler.

    The two are taken to lie on a line in logarithms, which moves slowly from task to task, so that older measurements
    count for less; docs/miro_2023.md says how far off the result is. Before any task is finished the prior decides.
    """

    forgetting: float = 0.5  # weight of a measurement one task later, in (0, 1]
    # logarithms of the error by the profiler and of that reached, for each finished task
    points: list[tuple[float, float]] = field(default_factory=list)
    # the pseudo-observation that stands in for them, if there is one
    pseudo: list[tuple[float, float]] = field(default_factory=list)

    def observe(self, score: float, reached: float) -> None:
        """Adds a finished task: the score of its configuration and the validation accuracy it reached."""
        self.points.append((float(_log_error(score)), float(_log_error(reached))))
        self.pseudo = []

    def pseudo_observe(self, best_score: float, reached: float) -> None:
        """Until a task with scores is finished, takes the best candidate to reach what the last task did, in [0, 1]."""
        if not self.points:
            self.pseudo = [(float(_log_error(best_score)), float(_log_error(reached)))]

    def line(self) -> tuple[float, float]:
        """Intercept and slope."""
        precision = np.diag(1 / np.array(_DEVIATIONS) ** 2)
        moment = precision @ np.array(_PRIOR)
        noise = _NOISE if self.points else _PSEUDO_NOISE
        for age, (x, y) in enumerate(reversed(self.points or self.pseudo)):
            weight = self.forgetting**age / noise**2
            terms = np.array([1.0, x])
            precision += weight * np.outer(terms, terms)
            moment += weight * y * terms
        intercept, slope = np.linalg.solve(precision, moment)
        return float(intercept), float(slope)

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Expected accuracy in [0, 1] of candidates with these scores; their order is kept."""
        intercept, slope = self.line()
        line = intercept + max(slope, _LEAST_SLOPE) * _log_error(scores)
        # An error can't exceed 1: beyond 95 % the line is bent to approach it, so that no two scores become one.
        beyond = np.maximum(line - _NEARLY_ALL, 0.0)
        return (1 - np.exp(np.minimum(line, _NEARLY_ALL))) * np.exp(beyond / _NEARLY_ALL)


def _log_error(accuracy):  # type: ignore[no-untyped-def]
    return np.log(np.clip(1 - np.asarray(accuracy, dtype=float), _LEAST_ERROR, 1))


@dataclass
class CostModel:
    """Cost of a task's training = fixed part + part per sample visit + part per byte swapped, none negative.

    The cost is joules where they are measured, else work: sample visits, which are known exactly. The fit weighs
    relative errors and is drawn towards a cost proportional to visits; as long as the tasks' visits hardly differ it is
    just that, for a fixed part could not be told from the rest.
    """

    unit: Literal["J", "visits"] = "visits"  # `J`, or `visits` where there is no sensor
    # visits, bytes swapped and joules of each training whose joules were seen
    measured: list[tuple[float, float, float]] = field(default_factory=list)
    train: list[tuple[float, float]] = field(default_factory=list)  # visits and joules of each task's training
    # visits and joules of what each task needed beside it
    beside: list[tuple[float, float]] = field(default_factory=list)

    @property
    def unit_now(self) -> str:
        """The unit of predictions: before the first measurement in joules they are visits."""
        return self.unit if self.measured else "visits"

    @property
    def known(self) -> bool:
        """Whether predictions are in `unit`."""
        return self.unit_now == self.unit

    def predict(self, visits: np.ndarray | float, size_bytes: np.ndarray | float) -> np.ndarray:
        """Cost of so many sample visits and bytes swapped."""
        fixed, per_visit, per_byte = self._coefficients()
        return fixed + per_visit * np.asarray(visits, dtype=float) + per_byte * np.asarray(size_bytes, dtype=float)

    def observe(self, readings: Sequence[Reading]) -> None:
        """Takes in the readings of a finished task; its training says nothing in joules where they were not seen."""
        train = in_windows(readings, "train")
        for kept, found in ((self.train, train), (self.beside, in_windows(readings, "receive", "profile", "retain"))):
            visits = sum(r.work.visit_equivalents for r in found)
            kept.append((visits, total_energy_j(found)))
        self.measure(sum(r.work.visits for r in train), sum(r.work.bytes_read for r in train), total_energy_j(train))

    def measure(self, visits: int, size_bytes: int, energy_j: float) -> None:
        """Adds a training to what predictions rest on: visits, bytes read from storage, and joules, NaN if not seen."""
        if self.unit == "J" and visits and energy_j > 0:
            self.measured.append((visits, size_bytes, energy_j))

    def priced(self, spent: Sequence[tuple[float, float]]) -> list[float]:
        """Cost of each entry of `train` or `beside`; work stands in, at the model's price, for joules not seen."""
        if self.unit == "visits":
            return [visits for visits, _ in spent]
        return [float(self.predict(visits, 0.0)) if np.isnan(joules) else joules for visits, joules in spent]

    def _coefficients(self) -> np.ndarray:
        """Non-negative least squares of relative errors, fixed and per-byte part drawn to zero."""
        if not self.measured:
            return np.array([0.0, 1.0, 0.0])
        visits, size_bytes, cost = np.array(self.measured).T
        if visits.max() < _SPREAD * visits.min():
            return np.array([0.0, cost.sum() / visits.sum(), 0.0])
        # Each part is put on the scale of a mean task's cost, so that drawing to zero means the same for all machines.
        scales = np.array([1.0, visits.mean(), max(size_bytes.mean(), 1.0)]) / cost.mean()
        terms = np.stack([np.ones_like(cost), visits, size_bytes], axis=1) / cost[:, None] / scales
        drawn = _DRAWN * np.sqrt(len(cost)) * np.diag([1.0, 0.0, 1.0])
        solution, _ = nnls(np.concatenate([terms, drawn]), np.concatenate([np.ones_like(cost), np.zeros(3)]))
        return solution / scales
