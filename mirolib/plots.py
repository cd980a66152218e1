"""Plots, one call each; every function returns a plotly figure that reads on light and dark pages alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mirolib.memory import TieredMemory
from mirolib.stream import TaskStream
from mirolib.workbench import RunResult

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008)."""

_GREY = "#888888"
_GRID = "rgba(128, 128, 128, 0.25)"
_AXIS = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True}
_TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"color": _GREY, "size": 13},
        "colorway": OKABE_ITO,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {"bgcolor": "rgba(0, 0, 0, 0)"},
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "height": 380,
        "width": 780,
    }
)


def figure(title: str, x: str = "", y: str = "") -> go.Figure:
    """An empty figure in the house style.

    Args:
        title: What it shows.
        x: Title of the horizontal axis, with its unit.
        y: Title of the vertical axis, with its unit.
    """
    return go.Figure(layout={"template": _TEMPLATE, "title": title, "xaxis": {"title": x}, "yaxis": {"title": y}})


def accuracy_matrix(result: RunResult) -> go.Figure:
    """R[i, j] in percent: test accuracy on task j after task i; a column that pales downwards is forgotten."""
    size = result.records[0].num_tasks
    values = np.full((size, size), np.nan)
    for record in result.records:
        values[record.task, : record.task + 1] = record.accuracies
    names = [f"task {task + 1}" for task in range(size)]
    text = [["" if np.isnan(value) else f"{100 * value:.0f}" for value in row] for row in values]
    plot = figure("Test accuracy after each task, %", "tested on", "after")
    plot.add_heatmap(z=100 * values, x=names, y=names, zmin=0, zmax=100, colorscale="Blues", hoverongaps=False,
                     text=text, texttemplate="%{text}", colorbar={"title": "%"})  # fmt: skip
    plot.update_yaxes(autorange="reversed", showgrid=False)
    plot.update_xaxes(showgrid=False)
    return plot


def accuracy_by_task(results: Mapping[str, RunResult]) -> go.Figure:
    """Average test accuracy over the tasks so far, a line a run.

    Args:
        results: Runs by the name they get in the legend.
    """
    plot = figure("Accuracy on everything learnt so far", "tasks learnt", "average test accuracy, %")
    for name, result in results.items():
        table = result.tasks
        plot.add_scatter(x=table["task"] + 1, y=100 * table["average_accuracy"], name=name, mode="lines+markers")
    plot.update_yaxes(range=[0, 102])
    plot.update_xaxes(dtick=1)
    return plot


def task_stream(stream: TaskStream) -> go.Figure:
    """One test image of each class, by the task in which the class arrives (image data sets only)."""
    tasks, tests = list(stream), stream.tests(len(stream) - 1)
    columns = max(len(task.classes) for task in tasks)
    plot = make_subplots(
        rows=len(tasks), cols=columns, horizontal_spacing=0.02, vertical_spacing=0.06,
        subplot_titles=[stream.class_names[task.classes[c]] if c < len(task.classes) else ""
                        for task in tasks for c in range(columns)],
    )  # fmt: skip
    for row, (task, test) in enumerate(zip(tasks, tests, strict=True), 1):
        for column, label in enumerate(task.classes, 1):
            image = test.read(np.flatnonzero(test.labels == label)[:1])[0].mean(axis=0)
            plot.add_heatmap(z=image[::-1], colorscale="gray", showscale=False, row=row, col=column)
        plot.update_yaxes(title_text=f"task {row}", row=row, col=1)
    plot.update_xaxes(visible=False)
    plot.update_yaxes(showticklabels=False, scaleanchor=None)
    plot.update_layout(template=_TEMPLATE, title="Classes in their order of arrival",
                       width=180 * columns, height=150 * len(tasks))  # fmt: skip
    return plot


def memory_fill(memory: TieredMemory, class_names: Sequence[str]) -> go.Figure:
    """Samples of each class in stream buffer, episodic memory and storage, one panel a tier."""
    table = pd.DataFrame(memory.fill())
    capacities = {"stream buffer": memory.config.stream_size, "episodic memory": memory.config.episodic_size}
    tiers = list(dict.fromkeys(table["tier"]))
    titles = []
    for tier in tiers:
        ours = table[table["tier"] == tier]
        of = f" of {capacities[tier]}" if tier in capacities else ""
        titles.append(f"{tier}<br>{ours['samples'].sum():,}{of} samples, {ours['size_bytes'].sum() / 1024:,.1f} KiB")
    plot = make_subplots(rows=1, cols=len(tiers), subplot_titles=titles)
    for column, tier in enumerate(tiers, 1):
        ours = table[table["tier"] == tier]
        names = [class_names[label] for label in ours["label"]]
        plot.add_bar(x=names, y=ours["samples"], marker_color=OKABE_ITO[column - 1], row=1, col=column)
    plot.update_xaxes(type="category", title="class")
    plot.update_yaxes(rangemode="tozero")
    plot.update_yaxes(title_text="samples", row=1, col=1)
    plot.update_layout(template=_TEMPLATE, showlegend=False, margin={"t": 70}, width=900, height=330)
    return plot


def slot_history(ids: np.ndarray) -> go.Figure:
    """How often each slot of the episodic memory has got another sample from storage, step by step.

    Args:
        ids: `(steps, slots) int64`, the id in each slot after each training step.
    """
    exchanged = np.cumsum(np.diff(ids, axis=0, prepend=ids[:1]) != 0, axis=0)
    plot = figure("Exchanges with storage so far, by slot of the episodic memory", "slot", "training step")
    plot.add_heatmap(z=exchanged, colorscale="Viridis", colorbar={"title": "exchanges"})
    plot.update_yaxes(autorange="reversed", showgrid=False)
    return plot


def accuracy_against(table: pd.DataFrame, x: str, x_title: str, line: str, *, log: bool = False) -> go.Figure:
    """Final accuracy against a setting, mean over seeds with standard deviation, a line a value of another setting.

    Args:
        table: One row a run, with columns `x`, `line` and `final_accuracy` in [0, 1].
        x: Column on the horizontal axis.
        x_title: Its title, with the unit.
        line: Column that tells the lines apart.
        log: Whether the horizontal axis is logarithmic.
    """
    seeds = int(table.groupby([line, x]).size().min())
    what = "one seed" if seeds == 1 else f"mean ± s.d. of {seeds} seeds"
    plot = figure(f"Accuracy after the last task ({what})", x_title, "average test accuracy, %")
    for name, rows in table.groupby(line, sort=False):
        spread = 100 * rows.groupby(x)["final_accuracy"].agg(["mean", "std"])
        plot.add_scatter(x=spread.index, y=spread["mean"], name=str(name), mode="lines+markers",
                         error_y={"type": "data", "array": spread["std"].fillna(0), "thickness": 1})  # fmt: skip
    if log:
        plot.update_xaxes(
            type="log", tickvals=sorted(table[x].unique()), ticktext=[str(v) for v in sorted(table[x].unique())]
        )
    return plot
