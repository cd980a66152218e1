"""The learning curve of the live run: what held-out samples say of it, and what more work is expected to bring.

Looked at is the mean probability of the true class, which changes far more smoothly than the share of hits, always of
the same samples, so that two looks at a task can be subtracted. The odds of that error are taken to fall with a power
of the work, whose exponent is pooled over looks and tasks. What is still to come, the fall of the learning rate and the
step from probabilities to hits, is a power of that error which finished tasks tell.
"""

from dataclasses import dataclass, field, replace
from math import log, sqrt

import numpy as np
import torch

from mirolib.base.state import Floats, Ids
from mirolib.controller.profiler import features_of
from mirolib.data.stream import labels_of
from mirolib.learning.learner import Learner
from mirolib.memory.tiered import TieredMemory

# Chosen on held-out samples, with seeds that no page reports: see benchmarks/controller.py.
_EXPONENT, _EXPONENT_SD = 0.7, 0.4  # expected of a curve that has not been looked at
_JITTER = 0.3  # standard deviation of an exponent from one look to the next, beside what the samples' number makes
_WINDOW = 5.0  # looks at less than a fifth of the work so far say little of what comes
_FORGET = 0.6  # weight of a task's looks one task later
_POWER, _POWER_SD = 1.6, 0.4  # errors in the end are such a power of the error at the full rate
_POWER_JITTER = 0.2  # of that power, from task to task
_UNSEEN = 0.1  # of an error, added to what was seen: a few samples without one must not look like perfection


@dataclass(frozen=True)
class Look:
    """One look at the model.

    Attributes:
        task: Index of the task at hand.
        epochs: Epochs of it that were done.
        samples: Held-out samples looked at.
        of: Held-out samples there are.
        error: One minus the mean probability of their true classes, with a tenth of an error added.
        error_sd: How far off its logarithm may be, for want of samples.
        exponent: Of the power of work with which its odds fell since the last look; NaN at a task's first.
        exponent_sd: How far off that may be, for want of samples.
    """

    task: int
    epochs: float
    samples: int
    of: int
    error: float
    error_sd: float
    exponent: float = float("nan")
    exponent_sd: float = float("inf")


