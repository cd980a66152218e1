"""From a run's parameters to its parts: what notebook `10_run`, studies and sweeps have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import torch

from mirolib.budgets import parse_amount, parse_budget, parse_size, store_budget
from mirolib.controller import (
    SELECTORS,
    Controller,
    FixedController,
    MiroController,
    ProbeProfiler,
    Profiler,
    RandomController,
    TrialProfiler,
    WholeBudgetController,
    full_training,
)
from mirolib.datasets import Dataset, Preset, load_dataset
from mirolib.energy import EnergyMeter, Kind, TraceSource, named
from mirolib.errors import InputError
from mirolib.injectors import During
from mirolib.learner import METHODS, Learner
from mirolib.limits import telling
from mirolib.loop import Loop, check_sizes
from mirolib.memory import MemoryConfig, TieredMemory
from mirolib.models import MODELS
from mirolib.records import EpochRecord, TaskRecord
from mirolib.resources import ResourceMonitor
from mirolib.storage import Fingerprint, Storage
from mirolib.stream import TaskStream
from mirolib.wear import medium_name

T = TypeVar("T")

Disturbance = Callable[[Storage], During]

CONTROLLERS = ("miro", "fixed", "whole-budget", "random")
PROFILERS: dict[str, Callable[[], Profiler]] = {
    "probe": ProbeProfiler,
    "trial": TrialProfiler,
    "oracle": full_training,
}
_IDLE_S = 2.0
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
        method: `er` (experience replay), `bic` (bias correction, see `mirolib.bic`) or `finetuning` (no replay).
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
            see `mirolib.budgets.parse_budget`. A fixed controller does not heed it, and only `miro` heeds a change
            within a task.
        store_budget: Most space that the stored samples may take, such as `2 GB` or `20000 samples`; empty for no
            limit. See `Storage` for what is evicted.
        medium: A name for the card or disk the run is written to, under which `mirolib.wear` books it; empty for none.
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
        SELECTORS["cheapest-within"](self.points, None)
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


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, ready to go: `run` them, or close the memory.

    Attributes:
        settings: The settings with every None filled in.
        stream: The tasks.
        learner: The learner.
        memory: The tiered memory on its store.
        controller: The controller.
        meter: The energy meter.
        resources: The resource monitor.
        disturbance: What the resource monitor injects; it ends with the run.
        loop: The training loop over these parts, a new one where `dataclasses.replace` puts another in.
    """

    settings: RunSettings
    stream: TaskStream
    learner: Learner
    memory: TieredMemory
    controller: Controller
    meter: EnergyMeter
    resources: ResourceMonitor
    disturbance: During | None = None
    loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        """Joins the parts."""
        parts = (self.stream, self.learner, self.memory, self.controller, self.meter, self.resources)
        object.__setattr__(self, "loop", Loop(*parts))

    @classmethod
    def build(
        cls,
        settings: RunSettings,
        store: str | Path,
        dataset: Dataset | None = None,
        disturb: Disturbance | None = None,
    ) -> Experiment:
        """Builds the parts.

        Args:
            settings: The run's parameters.
            store: Folder for the store, new or of the same data set, class order and seed.
            dataset: The data set itself, where it is the user's own or already loaded.
            disturb: Makes the store's life hard during some epochs, such as `mirolib.injectors.throttling`.

        Raises:
            InputError: If a parameter is unknown, out of range, or exceeds what the data set holds.
            StorageError: If the store can't be made.
        """
        stream, filled = prepared(settings, dataset)
        dataset, preset = stream.dataset, stream.dataset.spec.preset(settings.preset)
        # What chooses for itself begins with next to nothing, so as not to exceed a budget before it has chosen.
        stream_size, episodic_size = (1 if n is None else int(n) for n in (filled.stream_size, filled.episodic_size))
        config = MemoryConfig(stream_size, episodic_size, _default(filled.swap_ratio, 0.0))
        check_sizes(config, stream)
        chosen = {name: getattr(filled, name) for name in ("model", "epochs", "batch_size", "lr")}
        learner = Learner(
            dataset.spec,
            replace(preset, **chosen),
            method=METHODS[filled.method](filled.loss),
            device=filled.device,
            seed=filled.seed,
        )
        meter = _meter(filled.energy)
        controller = _controller(filled, config, meter.source.kind)
        storage = Storage(store, Fingerprint.of(stream), size_budget=store_budget(filled.store_budget, stream))
        try:
            tiered = MEMORIES[filled.memory]
            memory = TieredMemory(storage, config, stream.num_classes, seed=filled.seed, hierarchical=tiered)
        except BaseException:
            storage.close()
            raise
        budget = parse_budget(filled.memory_budget, memory.slot_bytes)
        disturbance = disturb(memory.storage) if disturb else None
        resources = ResourceMonitor(memory, budget, injectors=[disturbance] if disturbance else [])
        return cls(filled, stream, learner, memory, controller, meter, resources, disturbance)

    def run(self, *, progress: bool = True) -> Iterator[TaskRecord]:
        """`steps`, but for the records of epochs."""
        for step in self.steps(progress=progress):
            if isinstance(step, TaskRecord):
                yield step

    def steps(self, *, progress: bool = True) -> Iterator[EpochRecord | TaskRecord]:
        """Runs the training loop (see `Loop.steps`) to its end and closes memory and energy source.

        Where there is a sensor the machine's power at rest is measured first.
        """
        with telling("Training"), self.memory, self.disturbance or nullcontext(), closing(self.meter.source):
            if self.meter.source.kind.startswith("measured"):
                self.meter.measure_idle(_IDLE_S)
            yield from self.loop.steps(progress=progress)


