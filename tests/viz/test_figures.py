import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from samples import make_dataset
from watching import BY_TASK

from mirolib import MemoryConfig, RunSettings, TaskStream, exchanges, plots, run_experiment
from mirolib.data.stream import make_ids
from mirolib.workbench.run import open_run


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = RunSettings(epochs=1, controller="miro-2023")
    return run_experiment(settings, results=tmp_path_factory.mktemp("results"), progress=False)


@pytest.fixture(scope="module")
def by_task(tmp_path_factory):
    """A run whose controller chooses works."""
    return run_experiment(BY_TASK, dataset=make_dataset(), results=tmp_path_factory.mktemp("by"), progress=False)


def test_accuracy_matrix_shows_the_records(result):
    values = np.array(plots.accuracy_matrix(result).data[0].z, dtype=float)
    for record in result.records:
        np.testing.assert_allclose(values[record.task, : record.task + 1], 100 * np.array(record.accuracies))
    assert np.isnan(values[0, 1:]).all()


def test_a_line_a_run(result):
    plot = plots.accuracy_by_task({"one": result, "two": result})
    assert [line.name for line in plot.data] == ["one", "two"]
    np.testing.assert_allclose(plot.data[0].y, [100 * record.average_accuracy for record in result.records])


def test_an_axis_is_fitted_and_all_of_the_scale_is_a_click_away(result):
    plot = plots.accuracy_by_task(result)
    assert plot.layout.yaxis.range is None and plot.layout.template.layout.legend.orientation == "h"
    (button,) = plot.layout.updatemenus[0].buttons
    assert button.args == ({"yaxis.range": [0, 102]},) and button.args2 == ({"yaxis.autorange": True},)


def test_mean_and_spread_over_seeds():
    table = pd.DataFrame({"size": [10, 10, 20, 20], "memory": "tiered", "final_accuracy": [0.5, 0.7, 0.8, 0.8]})
    (line,) = plots.accuracy_against(table, "size", "samples", "memory", log=True).data
    np.testing.assert_allclose(line.y, [60, 80])
    np.testing.assert_allclose(line.error_y.array, [100 * np.std([0.5, 0.7], ddof=1), 0])


def test_fill_and_history(make_memory):
    stream = TaskStream(make_dataset(), 3)
    memory = make_memory(stream, MemoryConfig(10, 8))
    memory.receive(stream[0])
    plot = plots.memory_fill(memory, stream.class_names)
    assert [sum(panel.y) for panel in plot.data] == [10, 0, 36]
    history = np.array([[1, 2], [1, 5], [6, 5]])
    np.testing.assert_array_equal(plots.slot_history(history).data[0].z, [[0, 0], [0, 1], [1, 1]])


def test_exchanges_are_read_off_a_history():
    zero, one = make_ids(np.zeros(9), np.arange(9)), make_ids(np.ones(9), np.arange(9))
    table = exchanges(np.array([[zero[1], one[2]], [zero[1], one[5]], [zero[7], one[5]]]), ["a", "b"])
    assert table.to_dict("records") == [
        {"step": 1, "slot": 1, "class": "b", "out": 2, "in": 5},
        {"step": 2, "slot": 0, "class": "a", "out": 1, "in": 7},
    ]


def test_class_images_by_task():
    plot = plots.task_stream(TaskStream(make_dataset(classes=5), 2))
    assert len(plot.data) == 5


def test_trials_show_every_candidate_and_what_was_chosen(result):
    plot = plots.trials(result.trials)
    tasks = [rows for task, rows in result.trials.groupby("task") if task > 0]
    assert len(plot.data) == 2 * len(tasks) == 8, "the first task has no accuracies to show"
    for rows, candidates, chosen in zip(tasks, plot.data[::2], plot.data[1::2], strict=True):
        np.testing.assert_allclose(candidates.y, 100 * rows["accuracy"])
        np.testing.assert_allclose(chosen.x, rows.loc[rows["chosen"], "cost"])
    cutlines = [shape.y0 for shape in plot.layout.shapes]
    np.testing.assert_allclose(cutlines, [100 * rows.loc[rows["above_cutline"], "accuracy"].min() for rows in tasks])


def test_trials_show_works_with_their_band(by_task):
    plot = plots.trials(open_run(by_task.path).trials)
    tasks = [rows for _, rows in by_task.trials.groupby("task")]
    assert len(plot.data) == 3 * len(tasks) == 9 and not plot.layout.shapes, "a work has no cutline"
    for rows, band, line, chosen in zip(tasks, plot.data[::3], plot.data[1::3], plot.data[2::3], strict=True):
        np.testing.assert_allclose(line.y, 100 * rows["accuracy"])
        np.testing.assert_allclose(line.x, rows["cost"])
        np.testing.assert_allclose(band.y, 100 * np.concatenate([rows["low"], rows["high"][::-1]]))
        np.testing.assert_allclose(band.x, np.concatenate([rows["cost"], rows["cost"][::-1]]))
        assert list(line.text) == [f"{epochs:.3g} epochs" for epochs in rows["epochs"]]
        np.testing.assert_allclose(chosen.x, rows.loc[rows["chosen"], "cost"])
        assert len(chosen.x) == 1
    assert "accuracy=0.2" in plot.layout.title.text
    evil = plots.trials(by_task.trials.assign(objective="<a href='x'>y</a>")).layout.title.text
    assert "<a" not in evil, "plotly would draw a link"


def test_trials_without_an_accuracy_leave_an_empty_figure(by_task):
    for table in (pd.DataFrame(), by_task.trials.assign(accuracy=np.nan)):
        assert not plots.trials(table).data


