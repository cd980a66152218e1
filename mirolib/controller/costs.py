"""What training with a configuration costs: a model refitted on what was really measured."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step's work: the backward pass takes about twice the forward one."""


class CostModel:
    """Cost of a task's training = fixed part + part per sample visit + part per byte swapped, none negative.

    The cost is joules where they are measured, else work: sample visits, which are known exactly. The fit weighs
    relative errors and is drawn towards a cost proportional to visits, which few measurements can't do without.
    """

    def __init__(self) -> None:
        """A model that has measured nothing: cost is visits."""
        self.unit = "visits"
        self.errors: list[float] = []
        self._rows: list[tuple[float, float, float]] = []
        self._coefficients = np.array([0.0, 1.0, 0.0])

    def predict(self, visits: np.ndarray | float, size_bytes: np.ndarray | float) -> np.ndarray:
        """Cost of so many sample visits and bytes swapped, in `unit`."""
        fixed, per_visit, per_byte = self._coefficients
        return fixed + per_visit * np.asarray(visits, dtype=float) + per_byte * np.asarray(size_bytes, dtype=float)

    def observe(self, visits: int, size_bytes: int, energy_j: float, expected_visits: int | None = None) -> None:
        """Adds a finished task's training and fits anew; the error of what had been expected is kept in `errors`.

        Args:
            visits: Sample visits.
            size_bytes: Bytes read from storage.
            energy_j: Joules; NaN where there are none, and the cost is then the visits.
            expected_visits: Visits that the prediction rested on; by default those that came.
        """
        unit = "visits" if np.isnan(energy_j) else "J"
        cost = float(visits) if unit == "visits" else energy_j
        if visits == 0 or cost <= 0:
            return
        if (self._rows and unit == self.unit) or unit == "visits":
            expected = float(self.predict(expected_visits or visits, size_bytes))
            self.errors.append(abs(expected - cost) / cost)
        if unit != self.unit:
            self.unit, self._rows = unit, []
        self._rows.append((visits, size_bytes, cost))
        if unit == "J":
            self._fit()

    @property
    def median_error(self) -> float:
        """Median relative error of the predictions so far; NaN before the first."""
        return float(np.median(self.errors)) if self.errors else float("nan")

    def _fit(self) -> None:
        """Non-negative least squares of relative errors, fixed and per-byte part drawn to zero."""
        visits, size_bytes, cost = np.array(self._rows).T
        scales = np.array([1.0, visits.mean(), max(size_bytes.mean(), 1.0)]) / cost.mean()
        terms = np.stack([np.ones_like(cost), visits, size_bytes], axis=1) / cost[:, None] / scales
        drawn = 0.1 * np.diag([1.0, 0.0, 1.0])
        solution, _ = nnls(np.concatenate([terms, drawn]), np.concatenate([np.ones_like(cost), np.zeros(3)]))
        self._coefficients = solution / scales
