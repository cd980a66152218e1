"""Figures that compare runs, from their tables alone; names are escaped, as they may come from elsewhere."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mirolib.base.errors import InputError
from mirolib.energy.ledger import ENOUGH_COVERAGE
from mirolib.viz.figures import OKABE_ITO, figure
from mirolib.workbench.compare import over_seeds, pareto, warn_of_mixed_energy
from mirolib.workbench.run import Run

_SYMBOLS = ("circle", "diamond", "square", "cross", "star", "x")
_MOST = 6
_LONGEST = 40


def accuracy_over_energy(runs: pd.DataFrame, by: list[str] | None = None) -> go.Figure:
    """Average incremental accuracy against energy (work where there are no joules), with the front of each data set.

    A point is a setting, with its row in `over_seeds` beside it, and the standard deviation over its seeds both ways.
    Joules that were got in different ways stand in panels of their own, and a `MixedEnergyWarning` is given.

    Args:
        runs: A row a run, as from `load_runs`.
        by: Columns that make up a setting; by default those settings that differ.
    """
    points = over_seeds(runs, by)
    warn_of_mixed_energy(points)
    kinds = list(dict.fromkeys(points["cost_kind"]))
    plot = _panels(max(1, len(kinds)), [_short(kind) for kind in kinds], "Accuracy and what it cost")
    looks = dict(
        zip(points["dataset"].unique(), itertools.cycle(zip(OKABE_ITO, itertools.cycle(_SYMBOLS))), strict=False)
    )
    named: set[object] = set()
    for column, kind in enumerate(kinds, 1):
        unit = "work, sample visits" if kind == "work" else "energy, J"
        plot.update_xaxes(title_text=f"{unit}, profiling included", type="log", row=1, col=column)
        for dataset, part in points[points["cost_kind"] == kind].groupby("dataset", sort=False):
            colour, symbol = looks[dataset]
            front = part[pareto(part["cost"], part["average_incremental_accuracy"])].sort_values("cost")
            plot.add_scatter(x=front["cost"], y=100 * front["average_incremental_accuracy"], mode="lines",
                             line={"color": colour, "dash": "dot", "width": 1}, hoverinfo="skip", showlegend=False,
                             row=1, col=column)  # fmt: skip
            plot.add_scatter(
                x=part["cost"], y=100 * part["average_incremental_accuracy"], mode="markers+text",
                name=_short(dataset), legendgroup=str(dataset), showlegend=dataset not in named,
                marker={"color": colour, "symbol": symbol, "size": 10},
                text=part.index.astype(str), textposition="top right",
                hovertext=[html.escape(f"{row.setting} (n = {row.n})") for row in part.itertuples()],
                error_x=_bars(part["cost_sd"]), error_y=_bars(100 * part["average_incremental_accuracy_sd"]),
                row=1, col=column,
            )  # fmt: skip
            named.add(dataset)
    plot.update_yaxes(title_text="average incremental accuracy, %", row=1, col=1)
    return plot


def _bars(spread: pd.Series) -> dict[str, object]:
    return {"type": "data", "array": spread.fillna(0), "thickness": 1, "width": 2}


def _short(name: object) -> str:
    """A name from outside, escaped and not too long for a figure."""
    text = str(name)
    return html.escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _panels(columns: int, titles: list[str], title: str, rows: int = 1) -> go.Figure:
    """Panels in the house style."""
    plot = make_subplots(rows=rows, cols=columns, subplot_titles=titles or None, shared_yaxes="rows",
                         horizontal_spacing=0.06, vertical_spacing=0.08)  # fmt: skip
    width = {1: 780, 2: 900}.get(columns, 300 * columns)
    return plot.update_layout(template=figure("").layout.template, title=title, width=width, height=120 + 280 * rows,
                              margin={"t": 80})  # fmt: skip


def _check(runs: Mapping[str, Run]) -> None:
    if not 1 <= len(runs) <= _MOST:
        raise InputError(f"{len(runs)} runs don't fit side by side; choose 1 to {_MOST}.")


def configurations(runs: Mapping[str, Run]) -> go.Figure:
    """Buffer sizes and swap ratio by task, a line a run.

    Args:
        runs: Runs by the name they get in the legend, at most six.

    Raises:
        InputError: If there are none or too many.
    """
    _check(runs)
    plot = _panels(3, ["stream buffer, samples", "episodic memory, samples", "swap ratio"], "Configuration by task")
    plot.update_yaxes(matches=None, showticklabels=True)
    for (name, run), colour in zip(runs.items(), OKABE_ITO, strict=False):
        table = run.tables["tasks"]
        for column, value in enumerate(("stream_size", "episodic_size", "swap_ratio"), 1):
            plot.add_scatter(x=table["task"] + 1, y=table[value], name=_short(name), legendgroup=name,
                             showlegend=column == 1, mode="lines+markers", line_color=colour,
                             row=1, col=column)  # fmt: skip
    plot.update_xaxes(title_text="task", dtick=1)
    plot.update_yaxes(rangemode="tozero")
    return plot


def accuracy_matrices(runs: Mapping[str, Run]) -> go.Figure:
    """Test accuracy on each task after each task, in percent, a panel a run; a column that pales is forgotten.

    Args:
        runs: Runs by the name of their panel, at most six.

    Raises:
        InputError: If there are none or too many.
    """
    _check(runs)
    plot = _panels(len(runs), [_short(name) for name in runs], "Test accuracy after each task, %")
    for column, run in enumerate(runs.values(), 1):
        table = run.tables["tasks"]
        tested = [name for name in table if str(name).startswith("accuracy_")]
        values = 100 * table[tested].to_numpy(float)
        text = [["" if np.isnan(value) else f"{value:.0f}" for value in row] for row in values]
        plot.add_heatmap(z=values, x=[f"task {k + 1}" for k in range(len(tested))],
                         y=[f"task {task + 1:g}" for task in table["task"]], zmin=0, zmax=100, colorscale="Blues",
                         hoverongaps=False, text=text, texttemplate="%{text}", showscale=column == len(runs),
                         colorbar={"title": "%"}, row=1, col=column)  # fmt: skip
    plot.update_xaxes(title_text="tested on", showgrid=False)
    plot.update_yaxes(autorange="reversed", showgrid=False)
    plot.update_yaxes(title_text="after", row=1, col=1)
    return plot


def energy_of_phases(runs: Mapping[str, Run]) -> go.Figure:
    """Joules of each phase, a bar a run; work where any of the runs has no joules, or has others than the rest.

    Args:
        runs: Runs by the name of their bar, at most six.

    Raises:
        InputError: If there are none or too many.
    """
    _check(runs)
    ledger = pd.concat([run.tables["energy"].assign(run=name) for name, run in runs.items()], ignore_index=True)
    seen = ledger["coverage"] >= ENOUGH_COVERAGE
    hows = (ledger["kind"] + ": " + ledger["scope"])[seen & ledger["energy_j"].notna()].unique()
    joules = len(hows) == 1 and set(ledger.loc[seen, "run"]) == set(runs)
    value = ledger["energy_j"].where(seen) if joules else ledger["visits"] + ledger["forward_visits"] / 3
    how = _short(hows[0]) if joules else "work stands in, as there are no joules of one kind for all"
    plot = figure(f"Energy by phase ({how})", "", "energy, J" if joules else "work, sample visits")
    for window, part in ledger.assign(value=value).groupby("window", sort=False):
        sums = part.groupby("run", sort=False)["value"].sum(min_count=1)
        plot.add_bar(x=[_short(name) for name in sums.index], y=sums, name=_short(window))
    plot.update_layout(barmode="stack")
    plot.update_xaxes(type="category")
    return plot
