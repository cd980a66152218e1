"""Records of a run: what is known after an epoch and after a task, and the controller's decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd

from mirolib.base.state import Table
from mirolib.energy import Reading, in_windows, total_energy_j
from mirolib.memory.config import MemoryConfig
from mirolib.memory.swapper import SwapCounts


def _flat(record: EpochRecord | Event) -> dict[str, object]:
    """The fields of a record in their order, those of a record within it in its place."""
    row: dict[str, object] = {}
    for name, value in asdict(record).items():
        row |= value if isinstance(value, dict) else {name: value}
    return row


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        task: Index of the task.
        epoch: Index of the epoch within it, or of the round, where an epoch is long.
        config: Sizes and swap ratio in force.
        loss: Mean training loss over the epoch's samples.
        swaps: Swapping during the epoch.
        duration_s: Seconds.
        epochs_done: Epochs of the task trained when it ended, parts of one included.
    """

    task: int
    epoch: int
    config: MemoryConfig
    loss: float
    swaps: SwapCounts
    duration_s: float
    epochs_done: float

    @property
    def stall_share(self) -> float:
        """Share of the epoch in which training waited for storage, in [0, 1]."""
        return self.swaps.stall_s / self.duration_s

    def row(self) -> dict[str, object]:
        """The epoch as one flat row."""
        row = _flat(self)
        return row | {"stall_share": self.stall_share, "duration_s": row.pop("duration_s")}


@dataclass(frozen=True)
class Event:
    """A decision of the controller that had a reason, and the state it was made in.

    Attributes:
        task: Index of the task.
        epoch: Index of the epoch before which it took effect; -1 where the configuration was chosen for the task.
        config: Sizes and swap ratio from then on.
        epochs: Epochs of the task, as planned from then on.
        memory_bytes: Bytes of RAM that the slots of the two buffers take from then on.
        memory_budget_bytes: Most bytes they may take; None for no limit.
        stall_share: Share of the last epoch that training waited for storage, in [0, 1]; NaN where there was none.
        reason: Why.
    """

    task: int
    epoch: int
    config: MemoryConfig
    epochs: float
    memory_bytes: int
    memory_budget_bytes: int | None
    stall_share: float
    reason: str

    row = _flat


@dataclass(frozen=True)
class TaskRecord:
    """What is known after a task.

    Attributes:
        task: Index of the task.
        num_tasks: Number of tasks in the stream.
        classes: Names of its classes.
        config: Sizes and swap ratio in force at its end.
        memory_bytes: Bytes of RAM at these sizes: slots, samples on their way, and the index of what is stored.
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
        events: The controller's decisions during it.
        trials: The ranked candidates of its choice, a row each; empty where the controller makes none.
        damaged: Stored records found damaged or missing so far; others of their classes took their places.
        overall_accuracy: Share of all test samples of the tasks so far that is predicted right, each counted once.
        task_aware_accuracy: As the average accuracy, were it known for each sample which classes its task has.
        ahead: Accuracy on the task before it was learnt, less chance; NaN where classes of it were not known.
        forward_transfer: See `AccuracyMatrix`; NaN where every task brought new classes.
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
    events: tuple[Event, ...] = ()
    trials: Table = field(default_factory=pd.DataFrame, compare=False)
    damaged: int = 0
    overall_accuracy: float = float("nan")
    task_aware_accuracy: float = float("nan")
    ahead: float = float("nan")
    forward_transfer: float = float("nan")

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
        train = in_windows(self.readings, "train")
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        del numbers["num_tasks"]  # the accuracies have a column each
        return {
            "task": self.task,
            "classes": " ".join(self.classes),
            **asdict(self.config),
            **numbers,
            "swapped": self.swaps.swapped,
            "stall_s": self.swaps.stall_s,
            "train_visits": sum(reading.work.visits for reading in train),
            "train_s": sum(reading.duration_s for reading in train),
            "train_energy_j": total_energy_j(train),
            "energy_kind": self.readings[0].kind,
            # a column for each task of the stream from the first row on: rows are appended below a header
            **dict.fromkeys((f"accuracy_{j}" for j in range(self.num_tasks)), float("nan")),
            **{f"accuracy_{j}": value for j, value in enumerate(self.accuracies)},
        }


def tables_of(records: Sequence[TaskRecord]) -> dict[str, pd.DataFrame]:
    """The tables of finished tasks by name: `tasks`, `swaps` (a row an epoch), `events` and `trials`."""
    ranked = [record.trials for record in records if len(record.trials)]
    return {
        "tasks": pd.DataFrame([record.row() for record in records]),
        "swaps": pd.DataFrame([epoch.row() for record in records for epoch in record.epochs]),
        "events": pd.DataFrame([event.row() for record in records for event in record.events]),
        "trials": pd.concat(ranked, ignore_index=True) if ranked else pd.DataFrame(),
    }
