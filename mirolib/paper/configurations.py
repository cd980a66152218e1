"""Figures on configurations: memory size, cost, swap ratio, and how the best changes over time."""

from __future__ import annotations

import pandas as pd

from mirolib.paper.base import Line, Panel, PaperFigure, cost_of, who, yes
from mirolib.paper.studies import State, paper_numbers

SIZES = ("stream_size", "episodic_size")


class TieredAgainstSingle(PaperFigure):
    """Fig. 2c."""

    key = "2c"
    title = "Fig. 2c: a tiered memory against a single-level one, by size of the episodic memory"
    claim = "CIFAR-100, read off the figure: 43 against 23 % with 1,000 samples in RAM, 70 against 67 % with 30,000."
    tables = ("runs", ("episodic_size", "swap_ratio", "final_accuracy"))
    _ratios = (("tiered", 1.0), ("single-level", 0.0))

    def paper(self) -> list[Panel]:
        """Both lines."""
        numbers = paper_numbers("2c").groupby("series", sort=False)
        lines = tuple(Line(str(name), rows["x"], rows["accuracy_percent"]) for name, rows in numbers)
        return [Panel("the paper, CIFAR-100", "episodic memory, samples", lines, log=True)]

    def _curves(self, table: pd.DataFrame) -> dict[str, pd.Series]:
        """Accuracy in percent by size, for sizes that have both."""
        means = 100 * table.groupby(["episodic_size", "swap_ratio"])["final_accuracy"].mean().unstack()
        both = means[[ratio for _, ratio in self._ratios]].dropna()
        return {name: both[ratio] for name, ratio in self._ratios}

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Both lines of ours."""
        lines = tuple(Line(name, curve.index, curve) for name, curve in self._curves(table).items())
        return [Panel(who(state), "episodic memory, samples", lines, log=True)]

    def says(self, table: pd.DataFrame) -> str:
        """The gain at both ends."""
        tiered, single = self._curves(table).values()
        gain = tiered - single
        return (
            f"{tiered.iloc[0]:.1f} against {single.iloc[0]:.1f} % with {gain.index[0]:,} samples in RAM, "
            f"{tiered.iloc[-1]:.1f} against {single.iloc[-1]:.1f} % with {gain.index[-1]:,}. The gain is largest at "
            f"the smallest memory: {yes(gain.iloc[0] == gain.max())}."
        )


class AccuracyForEnergy(PaperFigure):
    """Fig. 5."""

    key = "5"
    title = "Fig. 5: what a configuration costs and reaches, after all tasks and after half of them"
    claim = (
        "Read off the figure: CIFAR-100 after 10 tasks 35 kJ buy 53 %, 250 kJ 69 % and 450 kJ no more; some "
        "configurations at 300 kJ reach only 65 %. A larger budget does not guarantee better accuracy."
    )
    tables = ("runs", (*SIZES, "tasks_done", "final_accuracy", "learning_work", "learning_energy_j", "energy_kind"))
    _panels = (
        ("5a", "CIFAR-100 after 10 tasks"), ("5c", "CIFAR-100 after 5 tasks"),
        ("5b", "Tiny-ImageNet after 10 tasks"), ("5d", "Tiny-ImageNet after 5 tasks"),
    )  # fmt: skip

    def paper(self) -> list[Panel]:
        """Points of the four panels."""
        found = []
        for name, title in self._panels:
            points = paper_numbers(name)
            lines = tuple(
                Line("front" if series == "front" else "configuration", rows["x"], rows["accuracy_percent"],
                     "lines+markers" if series == "front" else "markers")
                for series, rows in points.groupby("series", sort=False)
            )  # fmt: skip
            found.append(Panel(f"the paper, {title}", "energy, kJ", lines, log=True))
        return found

    def _points(self, table: pd.DataFrame, tasks: int) -> tuple[pd.DataFrame, str]:
        """Cost and accuracy of each pair of sizes after so many tasks, cheapest first, and the unit of cost."""
        done = table[table["tasks_done"] == tasks]
        cost, unit = cost_of(done)
        points = done.assign(cost=cost, percent=100 * done["final_accuracy"]).groupby(list(SIZES))
        return points[["cost", "percent"]].mean().sort_values("cost").reset_index(), unit

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Every configuration tried and the front."""
        found, last = [], int(table["tasks_done"].max())
        for tasks in (last, max(1, last // 2)):
            points, unit = self._points(table, tasks)
            front = points[points["percent"] >= points["percent"].cummax()]
            lines = (Line("front", front["cost"], front["percent"]),
                     Line("configuration", points["cost"], points["percent"], "markers"))  # fmt: skip
            found.append(Panel(f"{who(state)} after {tasks} tasks", unit, lines, log=True))
        return found

    def says(self, table: pd.DataFrame) -> str:
        """Whether the paper's observations hold."""
        last = int(table["tasks_done"].max())
        points, unit = self._points(table, last)
        early, _ = self._points(table, max(1, last // 2))
        best, then = (found.sort_values("percent").iloc[-1] for found in (points, early))
        cheapest = points.iloc[0]
        dominated = int((points["percent"] < points["percent"].cummax()).sum())
        return (
            f"the cheapest of {len(points)} configurations reaches {cheapest['percent']:.1f} %, the best "
            f"({best['stream_size']:.0f} + {best['episodic_size']:.0f} samples) {best['percent']:.1f} % at "
            f"{best['cost'] / cheapest['cost']:.1f} times the cost ({unit}); {dominated} cost more than another that "
            f"reaches more. After half of the tasks another one is the best: "
            f"{yes((then[list(SIZES)] != best[list(SIZES)]).any())}."
        )


class SwapRatio(PaperFigure):
    """Fig. 6."""

    key = "6"
    title = "Fig. 6: accuracy over swap ratio"
    claim = (
        "Read off the figure: CIFAR-100 with ER 34 % without swapping, 54.5 at 20 %, 55.5 with full swapping; BiC "
        "48.5, 60.5, 60.5; Tiny-ImageNet 14.5, 28, 28.5. The knee lies at 15 to 20 %."
    )
    tables = ("runs", ("method", "episodic_size", "swap_ratio", "final_accuracy"))
    _names = (("cifar100", "CIFAR-100"), ("tiny-imagenet", "Tiny-ImageNet"))

    def paper(self) -> list[Panel]:
        """A panel a data set."""
        numbers = paper_numbers("6")
        return [
            Panel(f"the paper, {title}", "swap ratio", tuple(
                Line(str(method), rows["x"], rows["accuracy_percent"])
                for method, rows in numbers[numbers["dataset"] == name].groupby("method", sort=False)
            ))
            for name, title in self._names
        ]  # fmt: skip

    def _curve(self, table: pd.DataFrame) -> tuple[pd.Series, int]:
        """Accuracy in percent by ratio at the size with the most ratios, the smallest of these."""
        ratios = table.groupby("episodic_size")["swap_ratio"].nunique()
        size = int(ratios.index[int(ratios.to_numpy().argmax())])
        rows = table[table["episodic_size"] == size]
        return 100 * rows.groupby("swap_ratio")["final_accuracy"].mean(), size

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """One line."""
        curve, size = self._curve(table)
        line = Line(str(table["method"].iloc[0]), curve.index, curve)
        return [Panel(f"{who(state)}, {size} in RAM", "swap ratio", (line,))]

    def says(self, table: pd.DataFrame) -> str:
        """How much of the gain a fifth of the swapping brings."""
        curve, size = self._curve(table)
        middle = max(ratio for ratio in curve.index if ratio <= 0.2)
        gain = curve.iloc[-1] - curve.iloc[0]
        share = f"{(curve[middle] - curve.iloc[0]) / gain:.0%} of it" if gain > 0 else "nothing to be shared"
        return (
            f"{table['method'].iloc[0]}, {size} samples in RAM: {curve.iloc[0]:.1f} % without swapping, "
            f"{curve.iloc[-1]:.1f} with full swapping ({gain:+.1f} points); a ratio of {middle:g} brings {share}."
        )


class BestOverTime(PaperFigure):
    """P2."""

    key = "best-over-time"
    title = "The best configuration over time"
    claim = "Principle P2: the best configuration changes as tasks arrive. Numbers by task are not known."
    tables = ("table", ("seed", "task", *SIZES, "chosen", "accuracy", "cost"))

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Sizes of the best buy of the first seed, task by task."""
        best = table[(table["chosen"] == 1) & (table["seed"] == table["seed"].min())]
        names = ("stream buffer", "episodic memory")
        lines = tuple(Line(name, best["task"] + 1, best[c]) for name, c in zip(names, SIZES, strict=True))
        return [Panel(f"{who(state)}, chosen by the oracle", "task", lines, "samples")]

    def says(self, table: pd.DataFrame) -> str:
        """Whether one pair is best throughout."""
        best = table[(table["chosen"] == 1) & (table["task"] > 0)]
        pairs = best.groupby("seed")[list(SIZES)].apply(lambda rows: len(rows.drop_duplicates()))
        return f"one pair of sizes is the best buy at every task: {yes((pairs == 1).all())} ({pairs.max()} in all)."
