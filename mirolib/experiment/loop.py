"""The training loop: one generator that composes the parts and yields a record after each epoch and each task.

It is the only training loop of the library. Whatever wants to watch a run consumes the generator; to pause, it waits
with the next step; to stop, it stops consuming.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mirolib.base.errors import InputError, StorageError, brief
from mirolib.base.state import State, Table, dumped, loaded
from mirolib.controller import Controller, Decision
from mirolib.controller.resources import ResourceMonitor, Resources
from mirolib.data.open_stream import OpenStream
from mirolib.data.stream import Task, TaskStream
from mirolib.energy import EnergyMeter, Work
from mirolib.experiment.checkpoint import read_checkpoint
from mirolib.learning.learner import Learner, train_epoch
from mirolib.learning.metrics import AccuracyMatrix
from mirolib.memory.config import MemoryConfig
from mirolib.memory.swapper import SwapCounts
from mirolib.memory.tiered import TieredMemory
from mirolib.records import EpochRecord, Event, TaskRecord

_BAR = "{percentage:3.0f}%|{bar}| {n:.3g} of {total_fmt} tasks, {elapsed}, {remaining} left{postfix}"

logger = logging.getLogger(__name__)


def run(
    stream: TaskStream | OpenStream, learner: Learner, memory: TieredMemory, controller: Controller,
    meter: EnergyMeter | None = None, resources: ResourceMonitor | None = None, *, progress: bool = True,
    resume_from: str | Path | None = None,
) -> Iterator[TaskRecord]:  # fmt: skip
    """Learns the tasks of a stream one after another (paper: Fig. 1 and Fig. 8).

    The learner knows no class yet; the memory, on the stream's store, has received nothing, and is closed by the
    caller. The meter is by default the first source found on this machine; without `resources` there is no memory
    budget. `resume_from` is a checkpoint to go on from, with parts made as they were for the run that wrote it.

    Yields:
        A record after each task; after a resume those of the tasks that were done are not yielded again.

    Raises:
        InputError: If learner or memory are used already, sizes exceed what the stream holds, or the checkpoint can't
            be read or is that of other parts.
        StorageError: If storage fails.
    """
    loop = Loop(stream, learner, memory, controller, meter, resources)
    if resume_from is not None:
        loop.restore(read_checkpoint(Path(resume_from)))
    yield from (step for step in loop.steps(progress=progress) if isinstance(step, TaskRecord))


@dataclass
class TaskProgress:
    """A task under way: `before` is the swapping before its training, `trials` are the controller's candidates."""

    index: int
    before: SwapCounts
    trials: Table
    events: list[Event] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    ahead: float = float("nan")  # accuracy on it before it is learnt, less chance, where its classes are known