def prepared(settings: RunSettings, dataset: Dataset | None = None) -> tuple[TaskStream, RunSettings]:
    """The stream of a run and its settings with every None that has a default replaced by it.

    Args:
        settings: The run's parameters.
        dataset: The data set itself, where it is the user's own or already loaded.

    Raises:
        InputError: If a parameter is unknown, out of range, or exceeds what the data set holds.
    """
    dataset = dataset or load_dataset(settings.dataset, root=settings.data or None, preset=settings.preset)
    preset = dataset.spec.preset(settings.preset)
    stream = TaskStream(dataset, _default(settings.tasks, preset.tasks), settings.seed, settings.validation_share)
    return stream, _filled(settings, dataset, preset, stream)


def _default(value: T | None, default: T) -> T:
    return default if value is None else value


def _filled(settings: RunSettings, dataset: Dataset, preset: Preset, stream: TaskStream) -> RunSettings:
    """The settings with every None that has a default replaced by it, and sizes in samples."""
    largest, total = stream.most_samples()
    fixed, slot_bytes = settings.controller == "fixed", Fingerprint.of(stream).slot_bytes
    stream_size, episodic_size = (
        parse_size(size, slot_bytes) for size in (settings.stream_size, settings.episodic_size)
    )
    return replace(
        settings,
        dataset=dataset.spec.name,
        preset=settings.preset or next(iter(dataset.spec.presets)),
        tasks=len(stream),
        model=_default(settings.model, preset.model),
        stream_size=_default(stream_size, min(preset.stream_size, largest) if fixed else None),
        episodic_size=_default(episodic_size, min(preset.episodic_size, total) if fixed else None),
        swap_ratio=_default(settings.swap_ratio, _swap_ratio(settings, preset)),
        epochs=_default(settings.epochs, preset.epochs),
        batch_size=_default(settings.batch_size, preset.batch_size),
        lr=_default(settings.lr, preset.lr),
        device=_device(settings.device),
    )


def _swap_ratio(settings: RunSettings, preset: Preset) -> float:
    """The ratio where none is given: as high as possible where a controller may lower it (P3)."""
    if not MEMORIES[settings.memory]:
        return 0.0
    return preset.swap_ratio if settings.controller == "fixed" else 1.0


def _controller(filled: RunSettings, config: MemoryConfig, energy_kind: Kind) -> Controller:
    """The controller that filled settings name."""
    ratio = config.swap_ratio
    if filled.controller == "fixed":
        return FixedController(config)
    if filled.controller == "whole-budget":
        return WholeBudgetController(swap_ratio=ratio)
    if filled.controller == "random":
        return RandomController(swap_ratio=ratio, seed=filled.seed)
    return MiroController(
        PROFILERS[filled.profiler](),
        SELECTORS[filled.selector](filled.points, filled.energy_budget),
        swap_ratio=ratio,
        cutline=filled.cutline,
        num_tasks=filled.tasks,
        energy_kind=energy_kind,
        seed=filled.seed,
    )


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _meter(energy: str) -> EnergyMeter:
    if energy == "auto":
        return EnergyMeter.auto()
    return EnergyMeter(TraceSource.from_csv(energy) if energy.endswith(".csv") else named(energy))
