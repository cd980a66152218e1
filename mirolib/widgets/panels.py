"""What a run looks like while it goes on: pure functions from its state to HTML."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mirolib.base.display import size_text
from mirolib.memory.config import MemoryConfig
from mirolib.records import EpochRecord, Event, TaskRecord
from mirolib.viz.figures import OKABE_ITO, elapsed_epochs
from mirolib.widgets.svg import Axis, Band, Line, chart, number

_STREAM, _EPISODIC, _BUDGET = OKABE_ITO[1], OKABE_ITO[0], OKABE_ITO[5]
_PHASES = {"receive": 4, "profile": 3, "train": 2, "retain": 0, "evaluate": 6}  # colours; any other phase is grey, 7
_LATEST_EVENTS = 50  # all of them would be sent anew at each decision


@dataclass(frozen=True, eq=False)
class Pace:
    """Power and work at some instants, and what was going on."""

    time_s: np.ndarray  # `(n,)` seconds since the first look
    work: np.ndarray  # `(n,)` sample visits done by then
    power_w: np.ndarray  # `(n,)` mean power of the time just before; NaN where it is not known
    kind: str = "none"  # how power is got; `none` where there is no sensor
    # name, beginning and end of each phase, in seconds since the first look
    phases: Sequence[tuple[str, float, float]] = ()

    @property
    def rate(self) -> np.ndarray:
        """`(n,)` sample visits a second over the four looks before each instant; NaN at the first."""
        # four: between two looks there may be a step or none
        before = np.maximum(np.arange(len(self.time_s)) - 4, 0)
        elapsed = self.time_s - self.time_s[before]
        return np.divide(self.work - self.work[before], elapsed, out=np.full(len(elapsed), np.nan), where=elapsed > 0)


NO_PACE = Pace(np.zeros(0), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one instant."""

    tasks: Sequence[TaskRecord] = ()  # its finished tasks
    epochs: Sequence[EpochRecord] = ()  # its finished epochs
    events: Sequence[Event] = ()  # the controller's decisions
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)  # the ranked candidates of the task at hand
    config: MemoryConfig | None = None  # sizes and swap ratio in force; None before the run is built
    fill: tuple[int, int] = (0, 0)  # samples in stream buffer and episodic memory
    slot_bytes: int = 0  # bytes of RAM of a sample
    stored: int = 0  # training samples on storage
    memory_bytes: int = 0  # bytes of RAM in all: slots, samples on their way, index
    budget_bytes: int | None = None  # most that slots may take at the last look; None for no limit
    pace: Pace = NO_PACE  # power and work over time


def accuracy(state: Snapshot) -> str:
    """Test accuracy over the tasks learnt: their average, and each task's own thin line from its first test on."""
    learnt = np.arange(1, len(state.tasks) + 1)
    lines = [
        Line(f"task {task + 1}" if len(state.tasks) <= 10 else "", learnt[task:],  # or the legend fills the panel
             100 * np.array([record.accuracies[task] for record in state.tasks[task:]]),
             OKABE_ITO[task % len(OKABE_ITO)], width=1.2, markers=True)  # a task has one point at first, no line
        for task in range(len(state.tasks))
    ]  # fmt: skip
    average = 100 * np.array([record.average_accuracy for record in state.tasks])
    lines.append(Line("average", learnt, average, "currentColor", width=3, markers=True))
    x = Axis("tasks learnt", 1, state.tasks[0].num_tasks if state.tasks else 2, whole=True)
    return chart("Test accuracy by task", x, Axis("accuracy, %", 0, 100), lines)


def pace(state: Snapshot) -> str:
    """Power over time where a sensor is, work over time where none is, the phases shaded."""
    seen = state.pace
    bands = [Band(name, start, end, OKABE_ITO[_PHASES.get(name.split("+")[-1], 7)]) for name, start, end in seen.phases]
    if seen.kind == "none":
        title, unit, values = "Work over time (no power sensor)", "sample visits / s", seen.rate
    else:
        title, unit, values = f"Power over time ({seen.kind})", "power, W", seen.power_w
    line = Line("", seen.time_s, values, "currentColor", width=1.5)
    return chart(title, Axis("time, s"), Axis(unit), [line], bands)


