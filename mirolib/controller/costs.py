"""What training with a configuration costs: a model refitted on what was really measured."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from mirolib.base.errors import InputError
from mirolib.base.state import State, loaded

FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step's work: the backward pass takes about twice the forward one."""
_SPREAD = 1.5  # visits of the largest task over those of the smallest from which on a fixed part can be told
_DRAWN = 0.1


class CostModel:
    """Cost of a task's training = fixed part + part per sample visit + part per byte swapped, none negative.

    The cost is joules where they are measured, else work: sample visits, which are known exactly. The fit weighs
    relative errors and is drawn towards a cost proportional to visits; as long as the tasks' visits hardly differ it is
    just that, for a fixed part could not be told from the rest.
    """

    def __init__(self, unit: str = "visits") -> None:
        """A model that has measured nothing.

        Args:
            unit: `J`, or `visits` where there is no sensor.
        """
        assert unit in ("J", "visits")
        self.unit = unit
        self.errors: list[float] = []
        self._rows: list[tuple[float, float, float]] = []
        self._coefficients = np.array([0.0, 1.0, 0.0])

    @property
    def known(self) -> bool:
        """Whether predictions are in `unit`; before the first measurement in joules they are visits."""
        return self.unit == "visits" or bool(self._rows)

    def predict(self, visits: np.ndarray | float, size_bytes: np.ndarray | float) -> np.ndarray:
        """Cost of so many sample visits and bytes swapped."""
        fixed, per_visit, per_byte = self._coefficients
        return fixed + per_visit * np.asarray(visits, dtype=float) + per_byte * np.asarray(size_bytes, dtype=float)

    def observe(self, visits: int, size_bytes: int, energy_j: float, expected: float | None = None) -> None:
        """Adds a finished task's training and fits anew.

        Args:
            visits: Sample visits.
            size_bytes: Bytes read from storage.
            energy_j: Joules; NaN where they were not seen, and the task then says nothing in joules.
            expected: What had been predicted, if it was; its relative error is kept in `errors`.
        """
        cost = float(visits) if self.unit == "visits" else energy_j
        if not cost > 0 or not visits:
            return
        if expected is not None and self.known:
            self.errors.append(abs(expected - cost) / cost)
        self._rows.append((visits, size_bytes, cost))
        if self.unit == "J":
            self._fit()

    def state(self) -> State:
        """The measurements so far, for a checkpoint."""
        return {"unit": self.unit, "rows": self._rows, "errors": self.errors}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave.

        Raises:
            InputError: If the measurements are in another unit.
        """
        if state["unit"] != self.unit:
            raise InputError(
                f"The run has measured its costs in {state['unit']}, but here they come in {self.unit}; go on with the "
                "energy source it began with."
            )
        self._rows = loaded(list[tuple[float, float, float]], state["rows"])
        self.errors = loaded(list[float], state["errors"])
        if self.unit == "J" and self._rows:
            self._fit()

    @property
    def median_error(self) -> float:
        """Median relative error of the predictions so far; NaN before the first."""
        return float(np.median(self.errors)) if self.errors else float("nan")

    def _fit(self) -> None:
        """Non-negative least squares of relative errors, fixed and per-byte part drawn to zero."""
        visits, size_bytes, cost = np.array(self._rows).T
        if visits.max() < _SPREAD * visits.min():
            self._coefficients = np.array([0.0, cost.sum() / visits.sum(), 0.0])
            return
        scales = np.array([1.0, visits.mean(), max(size_bytes.mean(), 1.0)]) / cost.mean()
        terms = np.stack([np.ones_like(cost), visits, size_bytes], axis=1) / cost[:, None] / scales
        drawn = _DRAWN * np.sqrt(len(cost)) * np.diag([1.0, 0.0, 1.0])
        solution, _ = nnls(np.concatenate([terms, drawn]), np.concatenate([np.ones_like(cost), np.zeros(3)]))
        self._coefficients = solution / scales
