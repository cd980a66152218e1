"""The paper's figures and claims: its panels beside ours, and the sentence that our results bear out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mirolib.base.errors import InputError
from mirolib.paper.plan import State, Study
from mirolib.viz.figures import OKABE_ITO, figure

_SIZES = ["stream_size", "episodic_size"]
_COST = ("learning_work", "learning_energy_j", "energy_kind")
_CARM = "tiered, full swapping (CarM)"
_YES = {True: "yes", False: "no"}
_Shown = tuple[list["Panel"], str]
# by itself plotly names only the powers of ten, of which a panel may hold none
_LOG = {"type": "log", "tickformat": "~s", "tickvals": [m * 10**k for k in range(-3, 10) for m in (1, 2, 5)]}


def paper_numbers(*figures: str) -> pd.DataFrame:
    """The paper's numbers that ours are compared with, of these figures, such as `5a`, or of all.

    Returns:
        One row a point: `figure`, `dataset`, `method`, `series`, `x` in `x_unit`, `accuracy_percent`, `how` it is known
        and its `source`.
    """
    table = pd.read_csv(Path(__file__).with_name("numbers.csv"), dtype={"figure": str})
    return table[table["figure"].isin(figures)] if figures else table


@dataclass(frozen=True)
class Panel:
    """One set of axes, whose titles have their units, the horizontal one logarithmic if `log`; `line` makes its lines.

    Its title says whose results these are, on what data.
    """

    title: str
    x_title: str
    lines: Sequence[go.Scatter] = ()
    y_title: str = "average test accuracy, %"
    log: bool = False


def line(name: object, x: Iterable[object], y: Iterable[float], mode: str = "lines+markers") -> go.Scatter:
    """Points of one name; `mode` is plotly's, such as `markers`."""
    return go.Scatter(name=str(name), x=list(x), y=list(y), mode=mode)


