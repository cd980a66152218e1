"""Plots, one call each; every function returns a plotly figure that reads on light and dark pages alike."""

import html
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mirolib.base.errors import InputError
from mirolib.data.stream import TaskStream
from mirolib.energy.ledger import ENOUGH_COVERAGE, FORWARD_SHARE
from mirolib.memory.tiered import TieredMemory
from mirolib.workbench.run import Run

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008)."""
SYMBOLS = ("circle", "diamond", "square", "cross", "star", "x")
THEMES = {"auto": ("rgba(0, 0, 0, 0)", "#888888"), "light": ("#FFFFFF", "#333333"), "dark": ("#111111", "#CCCCCC")}
"""Colours of background and text by theme; that of `auto` reads on light and dark pages alike."""

_GREY, _RED = "#888888", "#D55E00"
_GRID = "rgba(128, 128, 128, 0.25)"  # half transparent, to be seen on either page
_BAND = "rgba(0, 114, 178, 0.2)"
_AXIS = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True}
_DASHES = ("solid", "dash", "dot", "dashdot")
_TEMPLATE = "miro"
_MOST_RUNS, _LONGEST_NAME = 6, 40  # narrower panels have no room for their numbers, nor for longer titles


def set_theme(name: str) -> None:
    """Sets how plots look from now on, the user's own included: plotly's default template; one of `THEMES`."""
    if name not in THEMES:
        raise InputError(f"theme is {name!r}; choose one of {', '.join(THEMES)}.")
    _register(name)
    pio.templates.default = _TEMPLATE


def _register(theme: str) -> None:
    background, text = THEMES[theme]
    pio.templates[_TEMPLATE] = go.layout.Template(layout={
        "paper_bgcolor": background, "plot_bgcolor": background, "font": {"color": text, "size": 13},
        "colorway": [one for one in OKABE_ITO if one != "#F0E442"],  # its yellow can't be seen on white
        "shapedefaults": {"line": {"color": _GREY}}, "xaxis": _AXIS, "yaxis": _AXIS,
        # below, and of the whole figure: beside the plot it would take half of a narrow cell
        "legend": {"bgcolor": "rgba(0, 0, 0, 0)", "orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50}, "height": 380, "autosize": True,
    })  # fmt: skip


_register("auto")  # not as plotly's default: importing the library leaves the user's own plots alone


def figure(title: str, x: str = "", y: str = "") -> go.Figure:
    """An empty figure in the house style; `x` and `y` are the titles of its axes, with their units."""
    return go.Figure(layout={"template": _TEMPLATE, "title": title, "xaxis": {"title": x}, "yaxis": {"title": y}})


def short(name: object) -> str:
    """A name from outside, escaped, since plotly draws HTML in texts, and not too long for a figure."""
    text = str(name)
    return html.escape(text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…")


def check_number(runs: Mapping[str, Run]) -> None:
    """Refuses more runs than can be looked at side by side, and none."""
    if not 1 <= len(runs) <= _MOST_RUNS:
        raise InputError(f"{len(runs)} runs don't fit side by side; choose 1 to {_MOST_RUNS}.")


def panels(names: Sequence[object], title: str) -> go.Figure:
    """Panels side by side, with names from outside, in the house style."""
    titles = ["<br>".join(map(short, str(name).split(", ", 2))) for name in names]  # settings below each other
    plot = make_subplots(rows=1, cols=len(names), subplot_titles=titles, shared_yaxes="rows", horizontal_spacing=0.06)
    plot.update_annotations(font_size=12)
    return plot.update_layout(template=_TEMPLATE, title=title, height=400, margin={"t": 100})


def accuracy_matrix(runs: Run | Mapping[str, Run]) -> go.Figure:
    """Test accuracy on each task after each task, in percent; a column that pales downwards is forgotten.

    It shows a run, or at most six by the name of their panel. There is an `InputError` if there are none or too many.
    """
    title, shown = "Test accuracy after each task, %", {"": runs} if isinstance(runs, Run) else runs
    check_number(shown)
    plot = panels(list(shown), title)
    for column, run in enumerate(shown.values(), 1):
        values = 100 * run.accuracies
        text = [["" if np.isnan(value) else f"{value:.0f}" for value in row] for row in values]
        plot.add_heatmap(z=values, x=[f"task {k + 1}" for k in range(values.shape[1])],
                         y=[f"task {task + 1:g}" for task in run.tasks["task"]], zmin=0, zmax=100, colorscale="Blues",
                         hoverongaps=False, text=text, texttemplate="%{text}", showscale=column == len(shown),
                         colorbar={"title": "%"}, row=1, col=column)  # fmt: skip
    plot.update_xaxes(title_text="tested on", showgrid=False).update_yaxes(autorange="reversed", showgrid=False)
    return plot.update_layout(yaxis_title_text="after")


def accuracy_by_task(results: Run | Mapping[str, Run]) -> go.Figure:
    """Average test accuracy over the tasks so far, of a run, or a line a run by the name it gets in the legend."""
    plot = figure("Accuracy on everything learnt so far", "tasks learnt", "average test accuracy, %")
    for name, run in ({"": results} if isinstance(results, Run) else results).items():
        x, y = run.tasks["task"] + 1, 100 * run.tasks["average_accuracy"]
        look = {"dash": _DASHES[len(plot.data) % len(_DASHES)]}  # or equal lines would be one
        plot.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=look)
    return _full_scale(plot.update_xaxes(dtick=1))


def _full_scale(plot: go.Figure) -> go.Figure:
    """A figure whose vertical axis, in percent, is fitted to what it shows, with a button for all of the scale."""
    # 102: a marker at 100 % is not cut in half
    button = {"label": "0 to 100 %", "method": "relayout", "args": [{"yaxis.range": [0, 102]}],
              "args2": [{"yaxis.autorange": True}]}  # fmt: skip
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0, 0, 0, 0)"}
    return plot.update_layout(updatemenus=[place | {"type": "buttons", "showactive": False, "buttons": [button]}])


def task_stream(stream: TaskStream) -> go.Figure:
    """One test image of each class, by the tasks that it comes with (image data sets only)."""
    tests = stream.tests(len(stream) - 1)
    shown = [np.unique(test.labels) for test in tests]
    columns = max(map(len, shown))
    names = [[stream.class_names[label] for label in labels] for labels in shown]
    titles = [name for row in names for name in [*row, *[""] * (columns - len(row))]]
    plot = make_subplots(len(tests), columns, horizontal_spacing=0.02, vertical_spacing=0.06, subplot_titles=titles)
    for row, (labels, test) in enumerate(zip(shown, tests, strict=True), 1):
        for column, label in enumerate(labels, 1):
            image = test.read(np.flatnonzero(test.labels == label)[:1])[0].mean(axis=0)[::-1]  # plotly draws upwards
            plot.add_heatmap(z=image, colorscale="gray", showscale=False, row=row, col=column)
        plot.update_yaxes(title_text=f"task {row}", row=row, col=1)
    plot.update_xaxes(visible=False).update_yaxes(showticklabels=False, scaleanchor=None)
    return plot.update_layout(template=_TEMPLATE, title="Classes in their order of arrival",
                              width=180 * columns, height=150 * len(tests))  # fmt: skip


def memory_fill(memory: TieredMemory, class_names: Sequence[str]) -> go.Figure:
    """Samples of each class in stream buffer, episodic memory and storage, one panel a tier."""
    tiers = dict(list(pd.DataFrame(memory.fill()).groupby("tier", sort=False)))
    of = {"stream buffer": f" of {memory.config.stream_size}", "episodic memory": f" of {memory.config.episodic_size}"}
    titles = [
        f"{tier}<br>{rows['samples'].sum():,}{of.get(tier, '')} samples, {rows['size_bytes'].sum() / 1024:,.1f} KiB"
        for tier, rows in tiers.items()
    ]
    plot = make_subplots(rows=1, cols=len(tiers), subplot_titles=titles)
    for column, rows in enumerate(tiers.values(), 1):
        names = [class_names[label] for label in rows["label"]]
        plot.add_bar(x=names, y=rows["samples"], marker_color=OKABE_ITO[column - 1], row=1, col=column)
    plot.update_xaxes(type="category", title="class").update_yaxes(rangemode="tozero")
    plot.update_yaxes(title_text="samples", row=1, col=1)
    return plot.update_layout(template=_TEMPLATE, showlegend=False, margin={"t": 70}, height=330)


def slot_history(ids: np.ndarray, buffer: str = "episodic memory") -> go.Figure:
    """How often each slot of a buffer has got another sample, by its id after each step, `(steps, slots) int64`."""
    exchanged = np.cumsum(np.diff(ids, axis=0, prepend=ids[:1]) != 0, axis=0)
    plot = figure(f"Exchanges with storage so far, by slot of the {buffer}", "slot", "training step")
    plot.add_heatmap(z=exchanged, colorscale="Viridis", colorbar={"title": "exchanges"})
    return plot.update_yaxes(autorange="reversed", showgrid=False)


def accuracy_against(table: pd.DataFrame, x: str, x_title: str, line: str, *, log: bool = False) -> go.Figure:
    """Final accuracy against a setting, mean over seeds with standard deviation, a line a value of another setting.

    The table has a row a run, with `final_accuracy` in [0, 1]; `x` and `line` are columns of it. The title says the
    unit, too; with `log` the horizontal axis is logarithmic.
    """
    seeds = int(table.groupby([line, x]).size().min())
    what = "one seed" if seeds == 1 else f"mean ± s.d. of {seeds} seeds"
    plot = figure(f"Accuracy after the last task ({what})", x_title, "average test accuracy, %")
    for name, rows in table.groupby(line, sort=False):
        spread = 100 * rows.groupby(x)["final_accuracy"].agg(["mean", "std"])
        plot.add_scatter(x=spread.index, y=spread["mean"], name=str(name), mode="lines+markers",
                         error_y={"type": "data", "array": spread["std"].fillna(0), "thickness": 1})  # fmt: skip
    if log:  # plotly would name powers of ten alone
        ticks = sorted(table[x].unique())
        plot.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:.9g}" for tick in ticks])
    return _full_scale(plot)


def trials(table: pd.DataFrame) -> go.Figure:
    """Candidates of `Run.trials`, or of some tasks of it, a panel each: accuracy and cost, and what was chosen.

    Works are a line with its 80 % band, sizes dots with the cutline.
    """
    if not table.get("accuracy", pd.Series(dtype=float)).notna().any():
        nothing = figure("This run compared no candidates by accuracy: a fixed controller has none")
        return nothing.update_layout(height=90).update_xaxes(visible=False).update_yaxes(visible=False)
    # a profiler that needs a past gives the first task's candidates no accuracy
    tasks = {int(rows["task"].iloc[0]): rows for _, rows in table.groupby("task") if rows["accuracy"].notna().any()}
    first, are_works = table.iloc[0], "epochs" in table
    columns = min(3, len(tasks))
    height = -(-len(tasks) // columns)
    plot = make_subplots(rows=height, cols=columns, horizontal_spacing=0.09, vertical_spacing=0.16,
                         subplot_titles=[f"task {task + 1}" for task in tasks])  # fmt: skip
    for number, rows in enumerate(tasks.values()):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        if are_works:
            text = [f"{epochs:.3g} epochs" for epochs in rows["epochs"]]
            look = {"mode": "lines+markers", "marker": {"color": OKABE_ITO[0], "size": 5}}
            plot.add_scatter(x=[*rows["cost"], *rows["cost"][::-1]], y=[*100 * rows["low"], *100 * rows["high"][::-1]],
                             fill="toself", line_width=0, mode="lines", fillcolor=_BAND, hoverinfo="skip",
                             showlegend=False, name="80 % band", **place)  # fmt: skip
        else:
            text = [f"stream {s}, episodic {e}" for s, e in rows[["stream_size", "episodic_size"]].to_numpy()]
            marker = {"color": rows["stream_size"], "cmin": 0, "cmax": table["stream_size"].max(), "size": 9,
                      "colorscale": "Viridis", "showscale": number == 0,
                      "colorbar": {"title": "stream<br>buffer"}}  # fmt: skip
            look = {"mode": "markers", "marker": marker}
        plot.add_scatter(x=rows["cost"], y=100 * rows["accuracy"], text=text, name="candidate", showlegend=False,
                         **look, **place)  # fmt: skip
        chosen = rows[rows["chosen"]]
        plot.add_scatter(x=chosen["cost"], y=100 * chosen["accuracy"], mode="markers", name="chosen",
                         marker={"symbol": "circle-open", "size": 17, "color": _RED, "line": {"width": 3}},
                         showlegend=False, **place)  # fmt: skip
        if not are_works:
            plot.add_hline(y=100 * rows.loc[rows["above_cutline"], "accuracy"].min(), line_dash="dot", **place)
    if are_works:
        title = f"What more work was expected to bring<br>ring: picked for {short(first['objective'])}, band: 80 %"
    else:
        profiler, selector = short(first["profiler"]), short(first["selector"])
        title = f"Candidates by the {profiler} profiler<br>ring: picked by {selector}, dotted: cutline"
    plot.update_xaxes(type="log", title=f"cost, {first['cost_unit']}").update_yaxes(title_text="accuracy, %", col=1)
    return plot.update_layout(template=_TEMPLATE, height=110 + 290 * height, margin={"t": 90}, title=title)


def elapsed_epochs(tasks: ArrayLike, done: ArrayLike) -> np.ndarray:
    """Epochs trained since the run began when each round ended, `(n,)`, of its tasks' indices and epochs done."""
    of_task = np.asarray(done, dtype=float)
    is_first = np.diff(np.asarray(tasks), prepend=-1) != 0
    return np.where(is_first, of_task, np.diff(of_task, prepend=0.0)).cumsum()


