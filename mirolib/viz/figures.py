"""Plots, one call each; every function returns a plotly figure that reads on light and dark pages alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from plotly.subplots import make_subplots

from mirolib.base.errors import InputError
from mirolib.data.stream import TaskStream
from mirolib.energy.ledger import ENOUGH_COVERAGE
from mirolib.memory.tiered import TieredMemory
from mirolib.workbench.run import Run

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008)."""

_GREY, _RED = "#888888", "#D55E00"
_GRID = "rgba(128, 128, 128, 0.25)"
_AXIS = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True}
_TEMPLATE = "miro"
THEMES = {
    "auto": ("rgba(0, 0, 0, 0)", _GREY),
    "light": ("#FFFFFF", "#333333"),
    "dark": ("#111111", "#CCCCCC"),
}
"""Colours of background and text by theme; that of `auto` reads on light and dark pages alike."""


def set_theme(name: str) -> None:
    """Sets how plots look from now on, the user's own included: it is plotly's default template.

    Args:
        name: One of `THEMES`.

    Raises:
        InputError: If there is no such theme.
    """
    _register(name)
    pio.templates.default = _TEMPLATE


def _register(theme: str) -> None:
    """Makes plotly know the house style in a theme."""
    if theme not in THEMES:
        raise InputError(f"theme is {theme!r}; choose one of {', '.join(THEMES)}.")
    background, text = THEMES[theme]
    pio.templates[_TEMPLATE] = go.layout.Template(
        layout={
            "paper_bgcolor": background,
            "plot_bgcolor": background,
            "font": {"color": text, "size": 13},
            "colorway": OKABE_ITO,
            "xaxis": _AXIS,
            "yaxis": _AXIS,
            "legend": {"bgcolor": "rgba(0, 0, 0, 0)"},
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
            "height": 380,
            "width": 780,
        }
    )


_register("auto")


def figure(title: str, x: str = "", y: str = "") -> go.Figure:
    """An empty figure in the house style.

    Args:
        title: What it shows.
        x: Title of the horizontal axis, with its unit.
        y: Title of the vertical axis, with its unit.
    """
    return go.Figure(layout={"template": _TEMPLATE, "title": title, "xaxis": {"title": x}, "yaxis": {"title": y}})


def accuracy_matrix(result: Run) -> go.Figure:
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


def accuracy_by_task(results: Mapping[str, Run]) -> go.Figure:
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


