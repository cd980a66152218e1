"""Figures on the whole system: end to end, by data set, over fifty tasks, and adapting to resources."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mirolib.paper.base import Line, Panel, PaperFigure, beside, cost_of, who
from mirolib.paper.studies import State, paper_numbers


class EndToEnd(PaperFigure):
    """The headline."""

    key = "end-to-end"
    title = "End to end: Miro against each baseline"
    claim = "7 to 66 % less energy at 1.35 to 15.37 points higher accuracy than baselines (second-hand)."
    tables = ("table", ("setting", "final_accuracy", "learning_work", "learning_energy_j", "energy_kind"))

    def _against(self, table: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
        """Cost saved and points gained against each baseline, who gains, and the unit of cost."""
        cost, unit = cost_of(table)
        means = table.assign(cost=cost).groupby("setting", sort=False)[["cost", "final_accuracy"]].mean()
        miro = next((name for name in means.index if name.lower().startswith("miro")), means.index[0])
        ours, others = means.loc[miro], means[~means.index.str.lower().str.startswith(("miro", "oracle"))]
        return pd.DataFrame({
            "saved": 100 * (1 - ours["cost"] / others["cost"]),
            "points": 100 * (ours["final_accuracy"] - others["final_accuracy"]),
        }), miro, unit  # fmt: skip

    def _box(self) -> Line:
        """The paper's ranges."""
        numbers = paper_numbers("headline")
        (x0, x1), (y0, y1) = numbers["x"], numbers["accuracy_percent"]
        return Line("the paper's ranges", [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], "lines")

    def paper(self) -> list[Panel]:
        """The ranges alone."""
        return [Panel("the paper", "energy saved, %", (self._box(),), "points of accuracy gained")]

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """A point a baseline, and the paper's ranges."""
        against, _, unit = self._against(table)
        lines = [Line(str(name), [row["saved"]], [row["points"]], "markers") for name, row in against.iterrows()]
        return [Panel(who(state), f"saved, % of {unit}", (self._box(), *lines), "points of accuracy gained")]

    def says(self, table: pd.DataFrame) -> str:
        """The ranges, and how often both are gains."""
        against, miro, unit = self._against(table)
        saved, points = against["saved"], against["points"]
        both = int(((saved > 0) & (points > 0)).sum())
        return (
            f"{miro} against {len(against)} baselines: {saved.min():.0f} to {saved.max():.0f} % saved ({unit}, "
            f"profiling included) at {points.min():+.1f} to {points.max():+.1f} points of final accuracy; better in "
            f"both than {both} of them."
        )


class Generality(PaperFigure):
    """Data sets of the evaluation."""

    key = "generality"
    title = "Generality: storage below the episodic memory, and Miro, by data set"
    claim = (
        "Five data sets are evaluated; known are the ends of Fig. 6, without and with full swapping: CIFAR-100 34 and "
        "55.5 %, Tiny-ImageNet 14.5 and 28.5 % (ER, read off the figure)."
    )
    tables = ("table", ("dataset", "setting", "final_accuracy", "learning_work"))

    def paper(self) -> list[Panel]:
        """The ends of Fig. 6."""
        numbers = paper_numbers("6")
        numbers = numbers[numbers["method"] == "er"]
        lines = tuple(
            Line(name, rows["dataset"], rows["accuracy_percent"], "markers")
            for name, rows in (("single-level", numbers[numbers["x"] == 0]),
                               ("tiered, full swapping (CarM)", numbers[numbers["x"] == 1]))
        )  # fmt: skip
        return [Panel("the paper", "data set", lines)]

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """A point a setting."""
        means = 100 * table.groupby("setting", sort=False)["final_accuracy"].mean()
        lines = tuple(Line(str(name), [state.study.dataset], [value], "markers") for name, value in means.items())
        return [Panel(who(state), "data set", lines)]

    def draw(self, found: Sequence[State]) -> go.Figure:
        """All data sets of ours in one panel."""
        ours = [panel for state in self.ready(found) for panel in self.ours(state, self.read(state))]
        lines = tuple(line for panel in ours for line in panel.lines)
        return beside(self.title, [*self.paper(), *([Panel("ours", "data set", lines)] if lines else [])])

    def says(self, table: pd.DataFrame) -> str:
        """What swapping brings, and what Miro costs."""
        means = table.groupby("setting")[["final_accuracy", "learning_work"]].mean()
        accuracy, work = 100 * means["final_accuracy"], means["learning_work"]
        single, tiered = accuracy["single-level"], accuracy["tiered, full swapping (CarM)"]
        return (
            f"full swapping brings {tiered - single:+.1f} points against none ({single:.1f} %); Miro ends at "
            f"{accuracy['Miro']:.1f} % with "
            f"{work['Miro'] / work['whole memory']:.0%} of the whole memory's work ({accuracy['whole memory']:.1f} %)."
        )


class Scalability(PaperFigure):
    """Fifty tasks."""

    key = "scalability"
    title = "Scalability: cost of a sample visit as the store grows"
    claim = "The largest stream is ImageNet-1k in 50 tasks, 146 GB; numbers by task are not known."
    tables = ("tasks", ("task", "stored", "train_s", "train_visits"))

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Milliseconds a visit."""
        line = Line("training", table["stored"], 1e3 * table["train_s"] / table["train_visits"], "markers")
        return [Panel(who(state), "training samples on storage", (line,), "milliseconds a sample visit")]

    def says(self, table: pd.DataFrame) -> str:
        """The second half against the first."""
        cost, half = table["train_s"] / table["train_visits"], len(table) // 2
        ratio = cost[half:].median() / cost[half // 5 : half].median()
        return (
            f"over {len(table)} tasks and {table['stored'].max():,} stored samples, a visit costs {ratio:.2f} times as "
            "much in the second half as in the first (timings of a shared machine wander)."
        )


class Adaptation(PaperFigure):
    """P4."""

    key = "adaptation"
    title = "Adaptation: a budget that falls, and congestion"
    claim = (
        "Principle P4: I/O congestion halves the swap ratio (100, 50, 25 %), a lower memory budget blacklists the "
        "configurations above it. Numbers are not known."
    )
    tables = ("table", ("run", "final_accuracy", "stall_s", "train_s", "lowest_swap_ratio"))

    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Accuracy against the wait, a point a case."""
        lines = tuple(
            Line(str(row["run"]), [row["stall_s"]], [100 * row["final_accuracy"]], "markers")
            for _, row in table.iterrows()
        )
        return [Panel(who(state), "waited for storage, s", lines)]

    def says(self, table: pd.DataFrame) -> str:
        """The wait with and without adapting, and the price of a lost budget."""
        by_run = table.set_index("run")
        adapting, fixed = by_run.loc["throttled"], by_run.loc["throttled, fixed"]
        calm, squeezed = by_run.loc["calm"], by_run.loc["budget falls and rises"]
        return (
            f"under a throttle the swap ratio fell to {adapting['lowest_swap_ratio']:g} and training waited "
            f"{adapting['stall_s']:.1f} s instead of {fixed['stall_s']:.1f} s, at "
            f"{100 * adapting['final_accuracy']:.1f} against {100 * fixed['final_accuracy']:.1f} %; with a budget that "
            f"fell and rose {100 * squeezed['final_accuracy']:.1f} against {100 * calm['final_accuracy']:.1f} %."
        )
