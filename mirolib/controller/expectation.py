"""From a profiler's scores to the accuracy that training reaches: each finished task is a free measurement."""

from __future__ import annotations

import numpy as np

from mirolib.base.state import State, loaded

_LEAST_ERROR = 0.005
_SUPPOSED_NOISE = 0.8
_NEARLY_ALL = -0.05  # logarithm of an error of 95 %


class Calibration:
    """Bayesian regression of the logarithm of the error that training reached on that of the profiler.

    The two are taken to lie on a line in logarithms, which moves slowly from task to task, so that older measurements
    count for less; docs/controller.md says how far off the result is. Before any task is finished the prior decides.
    """

    def __init__(
        self,
        prior: tuple[float, float] = (-0.3, 0.7),
        deviations: tuple[float, float] = (1.0, 0.15),
        noise: float = 0.3,
        forgetting: float = 0.5,
    ) -> None:
        """A calibration that knows no task yet.

        Args:
            prior: Intercept and slope expected.
            deviations: Standard deviations of that expectation.
            noise: Standard deviation of a measurement, in logarithms of the error.
            forgetting: Weight of a measurement one task later, in (0, 1].
        """
        self._prior, self._precision = np.array(prior), np.diag(1 / np.array(deviations) ** 2)
        self._noise, self._forgetting = noise, forgetting
        self._points: list[tuple[float, float]] = []
        self._first: list[tuple[float, float]] = []

    def observe(self, score: float, reached: float) -> None:
        """Adds a finished task: the score of its configuration and the validation accuracy it reached."""
        self._points.append((float(_log_error(score)), float(_log_error(reached))))
        self._first = []

    def suppose(self, best_score: float, reached: float) -> None:
        """Supposes, until a task that had scores is finished, that the best candidate reaches what the last task did.

        Args:
            best_score: The best candidate's score.
            reached: Validation accuracy that the last task's training reached, in [0, 1].
        """
        if not self._points:
            self._first = [(float(_log_error(best_score)), float(_log_error(reached)))]

    def state(self) -> State:
        """The measurements so far, for a checkpoint."""
        return {"points": self._points, "supposed": self._first}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        self._points = loaded(list[tuple[float, float]], state["points"])
        self._first = loaded(list[tuple[float, float]], state["supposed"])

    def line(self) -> tuple[float, float]:
        """Intercept and slope."""
        precision, moment = self._precision.copy(), self._precision @ self._prior
        for age, (x, y) in enumerate(reversed(self._points or self._first)):
            noise = self._noise if self._points else _SUPPOSED_NOISE
            weight = self._forgetting**age / noise**2
            terms = np.array([1.0, x])
            precision += weight * np.outer(terms, terms)
            moment += weight * y * terms
        intercept, slope = np.linalg.solve(precision, moment)
        return float(intercept), float(slope)

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Expected accuracy in [0, 1] of candidates with these scores; their order is kept."""
        intercept, slope = self.line()
        line = intercept + max(slope, 0.05) * _log_error(scores)
        # An error can't exceed 1: beyond 95 % the line is bent to approach it, so that no two scores become one.
        beyond = np.maximum(line - _NEARLY_ALL, 0.0)
        return (1 - np.exp(np.minimum(line, _NEARLY_ALL))) * np.exp(beyond / _NEARLY_ALL)


def _log_error(accuracy):  # type: ignore[no-untyped-def]
    return np.log(np.clip(1 - np.asarray(accuracy, dtype=float), _LEAST_ERROR, 1))
