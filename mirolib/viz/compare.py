"""Figures that compare runs, from their tables alone."""

import html
import itertools
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from mirolib.viz import figures
from mirolib.viz.figures import OKABE_ITO, SYMBOLS, check_number, panels, short
from mirolib.workbench.compare import over_seeds, pareto, warn_of_mixed_energy
from mirolib.workbench.run import Run

accuracy_matrices, energy_of_phases = figures.accuracy_matrix, figures.energy_by_phase


def accuracy_over_energy(runs: pd.DataFrame, by: list[str] | None = None) -> go.Figure:
    """Average incremental accuracy against energy (work where there are no joules), with the front of each data set.

    A point is a setting, with its row in `over_seeds` beside it, and the standard deviation over its seeds both ways.
    Joules that were got in different ways stand in panels of their own, and a `MixedEnergyWarning` is given. A setting
    is made up of the columns `by`, by default of those settings that differ.
    """
    points = over_seeds(runs, by)
    warn_of_mixed_energy(points)
    kinds = list(dict.fromkeys(points["cost_kind"]))
    plot = panels(kinds or [""], "Accuracy and what it cost")
    # a symbol beside the colour, for who can't tell colours apart
    looks = itertools.cycle(zip(OKABE_ITO, itertools.cycle(SYMBOLS)))
    look_of = dict(zip(points["dataset"].unique(), looks, strict=False))
    thin = {"type": "data", "thickness": 1, "width": 2}
    for column, kind in enumerate(kinds, 1):  # joules of a board and of its processor share no axis
        unit = "work, sample visits" if kind == "work" else "energy, J"
        plot.update_xaxes(title_text=f"{unit}, profiling included", type="log", row=1, col=column)
        for dataset, part in points[points["cost_kind"] == kind].groupby("dataset", sort=False):
            colour, symbol = look_of[dataset]
            is_first = kind == points.loc[points["dataset"] == dataset, "cost_kind"].iloc[0]
            front = part[pareto(part["cost"], part["average_incremental_accuracy"])].sort_values("cost")
            plot.add_scatter(x=front["cost"], y=100 * front["average_incremental_accuracy"], mode="lines",
                             line={"color": colour, "dash": "dot", "width": 1}, hoverinfo="skip", showlegend=False,
                             row=1, col=column)  # fmt: skip
            plot.add_scatter(
                x=part["cost"], y=100 * part["average_incremental_accuracy"], mode="markers+text",
                name=short(dataset), legendgroup=str(dataset), showlegend=is_first,
                marker={"color": colour, "symbol": symbol, "size": 10},
                text=part.index.astype(str), textposition="top right",
                hovertext=[html.escape(f"{row.setting} (n = {row.n})") for row in part.itertuples()],
                error_x=thin | {"array": part["cost_sd"].fillna(0)},
                error_y=thin | {"array": 100 * part["average_incremental_accuracy_sd"].fillna(0)}, row=1, col=column,
            )  # fmt: skip
    return plot.update_yaxes(title_text="average incremental accuracy, %", row=1, col=1)


def configurations(runs: Mapping[str, Run]) -> go.Figure:
    """Buffer sizes and swap ratio by task, a line a run, of at most six by the name they get in the legend.

    There is an `InputError` if there are none or too many.
    """
    check_number(runs)
    plot = panels(["stream buffer, samples", "episodic memory, samples", "swap ratio"], "Configuration by task")
    for (name, run), colour in zip(runs.items(), OKABE_ITO, strict=False):
        for column, value in enumerate(("stream_size", "episodic_size", "swap_ratio"), 1):
            plot.add_scatter(x=run.tasks["task"] + 1, y=run.tasks[value], name=short(name), legendgroup=name,
                             showlegend=column == 1, mode="lines+markers", line_color=colour,
                             row=1, col=column)  # fmt: skip
    plot.update_xaxes(title_text="task", dtick=1)
    return plot.update_yaxes(matches=None, showticklabels=True, rangemode="tozero")  # samples and ratios share no axis
