import json
import logging
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pages import EVIL, Tags
from samples import make_dataset

from mirolib import InputError, RecordedRun, RunSettings
from mirolib.base.display import size_text
from mirolib.widgets import Dashboard, panels
from mirolib.widgets.live import LiveRun
from mirolib.widgets.pace import Pace, PaceKeeper
from mirolib.widgets.panels import PANELS, Snapshot
from mirolib.widgets.svg import Axis, Band, Line, chart, number

PATIENCE_S = 120
DATASET = make_dataset()
SETTINGS = RunSettings(tasks=3, epochs=3, energy="none", selector="highest-accuracy")
LONG = replace(SETTINGS, epochs=1000)


def until(condition):
    """Waits for something another thread does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


@pytest.fixture
def live(tmp_path):
    """Makes runs that train in a thread of their own; they are stopped in the end."""
    made = []

    def make(settings=SETTINGS, *, held=False):
        run = LiveRun(lambda disturb: RecordedRun(settings, dataset=DATASET, results=tmp_path, disturb=disturb))
        if held:
            run.pause()

        def train():
            try:
                run.train()
            except Exception as error:
                assert error is run.error

        thread = threading.Thread(target=train, daemon=True)
        made.append((run, thread))
        thread.start()
        return run

    yield make
    for run, thread in made:
        run.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# --- charts


def test_a_chart_draws_every_value_where_its_scale_says():
    line = Line("a", np.array([0.0, 5.0, 10.0]), np.array([0.0, 50.0, 100.0]), "#0072B2", markers=True)
    page = chart("Title", Axis("x"), Axis("y, %", 0, 100), [line])
    dots = [tuple(map(float, dot)) for dot in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y0 > y2
    assert {"0", "50", "100", "x", "y, %", "Title", "a"} <= set(Tags(page).text)


def test_charts_survive_whatever_numbers_there_are():
    nothing, gap = np.zeros(0), np.array([np.nan, 1.0, np.nan, np.inf, 2.0])
    lines = [Line("", nothing, nothing, "red"), Line("b", np.arange(5.0), gap, "red", step=True, markers=True)]
    for some in ([], lines[:1], lines):
        page = chart("t", Axis("x"), Axis("y"), some, [Band("phase", -5.0, 900.0, "red")])
        assert "nan" not in page and "inf" not in page
        Tags(page)
    assert chart("t", Axis("x"), Axis("y"), lines).count("<circle") == 2, "gaps have no dots"


def test_long_lines_are_thinned_and_texts_escaped():
    long = np.arange(100_000.0)
    page = chart(EVIL, Axis(EVIL), Axis(EVIL), [Line(EVIL, long, long, "red")], [Band(EVIL, 0, 1, "red")])
    assert len(page) < 10_000 and "script" not in Tags(page).seen


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1500, "1500"), (25_000, "25k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_short_numbers(value, text):
    assert number(value) == text


# --- panels


def test_every_panel_draws_a_run_that_has_not_begun():
    for panel in PANELS.values():
        Tags(panel.draw(Snapshot()))


def test_the_panels_show_what_the_run_does(live):
    run = live(replace(SETTINGS, memory_budget="0: 60 samples, 4: 7 samples"))
    keeper = None
    while not run.ended.wait(0.02):
        if keeper is None and run.experiment:
            keeper = PaceKeeper(run.experiment.meter, run.experiment.learner.tally)
        state = run.snapshot(keeper.look() if keeper else panels.NO_PACE)
        for panel in PANELS.values():
            Tags(panel.draw(state))
    assert run.state == "finished"
    state = run.snapshot(keeper.look())
    assert len(state.epochs) == 9 and len(state.tasks) == 3
    assert {name for name, _, _ in state.pace.phases} >= {"receive", "profile", "train", "retain", "evaluate"}
    pages = {name: Tags(panel.draw(state)).text for name, panel in PANELS.items()}
    assert {"average", "task 1", "task 3"} <= set(pages["accuracy"])
    assert "memory budget" in pages["sizes"] and "waiting for storage" in pages["swapping"]
    config, slot = state.config, state.slot_bytes
    assert f"{state.fill[1]:,} of {config.episodic_size:,} samples" in " ".join(pages["memory"])
    assert size_text(config.stream_size * slot) in " ".join(pages["memory"])
    assert pages["candidates"].count("► chosen") == 1
    assert any("the best that fits" in text for text in pages["log"])
    assert run.experiment.learner.tally.visits <= state.pace.work[-1]


def table(**columns):
    rows = {
        "task": 1, "rank": [1, 2, 3], "stream_size": [10, 20, 30], "episodic_size": [5, 5, 5],
        "memory_bytes": [1500, 2500, 3500], "accuracy": [0.5, np.nan, 0.75], "cost": [1e5, 2.0, 3.0], "cost_unit": "J",
        "utility": [0.1, 0.2, 0.3], "chosen": [False, True, False], "profiler": "probe", "selector": EVIL,
    }  # fmt: skip
    return pd.DataFrame(rows | columns)


def test_rows_over_the_budget_are_struck_out_and_the_chosen_one_is_marked():
    page = panels.candidates(Snapshot(trials=table(), budget_bytes=2600))
    assert re.findall(r'<tr class="(\w*)">', page) == ["", "chosen", "over"]
    seen = Tags(page)
    assert "script" not in seen.seen and {"50.0%", "100k", "cost, J", "2.4 KiB", "✕ too large"} <= set(seen.text)
    assert "over" not in re.findall(r'<tr class="(\w*)">', panels.candidates(Snapshot(trials=table())))


def test_power_is_drawn_where_there_is_a_sensor_and_work_where_there_is_none():
    time_s = np.arange(4.0)
    looks = {"time_s": time_s, "work": 10 * time_s, "power_w": np.array([np.nan, 7.0, 8.0, 7.5])}
    sensed = Snapshot(pace=Pace(**looks, kind="measured", phases=[("train+swap", 0.0, 2.0)]))
    assert {"Power over time (measured)", "power, W", "train+swap"} <= set(Tags(panels.pace(sensed)).text)
    blind = Tags(panels.pace(Snapshot(pace=Pace(**looks)))).text
    assert "Work over time (no power sensor)" in blind and "sample visits / s" in blind
    np.testing.assert_allclose(Pace(**looks).rate, [np.nan, 10, 10, 10])


# --- a run that is steered


def test_a_pause_holds_the_run_and_is_not_booked_as_training(live):
    run = live(LONG)
    until(lambda: len(run.snapshot().epochs) >= 2)
    run.pause()
    until(lambda: run.state == "paused")
    before = run.snapshot()
    assert run.is_held and run.sentence.startswith("Paused: task 1 of 3")
    time.sleep(0.3)
    assert run.snapshot().epochs == before.epochs and run.experiment.meter.under_way[0] == "pause"
    run.resume()
    until(lambda: len(run.snapshot().epochs) > len(before.epochs))
    run.stop()
    assert run.ended.wait(PATIENCE_S)
    (pause,) = [row for row in run.experiment.meter.readings if row.window == "pause"]
    assert pause.duration_s >= 0.3 and pause.task == 0 and pause.work.visits == 0


@pytest.mark.parametrize("held", [False, True])
def test_a_stop_keeps_what_the_finished_tasks_left(live, tmp_path, held):
    run = live()
    until(lambda: run.result is not None)
    if held:
        run.pause()
        until(lambda: run.state in ("paused", "finished"))
    run.stop()
    assert run.ended.wait(PATIENCE_S)
    (file,) = tmp_path.glob("10_run/*/run.json")
    status, tasks = json.loads(file.read_text())["status"], len(pd.read_csv(file.parent / "tasks.csv"))
    assert (run.state, status) in (("stopped", "interrupted"), ("finished", "finished"))
    assert tasks == len(run.result.records) >= 1 and str(file.parent) in run.sentence


def test_an_error_of_the_run_is_a_sentence(live):
    run = live(replace(SETTINGS, tasks=99))
    assert run.ended.wait(PATIENCE_S)
    assert run.state == "failed" and run.sentence.startswith("99 tasks cannot share 6 classes")
    assert run.snapshot().config is None and run.result is None


def test_a_lower_budget_moves_miro_within_an_epoch(live):
    run = live(replace(SETTINGS, epochs=20))
    until(lambda: len(run.snapshot().epochs) > 20)
    run.pause()
    until(lambda: run.state == "paused")
    before, config = len(run.snapshot().epochs), run.snapshot().config
    size = config.stream_size + config.episodic_size
    run.set_budget(size - 1)
    run.resume()
    until(lambda: len(run.snapshot().epochs) > before)
    config = run.snapshot().epochs[before].config
    assert config.stream_size + config.episodic_size < size
    assert "the best that fits" in run.snapshot().events[-1].reason
    run.set_budget(None)
    assert run.snapshot().budget_bytes is None


@pytest.mark.parametrize("controller", ["miro", "whole-budget", "random"])
def test_no_budget_that_is_accepted_ends_a_run(live, controller):
    run = live(replace(SETTINGS, epochs=2, controller=controller), held=True)
    until(lambda: run.state == "paused")
    with pytest.raises(InputError, match=r"5 samples does not hold the smallest configuration, 6 samples \(192 bytes"):
        run.set_budget(5)
    assert run.snapshot().budget_bytes is None, "a budget that was refused changed something"
    run.set_budget(6)
    run.resume()
    assert run.ended.wait(PATIENCE_S)
    assert run.error is None and run.state == "finished"


def test_knobs_set_before_a_run_hold_from_its_beginning(tmp_path):
    run = LiveRun(lambda disturb: RecordedRun(SETTINGS, dataset=DATASET, results=tmp_path, disturb=disturb))
    run.set_swap_ratio_cap(0.25)
    run.set_congestion(1e7)
    with pytest.raises(InputError, match="still being prepared"):
        run.set_budget(100)
    result = run.train()
    assert set(result.epochs["swap_ratio"]) == {0.25}
    assert run.experiment.memory.storage.before_read is None, "the throttle outlived the run"


def test_congestion_makes_miro_swap_less_until_it_is_over(live):
    run = live(replace(SETTINGS, epochs=30, memory_budget="24 samples"))
    until(lambda: len(run.snapshot().epochs) > 30)
    run.set_congestion(100.0)  # a second an epoch at least: longer than a busy machine trains
    until(lambda: any("waited for storage" in event.reason for event in run.snapshot().events))
    assert run.snapshot().config.swap_ratio < 1
    run.set_congestion(None)
    until(lambda: any("without congestion" in event.reason for event in run.snapshot().events) or run.ended.is_set())
    assert any("without congestion" in event.reason for event in run.snapshot().events)


# --- the dashboard


def test_run_trains_in_the_cell_and_draws_the_end(tmp_path):
    dashboard = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path)
    assert dashboard.result is None and "no run yet" in repr(dashboard)
    result = dashboard.run(run_id="mine")
    assert result.path == tmp_path / "05_live_dashboard" / "mine" and len(result.records) == 3
    assert "Finished: average accuracy" in dashboard._view._status.value and "Finished" in repr(dashboard)
    assert "task 3" in dashboard._view._panels["accuracy"].value
    assert dashboard._view._panels["accuracy"].value in dashboard.picture().data
    assert not dashboard._view.start.disabled and dashboard._view.stop.disabled
    assert set(dashboard._repr_mimebundle_()) >= {"application/vnd.jupyter.widget-view+json", "text/plain"}
    with pytest.raises(InputError, match="exists already"):
        dashboard.run(run_id="mine")
    assert "exists already" in dashboard._view._status.value


def test_the_dashboard_draws_the_same_training_as_a_plain_run(tmp_path):
    settings = replace(SETTINGS, epochs=2, seed=5)
    plain = RecordedRun(settings, dataset=DATASET, results=tmp_path)
    for _ in plain.steps(progress=False):
        pass
    watched = Dashboard(settings, dataset=DATASET, results=tmp_path, updates_per_s=50).run()
    assert [r.accuracies for r in watched.records] == [r.accuracies for r in plain.result.records]
    pd.testing.assert_series_equal(watched.epochs["loss"], plain.result.epochs["loss"])


def test_an_interrupt_keeps_the_rows(tmp_path, monkeypatch, caplog):
    def interrupted(after):
        def may_go_on(run, experiment):
            if len(experiment.loop.records) == after:
                raise KeyboardInterrupt
            return True

        return may_go_on

    dashboard = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path)
    monkeypatch.setattr(LiveRun, "_may_go_on", interrupted(2))
    with caplog.at_level(logging.WARNING):
        result = dashboard.run(run_id="two")
    assert len(result.records) == 2 and "Interrupted after 2 tasks" in caplog.text
    run = json.loads((tmp_path / "05_live_dashboard" / "two" / "run.json").read_text())
    assert run["status"] == "interrupted" and "Stopped" in dashboard._view._status.value
    monkeypatch.setattr(LiveRun, "_may_go_on", interrupted(0))
    with pytest.raises(KeyboardInterrupt):
        dashboard.run()


def test_the_buttons_start_hold_and_end_a_run(tmp_path):
    dashboard = Dashboard(LONG, dataset=DATASET, results=tmp_path, updates_per_s=50)
    view = dashboard._view
    view.start.click()
    until(lambda: not view.budget.disabled and "Training" in view._status.value)
    assert view.start.disabled and not view.pause.disabled and not view.stop.disabled
    view.pause.click()
    until(lambda: "Paused" in view._status.value)
    assert view.pause.description == "Resume"
    view.budget.value = 3.0
    assert "smallest configuration" in view._note.value and view.budget_samples() is None
    view.budget.value = 12.0
    assert "12 samples, 384 bytes. Miro heeds it" in view._note.value
    view.pause.click()
    until(lambda: "samples, the best that fits" in view._panels["log"].value)
    view.stop.click()
    until(lambda: "Stopped" in view._status.value and not view.start.disabled)
    assert view.pause.disabled and view.budget.disabled


def test_what_begins_another_run_ends_the_one_before(tmp_path):
    first = Dashboard(LONG, dataset=DATASET, results=tmp_path)
    first.start()
    until(lambda: first._run.experiment is not None)
    second = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path)
    assert len(second.run().records) == 3
    assert first._run.ended.is_set() and first._run.state == "stopped"


def test_what_is_wrong_with_the_form_is_said_on_the_page(tmp_path):
    dashboard = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path)
    texts = dashboard._form._texts
    for name, value, sentence in (
        ("epochs", "many", "epochs is &#x27;many&#x27;; write a whole number"),
        ("epochs", "-3", "epochs is -3; choose a value above 0"),
        ("memory_budget", EVIL, "&lt;script&gt;"),
    ):
        texts["epochs"].value, texts["memory_budget"].value = "3", ""
        texts[name].value = value
        dashboard.start()
        assert sentence in dashboard._view._status.value and "<script" not in dashboard._view._status.value
    assert dashboard.result is None and not list(tmp_path.iterdir())


def test_an_error_in_training_is_said_on_the_page(tmp_path):
    dashboard = Dashboard(replace(SETTINGS, tasks=99), dataset=DATASET, results=tmp_path)
    dashboard.start()
    until(lambda: "99 tasks cannot share 6 classes" in dashboard._view._status.value)
    until(lambda: not dashboard._view.start.disabled)


@pytest.mark.parametrize("controller", ["miro", "fixed"])
def test_the_form_gives_back_the_settings_it_was_given(controller):
    sizes = {"stream_size": 30, "episodic_size": "20 KiB"} if controller == "fixed" else {}
    settings = RunSettings(
        method="bic", controller=controller, tasks=2, epochs=4, seed=7, memory_budget="1 MiB", lr=0.02, points=1.0,
        preset="small", **sizes,
    )  # fmt: skip
    dashboard = Dashboard(settings)
    assert dashboard._form.read() == settings
    dashboard._form._choices["memory"].value = "single-level"
    assert dashboard._form.read().memory == "single-level"


def test_the_form_follows_data_set_and_controller():
    form = Dashboard(RunSettings())._form
    texts, choices = form._texts, form._choices
    assert texts["stream_size"].disabled and not choices["selector"].disabled
    choices["controller"].value = "fixed"
    assert not texts["stream_size"].disabled and choices["selector"].disabled
    assert texts["epochs"].placeholder == str(form._spec.preset().epochs)
    own = Dashboard(dataset=DATASET)._form
    assert own._choices["dataset"].options == ("arrays",) and own.read().dataset == "arrays"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"settings": RunSettings("nowhere")}, "There is no data set 'nowhere'"),
        ({"settings": RunSettings(preset="huge")}, "no preset 'huge'"),
        ({"updates_per_s": 0}, "above 0, such as 4"),
    ],
)
def test_a_dashboard_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Dashboard(**options)


@pytest.mark.parametrize(("controller", "sentence"), [("fixed", "keeps its sizes"), ("whole-budget", "next task")])
def test_the_page_says_who_heeds_the_budget(tmp_path, controller, sentence):
    dashboard = Dashboard(replace(LONG, controller=controller), dataset=DATASET, results=tmp_path)
    dashboard.start()
    until(lambda: not dashboard._view.budget.disabled)
    dashboard._view.budget.value = 30.0
    assert sentence in dashboard._view._note.value
    dashboard.stop()
    assert dashboard._run.ended.wait(PATIENCE_S)
