"""Optimisers by name, and how the learning rate goes on over a task."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn, optim

from mirolib.data import Preset


def _sgd(parameters: list[nn.Parameter], settings: Preset) -> optim.Optimizer:
    return optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _adamw(parameters: list[nn.Parameter], settings: Preset) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Preset], optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}

RATES = {"sgd": 0.05, "adamw": 0.001}
"""Learning rates for an optimiser that is not the preset's, whose rate would not suit it."""


def _milestones(settings: Preset, done: float) -> float:
    return settings.gamma ** sum(done >= milestone for milestone in settings.milestones)


def _falling(settings: Preset, done: float) -> float:
    """Constant, then in a straight line to zero over the last share of the task's work."""
    return min(1.0, (1 - done / settings.epochs) / settings.fall)


SCHEDULES: dict[str, Callable[[Preset, float], float]] = {
    "constant": lambda settings, done: 1.0,
    "milestones": _milestones,
    "falling": _falling,
}
"""Factor of the learning rate after so many epochs of a task, parts of one included."""