class Loop:
    """A run step by step: its parts and how far it has come, with a record of each finished task in `records`."""

    def __init__(
        self, stream: TaskStream | OpenStream, learner: Learner, memory: TieredMemory, controller: Controller,
        meter: EnergyMeter | None = None, resources: ResourceMonitor | None = None,
    ) -> None:  # fmt: skip
        """A run that has not begun, of parts that have learnt nothing, and sizes within the stream; see `run`."""
        # a second run over the same parts would be tested on what it has not been taught
        if learner.num_classes or memory.stored:
            raise InputError("A run needs a learner and a memory that have learnt nothing yet; make both anew.")
        check_sizes(memory.config, stream)
        self._stream, self._learner, self._memory, self._controller = stream, learner, memory, controller
        self._resources = resources or ResourceMonitor(memory)
        self.meter = meter or EnergyMeter.auto()
        self.records: list[TaskRecord] = []
        self._matrix = AccuracyMatrix(len(stream))
        self._now: TaskProgress | None = None
        self._choice: tuple[Decision, Resources] | None = None
        tally, storage, clock = learner.tally, memory.storage, time.process_time
        self.meter.watch(
            lambda: Work(tally.visits, tally.forward_visits, clock(), storage.bytes_read, storage.bytes_written),
            learner.synchronise,
        )

    @property
    def epochs_done(self) -> float:
        """Epochs trained since the run began, parts of one included; any thread may ask."""
        done, within = self.standing
        return sum(record.epochs[-1].epochs_done for record in self.records[:done]) + within

    @property
    def standing(self) -> tuple[int, float]:
        """Finished tasks, and epochs done of the one under way; any thread may ask."""
        now, done = self._now, len(self.records)
        return done, now.epochs[-1].epochs_done if now and now.index == done and now.epochs else 0.0

    @property
    def share(self) -> float:
        """Share of the run that is done, in [0, 1], each task an equal part; any thread may ask."""
        done, within = self.standing  # in tasks: how many epochs those to come will have is not known
        return (done + min(1.0, within / self._learner.epochs)) / max(1, len(self._stream))

    @property
    def events(self) -> list[Event]:
        """The controller's decisions so far, those of the task under way included; any thread may ask."""
        return [event for part in self._parts() for event in part.events]

    @property
    def epochs(self) -> list[EpochRecord]:
        """The records of all epochs so far, those of the task under way included; any thread may ask."""
        return [epoch for part in self._parts() for epoch in part.epochs]

    def _parts(self) -> list[TaskRecord | TaskProgress]:
        # copied first: the training thread appends while a dashboard reads
        now, done = self._now, self.records.copy()
        return [*done, *([now] if now is not None and now.index == len(done) else [])]

    def steps(self, *, progress: bool = True) -> Iterator[EpochRecord | TaskRecord]:
        """Goes on from where the run stands (paper: Fig. 8).

        At each step all parts agree with each other, so that `state` may be taken; the window `train` is open after an
        epoch (`EnergyMeter.interlude` keeps out of it what is not training).

        Yields:
            A record after each epoch of training, before the controller adapts to it, and one after each task.
        """
        learner, memory, meter = self._learner, self._memory, self.meter
        whole, done = len(self._stream), len(self._stream) * self.share
        look = {"bar_format": _BAR, "disable": not progress}
        with meter.sampling(), tqdm(total=whole, initial=done, **look) as bar:
            for index in range(len(self.records), len(self._stream)):
                task = self._stream[index]
                now = self._now or self._arrive(task)
                with meter.window("train", index):
                    while learner.epochs_done < learner.epochs:
                        self._adapt(now, len(now.epochs))
                        if learner.epochs_done >= learner.epochs:
                            break  # the controller ends it here
                        now.epochs.append(self._train(now, len(now.epochs)))
                        bar.update(round(whole * self.share, 2) - bar.n)
                        yield now.epochs[-1]
                    # exchanges under way are committed, not dropped: the run is the same however late the disk is
                    memory.settle()
                    learner.method.finish(learner, task, memory)
                    self._look()
                record = self._leave(task, now)
                bar.set_postfix_str(f"accuracy {record.average_accuracy:.1%}")  # more would leave no room for the bar
                yield record

    def learn(self, task: Task, *, progress: bool = False) -> TaskRecord:
        """Learns the next task, such as one that has just been added to an `OpenStream`; an `InputError` on others."""
        if task.index != len(self.records) or task.index >= len(self._stream):
            raise InputError(f"Task {len(self.records) + 1} of the stream comes next, not {task.index + 1}; learn it.")
        return next(step for step in self.steps(progress=progress) if isinstance(step, TaskRecord))

    def _arrive(self, task: Task) -> TaskProgress:
        """Receives a task and chooses a configuration for it, in the light of the resources there are."""
        learner, memory = self._learner, self._memory
        ahead = float("nan")
        if task.classes[-1] < learner.num_classes:
            with self.meter.window("evaluate", task.index):
                ahead = learner.accuracy(self._stream.tests(task.index)[-1]) - 1 / learner.num_classes
        with self.meter.window("receive", task.index):
            memory.receive(task)
            # the head before the method and the choice, which look at logits of the new classes
            learner.grow(task.classes, task.dataset_labels)
            learner.begin(task, memory)
        with self.meter.window("profile", task.index):
            resources = self._resources.probe(self.epochs_done)
            self._choice = self._controller.choose(task, learner, memory, resources), resources
        self._now = TaskProgress(task.index, memory.counts, self._choice[0].trials, ahead=ahead)
        return self._now

    def _adapt(self, now: TaskProgress, number: int) -> None:
        """Brings the memory to what was chosen for the task, then to what the resources before a round allow."""
        if self._choice is not None:
            # within the window `train`: filling the buffers anew is a cost of the choice, not of choosing
            decision, resources = self._choice
            self._choice = None
            self._apply(decision, now, -1, resources)
        last = now.epochs[-1] if now.epochs else None
        resources = self._resources.probe(self.epochs_done, last)
        self._apply(self._controller.adapt(self._memory.config, resources), now, number, resources)
        if (planned := self._look()) is not None:
            self._apply(planned, now, number, resources)

    def _look(self) -> Decision | None:
        """Lets the controller look at the model, where it wants to, and end the task elsewhere."""
        if self._learner.epochs_done < self._controller.next_look:
            return None
        with self.meter.interlude("profile"):
            return self._controller.look(self._memory.config, self._learner, self._memory, self.meter.readings)

    def _train(self, now: TaskProgress, number: int) -> EpochRecord:
        """Trains one round and says what it was."""
        learner, memory, monitor = self._learner, self._memory, self._resources
        start, before = time.monotonic(), memory.counts
        end = learner.round_end(memory, self._controller.next_look)
        loss = train_epoch(learner, memory, monitor.is_short, end)
        swaps, duration_s = memory.counts - before, time.monotonic() - start
        record = EpochRecord(now.index, number, memory.config, loss, swaps, duration_s, learner.epochs_done)
        if monitor.short and learner.epochs_done == learner.epochs:
            # memory ran out in the last round: the next task's choice would come too late
            resources = monitor.probe(self.epochs_done - self.standing[1] + learner.epochs)
            self._apply(self._controller.adapt(memory.config, resources), now, number + 1, resources)
        return record

    def _apply(self, decision: Decision, now: TaskProgress, epoch: int, resources: Resources) -> None:
        """Brings the memory to what was decided, and notes it where there was a reason."""
        memory = self._memory
        check_sizes(decision.config, self._stream)
        memory.resize(decision.config)
        if decision.epochs is not None:
            self._learner.epochs = decision.epochs
        if len(decision.trials):
            now.trials = decision.trials
        if decision.reason:
            stall_share = resources.stall_share if resources.after_epoch else float("nan")
            budget, size = resources.memory_budget_bytes, memory.allocated_bytes
            planned, reason = float(self._learner.epochs), decision.reason
            now.events.append(Event(now.index, epoch, decision.config, planned, size, budget, stall_share, reason))

    def _leave(self, task: Task, now: TaskProgress) -> TaskRecord:
        """Flushes the stream buffer, evaluates, and gathers what is known after the task."""
        memory, matrix = self._memory, self._matrix
        swaps = memory.counts - now.before  # before retaining, whose reads are no swaps
        with self.meter.window("retain", task.index):
            memory.retain(task)
        with self.meter.window("evaluate", task.index):
            tests = self._stream.tests(task.index)
            of_tasks = zip(tests, self._stream.task_classes[: len(tests)], strict=True)
            right = [self._learner.right(test, classes) for test, classes in of_tasks]
            matrix.append([float(one[:, 0].mean()) for one in right], now.ahead)
        # where classes return, so do their test samples
        rows = [np.stack([np.full(len(test), id(test.data)), test.rows], axis=1) for test in tests]
        once = np.unique(np.concatenate(rows), axis=0, return_index=True)[1]
        record = TaskRecord(
            task=task.index,
            num_tasks=len(self._stream),
            classes=tuple(self._stream.class_names[label] for label in task.classes),
            config=memory.config,
            memory_bytes=memory.memory_bytes,
            accuracies=tuple(matrix.values[task.index, : task.index + 1].tolist()),
            average_accuracy=matrix.average_accuracy,
            average_incremental_accuracy=matrix.average_incremental_accuracy,
            forgetting=matrix.forgetting,
            backward_transfer=matrix.backward_transfer,
            episodic_fill=len(memory.episodic_memory),
            stored=memory.stored,
            epochs=tuple(now.epochs),
            swaps=swaps,
            readings=tuple(reading for reading in self.meter.readings if reading.task == task.index),
            events=tuple(now.events),
            trials=now.trials,
            damaged=sum(map(len, memory.storage.damaged.values())),
            overall_accuracy=float(np.concatenate(right)[once, 0].mean()),
            task_aware_accuracy=float(np.mean([one[:, 1].mean() for one in right])),
            ahead=now.ahead,
            forward_transfer=matrix.forward_transfer,
        )
        self._controller.observe(record)
        self.records.append(record)
        self._now = None
        logger.info("%s", record.headline)
        return record

    def state(self) -> State:
        """The run as it stands between two steps: what a checkpoint holds."""
        return {
            "class_order": list(self._stream.class_order),
            "records": dumped(list[TaskRecord], self.records),
            "now": dumped(TaskProgress | None, self._now),
            "learner": self._learner.state(),
            "memory": self._memory.state(),
            "controller": [type(self._controller).__name__, self._controller.state()],
            "meter": self.meter.state(),
        }

    def restore(self, state: State) -> None:
        """Brings a run that has not begun to where `state` was taken.

        Samples of its tasks that storage has lost meanwhile are written again from the stream. There is an `InputError`
        if the state is not that of a run with these parts; the sentence names the difference; a `StorageError` if
        storage can't be read or written.
        """
        try:
            name, controller = state["controller"]
            for what, there, here in (
                ("class order", loaded(list[int], state["class_order"]), list(self._stream.class_order)),
                ("controller", loaded(str, name), type(self._controller).__name__),
            ):
                if there != here:
                    raise InputError(f"The checkpoint is that of another {what}: {there!r}, not {here!r}.")
            self.records = loaded(list[TaskRecord], state["records"])
            self._now = loaded(TaskProgress | None, state["now"])
            for record in self.records:
                self._matrix.append(list(record.accuracies), record.ahead)
            if len(self._stream) < (came := len(self.records) + bool(self._now)):
                raise InputError(f"The checkpoint has {came} tasks, the stream {len(self._stream)}; add them first.")
            # storage before memory, whose buffers are read back by their ids
            for index in range(len(self.records) + bool(self._now)):
                self._memory.store(self._stream[index])
            self._learner.restore(state["learner"])
            self._memory.restore(state["memory"])
            self._controller.restore(controller)
            self.meter.restore(state["meter"])
        except (InputError, StorageError):
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError, MemoryError) as error:
            raise InputError(f"This is no checkpoint of such a run: {type(error).__name__}: {brief(error)}.") from error


def check_sizes(config: MemoryConfig, stream: TaskStream | OpenStream) -> None:
    """Sees to it that there are samples for the sizes asked for: an `InputError` else."""
    largest, total = stream.most_samples()
    for name, size, most, why in (
        ("stream_size", config.stream_size, largest, f"no task has more than {largest} samples"),
        ("episodic_size", config.episodic_size, total, f"there are only {total} training samples"),
    ):
        if size > most:
            raise InputError(f"{name} is {size} but {why}; choose at most that.")