def trials(table: pd.DataFrame) -> go.Figure:
    """Ranked candidates, a panel a task: accuracy against cost, the cutline, what was chosen.

    Args:
        table: `Run.trials` or `trials.csv`, or some tasks of it.
    """
    tasks = [(task, rows) for task, rows in table.groupby("task") if rows["accuracy"].notna().any()]
    columns = min(3, len(tasks))
    plot = make_subplots(
        rows=-(-len(tasks) // columns), cols=columns, horizontal_spacing=0.09, vertical_spacing=0.16,
        subplot_titles=[f"task {rows['task'].iloc[0] + 1}" for _, rows in tasks],
    )  # fmt: skip
    largest = table["stream_size"].max()
    for number, (_, rows) in enumerate(tasks):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        sizes = [f"stream {s}, episodic {e}" for s, e in zip(rows["stream_size"], rows["episodic_size"], strict=True)]
        marker = {"color": rows["stream_size"], "cmin": 0, "cmax": largest, "colorscale": "Viridis", "size": 9,
                  "showscale": number == 0, "colorbar": {"title": "stream<br>buffer"}}  # fmt: skip
        plot.add_scatter(x=rows["cost"], y=100 * rows["accuracy"], mode="markers", marker=marker, text=sizes,
                         name="candidate", showlegend=False, **place)  # fmt: skip
        chosen = rows[rows["chosen"]]
        plot.add_scatter(x=chosen["cost"], y=100 * chosen["accuracy"], mode="markers", name="chosen",
                         marker={"symbol": "circle-open", "size": 17, "color": _RED, "line": {"width": 3}},
                         showlegend=False, **place)  # fmt: skip
        plot.add_hline(y=100 * rows.loc[rows["above_cutline"], "accuracy"].min(), line_dash="dot", **place)
    first = table.iloc[0]
    plot.update_xaxes(type="log", title=f"cost, {first['cost_unit']}")
    plot.update_yaxes(title_text="accuracy, %", col=1)
    plot.update_layout(
        template=_TEMPLATE, width=900, height=110 + 290 * -(-len(tasks) // columns), margin={"t": 90},
        title=f"Candidates by the {first['profiler']} profiler; ring: picked by {first['selector']}, dotted: cutline",
    )  # fmt: skip
    return plot


def decisions(result: Run) -> go.Figure:
    """Over the epochs of a run: buffer sizes under the memory budget, swap ratio, and the wait for storage.

    Thin vertical lines are the controller's decisions within a task; hover over one for its reason.
    """
    epochs, events = result.epochs, result.events
    slot = result.records[-1].memory_bytes / (epochs["stream_size"] + epochs["episodic_size"]).iloc[-1]
    x = np.arange(len(epochs))
    plot = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.5, 0.25, 0.25])
    for column, name in (("episodic_size", "episodic memory"), ("stream_size", "stream buffer")):
        plot.add_scatter(x=x, y=epochs[column], name=name, mode="lines", stackgroup="sizes",
                         line={"shape": "hv", "width": 0}, row=1, col=1)  # fmt: skip
    plot.add_scatter(x=x, y=epochs["swap_ratio"], name="swap ratio", line_shape="hv", row=2, col=1)
    plot.add_scatter(x=x, y=100 * epochs["stall_share"], name="wait for storage", row=3, col=1)
    if len(events):
        per_task = epochs.groupby("task").size().max()
        at = events["task"] * per_task + events["epoch"].clip(lower=0)
        limited = events["memory_budget_bytes"].notna()
        plot.add_scatter(x=at[limited], y=events.loc[limited, "memory_budget_bytes"] / slot, name="memory budget",
                         line={"shape": "hv", "dash": "dash", "color": _RED}, row=1, col=1)  # fmt: skip
        within = events["epoch"] >= 0
        plot.add_scatter(x=at[within], y=np.zeros(int(within.sum())), name="decision", mode="markers",
                         marker={"symbol": "triangle-up", "size": 10, "color": _RED},
                         text=events.loc[within, "reason"], row=1, col=1)  # fmt: skip
    for task in range(1, len(result.records)):
        plot.add_vline(x=int((epochs["task"] < task).sum()) - 0.5, line_dash="dot", line_width=1)
    plot.update_yaxes(title_text="samples", rangemode="tozero", row=1, col=1)
    plot.update_yaxes(title_text="ratio", range=[0, 1.05], row=2, col=1)
    plot.update_yaxes(title_text="wait, %", rangemode="tozero", row=3, col=1)
    plot.update_xaxes(title_text="epoch (dotted: a new task)", row=3, col=1)
    plot.update_layout(template=_TEMPLATE, width=900, height=560, title="What the controller did")
    return plot


def accuracy_over_cost(table: pd.DataFrame, label: str, cost: str = "learning_work") -> go.Figure:
    """Average incremental accuracy against the cost of a run, a point a setting, mean and deviation over seeds.

    Args:
        table: One row a run, with columns `label`, `average_incremental_accuracy` and `cost`.
        label: Column that names the settings; those whose name begins with `fixed` are drawn alike, with their front.
        cost: Column with the cost.
    """
    points = table.groupby(label, sort=False)[[cost, "average_incremental_accuracy"]].agg(["mean", "std"]).fillna(0.0)
    x, y = points[cost], 100 * points["average_incremental_accuracy"]
    unit = "sample visits, profiling included" if cost == "learning_work" else cost
    plot = figure("Accuracy and what it cost", unit, "average incremental accuracy, %")
    fixed = points.index.str.startswith("fixed")
    for name in points.index[~fixed]:
        plot.add_scatter(x=[x.loc[name, "mean"]], y=[y.loc[name, "mean"]], name=name, mode="markers",
                         marker={"size": 12}, error_y={"type": "data", "array": [y.loc[name, "std"]]})  # fmt: skip
    if fixed.any():
        some = y[fixed].assign(cost=x[fixed]["mean"]).sort_values("cost")
        plot.add_scatter(x=some["cost"], y=some["mean"], name="fixed sizes", mode="markers", text=list(some.index),
                         marker={"color": _GREY, "symbol": "x"})  # fmt: skip
        front = some[some["mean"] >= some["mean"].cummax()]
        plot.add_scatter(x=front["cost"], y=front["mean"], name="their front, in hindsight", mode="lines",
                         line={"color": _GREY, "dash": "dot"})  # fmt: skip
    plot.update_xaxes(type="log")
    return plot