def decisions(result: Run) -> go.Figure:
    """Over the epochs of a run: buffer sizes under the memory budget, swap ratio, wait for storage, epochs by task.

    Thin vertical lines are the controller's decisions within a task; hover over one for its reason.
    """
    epochs, events = result.epochs, result.events
    ends = elapsed_epochs(epochs["task"], epochs["epochs_done"])
    x = np.concatenate([[0], ends[:-1]])  # where each begins
    plot = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.4, 0.2, 0.2, 0.2])
    for column, name in (("episodic_size", "episodic memory"), ("stream_size", "stream buffer")):
        plot.add_scatter(x=x, y=epochs[column], name=name, mode="lines", stackgroup="sizes",
                         line={"shape": "hv", "width": 0}, row=1, col=1)  # fmt: skip
    plot.add_scatter(x=x, y=epochs["swap_ratio"], name="swap ratio", line_shape="hv", row=2, col=1)
    plot.add_scatter(x=x, y=100 * epochs["stall_share"], name="wait for storage", row=3, col=1)
    plot.add_scatter(x=ends, y=epochs["epochs_done"], name="epochs done", line_color=OKABE_ITO[0], row=4, col=1)
    if len(events):
        before = np.searchsorted(epochs["task"], events["task"]) + events["epoch"].clip(lower=0)
        at = pd.Series(np.concatenate([[0], ends])[before])
        limited = events["memory_budget_bytes"].notna()
        slot_bytes = (events["memory_bytes"] / (events["stream_size"] + events["episodic_size"]))[limited]
        plot.add_scatter(x=at[limited], y=events.loc[limited, "memory_budget_bytes"] / slot_bytes, name="memory budget",
                         line={"shape": "hv", "dash": "dash", "color": _RED}, row=1, col=1)  # fmt: skip
        planned = events.get("epochs", at * np.nan)  # a former version did not say
        plot.add_scatter(x=[*at, ends[-1]], y=[*planned, planned.iloc[-1]], name="epochs planned",
                         line={"shape": "hv", "dash": "dash", "color": _GREY}, row=4, col=1)  # fmt: skip
        within = events["epoch"] >= 0
        plot.add_scatter(x=at[within], y=np.zeros(int(within.sum())), name="decision", mode="markers",
                         marker={"symbol": "triangle-up", "size": 10, "color": _RED},
                         text=events.loc[within, "reason"], row=1, col=1)  # fmt: skip
    for task in range(1, len(result.tasks)):
        plot.add_vline(x=ends[epochs["task"] < task][-1], line_dash="dot", line_width=1)
    plot.update_yaxes(title_text="samples", rangemode="tozero", row=1, col=1)
    plot.update_yaxes(title_text="ratio", range=[0, 1.05], row=2, col=1)
    plot.update_yaxes(title_text="wait, %", rangemode="tozero", row=3, col=1)
    plot.update_yaxes(title_text="epochs", rangemode="tozero", row=4, col=1)
    plot.update_xaxes(title_text="epoch (dotted: a new task)", row=4, col=1)
    return plot.update_layout(template=_TEMPLATE, height=660, title="What the controller did")