@dataclass(frozen=True)
class Forecast:
    """What training is expected to reach, an entry for each choice of work.

    Accuracies in [0, 1], the limits of an 80 % interval, and `gain`, the most points that another tenth of work brings
    from there on.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gain: np.ndarray


@dataclass
class LearningCurve:
    """Looks so far, and what they say of more work.

    Attributes:
        looks: All of them, in order.
        ids: Held-out samples of the last look.
        truth: The probabilities that it gave their true classes.
        ends: For each finished task its index, the power that it showed, and how far off that may be.
    """

    looks: list[Look] = field(default_factory=list)
    ids: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    truth: Floats = field(default_factory=lambda: np.zeros(0))
    ends: list[tuple[int, float, float]] = field(default_factory=list)

    def look(self, task: int, learner: Learner, memory: TieredMemory, most: int) -> Look:
        """Looks at up to `most` held-out samples, as many of each class."""
        ids, truth, _ = _judged(learner, memory, most)
        error, all_of_them = _smoothed(truth), len(memory.validation_ids())
        off = sqrt(truth.var() * len(ids) + _UNSEEN) / error / len(ids)
        new = Look(task, learner.epochs_done, len(ids), all_of_them, error, off)
        last = self.looks[-1] if self.looks else None
        if last is not None and last.task == task and new.epochs > last.epochs:
            many = min(len(ids), len(self.ids))  # one is a prefix of the other
            before, after, work = _smoothed(self.truth[:many]), _smoothed(truth[:many]), log(new.epochs / last.epochs)
            noise = (truth[:many] - self.truth[:many]).std() / sqrt(many) / after / (1 - after) + 1 / many
            exponent = (log(before / (1 - before)) - log(after / (1 - after))) / work
            new = replace(new, exponent=exponent, exponent_sd=float(noise) / work)
        self.looks.append(new)
        self.ids, self.truth = ids, truth
        return new

    def finish(self, task: int, learner: Learner, memory: TieredMemory, most: int, steady: float) -> int:
        """Compares what a task has reached with what its looks had expected; how many samples it looked at for that."""
        if not (self.looks and self.looks[-1].task == task):
            return 0
        ids, _, missed = _judged(learner, memory, most)
        expected, _ = self._expected(np.array([learner.epochs]), steady)
        scale = -log(min(float(expected[0]), 0.99))
        self.ends.append((task, -log((missed + 0.5) / (len(ids) + 1)) / scale, (missed + 0.5) ** -0.5 / scale))
        return len(ids)

    def exponent(self) -> tuple[float, float]:
        """Expected exponent, and its standard deviation."""
        now = self.looks[-1]
        seen = [(now.task - look.task, look.exponent, look.exponent_sd) for look in self.looks
                if look.exponent == look.exponent and look.epochs * _WINDOW >= now.epochs]  # fmt: skip
        found, deviation = _pooled(_EXPONENT, _EXPONENT_SD, seen, _JITTER)
        return max(found, 0.02), deviation

    def _expected(self, epochs: np.ndarray, steady: float) -> tuple[np.ndarray, np.ndarray]:
        """Error at the full rate after that share of so many epochs, and how far off its logarithm may be."""
        now, (exponent, deviation) = self.looks[-1], self.exponent()
        further = np.log(np.maximum(steady * epochs / now.epochs, 1e-9))
        error = 1 / (1 + (1 / now.error - 1) * np.exp(exponent * further))
        return error, np.hypot(now.error_sd, deviation * further * (1 - error))

    def forecast(self, task: int, epochs: np.ndarray, steady: float) -> Forecast:
        """What a task reaches after so many epochs, `steady` of them at the full rate; NaN before its first look."""
        if not (self.looks and self.looks[-1].task == task):
            unknown = np.full(len(epochs), np.nan)
            return Forecast(unknown, unknown, unknown, unknown)
        error, spread = self._expected(epochs, steady)
        power, off = self.power(task)
        found = error**power
        relative = (power * spread) ** 2 + (off**2 + _POWER_JITTER**2) * np.log(error) ** 2
        # what is not known of the model, and what a test set twice as large as the held-out one would show of it
        spread = 1.28 * np.sqrt(found**2 * relative + found * (1 - found) / (2 * self.looks[-1].of))
        gain = 100 * (found - self._expected(1.1 * epochs, steady)[0] ** power)
        gain = np.maximum.accumulate(gain[::-1])[::-1]  # near chance a curve is flat: that is no knee
        low, high = (1 - np.clip(found + sign * spread, 0.0, 1.0) for sign in (1, -1))
        return Forecast(1 - found, low, high, gain)

    def power(self, task: int) -> tuple[float, float]:
        """The power from the error at the full rate to that in the end, and its standard deviation."""
        seen = [(task - before, power, off) for before, power, off in self.ends]
        return _pooled(_POWER, _POWER_SD, seen, _POWER_JITTER)


def _pooled(guess: float, sd: float, seen: list[tuple[int, float, float]], jitter: float) -> tuple[float, float]:
    """Mean of a guess and of what was seen, so many tasks ago and so far off, and its standard deviation."""
    weight, total = sd**-2, guess * sd**-2
    for age, value, off in seen:
        one = _FORGET**age / (off**2 + jitter**2)
        weight, total = weight + one, total + one * value
    return total / weight, weight**-0.5


def _smoothed(truth: np.ndarray) -> float:
    return min(float((1 - truth).sum() + _UNSEEN) / (len(truth) + _UNSEEN), 0.999)


def _judged(learner: Learner, memory: TieredMemory, most: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of up to `most` held-out samples, the probabilities of their true classes, and how many were missed."""
    ids = memory.judged_ids()[:most]
    scores = learner.classify(features_of(learner, memory, ids, "validation")).double().cpu()
    labels = torch.from_numpy(labels_of(ids))
    truth = torch.softmax(scores, dim=1).gather(1, labels[:, None])[:, 0].nan_to_num().numpy()
    return ids, truth, int((scores.argmax(dim=1) != labels).sum())
