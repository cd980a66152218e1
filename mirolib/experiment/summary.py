"""A run in one flat row: what runs are compared by."""

import math

import pandas as pd

from mirolib.energy import in_windows, total_energy_j
from mirolib.energy.ledger import LEARNING
from mirolib.records import TaskRecord

_NEAR = 0.05  # of the way from chance to certainty
_FEW_STEPS = 30
_FAR, _OUTSIDE = 0.2, 0.1  # of an accuracy, and of its 80 % interval


def summarise(records: list[TaskRecord]) -> dict[str, object]:
    """One flat row of a run: accuracy after the last task, energy and work over all tasks.

    Energy and work come by window (`train_energy_j`, `evaluate_visits`, …), profiling on its own; `learning_work` (in
    sample visits, a forward pass alone counting as a third) and `learning_energy_j` are all of it but the evaluation.
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
        "forward_transfer": last.forward_transfer,
        "overall_accuracy": last.overall_accuracy,
        "task_aware_accuracy": last.task_aware_accuracy,
        "swapped": sum(record.swaps.swapped for record in records),
        "streamed": sum(record.swaps.streamed for record in records),
        "stall_s": sum(record.swaps.stall_s for record in records),
        "damaged": last.damaged,
        "diverged_epochs": _diverged(records),
        "bytes_read": sum(reading.work.bytes_read for reading in readings),
        "bytes_written": sum(reading.work.bytes_written for reading in readings),
        "energy_kind": readings[0].kind,
        "energy_scope": readings[0].scope,
        "cost_error": _cost_error(records),
        "predicted_error": _median([100 * abs(row["accuracy"] - of.average_accuracy) for of, row in _chosen(records)]),
        "concerns": " ".join(concerns(records)),
    }
    learning = in_windows(readings, *LEARNING)
    row["learning_work"] = sum(reading.work.visit_equivalents for reading in learning)
    row["learning_energy_j"] = total_energy_j(learning)
    for window in dict.fromkeys(reading.window for reading in readings):
        ours = [reading for reading in readings if reading.window == window]
        row[f"{window}_visits"] = sum(reading.work.visits for reading in ours)
        row[f"{window}_forward_visits"] = sum(reading.work.forward_visits for reading in ours)
        row[f"{window}_s"] = sum(reading.duration_s for reading in ours)
        row[f"{window}_cpu_s"] = sum(reading.work.cpu_s for reading in ours)
        row[f"{window}_energy_j"] = total_energy_j(ours)
    return row


def concerns(records: list[TaskRecord]) -> list[str]:
    """Why a run's numbers may say little about what could have been learnt, a sentence each."""
    last, found = records[-1], []
    if diverged := _diverged(records):
        found.append(f"Training has diverged, its loss was not finite in {diverged} epochs: choose a lower lr.")
    fewest, task = min((sum(epoch.swaps.steps for epoch in record.epochs), record.task) for record in records)
    if fewest < _FEW_STEPS:
        found.append(f"Task {task + 1} saw {fewest} training steps: choose more epochs, or a smaller batch_size.")
    if last.num_tasks == 1:
        found.append("All classes were learnt in one task, where nothing can be forgotten: set tasks, or add classes.")
    chance = 1 / len({name for record in records for name in record.classes})
    if chance < 1 and last.average_accuracy < chance + _NEAR * (1 - chance):
        found.append(
            f"It ends at {last.average_accuracy:.1%}, near chance ({chance:.1%}). Likeliest: samples that are not "
            "normalised (mean, std, scale), labels that are not theirs, a lr that is too high or too low, or no replay."
        )
    for record, row in _chosen(records):
        predicted, reached = row["accuracy"], record.average_accuracy
        outside = max(row.get("low", reached) - reached, reached - row.get("high", reached))
        if abs(predicted - reached) > _FAR or outside > _OUTSIDE:  # not where nothing was predicted
            limits = f" ({row['low']:.0%} to {row['high']:.0%})" if "low" in row else ""
            found.append(
                f"After task {record.task + 1} accuracy was {reached:.0%}, where the controller had "
                f"predicted {predicted:.0%}{limits}: its choices rest on scores that do not hold here."
            )
            break
    return found


def _diverged(records: list[TaskRecord]) -> int:
    """Epochs whose loss was not finite."""
    return sum(not math.isfinite(epoch.loss) for record in records for epoch in record.epochs)


def _chosen(records: list[TaskRecord]) -> list[tuple[TaskRecord, pd.Series]]:
    """Tasks with the row of their candidates that was in force, those of which one was."""
    found = ((record, record.trials[record.trials["chosen"]]) for record in records if len(record.trials))
    return [(record, rows.iloc[0]) for record, rows in found if len(rows) == 1]


def _cost_error(records: list[TaskRecord]) -> float:
    """Median relative error of the cost that a controller had predicted for its choices; NaN where it made none."""
    errors = []
    for record, row in _chosen(records):
        # that of a work is of all learning, that of sizes of training with these from beginning to end
        is_work = "epochs" in row
        if is_work or len({(e.config.stream_size, e.config.episodic_size) for e in record.epochs}) == 1:
            readings = in_windows(record.readings, *(LEARNING if is_work else ("train",)))
            visits = sum(one.work.visit_equivalents if is_work else one.work.visits for one in readings)
            cost = visits if row["cost_unit"] == "visits" else total_energy_j(readings)
            errors.append(abs(row["cost"] - cost) / cost)
    return _median(errors)


def _median(values: list[float]) -> float:
    """Median of what is known, or NaN; of a mean, one task that was disturbed would stand for all."""
    return float(pd.Series(values, dtype=float).median())
