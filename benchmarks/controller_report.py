"""Writes docs/controller.md, its picture and docs/tables/controller.csv from what `benchmarks.controller` measured."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.controller import BUDGETS, FOLDER, MIXES, RAM, ROOT, RULES, SETS, TARGETS, WORKS
from mirolib.viz.figures import OKABE_ITO, SYMBOLS

PAGE, TABLE = ROOT / "docs" / "controller.md", ROOT / "docs" / "tables" / "controller.csv"
ACCURACIES = {"final": "final", "incremental": "average incremental"}


def read() -> pd.DataFrame:
    """Every run of the seeds of which all rows are measured."""
    files = [file for name in SETS for file in sorted(FOLDER.glob(f"{name}-3*.csv"))]  # others were for choosing
    tables = [pd.read_csv(file) for file in files]
    every = pd.concat([table for table in tables if len(table) == max(map(len, tables))], ignore_index=True)
    return every.sort_values("row", key=lambda row: ~row.str.startswith("miro "), kind="stable", ignore_index=True)


def front(runs: pd.DataFrame, accuracy: str) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and costs of the hindsight front of a data set: the cheapest means at each accuracy."""
    means = runs[runs["row"].str.startswith("front")].groupby("row")[[accuracy, "cost"]].mean().sort_values("cost")
    best = means[accuracy].cummax()
    means = means[means[accuracy] > best.shift(fill_value=0.0)]
    return means[accuracy].to_numpy(), means["cost"].to_numpy()


def cost_at(runs: pd.DataFrame, accuracy: str, reached: float | np.ndarray) -> np.ndarray:
    """The front's cost of an accuracy, between its points in the logarithm; beyond them that of the last."""
    reaches, costs = front(runs, accuracy)
    return np.exp(np.interp(reached, reaches, np.log(costs)))


def ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracies and costs of each row of a data set, and its cost over the front's."""
    grouped = runs.groupby("row", sort=False)
    means = grouped[["final", "incremental", "cost", "deciding", "train_visits", "memory_bytes"]].mean()
    for accuracy in ACCURACIES:
        means[f"{accuracy} sd"] = grouped[accuracy].std()
        means[f"{accuracy} ratio"] = means["cost"] / cost_at(runs, accuracy, means[accuracy].to_numpy())
        # the spread of the ratio: rows drawn anew by seed, the front with them
        means[f"{accuracy} band"] = _bands(runs, accuracy).reindex(means.index)
    return means


def _bands(runs: pd.DataFrame, accuracy: str, draws: int = 200) -> pd.Series:
    """80 % of what a ratio would be with other seeds, by bootstrap, as text."""
    seeds, rng, found = runs["seed"].unique(), np.random.default_rng(0), []
    by_seed = {seed: rows for seed, rows in runs.groupby("seed")}
    for _ in range(draws):
        drawn = pd.concat([by_seed[seed] for seed in rng.choice(seeds, len(seeds))])
        means = drawn.groupby("row")[[accuracy, "cost"]].mean()
        found.append(means["cost"] / cost_at(drawn, accuracy, means[accuracy].to_numpy()))
    limits = pd.concat(found, axis=1).quantile([0.1, 0.9], axis=1)
    return limits.apply(lambda column: f"{column.iloc[0]:.2f} to {column.iloc[1]:.2f}")


