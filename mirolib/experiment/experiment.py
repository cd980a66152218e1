"""From a run's parameters to its parts: what notebook `10_run`, studies and sweeps have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirolib.base.display import size_text
from mirolib.base.errors import InputError
from mirolib.controller import Controller, FixedController, Miro2023Controller, MiroController, least_samples
from mirolib.controller.baselines import RandomController, ShareController, TunedController
from mirolib.controller.resources import ResourceMonitor
from mirolib.controller.selectors import SELECTORS
from mirolib.data import Dataset, Preset, load_dataset, locate
from mirolib.data.stream import TaskStream, kind_of
from mirolib.energy import EnergyMeter, EnergySource, Kind, Place, TraceSource, choose, named
from mirolib.experiment.injectors import During
from mirolib.experiment.loop import Loop, check_sizes
from mirolib.experiment.settings import CONTROLLERS, FIXED, MEMORIES, PROFILERS, RunSettings, checked, default
from mirolib.learning.learner import Learner
from mirolib.learning.methods import METHODS
from mirolib.learning.schedules import RATES
from mirolib.memory.available_memory import explain_memory_errors
from mirolib.memory.budget import parse_budget, parse_size, store_budget
from mirolib.memory.config import MemoryConfig
from mirolib.memory.rotation import least_slots, most_new, replays
from mirolib.memory.storage import Storage
from mirolib.memory.store_file import Fingerprint
from mirolib.memory.tiered import TieredMemory
from mirolib.records import EpochRecord, TaskRecord

Disturbance = Callable[[Storage], During]

_FROM_PRESET = (
    "model", "loss", "optimizer", "schedule", "epoch_of", "replay_ratio", "epochs", "batch_size", "lr",
)  # fmt: skip
_SHARES = {"share": (0.5, 1.0), "everything": (1.0, 0.25), "whole-budget": (1.0, 1.0)}  # of samples, of epochs
_IDLE_S, _MOST_IDLE_S = 2.0, 10.0  # as long as the sensor needs, within reason


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, ready to go: `run` them, or close the memory.

    In the settings every None is filled in; the disturbance, which the resource monitor injects, ends with the run.
    """

    settings: RunSettings
    stream: TaskStream
    learner: Learner
    memory: TieredMemory
    controller: Controller
    meter: EnergyMeter
    resources: ResourceMonitor
    disturbance: During | None = None

    @cached_property
    def loop(self) -> Loop:
        """The training loop over these parts, a new one where `dataclasses.replace` puts another in."""
        return Loop(self.stream, self.learner, self.memory, self.controller, self.meter, self.resources)

    @classmethod
    def build(
        cls, settings: RunSettings, store: str | Path, dataset: Dataset | None = None,
        disturb: Disturbance | None = None,
    ) -> Experiment:  # fmt: skip
        """Builds the parts, with the data set itself where it is the user's own or already loaded.

        The store's folder is new or of the same data set, class order and seed; `disturb` makes its life hard during
        some epochs, as `mirolib.experiment.injectors.throttling` does. There is an `InputError` if a parameter is
        unknown, out of range, or exceeds what the data set holds, and a `StorageError` if the store can't be made.
        """
        return cls.of(*prepared(settings, dataset), store, disturb)

    @classmethod
    def of(
        cls, stream: TaskStream, filled: RunSettings, store: str | Path, disturb: Disturbance | None = None
    ) -> Experiment:
        """Builds the parts from what `prepared` gave; otherwise as `build`."""
        spec = stream.dataset.spec
        # what chooses for itself begins with next to nothing, so as not to exceed a budget before it has chosen
        stream_size, episodic_size = (int(default(n, 1)) for n in (filled.stream_size, filled.episodic_size))
        config = MemoryConfig(stream_size, episodic_size, default(filled.swap_ratio, 0.0))
        check_sizes(config, stream)
        chosen = {name: value for name in _FROM_PRESET if (value := getattr(filled, name)) is not None}
        preset = spec.preset(filled.preset).with_epochs(chosen["epochs"], chosen["epoch_of"])
        stones = preset.milestones if chosen["schedule"] == "milestones" else ()
        preset, method = replace(preset, milestones=stones, **chosen), METHODS[filled.method](chosen["loss"])
        learner = Learner(
            spec, preset, method=method, device=filled.device, seed=filled.seed, round_steps=filled.round_steps
        )
        source = _source(filled)
        meter = EnergyMeter(source, settle=filled.energy_settle)
        controller = _controller(filled, config, source.kind)
        storage = Storage(store, Fingerprint.of(stream), size_budget=store_budget(filled.store_budget, stream))
        tiered = MEMORIES[filled.memory]
        memory = TieredMemory(
            storage, config, stream.num_classes, seed=filled.seed, hierarchical=tiered, block=filled.block,
            balance=filled.balance,
        )  # fmt: skip
        budget = parse_budget(filled.memory_budget, memory.slot_bytes)
        disturbance = disturb(memory.storage) if disturb else None
        resources = ResourceMonitor(memory, budget, injectors=[disturbance] if disturbance else [])
        return cls(filled, stream, learner, memory, controller, meter, resources, disturbance)

    def run(self, *, progress: bool = True) -> Iterator[TaskRecord]:
        """`steps`, but for the records of epochs."""
        return (step for step in self.steps(progress=progress) if isinstance(step, TaskRecord))

    def steps(self, *, progress: bool = True) -> Iterator[EpochRecord | TaskRecord]:
        """Runs the training loop (see `Loop.steps`) to its end and closes memory and energy source.

        Where there is a sensor the machine's power at rest is measured first.
        """
        loop, meter = self.loop, self.meter  # the loop first: it tells the meter what work to count
        with explain_memory_errors("Training"), self.memory, self.disturbance or nullcontext(), closing(meter.source):
            if meter.source.kind.startswith("measured"):
                meter.measure_idle(max(_IDLE_S, min(meter.source.least_s, _MOST_IDLE_S)))
            yield from loop.steps(progress=progress)