def accuracy_over_relative_cost(table: pd.DataFrame, label: str, reference: str) -> go.Figure:
    """Average incremental accuracy of several data sets against cost, that of one setting being 1; mean over seeds.

    Args:
        table: One row a run, with columns `dataset`, `label`, `average_incremental_accuracy` and `learning_work`.
        label: Column that names the settings.
        reference: The setting whose cost is 1.
    """
    points = table.groupby(["dataset", label], sort=False)[["learning_work", "average_incremental_accuracy"]].mean()
    plot = figure(
        "Accuracy and what it cost", f"sample visits ÷ those of: {reference}", "average incremental accuracy, %"
    )
    settings, symbols = table[label].unique(), itertools.cycle(("circle", "diamond", "square", "cross", "star", "x"))
    for name, symbol in zip(table["dataset"].unique(), symbols, strict=False):
        part = points.loc[name].reindex(settings)
        x = part["learning_work"] / part.loc[reference, "learning_work"]
        colours = [OKABE_ITO[k % len(OKABE_ITO)] for k in range(len(settings))]
        plot.add_scatter(x=x, y=100 * part["average_incremental_accuracy"], mode="markers", name=name, showlegend=False,
                         text=list(settings), marker={"symbol": symbol, "size": 12, "color": colours})  # fmt: skip
        plot.add_scatter(x=[None], y=[None], mode="markers", name=name,
                         marker={"symbol": symbol, "size": 12, "color": _GREY})  # fmt: skip
    for k, setting in enumerate(settings):
        plot.add_scatter(x=[None], y=[None], mode="markers", name=setting,
                         marker={"symbol": "square", "size": 12, "color": OKABE_ITO[k % len(OKABE_ITO)]})  # fmt: skip
    plot.update_xaxes(type="log")
    return plot


def power_over_time(trace: pd.DataFrame, energy: pd.DataFrame, rails: Sequence[str] = ()) -> go.Figure:
    """Power as it was sampled, the phases shaded.

    Args:
        trace: `time_s`, `rail` and `power_w`, as in `trace.csv`.
        energy: Rows of the ledger with `window`, `start_s` and `duration_s`, as in `energy.csv`.
        rails: Rails to stack instead of drawing the total: those that add up to it (`total_rails` in `run.json`), never
            a rail together with what lies inside it.
    """
    plot = figure("Power over time", "time, s", "power, W")
    start = min(trace["time_s"].min(), energy["start_s"].min())
    colours = dict(zip(dict.fromkeys(energy["window"]), itertools.cycle(OKABE_ITO)))
    for window, colour in colours.items():
        plot.add_scatter(x=[None], y=[None], mode="markers", name=window, legendgroup="phases",
                         marker={"symbol": "square", "size": 12, "color": colour, "opacity": 0.35})  # fmt: skip
    shapes = [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": begin - start, "x1": begin - start + duration, "y0": 0,
         "y1": 1, "fillcolor": colours[window], "opacity": 0.2, "line_width": 0, "layer": "below"}
        for window, begin, duration in zip(energy["window"], energy["start_s"], energy["duration_s"], strict=True)
    ]  # fmt: skip
    plot.update_layout(shapes=shapes)
    if rails:  # all on one time base, or they could not be stacked
        stacked = trace[trace["rail"].isin(rails)].pivot_table(index="time_s", columns="rail", values="power_w")
        stacked = stacked.interpolate(method="index", limit_direction="both")
        for rail in rails:
            plot.add_scatter(x=stacked.index - start, y=stacked[rail], name=rail, mode="lines", line={"width": 1},
                             stackgroup="rails")  # fmt: skip
    else:
        total = trace[trace["rail"] == "total"]
        plot.add_scatter(x=total["time_s"] - start, y=total["power_w"], name="total", mode="lines",
                         line={"width": 1.5, "color": _GREY})  # fmt: skip
    plot.update_yaxes(rangemode="tozero")
    return plot


def energy_by_phase(energy: pd.DataFrame) -> go.Figure:
    """Joules of each task by phase, stacked, with what they cover; work where there are no joules.

    Args:
        energy: Rows of the ledger, as in `energy.csv`.
    """
    joules = energy["energy_j"].where(energy["coverage"] >= ENOUGH_COVERAGE)
    measured = joules.notna().any()
    value = joules if measured else energy["visits"] + energy["forward_visits"] / 3
    how = f"{energy['kind'].iloc[0]}: {energy['scope'].iloc[0]}" if measured else "no joules: work stands in"
    if measured and joules.isna().any():
        how += f"; not seen: {', '.join(energy['window'][joules.isna()].unique())}"
    plot = figure(f"Energy by phase and task ({how})", "task", "energy, J" if measured else "work, sample visits")
    table = energy.assign(value=value, task=energy["task"] + 1)
    for window, part in table.groupby("window", sort=False):
        sums = part.groupby("task")["value"].sum(min_count=1)
        plot.add_bar(x=sums.index, y=sums, name=str(window))
    plot.update_layout(barmode="stack")
    plot.update_xaxes(dtick=1)
    return plot
