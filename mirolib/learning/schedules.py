"""Optimisers by name, and how the learning rate goes on over a task."""

from collections.abc import Callable

from torch import nn, optim

from mirolib.data import Preset

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Preset], optim.Optimizer]] = {
    "sgd": lambda parameters, s: optim.SGD(parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay),
    "adamw": lambda parameters, s: optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay),
}

RATES = {"sgd": 0.05, "adamw": 0.001}
"""Learning rates for an optimiser that is not the preset's, whose rate would not suit it."""

SCHEDULES: dict[str, Callable[[Preset, float], float]] = {
    "constant": lambda settings, done: 1.0,
    "milestones": lambda settings, done: settings.gamma ** sum(done >= stone for stone in settings.milestones),
    # constant, then in a straight line to zero over the last share of the task's work
    "falling": lambda settings, done: min(1.0, max(0.0, 1 - done / settings.epochs) / settings.fall),
}
"""Factor of the learning rate after so many epochs of a task, parts of one included."""