def _epochs(state: Snapshot) -> np.ndarray:
    """Epochs trained since the run began at the end of each."""
    return elapsed_epochs([epoch.task for epoch in state.epochs], [epoch.epochs_done for epoch in state.epochs])


def sizes(state: Snapshot) -> str:
    """Buffer sizes over the epochs, under the memory budget."""
    x = _epochs(state)
    stream = np.array([epoch.config.stream_size for epoch in state.epochs], dtype=float)
    both = stream + np.array([epoch.config.episodic_size for epoch in state.epochs], dtype=float)
    lines = [
        Line("stream buffer", x, stream, _STREAM, step=True),
        Line("with episodic memory", x, both, _EPISODIC, step=True),
    ]
    ends = [0, *x]
    budgets = [  # max: -1 is on arrival of its task
        (ends[sum(epoch.task < event.task for epoch in state.epochs) + max(0, event.epoch)], event.memory_budget_bytes)
        for event in state.events
    ]
    known = [(at, size) for at, size in [*budgets, (ends[-1], state.budget_bytes)] if size is not None]
    if known:
        at, size = np.array(known).T
        lines.append(Line("memory budget", at, size / state.slot_bytes, _BUDGET, step=True, dash="6 3"))
    return chart("Buffer sizes", Axis("epoch", whole=True), Axis("samples"), lines)


def swapping(state: Snapshot) -> str:
    """Swap ratio in force, shares of both buffers' samples really exchanged, and share of time waiting, by epoch."""
    x = _epochs(state)
    ratio = 100 * np.array([epoch.config.swap_ratio for epoch in state.epochs])
    swapped = 100 * np.array([epoch.swaps.swapped / max(1, epoch.swaps.replayed) for epoch in state.epochs])
    streamed = 100 * np.array([epoch.swaps.streamed / max(1, epoch.swaps.passed) for epoch in state.epochs])
    stalled = 100 * np.array([epoch.stall_share for epoch in state.epochs])
    lines = [
        Line("swap ratio", x, ratio, OKABE_ITO[2], step=True, dash="6 3"),
        Line("episodic memory exchanged", x, swapped, _EPISODIC),
        *([Line("stream buffer exchanged", x, streamed, _STREAM)] if streamed.any() else []),
        Line("waiting for storage", x, stalled, _BUDGET),
    ]
    return chart("Swapping and stall", Axis("epoch", whole=True), Axis("share, %", 0, 100), lines)


def memory(state: Snapshot) -> str:
    """How full the buffers are, in samples and bytes, and what lies on storage."""
    if (config := state.config) is None:
        return '<p class="miro-empty">The buffers are shown here once a run has begun.</p>'
    bars = _bar("stream buffer", state.fill[0], config.stream_size, state.slot_bytes, _STREAM)
    bars += _bar("episodic memory", state.fill[1], config.episodic_size, state.slot_bytes, _EPISODIC)
    last = state.epochs[-1] if state.epochs else None
    rate = f"{(last.swaps.swapped + last.swaps.streamed) / last.duration_s:,.0f}" if last else "0"
    stall = f"{last.stall_share:.1%}" if last else "0 %"
    budget = "no budget" if state.budget_bytes is None else f"budget of slots {size_text(state.budget_bytes)}"
    return (
        f"{bars}<p>In all {size_text(state.memory_bytes)} of RAM ({budget}); {state.stored:,} samples on storage. "
        f"Last epoch: {rate} samples swapped a second, {stall} of the time spent waiting for storage.</p>"
    )


