"""The parameters of a run: one place that says what each means, its default and its range.

The parameters cell of notebook `10_run` is generated from here (`RunSettings.cell`), and so is docs/parameters.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from mirolib.base.errors import InputError
from mirolib.controller import ProbeProfiler, Profiler, TrialProfiler, full_training, parse_objective
from mirolib.controller.selectors import SELECTORS, SelectionContext
from mirolib.data.spec import EPOCHS
from mirolib.data.stream import kind_of
from mirolib.learning.learner import LOSSES, ROUND_STEPS
from mirolib.learning.methods import METHODS
from mirolib.learning.models import MODELS
from mirolib.learning.schedules import OPTIMIZERS, SCHEDULES
from mirolib.memory.budget import parse_amount, parse_budget, parse_size
from mirolib.memory.config import MemoryConfig
from mirolib.memory.rotation import replays
from mirolib.memory.tiers import BALANCES
from mirolib.memory.wear import medium_name

CONTROLLERS = {
    "miro": "task", "fixed": "task", "tuned": "task", "carm": "buffers", "share": "buffers", "everything": "buffers",
    "whole-budget": "buffers", "random": "buffers", "miro-2023": "buffers",
}  # fmt: skip
"""Controllers by name, and what an epoch passes over: with `fixed`, either."""
FIXED = ("fixed", "carm")
"""Controllers with the same sizes and epochs at each task, the preset's unless told otherwise."""
PROFILERS: dict[str, Callable[[], Profiler]] = {"probe": ProbeProfiler, "trial": TrialProfiler, "oracle": full_training}
MEMORIES = {"tiered": True, "single-level": False}

_TYPES: dict[str, Any] = {"int": Integral, "float": Real, "str": str, "bool": bool, "None": type(None)}

Check = Callable[[str, Any], object]
"""Refuses a value that is out of range, given the parameter's name and the value, which is not None."""


def _within(holds: Callable[[Any], bool], choice: str) -> Check:
    """A check of a range, with what to choose where it does not hold."""

    def check(name: str, value: Any) -> None:
        if not holds(value):
            raise InputError(f"{name} is {value}; choose {choice}.")

    return check


_above_0 = _within(lambda value: value > 0, "a value above 0")
# far beyond any rate that learns, and the square of its step is still a number in float32
_rate = _within(lambda value: 0 < value <= 1e6, "at most 1e+06, and above 0")
_share = _within(lambda value: 0 <= value < 1, "a share from 0 to below 1")
_top_share = _within(lambda value: 0 < value <= 1, "a share from 0 to 1, and above 0")
_seed = _within(lambda value: value >= 0, "0 or more")


def _device(name: str, value: str) -> None:
    _check_choice(name, value.partition(":")[0], ("auto", "cpu", "cuda", "mps"))


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def _setting(default: Any, means: str, allowed: Check | Collection[str] = ()) -> Any:
    """A parameter: its default, what it means in one line, and the names it may have, or what refuses other values.

    Names are looked up when a value is checked: a registry may have grown by then.
    """
    check, choices = (allowed, ()) if callable(allowed) else (None, allowed)
    return field(default=default, metadata={"means": means, "check": check, "choices": choices})