def _source(filled: RunSettings) -> EnergySource:
    """The energy source that filled settings name."""
    if filled.energy.endswith(".csv"):
        return TraceSource.from_csv(filled.energy)
    place = Place(filled.device, filled.energy_device, filled.energy_board, filled.energy_domains)
    return choose(place) if filled.energy == "auto" else named(filled.energy, place)


def located(settings: RunSettings) -> RunSettings:
    """The settings with a user's own data by name and absolute place, so that they hold wherever a run goes on."""
    dataset, data = locate(checked(settings).dataset, settings.data)
    return replace(settings, dataset=dataset, data=data)


def prepared(settings: RunSettings, dataset: Dataset | None = None) -> tuple[TaskStream, RunSettings]:
    """The stream of a run and its settings with every None that has a default replaced by it, sizes in samples.

    Its arguments and the `InputError` that it raises are those of `Experiment.build`.
    """
    if dataset is None:
        settings = located(settings)
        dataset = load_dataset(settings.dataset, root=settings.data or None, preset=settings.preset)
    preset = dataset.spec.preset(settings.preset)
    tasks, by_group = preset.tasks * kind_of(settings.stream)[0], settings.stream == "domain-incremental"
    told = settings.base_classes or settings.increment or ";" in settings.class_order or by_group
    stream = TaskStream(
        dataset, settings.tasks if told or settings.tasks else tasks, settings.seed, settings.validation_share,
        settings.stream, settings.class_order, settings.base_classes or 0, settings.increment or 0, settings.class_seed,
    )  # fmt: skip
    largest, total = stream.most_samples()
    fixed, slot_bytes = settings.controller in FIXED, Fingerprint.of(stream).slot_bytes
    sizes = (parse_size(size, slot_bytes) for size in (settings.stream_size, settings.episodic_size))
    of_controller = preset.epoch_of if settings.controller == "fixed" else CONTROLLERS[settings.controller]
    epoch_of = default(settings.epoch_of, of_controller)
    for size_bytes in parse_budget(settings.memory_budget, slot_bytes).sizes:
        check_budget(size_bytes // slot_bytes, settings.controller, stream, slot_bytes)
    own = {name: getattr(preset, name) for name in _FROM_PRESET}
    own |= {"epoch_of": epoch_of, "epochs": _epochs(preset, epoch_of, total)}
    if epoch_of == "buffers":  # whose slots are replayed once each
        own["replay_ratio"] = None
    # as high as possible where a controller may lower it (P3); one level alone has nothing to swap with
    own_ratio = (preset.swap_ratio if fixed else 1.0) if MEMORIES[settings.memory] else 0.0
    swap_ratio, batch_size = default(settings.swap_ratio, own_ratio), default(settings.batch_size, preset.batch_size)
    passing = batch_size, swap_ratio if MEMORIES[settings.memory] else 1.0
    # a preset's sizes are for its own data and batches; a part of them may hold less
    wanted = max(preset.stream_size, least_slots(*passing) if epoch_of == "task" else 0)
    defaults = (min(wanted, largest), min(preset.episodic_size, total)) if fixed else (None, None)
    stream_size, episodic_size = map(default, sizes, defaults)
    if epoch_of == "task" and fixed and stream_size < largest:
        most_new(stream_size, passing[1], batch_size=batch_size)
    if callable(preset.optimizer):  # it has no name that could be written down
        own["optimizer"] = None
    elif settings.optimizer not in (None, preset.optimizer):
        own["lr"] = RATES.get(settings.optimizer, preset.lr)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    filled = replace(
        settings,
        dataset=settings.dataset if "?" in settings.dataset else dataset.spec.name,
        preset=settings.preset or next(iter(dataset.spec.presets)),
        tasks=len(stream),
        stream_size=stream_size,
        episodic_size=episodic_size,
        swap_ratio=swap_ratio,
        device=device if settings.device == "auto" else settings.device,
        **{name: default(getattr(settings, name), own[name]) for name in _FROM_PRESET},
    )
    return stream, filled


def check_budget(samples: int, controller: str, stream: TaskStream, slot_bytes: int) -> None:
    """Refuses, by an `InputError`, a memory budget of fewer samples than a controller needs for some task.

    A sample takes `slot_bytes` of RAM.
    """
    needs = {"miro-2023": least_samples(stream), "random": least_samples(stream)} | dict.fromkeys(FIXED, 1)
    if samples < (least := needs.get(controller, 2)):
        what = "one of each class" if least > 2 else "one in each buffer"
        raise InputError(
            f"A memory budget of {samples:,} samples does not hold the smallest configuration, {least:,} samples "
            f"({size_text(least * slot_bytes)}): {what}; give that or more."
        )


def _epochs(preset: Preset, epoch_of: str, total: int) -> float:
    """A preset's epochs, or as many of the other kind as make about the same visits at its sizes."""
    if epoch_of == preset.epoch_of:
        return preset.epochs
    share, before = total / preset.tasks, np.arange(preset.tasks)
    of_task = share * (1 + np.mean([replays("replay_ratio", preset.replay_ratio, int(old)) for old in before]))
    # half of a task at least: a controller chooses other sizes than a preset's small ones
    stream = min(max(preset.stream_size, share / 2), share)
    of_buffers = stream + np.minimum(preset.episodic_size, before * share).mean()
    if epoch_of == "buffers":
        return max(1, round(float(preset.epochs * of_task / of_buffers)))
    return max(0.01, round(float(preset.epochs * of_buffers / of_task), 2))


def _controller(filled: RunSettings, config: MemoryConfig, energy_kind: Kind) -> Controller:
    """The controller that filled settings name."""
    ratio, name, seed = config.swap_ratio, filled.controller, filled.seed
    if name in FIXED:
        return FixedController(config)
    if name in _SHARES:
        return ShareController(*_SHARES[name], swap_ratio=ratio)
    if name in ("tuned", "random"):
        return (TunedController if name == "tuned" else RandomController)(swap_ratio=ratio, seed=seed)
    run: dict[str, Any] = {"swap_ratio": ratio, "num_tasks": filled.tasks, "energy_kind": energy_kind}
    if name == "miro":
        return MiroController(filled.objective, **run)
    run |= {name: getattr(filled, name) for name in ("cutline", "points", "energy_budget", "seed")}
    return Miro2023Controller(PROFILERS[filled.profiler](), SELECTORS[filled.selector], **run)
