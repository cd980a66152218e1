"""From a run's parameters to its parts: what notebook `10_run`, studies and sweeps have in common."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm.auto import tqdm

from mirolib.controller import Controller, FixedController
from mirolib.datasets import Dataset, load_dataset
from mirolib.energy import EnergyMeter, NullSource, TraceSource, total_energy_j
from mirolib.errors import InputError
from mirolib.learner import METHODS, Learner
from mirolib.loop import TaskRecord, check_sizes, run
from mirolib.memory import MemoryConfig, TieredMemory
from mirolib.resources import ResourceMonitor
from mirolib.storage import Fingerprint, Storage
from mirolib.stream import TaskStream

T = TypeVar("T")

CONTROLLERS: dict[str, type[FixedController]] = {"fixed": FixedController}
_TYPES: dict[str, Any] = {"int": Integral, "float": Real, "str": str}
MEMORIES = {"tiered": True, "single-level": False}


@dataclass(frozen=True)
class RunSettings:
    """The parameters of one run; None takes the value of the data set's preset.

    Attributes:
        dataset: Name of the data set.
        preset: Name of its settings; empty for its default.
        tasks: Number of tasks the classes are split into.
        model: Name of the model.
        method: `er` (experience replay) or `finetuning` (no replay).
        loss: `bce` (binary cross-entropy, the paper's) or `ce` (cross-entropy).
        memory: `tiered`, or `single-level` for an episodic memory without storage below it.
        controller: `fixed`.
        stream_size: Stream buffer in samples.
        episodic_size: Episodic memory in samples.
        swap_ratio: Share of replayed samples exchanged with storage, in [0, 1].
        epochs: Passes over the buffers at each task.
        batch_size: Samples in a training step.
        lr: Learning rate.
        validation_share: Share of the training samples held out.
        seed: Seed of class order, weights, augmentation, batches and swaps.
        device: `auto` (a CUDA GPU if there is one), `cpu`, `cuda:0`, …
        energy: `auto`, `none`, or the path of a power trace to replay (CSV with time_s and power_w).
    """

    dataset: str = "digits"
    preset: str = ""
    tasks: int | None = None
    model: str | None = None
    method: str = "er"
    loss: str = "bce"
    memory: str = "tiered"
    controller: str = "fixed"
    stream_size: int | None = None
    episodic_size: int | None = None
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
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), str(field.type))
        _one_of("method", self.method, METHODS)
        _one_of("memory", self.memory, MEMORIES)
        _one_of("controller", self.controller, CONTROLLERS)
        if not MEMORIES[self.memory] and self.swap_ratio:
            raise InputError("A single-level memory can't swap; set swap_ratio to 0 or memory to tiered.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; choose 0 or more.")
        for name in ("epochs", "batch_size", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; choose a value above 0.")


def _check_type(name: str, value: object, declared: str) -> None:
    """Refuses a value that is not of its declared type, such as `int | None`."""
    kind, _, optional = declared.partition(" | ")
    if value is None and optional:
        return
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) or (kind == "float" and not math.isfinite(value)):
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
    """

    settings: RunSettings
    stream: TaskStream
    learner: Learner
    memory: TieredMemory
    controller: Controller
    meter: EnergyMeter
    resources: ResourceMonitor

    @classmethod
    def build(cls, settings: RunSettings, store: str | Path, dataset: Dataset | None = None) -> Experiment:
        """Builds the parts.

        Args:
            settings: The run's parameters.
            store: Folder for the store, new or of the same data set, class order and seed.
            dataset: The data set itself, where it is the user's own or already loaded.

        Raises:
            InputError: If a parameter is unknown, out of range, or exceeds what the data set holds.
            StorageError: If the store can't be made.
        """
        dataset = dataset or load_dataset(settings.dataset)
        preset = dataset.spec.preset(settings.preset)
        stream = TaskStream(dataset, _default(settings.tasks, preset.tasks), settings.seed, settings.validation_share)
        largest, total = stream.most_samples()
        filled = replace(
            settings,
            dataset=dataset.spec.name,
            preset=settings.preset or next(iter(dataset.spec.presets)),
            tasks=len(stream),
            model=_default(settings.model, preset.model),
            stream_size=_default(settings.stream_size, min(preset.stream_size, largest)),
            episodic_size=_default(settings.episodic_size, min(preset.episodic_size, total)),
            swap_ratio=_default(settings.swap_ratio, preset.swap_ratio if MEMORIES[settings.memory] else 0.0),
            epochs=_default(settings.epochs, preset.epochs),
            batch_size=_default(settings.batch_size, preset.batch_size),
            lr=_default(settings.lr, preset.lr),
            device=_device(settings.device),
        )
        config = MemoryConfig(filled.stream_size, filled.episodic_size, filled.swap_ratio)  # type: ignore[arg-type]
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
        memory = TieredMemory(
            Storage(store, Fingerprint.of(stream)),
            config,
            stream.num_classes,
            seed=filled.seed,
            hierarchical=MEMORIES[filled.memory],
        )
        controller = CONTROLLERS[filled.controller](config)
        return cls(filled, stream, learner, memory, controller, meter, ResourceMonitor(memory))

    def run(self, *, progress: bool = True) -> Iterator[TaskRecord]:
        """Runs the training loop, yielding a record after each task, and closes the memory."""
        with self.memory:
            yield from run(
                self.stream, self.learner, self.memory, self.controller, self.meter, self.resources, progress=progress
            )


def _default(value: T | None, default: T) -> T:
    return default if value is None else value


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _meter(energy: str) -> EnergyMeter:
    if energy == "auto":
        return EnergyMeter.auto()
    return EnergyMeter(NullSource() if energy == "none" else TraceSource.from_csv(energy))


def summarise(records: list[TaskRecord]) -> dict[str, object]:
    """One flat row of a run: accuracy after the last task, energy and work over all tasks.

    Energy and work come by window (`train_energy_j`, `evaluate_visits`, …), profiling on its own.
    """
    if not records:
        return {}
    last = records[-1]
    readings = [reading for record in records for reading in record.readings]
    row: dict[str, object] = {
        "tasks_done": len(records),
        "final_accuracy": last.average_accuracy,
        "average_incremental_accuracy": last.average_incremental_accuracy,
        "forgetting": last.forgetting,
        "backward_transfer": last.backward_transfer,
        "swapped": sum(record.swaps.swapped for record in records),
        "stall_s": sum(record.swaps.stall_s for record in records),
        "bytes_read": sum(reading.work.bytes_read for reading in readings),
        "bytes_written": sum(reading.work.bytes_written for reading in readings),
        "energy_kind": readings[0].kind,
        "energy_scope": readings[0].scope,
    }
    for window in dict.fromkeys(reading.window for reading in readings):
        ours = [reading for reading in readings if reading.window == window]
        row[f"{window}_visits"] = sum(reading.work.visits for reading in ours)
        row[f"{window}_s"] = sum(reading.duration_s for reading in ours)
        row[f"{window}_cpu_s"] = sum(reading.work.cpu_s for reading in ours)
        row[f"{window}_energy_j"] = total_energy_j(ours)
    return row


def run_all(
    settings: Iterable[RunSettings],
    *,
    save: Callable[[pd.DataFrame], object] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Runs settings one after another in this process, each on a store of its own that is deleted afterwards.

    Args:
        settings: One entry a run.
        save: Called after each run with the rows so far, so that an error in one does not lose the others.
        progress: Whether to show a progress bar over the runs.

    Returns:
        One row a run: its settings, then `summarise`.
    """
    rows = []
    for one in tqdm(list(settings), unit="run", disable=not progress):
        with tempfile.TemporaryDirectory(prefix="miro-") as store:
            experiment = Experiment.build(one, store)
            rows.append(asdict(experiment.settings) | summarise(list(experiment.run(progress=False))))
        if save is not None:
            save(pd.DataFrame(rows))
    return pd.DataFrame(rows)