def _bar(name: str, fill: int, capacity: int, slot_bytes: int, colour: str) -> str:
    text = f"{fill:,} of {capacity:,} samples, {size_text(fill * slot_bytes)} of {size_text(capacity * slot_bytes)}"
    share = min(1.0, fill / max(1, capacity))
    return (
        f'<div class="miro-bar" role="meter" aria-label="{html.escape(name)}" aria-valuemin="0" '
        f'aria-valuemax="{capacity}" aria-valuenow="{fill}" aria-valuetext="{text}"><b>{html.escape(name)}</b>'
        f'<span class="track"><span style="width:{share:.1%};background:{colour}"></span></span><em>{text}</em></div>'
    )


def candidates(state: Snapshot) -> str:
    """The works or sizes that were compared: the row in force marked, sizes over the memory budget struck out.

    The gain of a work is what another tenth of it is expected to bring.
    """
    table: Any = state.trials
    if not len(table):
        return '<p class="miro-empty">This controller compares no candidates, or has not yet begun.</p>'
    first, rows, unit = table.iloc[0], "", f"cost, {table['cost_unit'].iloc[0]}"
    head, by = ["rank", "stream", "episodic", "RAM", "accuracy", unit, "utility"], ["profiler", "selector"]
    utilities = table.get("utility", pd.Series(dtype=float)).dropna().unique()  # with digits that tell them apart
    digits = next((n for n in range(3, 9) if len({f"{one:.{n}g}" for one in utilities}) == len(utilities)), 9)
    if are_works := "epochs" in table:
        head, by = ["epochs", "accuracy", "80 % interval", "gain, points", unit], ["objective"]
    for row in table.itertuples():
        over = not are_works and state.budget_bytes is not None and row.memory_bytes > state.budget_bytes
        # in words and signs, not in colour alone
        look, mark = ("chosen", "► chosen") if row.chosen else ("over", "✕ too large") if over else ("", "")
        reached = "" if np.isnan(row.accuracy) else f"{row.accuracy:.1%}"
        cost = "" if np.isnan(row.cost) else number(row.cost)
        if are_works:
            known = (f"{row.low:.1%} to {row.high:.1%}", f"{row.gain:.2g}") if reached else ("", "")
            values = [f"{row.epochs:.3g}", reached, *known, cost]
        else:
            values = [row.rank, row.stream_size, row.episodic_size, size_text(row.memory_bytes), reached, cost,
                      f"{row.utility:.{digits}g}"]  # fmt: skip
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in (mark, *values))
        rows += f'<tr class="{look}">{cells}</tr>'
    title = ", ".join([f"task {int(first['task']) + 1}", *first[by]])
    cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("", *head))
    return f"<table><caption>{html.escape(title)}</caption><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"


def log(state: Snapshot) -> str:
    """The controller's decisions, the latest first."""
    latest = list(state.events)[-_LATEST_EVENTS:][::-1]
    if not latest:
        return '<p class="miro-empty">Decisions are listed here, the latest first.</p>'
    when = (f"before epoch {event.epoch + 1}" if event.epoch >= 0 else "on arrival" for event in latest)
    rows = (f"<b>task {e.task + 1}, {at}</b> {html.escape(e.reason)}" for e, at in zip(latest, when, strict=True))
    return "<ul>" + "".join(f"<li>{row}</li>" for row in rows) + "</ul>"


PANELS: dict[str, tuple[Callable[[Snapshot], str], tuple[str, ...]]] = {
    "accuracy": (accuracy, ("tasks",)),
    "pace": (pace, ("pace",)),
    "sizes": (sizes, ("epochs", "events", "budget_bytes")),
    "swapping": (swapping, ("epochs",)),
    "memory": (memory, ("epochs", "config", "fill", "stored", "budget_bytes")),
    "candidates": (candidates, ("trials", "budget_bytes")),
    "log": (log, ("events",)),
}
"""What is drawn, by name: from a run's state to HTML, and the parts that it shows; the same parts, the same HTML."""
