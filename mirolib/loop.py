"""The training loop: one generator that composes the parts and yields a record after each task.

It is the only training loop of the library. Whatever wants to watch a run consumes the generator; to stop, stop
consuming.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from tqdm.auto import tqdm

from mirolib.controller import Controller
from mirolib.energy import EnergyMeter, Reading, Work, total_energy_j
from mirolib.errors import InputError
from mirolib.learner import Learner
from mirolib.memory import MemoryConfig, SwapCounts, TieredMemory
from mirolib.metrics import AccuracyMatrix
from mirolib.resources import ResourceMonitor
from mirolib.stream import Task, TaskStream

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        task: Index of the task.
        epoch: Index of the epoch within it.
        config: Sizes and swap ratio in force.
        loss: Mean training loss over the epoch's samples.
        swaps: Swapping during the epoch.
        duration_s: Seconds.
    """

    task: int
    epoch: int
    config: MemoryConfig
    loss: float
    swaps: SwapCounts
    duration_s: float

    @property
    def stall_share(self) -> float:
        """Share of the epoch in which training waited for storage, in [0, 1]."""
        return self.swaps.stall_s / self.duration_s

    def row(self) -> dict[str, object]:
        """The epoch as one flat row."""
        return {
            "task": self.task,
            "epoch": self.epoch,
            **asdict(self.config),
            "loss": self.loss,
            **asdict(self.swaps),
            "stall_share": self.stall_share,
            "duration_s": self.duration_s,
        }


@dataclass(frozen=True)
class TaskRecord:
    """What is known after a task.

    Attributes:
        task: Index of the task.
        num_tasks: Number of tasks in the stream.
        classes: Names of its classes.
        config: Sizes and swap ratio in force at its end.
        memory_bytes: Bytes of RAM that the two buffers take at these sizes.
        accuracies: Test accuracy in [0, 1] on each task so far, among all classes so far.
        average_accuracy: Their mean.
        average_incremental_accuracy: Mean of the average accuracies up to this task.
        forgetting: See `AccuracyMatrix`; NaN at the first task.
        backward_transfer: See `AccuracyMatrix`; NaN at the first task.
        episodic_fill: Samples in the episodic memory after the task.
        stored: Training samples on storage after the task.
        epochs: Its epochs.
        swaps: Swapping during its training; its stall time includes the wait for what was under way at the end.
        readings: Its rows of the energy ledger.
    """

    task: int
    num_tasks: int
    classes: tuple[str, ...]
    config: MemoryConfig
    memory_bytes: int
    accuracies: tuple[float, ...]
    average_accuracy: float
    average_incremental_accuracy: float
    forgetting: float
    backward_transfer: float
    episodic_fill: int
    stored: int
    epochs: tuple[EpochRecord, ...]
    swaps: SwapCounts
    readings: tuple[Reading, ...]

    @property
    def headline(self) -> str:
        """Where the run stands, in one line."""
        c = self.config
        return (
            f"task {self.task + 1}/{self.num_tasks}: average accuracy {self.average_accuracy:.1%} "
            f"(stream {c.stream_size}, episodic {c.episodic_size}: {self.memory_bytes / 1024:,.1f} KiB; "
            f"swap ratio {c.swap_ratio:g})"
        )

    def row(self) -> dict[str, object]:
        """The task as one flat row; accuracies in columns `accuracy_<j>`."""
        train = [reading for reading in self.readings if reading.window == "train"]
        return {
            "task": self.task,
            "classes": " ".join(self.classes),
            **asdict(self.config),
            "memory_bytes": self.memory_bytes,
            "average_accuracy": self.average_accuracy,
            "average_incremental_accuracy": self.average_incremental_accuracy,
            "forgetting": self.forgetting,
            "backward_transfer": self.backward_transfer,
            "episodic_fill": self.episodic_fill,
            "stored": self.stored,
            "swapped": self.swaps.swapped,
            "stall_s": self.swaps.stall_s,
            "train_visits": sum(reading.work.visits for reading in train),
            "train_s": sum(reading.duration_s for reading in train),
            "train_energy_j": total_energy_j(train),
            "energy_kind": self.readings[0].kind,
            **{f"accuracy_{j}": value for j, value in enumerate(self.accuracies)},
        }


