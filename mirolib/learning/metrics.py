"""Metrics of continual learning, as equations over the accuracy matrix."""

from __future__ import annotations

import numpy as np


class AccuracyMatrix:
    """R[i, j]: test accuracy on task j after training on task i, for j ≤ i (Lopez-Paz and Ranzato, 2017).

    Its `values` are `(tasks, tasks)` in [0, 1], and NaN where nothing was measured.
    """

    def __init__(self, num_tasks: int) -> None:
        self.values = np.full((num_tasks, num_tasks), np.nan)
        self._rows = 0

    def append(self, accuracies: list[float]) -> None:
        """Adds the row of the task just learnt: the accuracy on each task up to this one."""
        assert len(accuracies) == self._rows + 1, "one accuracy for each task so far"
        self.values[self._rows, : len(accuracies)] = accuracies
        self._rows += 1

    @property
    def average_accuracy(self) -> float:
        """Mean over tasks j of R[i, j] after the last task i learnt."""
        return float(np.mean(self.values[self._rows - 1, : self._rows]))

    @property
    def average_incremental_accuracy(self) -> float:
        """Mean over i of the average accuracy after task i (Rebuffi et al., iCaRL, 2017)."""
        return float(np.mean([np.mean(self.values[i, : i + 1]) for i in range(self._rows)]))

    @property
    def forgetting(self) -> float:
        """Mean over earlier tasks j of max over i < last of R[i, j], minus R[last, j] (Chaudhry et al., 2018).

        NaN before the second task.
        """
        last = self._rows - 1
        if last < 1:
            return float("nan")
        return float(np.mean(np.nanmax(self.values[:last, :last], axis=0) - self.values[last, :last]))

    @property
    def backward_transfer(self) -> float:
        """Mean over earlier tasks j of R[last, j] - R[j, j] (Lopez-Paz and Ranzato, 2017); NaN before the second."""
        last = self._rows - 1
        if last < 1:
            return float("nan")
        return float(np.mean(self.values[last, :last] - np.diag(self.values)[:last]))
