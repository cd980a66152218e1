"""The parameters of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, TypeVar

from mirolib.base.errors import InputError
from mirolib.controller import (
    SELECTORS,
    ProbeProfiler,
    Profiler,
    SelectionContext,
    TrialProfiler,
    full_training,
)
from mirolib.learning.methods import METHODS
from mirolib.learning.models import MODELS
from mirolib.memory.budget import parse_amount, parse_budget, parse_size
from mirolib.memory.config import MemoryConfig
from mirolib.memory.wear import medium_name

T = TypeVar("T")

CONTROLLERS = ("miro", "fixed", "whole-budget", "random")

PROFILERS: dict[str, Callable[[], Profiler]] = {
    "probe": ProbeProfiler,
    "trial": TrialProfiler,
    "oracle": full_training,
}

_HIGHEST_LR = 1e6

_TYPES: dict[str, Any] = {"int": Integral, "float": Real, "str": str, "None": type(None)}

MEMORIES = {"tiered": True, "single-level": False}


@dataclass(frozen=True)
class RunSettings:
    """The parameters of one run; None takes the value of the data set's preset.

    Attributes:
        dataset: Name of the data set.
        preset: Name of its settings; empty for its default.
        data: The folder that holds the data sets; empty for what `MIRO_DATA` names, or `data` in the repository.
        tasks: Number of tasks the classes are split into.
        model: Name of the model.
        method: `er` (experience replay), `bic` (bias correction) or `finetuning` (no replay).
        loss: `bce` (binary cross-entropy, the paper's) or `ce` (cross-entropy); `bic` has a loss of its own.
        memory: `tiered`, or `single-level` for an episodic memory without storage below it.
        controller: `miro`; `fixed` (stream_size, episodic_size; with swap ratio 1 it is CarM's way); `whole-budget`
            (as large as it can be); `random` (from Miro's grid).
        profiler: How Miro scores candidates: `probe`, `trial` (the paper's short trainings) or `oracle` (trains each
            in full).
        selector: What Miro picks; a name from `mirolib.controller.SELECTORS`.
        cutline: Top share of the candidates by accuracy that selectors with a cutline consider, in (0, 1].
        points: Percentage points below the best that `cheapest-within` gives away.
        energy_budget: Joules (sample visits where there is no sensor) that `within-budget` may spend on the stream.
        memory_budget: Most RAM for both buffers, such as `2000 samples`, `64 MiB`, `system`, or a schedule by epochs;
            see `parse_budget`. A fixed controller does not heed it, and only `miro` heeds a change
            within a task.
        store_budget: Most space that the stored samples may take, such as `2 GB` or `20000 samples`; empty for no
            limit. See `Storage` for what is evicted.
        medium: A name for the card or disk the run is written to, under which wear is booked; empty for none.
        stream_size: Stream buffer for a fixed controller: samples, or an amount such as `64 MB`.
        episodic_size: Episodic memory for a fixed controller, likewise.
        swap_ratio: Share of replayed samples exchanged with storage, in [0, 1]; what the other controllers begin
            with, by default 1.
        epochs: Passes over the buffers at each task.
        batch_size: Samples in a training step.
        lr: Learning rate.
        validation_share: Share of the training samples held out.
        seed: Seed of class order, weights, augmentation, batches and swaps.
        device: `auto` (a CUDA GPU if there is one), `cpu`, `cuda:0`, …
        energy: `auto`, the name of a source (see `mirolib.energy.doctor`), among them `none`, or the path of a power
            trace to replay (`.csv` with time_s and power_w).
    """

    dataset: str = "digits"
    preset: str = ""
    data: str = ""
    tasks: int | None = None
    model: str | None = None
    method: str = "er"
    loss: str = "bce"
    memory: str = "tiered"
    controller: str = "miro"
    profiler: str = "probe"
    selector: str = "gain-per-joule"
    cutline: float = 0.5
    points: float = 2.0
    energy_budget: float | None = None
    memory_budget: str = ""
    store_budget: str = ""
    medium: str = ""
    stream_size: int | str | None = None
    episodic_size: int | str | None = None
    swap_ratio: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    validation_share: float = 0.1
    seed: int = 0
    device: str = "auto"
    energy: str = "auto"

    def __post_init__(self) -> None:
        """Checks names and ranges that need no data set."""
        for one in fields(self):
            _check_type(one.name, getattr(self, one.name), str(one.type))
        _one_of("method", self.method, METHODS)
        _one_of("memory", self.memory, MEMORIES)
        _one_of("controller", self.controller, CONTROLLERS)
        _one_of("profiler", self.profiler, PROFILERS)
        _one_of("selector", self.selector, SELECTORS)
        SelectionContext(points=self.points)  # which checks its range
        parse_budget(self.memory_budget, 1)
        parse_amount(self.store_budget, 1)
        if self.medium:
            medium_name(self.medium)
        if self.controller == "miro" and not self.validation_share > 0:
            raise InputError("The miro controller scores on validation samples; set validation_share above 0.")
        if self.controller != "fixed" and (self.stream_size is not None or self.episodic_size is not None):
            raise InputError(
                f"stream_size and episodic_size are for the fixed controller; the {self.controller} controller chooses "
                "them itself. Set controller to fixed, or leave the sizes out."
            )
        if not MEMORIES[self.memory] and self.swap_ratio:
            raise InputError("A single-level memory can't swap; set swap_ratio to 0 or memory to tiered.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; choose 0 or more.")
        stream_size, episodic_size = (_default(parse_size(n, 1), 1) for n in (self.stream_size, self.episodic_size))
        MemoryConfig(stream_size, episodic_size, _default(self.swap_ratio, 0.0))
        if self.model is not None:
            _one_of("model", self.model, MODELS)
        for name in ("tasks", "epochs", "batch_size", "lr", "cutline", "energy_budget"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; choose a value above 0.")
        if self.lr is not None and self.lr > _HIGHEST_LR:
            raise InputError(f"lr is {self.lr}; choose at most {_HIGHEST_LR:g}.")
        if not 0 <= self.cutline <= 1:
            raise InputError(f"cutline is {self.cutline}; choose a share from 0 to 1.")
        if not 0 <= self.validation_share < 1:
            raise InputError(f"validation_share is {self.validation_share}; choose a share from 0 to below 1.")
        METHODS[self.method](self.loss)
        _one_of("device", self.device.partition(":")[0], ("auto", "cpu", "cuda", "mps"))


def _check_type(name: str, value: object, declared: str) -> None:
    """Refuses a value that is not of its declared type, such as `int | None`."""
    kinds = tuple(_TYPES[kind] for kind in declared.split(" | "))
    if not isinstance(value, kinds) or isinstance(value, bool) or value in (math.inf, -math.inf) or value != value:
        raise InputError(f"{name} is {value!r}; give a value of type {declared}.")


def _one_of(parameter: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InputError(f"{parameter} is {value!r}; choose one of {', '.join(allowed)}.")


def _default(value: T | None, default: T) -> T:
    return default if value is None else value
