"""Metrics of continual learning, as equations over the accuracy matrix."""

import numpy as np


class AccuracyMatrix:
    """R[i, j]: test accuracy on task j after training on task i, for j ≤ i (Lopez-Paz and Ranzato, 2017).

    Among all classes seen by then; where classes return, one counts in the column of each task that it came with.

    Attributes:
        values: R, `(tasks, tasks)` in [0, 1], and NaN where nothing was measured.
        ahead: R[j - 1, j] less the chance of a guess among the classes then known, NaN where classes of task j were
            not known yet, as in every task of a class-incremental stream.
    """

    def __init__(self, num_tasks: int = 0) -> None:
        """A matrix without a row, which grows where there are more tasks than expected."""
        self.values, self.ahead = np.full((num_tasks, num_tasks), np.nan), list[float]()
        self._rows = 0

    def append(self, accuracies: list[float], ahead: float = float("nan")) -> None:
        """Adds the row of the task just learnt: the accuracy on each task up to this one, and what it began with."""
        assert len(accuracies) == self._rows + 1, "one accuracy for each task so far"
        self.values = np.pad(self.values, (0, max(0, self._rows + 1 - len(self.values))), constant_values=np.nan)
        self.values[self._rows, : len(accuracies)] = accuracies
        self.ahead.append(ahead)
        self._rows += 1

    @property
    def average_accuracy(self) -> float:
        """Mean over tasks j of R[i, j] after the last task i learnt: every task counts alike."""
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

    @property
    def forward_transfer(self) -> float:
        """Mean of R[j - 1, j] less chance over tasks of known classes (Lopez-Paz and Ranzato, 2017); NaN of none."""
        known = [value for value in self.ahead if value == value]
        return float(np.mean(known)) if known else float("nan")
