import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pages import EVIL
from watching import DATASET, LONG, PATIENCE_S, SETTINGS, until

from mirolib import InputError, RecordedRun, RunSettings, open_run
from mirolib.widgets import Dashboard
from mirolib.widgets.live import LiveRun
from mirolib.widgets.svg import as_images


def test_run_trains_in_the_cell_as_a_plain_run_does_and_draws_the_end(tmp_path):
    plain = RecordedRun(SETTINGS, dataset=DATASET, results=tmp_path)
    for _ in plain.steps(progress=False):
        pass
    dashboard = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path, updates_per_s=50)
    assert dashboard.result is None and "no run yet" in repr(dashboard)
    result = dashboard.run(run_id="mine")
    assert result.path == tmp_path / "05_live_dashboard" / "mine" and len(result.records) == 3
    np.testing.assert_array_equal(result.accuracies, plain.result.accuracies)
    pd.testing.assert_series_equal(result.epochs["loss"], plain.result.epochs["loss"])
    assert "Finished: average accuracy" in dashboard._view._status.value and "Finished" in repr(dashboard)
    assert "task 3" in dashboard._view._panels["accuracy"].value
    assert as_images(dashboard._view._panels["accuracy"].value) in dashboard.picture().data
    assert not dashboard._view.start.disabled and dashboard._view.stop.disabled
    assert set(dashboard._bundle()) >= {"application/vnd.jupyter.widget-view+json", "text/plain", "text/html"}
    with pytest.raises(InputError, match="exists already"):
        dashboard.run(run_id="mine")
    assert "exists already" in dashboard._view._status.value


def test_an_interrupt_keeps_the_rows(tmp_path, monkeypatch, caplog):
    def may_go_on(run, experiment):
        if len(experiment.loop.records) == after:
            raise KeyboardInterrupt
        return True

    dashboard, after = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path), 2
    monkeypatch.setattr(LiveRun, "_may_go_on", may_go_on)
    with caplog.at_level(logging.WARNING):
        result = dashboard.run(run_id="two")
    assert len(result.records) == 2 and "Interrupted after 2 tasks" in caplog.text
    run = json.loads((tmp_path / "05_live_dashboard" / "two" / "run.json").read_text())
    assert run["status"] == "interrupted" and "Stopped" in dashboard._view._status.value
    after = 0
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
    assert "12 samples, 384 bytes. The controller heeds it" in view._note.value
    view.pause.click()
    until(lambda: "samples, the best that fits" in view._panels["log"].value)
    view.stop.click()
    until(lambda: "Stopped" in view._status.value and not view.start.disabled)
    assert view.budget.disabled and view.pause.description == "Resume"
    (file,) = tmp_path.glob("*/*/run.json")
    assert json.loads(file.read_text())["error"] == "stopped by the user"
    view.pause.click()
    until(lambda: "Training" in view._status.value and not view.stop.disabled)
    assert dashboard._run.snapshot().epochs and len(list(tmp_path.glob("*/*/run.json"))) == 1
    view.stop.click()
    until(lambda: "Stopped" in view._status.value and not view.start.disabled)


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
        ("epochs", "many", "epochs is &#x27;many&#x27;; give a value of type int"),
        ("epochs", "-3", "epochs is -3; choose a value above 0"),
        ("memory_budget", EVIL, "&lt;script&gt;"),
        ("objective", EVIL, "The objective &#x27;&lt;"),
        ("objective", "accuracy=2", "out of range; write accuracy=0.9"),
    ):
        dashboard._form._choices["controller"].value = "miro" if name == "objective" else "miro-2023"
        texts["epochs"].value, texts["memory_budget"].value = "3", ""
        texts[name].value = value
        dashboard.start()
        assert sentence in dashboard._view._status.value and "<script" not in dashboard._view._status.value
    assert dashboard.result is None and not list(tmp_path.iterdir())


def test_an_error_stands_at_its_field_until_it_is_mended(tmp_path):
    dashboard = Dashboard(SETTINGS, dataset=DATASET, results=tmp_path)
    form = dashboard._form
    wrong = lambda: {name for name, box in form._fields.items() if "miro-wrong" in box._dom_classes}  # noqa: E731
    form._texts["lr"].value = "fast"
    assert wrong() == {"lr"} and "lr is &#x27;fast&#x27;" in form.wrong.value
    form._texts["memory_budget"].value = "lots"
    form._texts["lr"].value = "0.02"
    assert wrong() == {"memory_budget"}, "the next one"
    dashboard.start()
    assert "lots" in dashboard._view._status.value
    form._texts["memory_budget"].value = ""
    assert not wrong() and not form.wrong.value and "lots" not in dashboard._view._status.value
    form._choices["model"].value, form._texts["batch_size"].value = "mlp-bn", "8"
    form._texts["swap_ratio"].value, form.run_id.value = "0.5", "mine"
    dashboard.start()
    until(dashboard._run.ended.is_set)
    saved = open_run(tmp_path / "05_live_dashboard" / "mine").settings
    assert (saved.lr, saved.model, saved.batch_size, saved.swap_ratio) == (0.02, "mlp-bn", 8, 0.5)


def test_an_error_in_training_is_said_on_the_page(tmp_path):
    dashboard = Dashboard(replace(SETTINGS, tasks=99), dataset=DATASET, results=tmp_path)
    dashboard.start()
    until(lambda: "99 tasks cannot share 6 classes" in dashboard._view._status.value)
    until(lambda: not dashboard._view.start.disabled)
    run = dashboard._run
    assert run.state == "failed" and run.sentence.startswith("99 tasks cannot share 6 classes")
    assert run.snapshot().config is None and dashboard.result is None


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


@pytest.mark.parametrize(
    ("controller", "sentence"),
    [("fixed", "keeps its sizes"), ("carm", "keeps its sizes"), ("whole-budget", "next task"), ("miro", "next epoch")],
)
def test_the_page_says_who_heeds_the_budget(tmp_path, controller, sentence):
    dashboard = Dashboard(replace(LONG, controller=controller), dataset=DATASET, results=tmp_path)
    dashboard.start()
    until(lambda: not dashboard._view.budget.disabled)
    dashboard._view.budget.value = 30.0
    assert sentence in dashboard._view._note.value
    dashboard.stop()
    assert dashboard._run.ended.wait(PATIENCE_S)
