"""The facts of a data set: `DatasetSpec`, and how to train on it: `Preset`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from mirolib.base.errors import InputError

EPOCHS = ("buffers", "task")
"""What an epoch passes over: each slot of both buffers once, or each of the task's samples once."""


@dataclass(frozen=True)
class Preset:
    """How to train on a data set: one row of settings (paper: Table 2 and its evaluation section).

    Attributes:
        model: A name from `mirolib.learning.models.MODELS`.
        tasks: Number of tasks the classes are split into.
        epochs: Passes of a task over what `epoch_of` says; of the task's samples, the last one may be a part.
        batch_size: Samples in a training step.
        lr: Learning rate at the start of each task.
        loss: A name from `mirolib.learning.learner.LOSSES`.
        optimizer: A name from `mirolib.learning.schedules.OPTIMIZERS`, or what makes one of parameters and a preset.
        schedule: How the learning rate goes on, a name from `mirolib.learning.schedules.SCHEDULES`.
        fall: Last share of a task's work over which the schedule `falling` brings the rate to zero, in (0, 1].
        warm_start: Share of its backbone's weights that a learner takes into a new task; the rest are those it began
            with (Ash and Adams 2020, "On warm-starting neural network training", shrink and perturb), in [0, 1].
        epoch_of: What an epoch passes over: `buffers`, each slot of stream buffer and episodic memory once (the paper's
            way), or `task`, each of the task's training samples once, whatever the stream buffer holds.
        replay_ratio: Replayed samples for each new one, where an epoch is of the task: a number, `sqrt` (the root of
            old ÷ new classes) or `classes` (old ÷ new classes).
        momentum: Momentum of SGD.
        weight_decay: L2 penalty (SGD), or decoupled weight decay (AdamW).
        milestones: Epochs at which the schedule `milestones` multiplies the rate by `gamma`.
        gamma: Factor of the learning rate at each milestone.
        stream_size: Capacity of the stream buffer in samples.
        episodic_size: Capacity of the episodic memory in samples.
        swap_ratio: Share of the replayed samples exchanged with storage, in [0, 1].
        per_class: Training samples of each class that are used, evenly spread over those found; 0 for all.
        test_per_class: Test samples of each class that are used; 0 for all.
        classes: Classes that are used, the first ones; 0 for all.
        image_size: Height and width that encoded images are cut to; 0 for what the spec says.
    """

    model: str
    tasks: int
    epochs: float
    batch_size: int
    lr: float
    stream_size: int
    episodic_size: int
    swap_ratio: float
    loss: str = "ce"
    optimizer: str | Callable[..., Any] = "sgd"
    schedule: str = "falling"
    fall: float = 0.5
    warm_start: float = 1.0
    epoch_of: str = "task"
    replay_ratio: float | str = "sqrt"
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 1.0
    per_class: int = 0
    test_per_class: int = 0
    classes: int = 0
    image_size: int = 0

    def __post_init__(self) -> None:
        """Checks every number, and that milestones go with their schedule: an `InputError` else."""
        for one in fields(self):
            value: Any = getattr(self, one.name)
            if kind := {"int": Integral, "float": Real}.get(str(one.type)):
                least, most = _RANGES.get(one.name, (0, math.inf))
                if not isinstance(value, kind) or isinstance(value, bool) or not least <= float(value) <= most:
                    raise InputError(f"A preset's {one.name} is {value!r}; give an {one.type} from {least} to {most}.")
        stones = self.milestones
        if not isinstance(stones, tuple | list) or not all(isinstance(s, Real) and s > 0 for s in stones):
            raise InputError(f"A preset's milestones are {stones!r}; give epochs, such as (30, 60).")
        if self.epoch_of not in EPOCHS:
            raise InputError(f"A preset's epoch_of is {self.epoch_of!r}; choose {' or '.join(EPOCHS)}.")
        if self.epoch_of == "buffers" and self.epochs % 1:
            raise InputError(f"epochs is {self.epochs}; an epoch of the buffers is not parted: give a whole number.")
        if stones and self.schedule != "milestones":
            raise InputError(f"Milestones go with the schedule milestones, and it is {self.schedule!r}; choose one.")

    def with_epochs(self, epochs: float, epoch_of: str = "") -> Preset:
        """The same for another number of epochs, or of another kind: milestones keep their share of them."""
        stones = tuple(s * epochs / self.epochs for s in self.milestones)
        return replace(self, epochs=epochs, epoch_of=epoch_of or self.epoch_of, milestones=stones)