@dataclass(frozen=True)
class RunSettings:
    """The parameters of one run; None takes the value of the data set's preset."""

    dataset: str = _setting(
        "digits", "digits (bundled), cifar100, tiny-imagenet, dsads, urbansound8k, imagenet1k, or a path"
    )
    preset: str = _setting("", 'settings of the data set: small, medium, paper; "" for its default')
    data: str = _setting("", 'folder of the data sets, or one of your own; "" for the repository\'s, or MIRO_DATA')
    tasks: int | None = _setting(None, "tasks the classes are split into; None: the preset's", _above_0)
    stream: str = _setting(
        "class-incremental",
        "how tasks come: class-incremental, domain-incremental (by group), returning, blurry",
        lambda _, value: kind_of(value),
    )
    class_order: str = _setting(
        "", 'order of classes or groups: "cat, dog, cow", or by task "cat, dog; cow"; "" draws one'
    )
    class_seed: int | None = _setting(None, "seed of that order alone; None: the seed", _seed)
    base_classes: int | None = _setting(None, "classes of the first task, beside increment; None: alike", _above_0)
    increment: int | None = _setting(None, "classes of each further task; None: by tasks", _above_0)
    model: str | None = _setting(
        None, "cnn, cnn-wide, cnn1d, mlp-bn, preact-resnet32, resnet18, ...; None: the preset's", MODELS
    )
    method: str = _setting(
        "er", "er (experience replay), er-ace, bic (bias correction), lwf or finetuning (no replay)", METHODS
    )
    loss: str | None = _setting(
        None, "ce (cross-entropy), bce (the paper's) or bce-sum; None: the preset's; of er, finetuning", LOSSES
    )
    memory: str = _setting("tiered", "tiered, or single-level: an episodic memory without storage below it", MEMORIES)
    balance: str = _setting("class", "what old samples are balanced by: class or class-and-task", BALANCES)
    controller: str = _setting(
        "miro", "who decides: miro, fixed, tuned, carm, share, everything, whole-budget, random, miro-2023", CONTROLLERS
    )
    objective: str = _setting(
        "knee",
        "what miro aims at: knee, or with a value accuracy, energy_budget, rate: docs/how_to_choose.md",
        lambda _, value: parse_objective(value),
    )
    profiler: str = _setting(
        "probe",
        "how miro-2023 scores sizes: probe, trial (the paper's short trainings), oracle (trains each)",
        PROFILERS,
    )
    selector: str = _setting(
        "gain-per-joule", "what miro-2023 picks: accuracy-per-joule, cheapest-within, highest-accuracy, ...", SELECTORS
    )
    cutline: float = _setting(0.5, "top share of the candidates by accuracy, for selectors that use it", _top_share)
    points: float = _setting(
        2.0,
        "percentage points below the best that cheapest-within gives away",
        lambda name, value: SelectionContext(points=value),
    )
    energy_budget: float | None = _setting(
        None, "of the stream, for selector within-budget: joules; visits without a sensor", _above_0
    )
    memory_budget: str = _setting(
        "",
        "most RAM for both buffers: 2000 samples, 64 MiB, system, or a schedule by epochs",
        lambda name, value: parse_budget(value, 1),
    )
    store_budget: str = _setting(
        "", 'most space for stored samples: 2 GB, 20000 samples; "" for no limit', lambda _, v: parse_amount(v, 1)
    )
    medium: str = _setting(
        "",
        'name of the card or disk written to, for `python -m mirolib wear`; "" for none',
        lambda name, value: value and medium_name(value),
    )
    stream_size: int | str | None = _setting(
        None, "fixed controller: stream buffer in samples, or as 64 MB; None: the preset's"
    )
    episodic_size: int | str | None = _setting(None, "fixed controller: episodic memory, likewise")
    swap_ratio: float | None = _setting(
        None, "share of replayed samples exchanged, 0 to 1; None: 1, or the preset's if fixed"
    )
    block: int = _setting(
        1, "neighbours on storage that are exchanged together; 4 for cards that read few at random", _above_0
    )
    epoch_of: str | None = _setting(
        None, "what an epoch passes over: buffers (the paper's way) or task; None: the preset's", EPOCHS
    )
    replay_ratio: float | str | None = _setting(
        None, "old samples for a new one: a number, sqrt or classes; None: the preset's", replays
    )
    epochs: int | float | None = _setting(None, "passes over the task or the buffers; None: the preset's", _above_0)
    round_steps: int = _setting(
        ROUND_STEPS, "steps after which an epoch of the task is looked at, kept in a checkpoint, paused", _above_0
    )
    batch_size: int | None = _setting(None, "samples in a training step; None: the preset's", _above_0)
    optimizer: str | None = _setting(None, "sgd or adamw; None: the preset's", OPTIMIZERS)
    schedule: str | None = _setting(
        None, "of the learning rate: falling, constant or milestones; None: the preset's", SCHEDULES
    )
    lr: float | None = _setting(None, "learning rate; None: the preset's, or one that suits another optimizer", _rate)
    validation_share: float = _setting(0.1, "share of the training samples held out, 0 up to 1", _share)
    seed: int = _setting(0, "of class order, weights, augmentation, batches and swaps", _seed)
    device: str = _setting("auto", "auto (a CUDA GPU if there is one), cpu, cuda:0, ...", _device)
    energy: str = _setting(
        "auto", "auto, a source that mirolib.doctor() names, none, or a power trace to replay (.csv)"
    )
    energy_device: str = _setting(
        "", 'graphics cards to read: indices or UUIDs, with commas; "" for the one that trains'
    )
    energy_board: str = _setting("", 'name of the board where a container hides it: docs/energy.md; "" to look it up')
    energy_domains: str = _setting("", 'RAPL domains: psys, or -dram to leave one out, ...; "" for packages and DRAM')
    energy_settle: bool = _setting(False, "rest before and after each phase where the sensor averages (seconds each)")

    def __post_init__(self) -> None:
        """Checks types, ranges and what can't go together, as far as that needs no data set: an `InputError` else."""
        for one in fields(self):
            value, check, choices = getattr(self, one.name), one.metadata["check"], one.metadata["choices"]
            kinds = tuple(_TYPES[kind] for kind in str(one.type).split(" | "))
            finite = not isinstance(value, float) or math.isfinite(value)
            # a bool is no number here
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or not finite:
                raise InputError(f"{one.name} is {value!r}; give a value of type {one.type}.")
            if value is None:
                continue
            if choices:
                _check_choice(one.name, value, choices)
            if check:
                check(one.name, value)
        for name, value in (("controller", self.controller), ("method", self.method)):
            if value in ("miro", "tuned", "miro-2023", "bic") and not self.validation_share > 0:
                raise InputError(f"The {value} {name} looks at validation samples; set validation_share above 0.")
        if self.energy_budget is not None and (self.controller, self.selector) != ("miro-2023", "within-budget"):
            raise InputError(
                "energy_budget is for selector within-budget of the miro-2023 controller; with miro, state it as "
                "objective, such as energy_budget=50 kJ."
            )
        if self.controller not in FIXED and (self.stream_size is not None or self.episodic_size is not None):
            raise InputError(
                f"stream_size and episodic_size are for the fixed controller; the {self.controller} controller chooses "
                "them itself. Set controller to fixed, or leave the sizes out."
            )
        if self.replay_ratio is not None and self.epoch_of == "buffers":
            raise InputError(
                "replay_ratio is for epochs of the task; set epoch_of to task, or leave it out: an epoch of the "
                "buffers replays each slot once."
            )
        if self.controller != "fixed" and self.epoch_of not in (None, wanted := CONTROLLERS[self.controller]):
            raise InputError(
                f"The {self.controller} controller goes by epochs of the {wanted}; leave epoch_of out, or set "
                "controller to fixed."
            )
        if not MEMORIES[self.memory] and self.swap_ratio:
            raise InputError("A single-level memory can't swap; set swap_ratio to 0 or memory to tiered.")
        stream_size, episodic_size = (default(parse_size(n, 1), 1) for n in (self.stream_size, self.episodic_size))
        MemoryConfig(stream_size, episodic_size, default(self.swap_ratio, 0.0))

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> RunSettings:
        """Settings from a notebook's parameters cell: `RunSettings.from_cell(globals())`; other names are left aside.

        There is an `InputError` if a parameter is missing or out of range.
        """
        if missing := [one.name for one in fields(cls) if one.name not in names]:
            raise InputError(f"The parameters cell does not set {', '.join(missing)}; take it from RunSettings.cell().")
        return cls(**{one.name: names[one.name] for one in fields(cls)})

    @classmethod
    def cell(cls) -> str:
        """The lines of a notebook's parameters cell: each parameter with its type, default and meaning."""
        lines = []
        for one in fields(cls):
            value = f'"{one.default}"' if isinstance(one.default, str) else repr(one.default)
            lines.append(f"{one.name}: {_cell_type(str(one.type))} = {value}  # {one.metadata['means']}")
        return "\n".join(lines)


def checked(settings: object) -> RunSettings:
    """The settings, which may come from anyone: an `InputError` if they are something else."""
    if not isinstance(settings, RunSettings):
        raise InputError(f"{settings!r:.99} is no RunSettings; write RunSettings({settings!r:.99}, epochs=2), say.")
    return settings


_MEANINGS = [f"        {one.name}: {one.metadata['means']}" for one in fields(RunSettings)]
RunSettings.__doc__ = "\n".join([f"{RunSettings.__doc__}\n\n    Attributes:", *_MEANINGS])


def default(value: Any, otherwise: Any) -> Any:
    """The value, or what holds where it is None."""
    return otherwise if value is None else value


def _cell_type(declared: str) -> str:
    """A type as papermill reads it: it knows no `int | None`."""
    if declared.count("|") > 1:
        return f"Union[{declared.replace(' |', ',')}]"
    return re.sub(r"(.+) \| None", r"Optional[\1]", declared)