def accuracy_over_cost(table: pd.DataFrame, label: str, reference: str = "", cost: str = "learning_work") -> go.Figure:
    """Average incremental accuracy against the cost of a run, a point a setting, mean and deviation over seeds.

    The table has a row a run; column `label` names the settings, of which those that begin with `fixed` are drawn
    alike, with their front. Costs are those of column `cost`, or in units of the `reference`, a setting, in each
    `dataset`, which get a symbol each.
    """
    table = table if reference else table.assign(dataset="")
    groups = table.groupby(["dataset", label], sort=False)[[cost, "average_incremental_accuracy"]]
    points = (groups.mean() * [1, 100]).set_axis(["x", "y"], axis=1)
    points["sd"] = 100 * groups.std()["average_incremental_accuracy"].fillna(0.0)
    unit = "sample visits, profiling included" if cost == "learning_work" else cost
    if reference:  # work of data sets of different sizes has no other scale in common
        points["x"] /= points.xs(reference, level=label)["x"].reindex(points.index, level="dataset")
        unit = f"sample visits ÷ those of: {reference}"
    plot = figure("Accuracy and what it cost", unit, "average incremental accuracy, %")
    symbols = dict(zip(table["dataset"].unique(), itertools.cycle(SYMBOLS), strict=False))
    fixed = points.index.get_level_values(label).str.startswith("fixed") & (not reference)
    for name, part in points[~fixed].groupby(label, sort=False):
        look = {"symbol": [symbols[dataset] for dataset, _ in part.index]} if reference else {}
        plot.add_scatter(x=list(part["x"]), y=list(part["y"]), name=name, mode="markers", marker={"size": 12} | look,
                         error_y=None if reference else {"type": "data", "array": list(part["sd"])})  # fmt: skip
    for name, symbol in symbols.items() if reference else ():
        plot.add_scatter(x=[None], y=[None], mode="markers", name=name,
                         marker={"symbol": symbol, "size": 12, "color": _GREY})  # fmt: skip
    if fixed.any():
        some = points[fixed].sort_values("x")
        plot.add_scatter(x=some["x"], y=some["y"], name="fixed sizes", mode="markers",
                         text=[setting for _, setting in some.index],
                         marker={"color": _GREY, "symbol": "x"})  # fmt: skip
        front = some[some["y"] >= some["y"].cummax()]
        plot.add_scatter(x=front["x"], y=front["y"], name="their front, in hindsight", mode="lines",
                         line={"color": _GREY, "dash": "dot"})  # fmt: skip
    return _full_scale(plot.update_xaxes(type="log"))


