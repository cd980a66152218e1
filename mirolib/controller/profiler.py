"""Profilers say how accurate a model would be after training with each candidate; none touches the live run."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mirolib.data.stream import Task, labels_of
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.replace_damaged import read_all
from mirolib.memory.tiered import TieredMemory

_PIECE = 512  # samples read and sent through a model at a time: as many as evaluation takes


@dataclass(frozen=True)
class ProfileRequest:
    """What a profiler may look at: a task has arrived, its training has not begun."""

    task: Task  # the new task
    learner: Learner  # the live learner, its head grown for the task
    memory: TieredMemory  # the live memory, the task received
    candidates: Sequence[MemoryConfig]  # what is to be profiled
    seed: int  # seed of every draw that profiling makes
    most_validation: int = 1 << 30  # most validation samples that are looked at, an equal share of each class

    @cached_property
    def validation_ids(self) -> np.ndarray:
        """Ids of the validation samples that are looked at, the same number of each class where there are enough."""
        return np.sort(self.memory.judged_ids()[: max(self.most_validation, self.learner.num_classes)])

    @cached_property
    def validation_labels(self) -> np.ndarray:
        """Their labels."""
        return labels_of(self.validation_ids)

    @cached_property
    def validation_features(self) -> Tensor:
        """Their features by the live model, on its device."""
        return self.features(self.validation_ids, "validation")

    def features(self, ids: np.ndarray, part: str = "train") -> Tensor:
        """Features by the live model of samples from storage."""
        return features_of(self.learner, self.memory, ids, part)

    def accuracy(self, learner: Learner) -> float:
        """Share of the validation samples that a learner, a clone of the live one say, gets right."""
        scores = learner.classify(features_of(learner, self.memory, self.validation_ids, "validation"))
        return float((scores.argmax(dim=1).cpu().numpy() == self.validation_labels).mean())

    def accuracies(self) -> tuple[float, float]:
        """What the live model reaches on the validation samples, each in [0, 1].

        Returns:
            Accuracy on the old classes among the old classes, which is what the last task's training reached (NaN
            at the first task, and where they have no validation sample), and accuracy on all classes among all of them:
            where the new task starts from.
        """
        if not len(self.validation_ids):
            return float("nan"), 0.0
        old = len(self.memory.episodic_memory.classes)
        logits = self.learner.classify(self.validation_features).cpu().numpy()
        labels = self.validation_labels
        past = ~np.isin(self.validation_ids, self.task.validation_ids)
        reached = float((logits[past, :old].argmax(axis=1) == labels[past]).mean()) if past.any() else float("nan")
        return reached, float((logits.argmax(axis=1) == labels).mean())


def features_of(learner: Learner, memory: TieredMemory, ids: np.ndarray, part: str) -> Tensor:
    """Features `(n, d)` by a learner, on its device, of samples from storage, a piece at a time."""
    parts = (ids[start : start + _PIECE] for start in range(0, len(ids), _PIECE))
    return torch.cat([learner.features(read_all(memory.storage, piece, part)) for piece in parts])


class Profiler(ABC):
    """A way to score candidates."""

    name: str  # name in the table
    needs_past: bool = False  # whether it can say nothing before a task has been learnt
    exact: bool = False  # whether a score is what training reaches, so that it needs no calibration

    @abstractmethod
    def scores(self, request: ProfileRequest) -> np.ndarray:
        """A validation accuracy in [0, 1] for each candidate, `(candidates,) float64`.

        It need only rank them and lie in line with what training reaches; `Calibration` finds the line.
        """

    def request(
        self, task: Task, learner: Learner, memory: TieredMemory, candidates: Sequence[MemoryConfig], seed: int
    ) -> ProfileRequest:
        """What this profiler looks at; one that must be cheap looks at fewer validation samples."""
        return ProfileRequest(task, learner, memory, candidates, seed)


def smoothed(candidates: Sequence[MemoryConfig], accuracies: np.ndarray, size_weight: float = 0.0) -> np.ndarray:
    """Accuracies drawn to a smooth surface: the logarithm of the error as a quadratic of both sizes' logarithms.

    Accuracy changes smoothly with the sizes while a score from few validation samples does not, so that the fit, which
    has six coefficients, takes noise out. Fewer than eight accuracies are given back as they are.

    `size_weight` is the weight, against 1 for the surface, of the expectation that more samples are better, twice the
    stream buffer being as good as twice the episodic memory. Mean and spread stay.
    """
    if len(candidates) < 8:  # the six coefficients would fit the noise, too
        return accuracies
    sizes = np.log([(c.stream_size, c.episodic_size) for c in candidates])
    # standardised, or the squares of such logarithms would hardly differ from their first powers; 1e-9: equal sizes
    s, e = ((sizes - sizes.mean(axis=0)) / np.maximum(sizes.std(axis=0), 1e-9)).T
    terms = np.stack([np.ones_like(s), s, e, s * e, s * s, e * e], axis=1)
    log_error = np.log(np.clip(1 - accuracies, 0.005, 1))
    fitted = terms @ np.linalg.lstsq(terms, log_error, rcond=None)[0]
    blended = _standard(fitted) - size_weight * _standard(sizes.sum(axis=1))
    # mean and spread are put back, since the calibration reads them; an error is at most 1, its logarithm at most 0
    return 1 - np.exp(np.minimum(fitted.mean() + fitted.std() * _standard(blended), 0))


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-12)
