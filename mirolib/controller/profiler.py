"""Profilers say how accurate a model would be after training with each candidate; none touches the live run."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Situation:
    """What a profiler may look at: a task has arrived, its training has not begun.

    Attributes:
        task: The new task.
        learner: The live learner, its head grown for the task.
        memory: The live memory, the task received.
        candidates: What is to be profiled.
        seed: Seed of every draw that profiling makes.
        most_validation: Most validation samples that are looked at, an equal share of each class.
    """

    task: Task
    learner: Learner
    memory: TieredMemory
    candidates: Sequence[MemoryConfig]
    seed: int
    most_validation: int = 1 << 30

    @cached_property
    def validation_ids(self) -> np.ndarray:
        """Ids of the validation samples that are looked at, the same number of each class where there are enough."""
        ids = self.memory.validation_ids()
        ids = ids[np.argsort(ids & 0xFFFFFFFF, kind="stable")]  # by ordinal: prefixes are balanced
        return np.sort(ids[: max(self.most_validation, self.learner.num_classes)])

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
        parts = [
            self.learner.features(read_all(self.memory.storage, ids[start : start + 512], part))
            for start in range(0, len(ids), 512)
        ]
        return torch.cat(parts)

    def accuracies(self) -> tuple[float, float]:
        """What the live model reaches on the validation samples, each in [0, 1].

        Returns:
            Accuracy on the old classes among the old classes, which is what the last task's training reached (NaN
            at the first task), and accuracy on all classes among all of them: where the new task starts from.
        """
        old = self.task.classes[0]
        logits = self.learner.classify(self.validation_features).cpu().numpy()
        labels = self.validation_labels
        past = labels < old
        reached = float((logits[past, :old].argmax(axis=1) == labels[past]).mean()) if old else float("nan")
        return reached, float((logits.argmax(axis=1) == labels).mean())


class Profiler(ABC):
    """A way to score candidates.

    Attributes:
        name: Name in the table.
        needs_past: Whether it can say nothing before a task has been learnt.
        exact: Whether a score is what training reaches, so that it needs no calibration.
    """

    name: str
    needs_past: bool = False
    exact: bool = False

    @abstractmethod
    def scores(self, situation: Situation) -> np.ndarray:
        """A validation accuracy in [0, 1] for each candidate, `(candidates,) float64`.

        It need only rank them and lie in line with what training reaches; `Calibration` finds the line.
        """

    def situation(
        self, task: Task, learner: Learner, memory: TieredMemory, candidates: Sequence[MemoryConfig], seed: int
    ) -> Situation:
        """What this profiler looks at; one that must be cheap looks at fewer validation samples."""
        return Situation(task, learner, memory, candidates, seed)


def smoothed(candidates: Sequence[MemoryConfig], accuracies: np.ndarray, size_weight: float = 0.0) -> np.ndarray:
    """Accuracies drawn to a smooth surface: the logarithm of the error as a quadratic of both sizes' logarithms.

    Accuracy changes smoothly with the sizes while a score from few validation samples does not, so that the fit, which
    has six coefficients, takes noise out.

    Args:
        candidates: The sizes.
        accuracies: Accuracy of each in [0, 1].
        size_weight: Weight, against 1 for the surface, of the expectation that more samples are better, twice the
            stream buffer being as good as twice the episodic memory. Mean and spread stay.

    Returns:
        Smoothed accuracies; those given where there are fewer than eight.
    """
    if len(candidates) < 8:
        return accuracies
    sizes = np.log([(c.stream_size, c.episodic_size) for c in candidates])
    s, e = ((sizes - sizes.mean(axis=0)) / np.maximum(sizes.std(axis=0), 1e-9)).T
    terms = np.stack([np.ones_like(s), s, e, s * e, s * s, e * e], axis=1)
    log_error = np.log(np.clip(1 - accuracies, 0.005, 1))
    fitted = terms @ np.linalg.lstsq(terms, log_error, rcond=None)[0]
    blended = _standard(fitted) - size_weight * _standard(sizes.sum(axis=1))
    return 1 - np.exp(np.minimum(fitted.mean() + fitted.std() * _standard(blended), 0))


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-12)