def run(
    stream: TaskStream,
    learner: Learner,
    memory: TieredMemory,
    controller: Controller,
    meter: EnergyMeter | None = None,
    resources: ResourceMonitor | None = None,
    *,
    progress: bool = True,
) -> Iterator[TaskRecord]:
    """Learns the tasks of a stream one after another (paper: Fig. 1 and Fig. 8).

    Args:
        stream: The tasks.
        learner: A learner that knows no class yet.
        memory: An empty tiered memory on the stream's store; closing it is the caller's.
        controller: Chooses sizes and swap ratio at each task, adapts them at each epoch.
        meter: Books energy and work; by default the first source found on this machine.
        resources: Reads memory budget and stall time; by default without a budget.
        progress: Whether to show a progress bar.

    Yields:
        A record after each task.

    Raises:
        InputError: If learner or memory are used already, or sizes exceed what the stream holds.
        StorageError: If storage fails.
    """
    if learner.num_classes or memory.stored:
        raise InputError("A run needs a learner and a memory that have learnt nothing yet; make both anew.")
    check_sizes(memory.config, stream)
    meter = meter or EnergyMeter.auto()
    resources = resources or ResourceMonitor(memory)
    storage, matrix = memory.storage, AccuracyMatrix(len(stream))
    meter.watch(lambda: Work(learner.visits, time.process_time(), storage.bytes_read, storage.bytes_written))
    with tqdm(total=len(stream) * learner.epochs, unit="epoch", disable=not progress) as bar:
        for task in stream:
            first_reading = len(meter.readings)
            with meter.window("receive", task.index):
                memory.receive(task)
            learner.grow(task.classes)
            with meter.window("profile", task.index):
                config = controller.choose(task, learner, memory, resources.probe())
            resources.probe()  # stall time counts from here
            before, epochs = memory.counts, []
            with meter.window("train", task.index):
                for epoch in range(learner.epochs):
                    config = controller.adapt(config, resources.probe())
                    check_sizes(config, stream)
                    memory.resize(config)
                    epochs.append(_train_epoch(task, epoch, learner, memory))
                    bar.update()
                memory.settle()
            swaps = memory.counts - before
            with meter.window("retain", task.index):
                memory.retain(task)
            with meter.window("evaluate", task.index):
                matrix.append([learner.accuracy(test) for test in stream.tests(task.index)])
            record = _record(task, stream, memory, matrix, epochs, swaps, meter.readings[first_reading:])
            controller.observe(record)
            bar.set_postfix_str(record.headline)
            logger.info("%s", record.headline)
            yield record


def check_sizes(config: MemoryConfig, stream: TaskStream) -> None:
    """Sees to it that there are samples for the sizes asked for.

    Raises:
        InputError: If a size exceeds what the stream holds.
    """
    largest, total = stream.most_samples()
    if config.stream_size > largest:
        raise InputError(
            f"stream_size is {config.stream_size} but no task has more than {largest} samples; choose at most that."
        )
    if config.episodic_size > total:
        raise InputError(
            f"episodic_size is {config.episodic_size} but there are only {total} training samples; choose at most that."
        )


def _train_epoch(task: Task, epoch: int, learner: Learner, memory: TieredMemory) -> EpochRecord:
    """One pass over stream buffer and episodic memory, exchanging samples with storage on the way."""
    start, before = time.monotonic(), memory.counts
    total, samples = torch.zeros((), device=learner.device), 0
    for batch in memory.batches(learner.batch_size, replay=learner.method.replays):
        total += learner.step(batch) * len(batch.labels)
        samples += len(batch.labels)
        memory.swap(batch)
    learner.end_epoch()
    loss = float(total) / samples
    return EpochRecord(task.index, epoch, memory.config, loss, memory.counts - before, time.monotonic() - start)


def _record(
    task: Task,
    stream: TaskStream,
    memory: TieredMemory,
    matrix: AccuracyMatrix,
    epochs: list[EpochRecord],
    swaps: SwapCounts,
    readings: list[Reading],
) -> TaskRecord:
    """Gathers what is known after a task."""
    return TaskRecord(
        task=task.index,
        num_tasks=len(stream),
        classes=tuple(stream.class_names[label] for label in task.classes),
        config=memory.config,
        memory_bytes=memory.allocated_bytes,
        accuracies=tuple(matrix.values[task.index, : task.index + 1].tolist()),
        average_accuracy=matrix.average_accuracy,
        average_incremental_accuracy=matrix.average_incremental_accuracy,
        forgetting=matrix.forgetting,
        backward_transfer=matrix.backward_transfer,
        episodic_fill=len(memory.episodic_memory),
        stored=memory.stored,
        epochs=tuple(epochs),
        swaps=swaps,
        readings=tuple(readings),
    )