def forecasts(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a forecast: expected accuracy, limits, what was reached."""
    rows = [one for text in runs.loc[runs["row"].str.startswith("miro "), "forecasts"] for one in json.loads(text)]
    return pd.DataFrame(rows, columns=["accuracy", "low", "high", "reached"], dtype=float).dropna()


def bars(every: pd.DataFrame) -> pd.DataFrame:
    """What the controller is held to, by data set."""
    found: dict[str, dict[str, str]] = {}
    for name, runs in every.groupby("data", sort=False):
        means, seen = ratios(runs), forecasts(runs)
        column = found[name] = {}
        if "miro knee" in means.index:
            row = means.loc["miro knee"]
            column["knee: cost ÷ front, by final / average accuracy (median 1.15, worst 1.4)"] = (
                f"{row['final ratio']:.2f} / {row['incremental ratio']:.2f}"
            )
            rules = means.loc[[rule for rule in RULES if rule in means.index and rule != "miro-2023"]]
            if len(rules):
                best = rules["final ratio"].idxmin()
                text = f"{row['final ratio'] / rules.loc[best, 'final ratio']:.2f} ({best})"
                column["knee: its ratio ÷ that of the best simple rule (1)"] = text
        for target in TARGETS[str(name)]:
            if (label := f"miro accuracy={target}") in means.index:
                row, wanted = means.loc[label], float(cost_at(runs, "final", target))
                column[f"accuracy={target}: off, points (1.5); cost ÷ least (1.3)"] = (
                    f"{100 * (row['final'] - target):+.1f}; {row['cost'] / wanted:.2f}"
                )
        for share in BUDGETS:
            if (label := f"miro energy_budget {share:.3f}") in means.index:
                row = means.loc[label]
                ways = means.loc[[w for w in means.index if w.startswith("split") and w.endswith(f"{share:.3f}")]]
                best = ways["final"].idxmax()
                column[f"energy_budget {share:.3f}: used, % (95 to 105); below the best split, points (1.5)"] = (
                    f"{100 * row['cost'] / ways['cost'].mean():.1f}; "
                    f"{100 * (ways.loc[best, 'final'] - row['final']):+.1f} ({best[6:-6]})"
                )
        looked = runs[runs["row"].str.startswith("miro ") & (runs["deciding"] > 0)]
        if len(looked):
            share = looked["deciding"].sum() / looked["train_visits"].sum()
            column["deciding ÷ training, % (5; 3 from 10,000 visits a task)"] = f"{100 * share:.1f}"
        if len(seen):
            off = 100 * (seen["accuracy"] - seen["reached"]).abs().median()
            inside = ((seen["low"] <= seen["reached"]) & (seen["reached"] <= seen["high"])).mean()
            column["forecast, points off (3); within its 80 % interval, % (70 to 90)"] = (
                f"{off:.1f}; {100 * inside:.0f}"
            )
        if {"miro knee", "miro-2023"} <= set(means.index):
            ours, old = (
                means[means.index.str.startswith("miro ") & ~means.index.str.contains("budget")],
                means.loc["miro-2023"],
            )
            ours = ours.sort_values("final")
            cost = np.exp(np.interp(old["final"], ours["final"], np.log(ours["cost"])))
            column["against miro-2023 at its final accuracy: cost (1/2), RAM (1/8)"] = (
                f"{cost / old['cost']:.2f}, {ours['memory_bytes'].max() / old['memory_bytes']:.2f}"
            )
    return pd.DataFrame(found).fillna("")


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of a data set as the page shows them."""
    rows = []
    for label, row in ratios(runs).iterrows():
        rows.append({
            "row": label, "final accuracy, %": f"{100 * row['final']:.1f} ± {100 * row['final sd']:.1f}",
            "average incremental, %": f"{100 * row['incremental']:.1f} ± {100 * row['incremental sd']:.1f}",
            "cost, visits": f"{row['cost']:,.0f}", "RAM, KiB": f"{row['memory_bytes'] / 1024:,.0f}",
            "cost ÷ front, final": f"{row['final ratio']:.2f} ({row['final band']})",
            "cost ÷ front, average": f"{row['incremental ratio']:.2f} ({row['incremental band']})",
        })  # fmt: skip
    return pd.DataFrame(rows)


def picture(every: pd.DataFrame) -> go.Figure:
    """Final accuracy over cost of every data set, a panel each: the front, Miro's objectives, the simple rules."""
    names = list(every["data"].unique())
    plot = make_subplots(cols=len(names), subplot_titles=names, horizontal_spacing=0.06)
    for column, name in enumerate(names, start=1):
        runs = every[every["data"] == name]
        means, (reaches, costs) = runs.groupby("row")[["final", "cost"]].mean(), front(runs, "final")
        plot.add_scatter(x=costs, y=100 * reaches, mode="lines+markers", name="hindsight front", legendgroup="front",
                         showlegend=column == 1, line={"color": "grey"}, row=1, col=column)  # fmt: skip
        kinds = {"Miro": "miro (?:knee|accuracy)", "Miro, energy budget": "miro energy", "miro-2023": "^miro-2023$"}
        kinds |= {rule: f"^{rule}$" for rule in RULES[:-1]}
        for number, (kind, pattern) in enumerate(kinds.items()):
            these = means[means.index.str.contains(pattern)]
            plot.add_scatter(x=these["cost"], y=100 * these["final"], mode="markers", name=kind, legendgroup=kind,
                             showlegend=column == 1, text=these.index, row=1, col=column,
                             marker={"size": 11, "symbol": SYMBOLS[number % len(SYMBOLS)],
                                     "color": OKABE_ITO[number % len(OKABE_ITO)]})  # fmt: skip
    plot.update_xaxes(type="log", title_text="cost, sample visits").update_yaxes(title_text="accuracy, %", col=1)
    legend, width = {"orientation": "h", "y": -0.25}, 320 * len(names) + 60
    return plot.update_layout(template="plotly_white", width=width, height=430, margin={"t": 40}, legend=legend)


def report() -> None:
    """Writes the page, the picture and the table of every run."""
    every = read()
    measured = every.groupby("data")["row"].agg(set).map({"miro knee", "front 1.000 sqrt", "share"}.issubset)
    every = every[every["data"].map(measured)]  # the others are under way
    TABLE.parent.mkdir(exist_ok=True)
    every.to_csv(TABLE, index=False)
    picture(every).write_image(PAGE.with_name("controller.png"), scale=1.5)
    parts = [_INTRODUCTION, bars(every).to_markdown(), _READING]
    for name, runs in every.groupby("data", sort=False):
        shown = runs[~runs["row"].str.startswith("front")]
        whole = f"## {name}, preset `{SETS[str(name)]}`, {runs['seed'].nunique()} seeds"
        points = pd.DataFrame({
            "work ÷ the preset's": [f"{work:.2f}" for work in WORKS],
            **{f"mix {mix}": [_point(runs, f"front {work:.3f} {mix}") for work in WORKS] for mix in MIXES},
        })  # fmt: skip
        front_rows = runs[runs["row"].str.startswith("front")]
        both = pd.concat([front_rows, shown])
        lines = table(both)
        parts += [whole, lines[~lines["row"].str.startswith("front")].to_markdown(index=False),
                  "The front: final accuracy in %, and visits.", points.to_markdown(index=False)]  # fmt: skip
    if RAM.exists():
        split = 100 * pd.read_csv(RAM).pivot_table(
            index=["swap_ratio", "slots"], columns="share", values=["final_accuracy", "average_incremental_accuracy"]
        )
        split.columns = [f"{name.removesuffix('_accuracy').replace('_', ' ')}, {share:g}" for name, share in split]
        parts += [_SPLIT, split.round(1).reset_index().to_markdown(index=False)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _point(runs: pd.DataFrame, label: str) -> str:
    these = runs[runs["row"] == label]
    return f"{100 * these['final'].mean():.1f} @ {these['cost'].mean():,.0f}" if len(these) else ""


_INTRODUCTION = """# How well the controller spends work

Written by `make controller`, or `python -m benchmarks.controller_report` from what `python -m benchmarks.controller
measure DATASET SEED` left ([every run](tables/controller.csv)); the method, and on what its settings were chosen,
stands at the head of `benchmarks/controller.py`. Accuracies are on the test sets, the controller sees held-out training
samples only. Cost is work in sample visits, looks and profiling included: no machine with an energy sensor was at hand.
± is the standard deviation over seeds. *Cost ÷ front* is the cost of a row's mean over the least at which the hindsight
front has that accuracy; beside it 80 % of what other seeds would have given.

![accuracy over cost: hindsight front, objectives, simple rules](controller.png)

## What it is held to

Bars in brackets."""

_SPLIT = """## The split of a memory budget

Accuracies in % on digits by swap ratio, slots, and the share of them that the stream buffer has, five seeds, at a
quarter of the preset's work (`python -m benchmarks.controller ram`). Below full swapping a quarter is best or within
the noise of it; the controller's rule is that quarter, or what full steps need."""

_READING = """The paper's controller, and how its profilers rank, has a [page of its own](miro_2023.md)."""


if __name__ == "__main__":
    report()