def test_decisions_show_the_epochs_of_each_task(by_task):
    lines = {line.name: line for line in plots.decisions(by_task).data}
    done, planned = lines["epochs done"], lines["epochs planned"]
    np.testing.assert_allclose(done.y, by_task.epochs["epochs_done"])
    ends = by_task.epochs.groupby("task")["epochs_done"].max().cumsum()
    assert planned.x[-1] == done.x[-1] == pytest.approx(ends.iloc[-1])
    assert list(planned.y[:-1]) == list(by_task.events["epochs"])
    for task, rows in by_task.events.groupby("task"):
        assert rows["epochs"].iloc[0] == BY_TASK.epochs and planned.x[rows.index[0]] == pytest.approx([0, *ends][task])
        last = by_task.epochs.loc[by_task.epochs["task"] == task, "epochs_done"].iloc[-1]
        assert rows["epochs"].iloc[-1] == pytest.approx(last) and last < BY_TASK.epochs
    former = replace(by_task, tables={**by_task.tables, "events": by_task.events.drop(columns="epochs")})
    assert np.isnan(list({line.name: line for line in plots.decisions(former).data}["epochs planned"].y)).all()


def test_decisions_are_shown_where_they_took_effect(tmp_path):
    settings = RunSettings(
        epochs=4, memory_budget="0: 300 samples, 6: 60 samples", controller="miro-2023", selector="highest-accuracy"
    )
    result = run_experiment(settings, results=tmp_path, progress=False)
    lines = {line.name: line for line in plots.decisions(result).data}
    assert list(lines["swap ratio"].y) == [1.0] * 20
    total = np.array(lines["stream buffer"].y) + np.array(lines["episodic memory"].y)
    assert total[:6].max() > 60 >= total[6:].max()
    assert 6 in list(lines["decision"].x) and "memory budget" in lines["decision"].text[0]
    assert set(np.round(lines["memory budget"].y)) == {300, 60}


def test_accuracy_over_cost_draws_the_front_of_fixed_sizes():
    rows = [("miro", 100.0, 0.6), ("miro", 300.0, 0.8), ("fixed a", 100.0, 0.5), ("fixed b", 200.0, 0.4),
            ("fixed c", 400.0, 0.9)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["setting", "learning_work", "average_incremental_accuracy"])
    miro, points, front = plots.accuracy_over_cost(table, "setting").data
    assert list(miro.x) == [200] and miro.y[0] == pytest.approx(70)
    assert len(points.x) == 3 and list(front.x) == [100, 400], "b costs more than a and is worse"


def test_relative_costs_have_a_reference_of_one():
    rows = [("a", "whole", 100.0, 0.9), ("a", "ours", 20.0, 0.8), ("b", "whole", 50.0, 0.7), ("b", "ours", 25.0, 0.6),
            ("a", "ours", 30.0, 0.9)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["dataset", "setting", "learning_work", "average_incremental_accuracy"])
    figure = plots.accuracy_over_relative_cost(table, "setting", "whole")
    data = [part for part in figure.data if part.x[0] is not None]
    assert {part.name: list(part.x) for part in data} == {"whole": [1.0, 1.0], "ours": [0.25, 0.5]}
    assert list(data[0].y) == pytest.approx([90, 70]) and list(data[1].y) == pytest.approx([85, 60])
    assert len({*data[0].marker.symbol}) == 2 and data[0].marker.symbol == data[1].marker.symbol, "one a data set"


def test_rails_are_stacked_on_one_time_base_without_what_lies_inside():
    trace = pd.DataFrame(
        {"time_s": [0, 0, 0, 1, 1, 1.5], "rail": ["total", "a", "b", "total", "a", "b"], "power_w": [3, 1, 2, 5, 3, 2]}
    )
    energy = pd.DataFrame({"window": ["train"], "start_s": [0.0], "duration_s": [1.5]})
    stack = plots.power_over_time(trace, energy, rails=("a", "b")).data[-2:]
    assert [list(part.x) for part in stack] == [[0, 1, 1.5]] * 2
    assert sum(part.y[0] for part in stack) == 3 and sum(part.y[1] for part in stack) == 5
    (total,) = plots.power_over_time(trace, energy).data[1:]
    assert list(total.y) == [3, 5]


def test_a_phase_that_was_not_seen_is_no_bar_of_zero():
    energy = pd.DataFrame(
        {"window": ["train", "train"], "task": [0, 1], "energy_j": [5.0, math.nan], "coverage": [1.0, 0.0],
         "kind": "measured", "scope": "board", "visits": 1, "forward_visits": 0}
    )  # fmt: skip
    figure = plots.energy_by_phase(energy)
    assert math.isnan(figure.data[0].y[1]) and "not seen: train" in figure.layout.title.text


def test_figures_fit_their_cell_and_no_line_is_black_yellow_or_hidden(tmp_path):
    settings = RunSettings(epochs=1, tasks=2, controller="miro-2023", energy="none")
    run = run_experiment(settings, results=tmp_path, progress=False)
    drawn = [plots.accuracy_by_task({"a": run, "b": run}), plots.trials(run.trials), plots.decisions(run)]
    assert all(plot.layout.width is None and plot.layout.template.layout.width is None for plot in drawn)
    assert len({line.line.dash for line in drawn[0].data}) == 2, "equal lines are told apart"
    template = drawn[0].layout.template.layout
    assert template.shapedefaults.line.color == "#888888" and "#F0E442" not in template.colorway