accuracy_over_relative_cost = accuracy_over_cost


def power_over_time(trace: pd.DataFrame, energy: pd.DataFrame, rails: Sequence[str] = ()) -> go.Figure:
    """Power as it was sampled, as in `trace.csv`, the phases of the ledger, as in `energy.csv`, shaded.

    Rails are stacked in the place of the total: those that add up to it (`total_rails` in `run.json`), never a rail
    together with what lies inside it.
    """
    plot = figure("Power over time", "time, s", "power, W").update_yaxes(rangemode="tozero")
    start = min(trace["time_s"].min(), energy["start_s"].min())
    colours = dict(zip(dict.fromkeys(energy["window"]), itertools.cycle(OKABE_ITO)))
    for window, colour in colours.items():
        plot.add_scatter(x=[None], y=[None], mode="markers", name=window, legendgroup="phases",
                         marker={"symbol": "square", "size": 12, "color": colour, "opacity": 0.35})  # fmt: skip
    plot.update_layout(shapes=[
        # in one update: three hundred calls of add_vrect take forty seconds, since each copies all shapes
        {"type": "rect", "xref": "x", "yref": "paper", "x0": begin - start, "x1": begin - start + duration, "y0": 0,
         "y1": 1, "fillcolor": colours[window], "opacity": 0.2, "line_width": 0, "layer": "below"}
        for window, begin, duration in zip(energy["window"], energy["start_s"], energy["duration_s"], strict=True)
    ])  # fmt: skip
    if rails:  # all on one time base, or they could not be stacked
        sampled = trace[trace["rail"].isin(rails)].pivot_table(index="time_s", columns="rail", values="power_w")
        for rail, power_w in sampled.interpolate(method="index", limit_direction="both")[list(rails)].items():
            plot.add_scatter(x=power_w.index - start, y=power_w, name=rail, mode="lines", line={"width": 1},
                             stackgroup="rails")  # fmt: skip
    else:
        total = trace[trace["rail"] == "total"]
        plot.add_scatter(x=total["time_s"] - start, y=total["power_w"], name="total", mode="lines",
                         line={"width": 1.5, "color": _GREY})  # fmt: skip
    return plot