def beside(title: str, panels: Sequence[Panel]) -> go.Figure:
    """Panels side by side, two in a row; lines of the same name have the same colour in all of them."""
    columns, rows = min(2, len(panels)), -(-len(panels) // 2)
    # the gap between rows holds a title of axis and one of panel, whatever the number of rows that share the height
    plot = make_subplots(rows, columns, subplot_titles=[panel.title for panel in panels],
                         horizontal_spacing=0.12, vertical_spacing=0.34 / rows)  # fmt: skip
    colours: dict[str, str] = {}
    for number, panel in enumerate(panels):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        for one in panel.lines:
            is_new = one.name not in colours  # the legend names it once, and its entry hides it in all panels
            colour = colours.setdefault(one.name, OKABE_ITO[len(colours) % len(OKABE_ITO)])
            marker = {"color": colour, "size": 8}
            plot.add_trace(go.Scatter(one).update(legendgroup=one.name, showlegend=is_new, marker=marker), **place)
        plot.update_xaxes(title_text=panel.x_title, **(_LOG if panel.log else {}), **place)
        plot.update_yaxes(title_text=panel.y_title, **place)
    return plot.update_layout(template=figure("").layout.template, title=title, width=900 if columns == 2 else 640,
                              height=60 + 360 * rows, margin={"t": 90})  # fmt: skip


@dataclass(frozen=True)
class PaperFigure:
    """One of the paper's figures or claims, by its key in `mirolib.paper.plan`; its title says what it compares.

    The claim is what the paper says, with its numbers and how they are known. Of each study a table with such columns
    is read, and `show` makes our panels of it and a sentence with their numbers; with `together` our studies share one
    panel. `paper` makes the paper's panels, none where its numbers are not known.
    """

    key: str
    title: str
    claim: str
    table: str
    columns: tuple[str, ...]
    show: Callable[[Study, pd.DataFrame], _Shown]
    paper: Callable[[], list[Panel]] = list
    together: bool = False

    def shown(self, state: State) -> tuple[list[Panel], str, str]:
        """Our panels of a study and what they say; or neither, and why not, in a sentence."""
        try:
            if state.path is None:
                raise InputError(state.note or state.status)
            return *self.show(state.study, state.table(self.table, self.columns)), ""
        except InputError as error:
            return [], "", str(error)
        except (LookupError, ValueError, TypeError) as error:  # numbers throughout, but without a case that is compared
            return [], "", f"The table in {state.path} can't be compared ({error!r}); run the study anew."

    def draw(self, found: Sequence[State]) -> go.Figure:
        """The paper's panels beside ours; the paper's alone where no study is finished."""
        ours = [panel for state in self._of(found) for panel in self.shown(state)[0]]
        if self.together and ours:
            ours = [replace(ours[0], title="ours", lines=[one for panel in ours for one in panel.lines])]
        panels = [*self.paper(), *ours] or [Panel("not run, and the paper's numbers are not known", "")]
        return beside(self.title, panels)

    def report(self, found: Sequence[State]) -> str:
        """What the paper says and what our results say, as Markdown; what is missing, with the command that runs it."""
        sentences = [f"**The paper**: {self.claim}"]
        for state in self._of(found):
            (_, said, problem), whose = self.shown(state), f"**Ours, {state.study.dataset or 'generated images'}**"
            # escaped: Markdown lets HTML through, and an error's text may quote anything
            said = escape(problem or said, quote=False)
            sentences.append(f"{whose}: nothing to show ({said}); to run it:" if problem else f"{whose}: {said}")
            sentences += [f"    {state.study.command(state.next_run_id)}"] if problem else []
        return "\n\n".join(sentences)

    def _of(self, found: Sequence[State]) -> list[State]:
        return [state for state in found if self.key in state.study.figures]


def _read_off(numbers: pd.DataFrame, of: str, x_title: str, *, log: bool = False) -> Panel:
    """A panel of the paper's, a line a series; points that lie on no front are not joined."""
    lines = [
        line(name, rows["x"], rows["accuracy_percent"], "markers" if name == "configuration" else "lines+markers")
        for name, rows in numbers.replace({"series": {"dominated": "configuration"}}).groupby("series", sort=False)
    ]
    return Panel(f"the paper, {of}", x_title, lines, log=log)


def _who(study: Study) -> str:
    return f"ours, {study.dataset or 'generated images'} ({study.preset})"


def _cost_of(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """What learning cost and its unit: joules where every run has them, all of one kind; else work."""
    if table["learning_energy_j"].notna().all() and table["energy_kind"].nunique() == 1:
        return table["learning_energy_j"], f"energy, J ({table['energy_kind'].iloc[0]})"
    return table["learning_work"], "work, sample visits"


def _by_memory(study: Study, table: pd.DataFrame) -> _Shown:
    means = 100 * table.groupby(["episodic_size", "swap_ratio"])["final_accuracy"].mean().unstack()
    # the study has ratios between the ends too: those are for Fig. 6
    both = means[[1.0, 0.0]].dropna().set_axis(["tiered", "single-level"], axis=1)
    lines = [line(name, curve.index, curve) for name, curve in both.items()]
    tiered, single, gain = both["tiered"], both["single-level"], both["tiered"] - both["single-level"]
    return [Panel(_who(study), "episodic memory, samples", lines, log=True)], (
        f"{tiered.iloc[0]:.1f} against {single.iloc[0]:.1f} % with {gain.index[0]:,} samples in RAM, "
        f"{tiered.iloc[-1]:.1f} against {single.iloc[-1]:.1f} % with {gain.index[-1]:,}. The gain is largest at "
        f"the smallest memory: {_YES[gain.iloc[0] == gain.max()]}."
    )


def _by_cost(study: Study, table: pd.DataFrame) -> _Shown:
    panels, tried, last = [], [], int(table["tasks_done"].max())
    for tasks in (last, max(1, last // 2)):
        done = table[table["tasks_done"] == tasks]
        cost, unit = _cost_of(done)
        pairs = done.assign(cost=cost, percent=100 * done["final_accuracy"]).groupby(_SIZES)
        points = pairs[["cost", "percent"]].mean().sort_values("cost").reset_index()
        front = points[points["percent"] >= points["percent"].cummax()]
        lines = [line("front", front["cost"], front["percent"]),
                 line("configuration", points["cost"], points["percent"], "markers")]  # fmt: skip
        panels.append(Panel(f"{_who(study)} after {tasks} tasks", unit, lines, log=True))
        tried.append((points, len(points) - len(front), points.sort_values("percent").iloc[-1], panels[-1].x_title))
    (points, dominated, best, unit), (_, _, then, _) = tried
    cheapest = points.iloc[0]
    return panels, (
        f"the cheapest of {len(points)} configurations reaches {cheapest['percent']:.1f} %, the best "
        f"({best['stream_size']:.0f} + {best['episodic_size']:.0f} samples) {best['percent']:.1f} % at "
        f"{best['cost'] / cheapest['cost']:.1f} times the cost ({unit}); {dominated} cost more than another that "
        f"reaches more. After half of the tasks another one is the best: {_YES[(then[_SIZES] != best[_SIZES]).any()]}."
    )


def _by_ratio(study: Study, table: pd.DataFrame) -> _Shown:
    # at the size with the most ratios, the smallest of these: the other sizes were run for Fig. 2c, at its ends alone
    ratios, method = table.groupby("episodic_size")["swap_ratio"].nunique(), table["method"].iloc[0]
    size = int(ratios.index[int(ratios.to_numpy().argmax())])
    curve = 100 * table[table["episodic_size"] == size].groupby("swap_ratio")["final_accuracy"].mean()
    middle = max(ratio for ratio in curve.index if ratio <= 0.2)  # where the paper sees the knee
    gain = curve.iloc[-1] - curve.iloc[0]
    share = f"{(curve[middle] - curve.iloc[0]) / gain:.0%} of it" if gain > 0 else "nothing to be shared"
    return [Panel(f"{_who(study)}, {size} in RAM", "swap ratio", [line(method, curve.index, curve)])], (
        f"{method}, {size} samples in RAM: {curve.iloc[0]:.1f} % without swapping, "
        f"{curve.iloc[-1]:.1f} with full swapping ({gain:+.1f} points); a ratio of {middle:g} brings {share}."
    )


def _over_time(study: Study, table: pd.DataFrame) -> _Shown:
    best = table[table["chosen"] == 1]
    first = best[best["seed"] == table["seed"].min()]  # the mean of several seeds is no choice that was made
    names = zip(("stream buffer", "episodic memory"), _SIZES, strict=True)
    lines = [line(name, first["task"] + 1, first[column]) for name, column in names]
    # at the first task there is nothing old to replay, so that its sizes say nothing of change
    pairs = best[best["task"] > 0].groupby("seed")[_SIZES].apply(lambda rows: len(rows.drop_duplicates()))
    return [Panel(f"{_who(study)}, chosen by the oracle", "task", lines, "samples")], (
        f"one pair of sizes is the best buy at every task: {_YES[(pairs == 1).all()]} ({pairs.max()} in all)."
    )


def _headline(whose: str, x_title: str, *ours: go.Scatter) -> Panel:
    """The paper's ranges, and what of ours is to lie in them."""
    numbers = paper_numbers("headline")
    (x0, x1), (y0, y1) = numbers["x"], numbers["accuracy_percent"]
    box = line("the paper's ranges", [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], "lines")
    return Panel(whose, x_title, [box, *ours], "points of accuracy gained")


def _end_to_end(study: Study, table: pd.DataFrame) -> _Shown:
    cost, unit = _cost_of(table)
    means = table.assign(cost=cost).groupby("setting", sort=False)[["cost", "final_accuracy"]].mean()
    # the paper's controller, where it was run
    named = [name for name in means.index if name.lower().startswith("miro")] or [means.index[0]]
    miro = "miro-2023" if "miro-2023" in named else named[0]
    # no baselines: what hindsight alone knows, and the oracle, which is too dear to use
    ours, others = means.loc[miro], means[~means.index.str.lower().str.startswith(("miro", "oracle", "fixed"))]
    saved, points = 100 * (1 - ours["cost"] / others["cost"]), 100 * (ours["final_accuracy"] - others["final_accuracy"])
    lines = [line(name, [saved[name]], [points[name]], "markers") for name in others.index]
    return [_headline(_who(study), f"saved, % of {unit}", *lines)], (
        f"{miro} against {len(others)} baselines: {saved.min():.0f} to {saved.max():.0f} % saved ({unit}, "
        f"profiling included) at {points.min():+.1f} to {points.max():+.1f} points of final accuracy; better in "
        f"both than {int(((saved > 0) & (points > 0)).sum())} of them."
    )


def _generality_paper() -> list[Panel]:
    """The ends of Fig. 6, which are all that is known by data set."""
    numbers = paper_numbers("6").query("method == 'er'")
    ends = ((name, numbers[numbers["x"] == ratio]) for name, ratio in (("single-level", 0), (_CARM, 1)))
    lines = [line(name, rows["dataset"], rows["accuracy_percent"], "markers") for name, rows in ends]
    return [Panel("the paper", "data set", lines)]


def _generality(study: Study, table: pd.DataFrame) -> _Shown:
    means = table.groupby("setting", sort=False)[["final_accuracy", "learning_work"]].mean()
    accuracy, work = 100 * means["final_accuracy"], means["learning_work"]
    lines = [line(name, [study.dataset], [value], "markers") for name, value in accuracy.items()]
    return [Panel(_who(study), "data set", lines)], (
        f"full swapping brings {accuracy[_CARM] - accuracy['single-level']:+.1f} points against none "
        f"({accuracy['single-level']:.1f} %); Miro ends at {accuracy['Miro']:.1f} % with "
        f"{work['Miro'] / work['whole memory']:.0%} of the whole memory's work ({accuracy['whole memory']:.1f} %)."
    )


def _scalability(study: Study, table: pd.DataFrame) -> _Shown:
    cost, half = table["train_s"] / table["train_visits"], len(table) // 2
    points = line("training", table["stored"], 1e3 * table["train_s"] / table["train_visits"], "markers")
    # the first tenth of the tasks is left out, as in 17_scalability, so that both say the same
    ratio = cost[half:].median() / cost[half // 5 : half].median()
    return [Panel(_who(study), "training samples on storage", [points], "milliseconds a sample visit")], (
        f"over {len(table)} tasks and {table['stored'].max():,} stored samples, a visit costs {ratio:.2f} times as "
        "much in the second half as in the first (timings of a shared machine wander)."
    )


def _adaptation(study: Study, table: pd.DataFrame) -> _Shown:
    by_run = table.assign(percent=100 * table["final_accuracy"]).set_index("run")
    lines = [line(name, [row["stall_s"]], [row["percent"]], "markers") for name, row in by_run.iterrows()]
    adapting, fixed = by_run.loc["throttled"], by_run.loc["throttled, fixed"]
    calm, squeezed = by_run.loc["calm"], by_run.loc["budget falls and rises"]
    return [Panel(_who(study), "waited for storage, s", lines)], (
        f"under a throttle the swap ratio fell to {adapting['lowest_swap_ratio']:g} and training waited "
        f"{adapting['stall_s']:.1f} s instead of {fixed['stall_s']:.1f} s, at {adapting['percent']:.1f} against "
        f"{fixed['percent']:.1f} %; with a budget that fell and rose {squeezed['percent']:.1f} against "
        f"{calm['percent']:.1f} %."
    )


FIGURES = {one.key: one for one in (
    PaperFigure("2c", "Fig. 2c: a tiered memory against a single-level one, by size of the episodic memory",
        "CIFAR-100, read off the figure: 43 against 23 % with 1,000 samples in RAM, 70 against 67 % with 30,000.",
        "runs", ("episodic_size", "swap_ratio", "final_accuracy"), _by_memory,
        lambda: [_read_off(paper_numbers("2c"), "CIFAR-100", "episodic memory, samples", log=True)]),
    PaperFigure("5", "Fig. 5: what a configuration costs and reaches, after all tasks and after half of them",
        "Read off the figure: CIFAR-100 after 10 tasks 35 kJ buy 53 %, 250 kJ 69 % and 450 kJ no more; some "
        "configurations at 300 kJ reach only 65 %. A larger budget does not guarantee better accuracy.",
        "runs", (*_SIZES, "tasks_done", "final_accuracy", *_COST), _by_cost,
        lambda: [_read_off(paper_numbers(key), of, "energy, kJ", log=True)
                 for key, of in (("5a", "CIFAR-100 after 10 tasks"), ("5c", "CIFAR-100 after 5 tasks"),
                                 ("5b", "Tiny-ImageNet after 10 tasks"), ("5d", "Tiny-ImageNet after 5 tasks"))]),
    PaperFigure("6", "Fig. 6: accuracy over swap ratio",
        "Read off the figure: CIFAR-100 with ER 34 % without swapping, 54.5 at 20 %, 55.5 with full swapping; BiC "
        "48.5, 60.5, 60.5; Tiny-ImageNet 14.5, 28, 28.5. The knee lies at 15 to 20 %.",
        "runs", ("method", "episodic_size", "swap_ratio", "final_accuracy"), _by_ratio,
        lambda: [_read_off(paper_numbers("6").query(f"dataset == '{key}'"), of, "swap ratio")
                 for key, of in (("cifar100", "CIFAR-100"), ("tiny-imagenet", "Tiny-ImageNet"))]),
    PaperFigure("best-over-time", "The best configuration over time",
        "Principle P2: the best configuration changes as tasks arrive. Numbers by task are not known.",
        "table", ("seed", "task", *_SIZES, "chosen", "accuracy", "cost"), _over_time),
    PaperFigure("end-to-end", "End to end: Miro against each baseline",
        "7 to 66 % less energy at 1.35 to 15.37 points higher accuracy than baselines (second-hand).",
        "table", ("setting", "final_accuracy", *_COST), _end_to_end,
        lambda: [_headline("the paper", "energy saved, %")]),
    PaperFigure("generality", "Generality: storage below the episodic memory, and Miro, by data set",
        "Five data sets are evaluated; known are the ends of Fig. 6, without and with full swapping: CIFAR-100 34 and "
        "55.5 %, Tiny-ImageNet 14.5 and 28.5 % (ER, read off the figure).",
        "table", ("dataset", "setting", "final_accuracy", "learning_work"), _generality, _generality_paper, True),
    PaperFigure("scalability", "Scalability: cost of a sample visit as the store grows",
        "The largest stream is ImageNet-1k in 50 tasks, 146 GB; numbers by task are not known.",
        "tasks", ("task", "stored", "train_s", "train_visits"), _scalability),
    PaperFigure("adaptation", "Adaptation: a budget that falls, and congestion",
        "Principle P4: I/O congestion halves the swap ratio (100, 50, 25 %), a lower memory budget blacklists the "
        "configurations above it. Numbers are not known.",
        "table", ("run", "final_accuracy", "stall_s", "train_s", "lowest_swap_ratio"), _adaptation),
)}  # fmt: skip
"""The figures by key, in the paper's order."""