_RANGES = {
    "tasks": (1, math.inf), "epochs": (1e-3, math.inf), "batch_size": (1, math.inf), "stream_size": (1, math.inf),
    "lr": (1e-12, 1e6), "swap_ratio": (0, 1), "momentum": (0, 1), "fall": (1e-12, 1), "warm_start": (0, 1),
    "gamma": (1e-12, math.inf),
}  # fmt: skip


@dataclass(frozen=True)
class DatasetSpec:
    """Everything the rest of the library needs to know of a data set.

    Attributes:
        name: The name `load_dataset` knows it by.
        sample_shape: Shape of one sample, `(channels, height, width)` for images.
        sample_dtype: What samples are kept as: `uint8`, `float32`, or `jpeg` for encoded images of any size, which are
            decoded and cut to `sample_shape` at use.
        scale: The raw value that stands for 1.0, so that `raw / scale` has `mean` and `std`.
        mean: Mean of each channel, column or sensor after scaling (one value for all is enough).
        std: Standard deviation of each after scaling.
        channel_axis: Axis of a sample along which they run: 0 for the channels of images and the columns of tables, -1
            for the sensors of windows `(1, time, sensors)`.
        crop_padding: Zero padding in pixels of the random crop; 0 for none.
        flip: Whether training images are mirrored at random.
        presets: Training settings by name; the first is the default.
        source: Where the data come from.
        licence: Terms of use as their source states them.
        citation: What to cite.
        columns: Names of a table's columns, where they are known; data frames are brought into their order.
        seconds: Of the sound whose log-mel image a sample is; 0 where it is none.
        layout: How arrays of the user's are laid out, one of `mirolib.data.arrays.LAYOUTS`; "" for as `sample_shape`.
    """

    name: str
    sample_shape: tuple[int, ...]
    sample_dtype: str
    presets: Mapping[str, Preset]
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_axis: int = 0
    crop_padding: int = 0
    flip: bool = False
    source: str = ""
    licence: str = ""
    citation: str = ""
    layout: str = ""
    columns: tuple[str, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Checks that the facts fit together: an `InputError` else."""
        shape = tuple(self.sample_shape)
        channels = shape[self.channel_axis] if shape else 0
        if self.sample_dtype not in ("uint8", "float32", "jpeg") or not shape or min(shape) < 1:
            raise InputError(f"{self.name}: samples are {shape} {self.sample_dtype}; give uint8, float32 or jpeg ones.")
        if not self.presets:
            raise InputError(f"{self.name} has no presets; give one, such as {{'small': Preset(...)}}.")
        both = self.mean, self.std
        if not all(isinstance(one, tuple | list) and len(one) == len(self.mean) in (1, channels) for one in both):
            raise InputError(f"{self.name}: mean and std are {both!r:.99}; give one value, or {channels}, of each.")
        numbers = (*self.mean, *self.std, self.scale)
        if not all(math.isfinite(number) for number in numbers) or min(*self.std, self.scale) <= 0:
            raise InputError(f"{self.name}: a std or the scale is not above 0, or a value is not finite; mend it.")
        if self.sample_dtype != "float32" and self.scale == 1 and max(*map(abs, self.mean), *self.std) <= 1:
            raise InputError(f"{self.name}: mean and std are those of samples in [0, 1]; set scale to 255.")
        if (self.flip or self.crop_padding) and len(shape) != 3:
            raise InputError(f"{self.name}: flip and crop_padding are for images; samples are {shape}: leave them out.")

    @property
    def encoded(self) -> bool:
        """Whether a sample is kept as encoded bytes of its own length: an element of an object array."""
        return self.sample_dtype == "jpeg"

    def preset(self, name: str = "") -> Preset:
        """The settings called `name`, or the first ones for an empty name; an `InputError` where there is no such."""
        name = name or next(iter(self.presets))
        if name not in self.presets:
            raise InputError(f"{self.name} has no preset {name!r}; choose one of {', '.join(self.presets)}.")
        return self.presets[name]