def energy_by_phase(energy: pd.DataFrame | Mapping[str, Run]) -> go.Figure:
    """Joules of each phase, stacked, with what they cover; work where there are none of one kind for all.

    Rows of a ledger, as in `energy.csv`, make a bar a task; one to six runs, by name, a bar a run.
    """
    if by_task := isinstance(energy, pd.DataFrame):
        ledger = energy.assign(bar=energy["task"] + 1)
    else:
        check_number(energy)
        ledger = pd.concat([run.energy.assign(bar=short(name)) for name, run in energy.items()], ignore_index=True)
    seen = ledger["coverage"] >= ENOUGH_COVERAGE
    joules = ledger["energy_j"].where(seen)
    hows = (ledger["kind"] + ": " + ledger["scope"])[joules.notna()].unique()
    # a run of which nothing was measured would look free beside the others
    measured = len(hows) == 1 and (by_task or set(ledger.loc[seen, "bar"]) == set(map(short, energy)))
    value = joules if measured else ledger["visits"] + FORWARD_SHARE * ledger["forward_visits"]
    none = "no joules: work stands in" if by_task else "work stands in, as there are no joules of one kind for all"
    how = short(hows[0]) if measured else none
    if measured and joules.isna().any():
        how += f"; not seen: {', '.join(map(short, ledger['window'][joules.isna()].unique()))}"
    title, x = ("Energy by phase and task", "task") if by_task else ("Energy by phase", "")
    plot = figure(f"{title}<br><sup>{how}</sup>", x, "energy, J" if measured else "work, sample visits")
    for window, part in ledger.assign(value=value).groupby("window", sort=False):
        sums = part.groupby("bar", sort=False)["value"].sum(min_count=1)  # a phase that was not seen is no bar of zero
        plot.add_bar(x=sums.index, y=sums, name=short(window))
    return plot.update_layout(barmode="stack").update_xaxes({"dtick": 1} if by_task else {"type": "category"})
