import json
import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from watching import BY_TASK, DATASET, LONG, PATIENCE_S, SETTINGS, until

from mirolib import InputError, RecordedRun
from mirolib.experiment.experiment import prepared
from mirolib.widgets.live import LiveRun


def held(run):
    """What a run has come to when it is paused."""
    run.pause()
    until(lambda: run.state in ("paused", "finished"))
    return run.snapshot()


def test_a_pause_holds_the_run_and_is_not_booked_as_training(live):
    run = live(LONG)
    until(lambda: len(run.snapshot().epochs) >= 2)
    before = held(run)
    assert run.is_held and run.sentence.startswith("Paused: task 1 of 3")
    time.sleep(0.3)
    assert run.snapshot().epochs == before.epochs and run.experiment.meter.under_way[0] == "pause"
    run.resume()
    until(lambda: len(run.snapshot().epochs) > len(before.epochs))
    run.stop()
    assert run.ended.wait(PATIENCE_S)
    (pause,) = [row for row in run.experiment.meter.readings if row.window == "pause"]
    assert pause.duration_s >= 0.3 and pause.task == 0 and pause.work.visits == 0


@pytest.mark.parametrize("is_held", [False, True])
def test_a_stop_keeps_what_the_finished_tasks_left(live, tmp_path, is_held):
    run = live()
    until(lambda: run.result is not None)
    if is_held:
        held(run)
    run.stop()
    assert run.ended.wait(PATIENCE_S)
    (file,) = tmp_path.glob("10_run/*/run.json")
    status, tasks = json.loads(file.read_text())["status"], len(pd.read_csv(file.parent / "tasks.csv"))
    assert (run.state, status) in (("stopped", "interrupted"), ("finished", "finished"))
    assert tasks == len(run.result.records) >= 1 and str(file.parent) in run.sentence


def test_a_lower_budget_moves_miro_within_an_epoch(live):
    run = live(replace(SETTINGS, epochs=20))
    until(lambda: len(run.snapshot().epochs) > 20)
    before = held(run)
    size = before.config.stream_size + before.config.episodic_size
    run.set_budget(size - 1)
    run.resume()
    until(lambda: len(run.snapshot().epochs) > len(before.epochs))
    config = run.snapshot().epochs[len(before.epochs)].config
    assert config.stream_size + config.episodic_size < size
    assert "the best that fits" in run.snapshot().events[-1].reason
    run.set_budget(None)
    assert run.snapshot().budget_bytes is None


@pytest.mark.parametrize("controller", ["miro", "miro-2023", "whole-budget", "random"])
def test_no_budget_that_is_accepted_ends_a_run(live, controller):
    few = "1" if controller in ("miro", "whole-budget") else "5"
    with pytest.raises(InputError, match=f"A memory budget of {few} samples does not hold the smallest"):
        prepared(replace(SETTINGS, controller=controller, memory_budget=f"0: 2000, 3: {few}"), DATASET)
    run = live(replace(SETTINGS, epochs=2, controller=controller), held=True)
    until(lambda: run.state == "paused")
    least = 6 if controller in ("miro-2023", "random") else 2
    sentence = rf"{least - 1} samples does not hold the smallest configuration, {least} samples \({32 * least} bytes"
    with pytest.raises(InputError, match=sentence):
        run.set_budget(least - 1)
    assert run.snapshot().budget_bytes is None, "a budget that was refused changed something"
    run.set_budget(least)
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


def test_progress_is_within_bounds_whatever_epochs_a_task_has(tmp_path, monkeypatch):
    run = LiveRun(lambda disturb: RecordedRun(BY_TASK, dataset=DATASET, results=tmp_path, disturb=disturb))
    seen = []

    def may_go_on(experiment):
        seen.append((run.share, run.sentence, experiment.learner.epochs))
        return True

    monkeypatch.setattr(run, "_may_go_on", may_go_on)
    result = run.train()
    lengths = result.epochs.groupby("task")["epochs_done"].max()
    assert lengths.nunique() > 1 and lengths.min() < BY_TASK.epochs, "the test wants tasks of different lengths"
    shares = np.array([share for share, _, _ in seen])
    assert shares[0] > 0 and shares[-1] == run.share == 1 and shares.max() <= 1
    assert np.diff(shares).min() > -0.1
    after = [share for share, sentence, _ in seen[:-1] if ", 0 of " in sentence]
    assert after == pytest.approx([1 / 3, 2 / 3]), "each task is an equal part"
    for share, sentence, epochs in seen[:-1]:
        task, done, whole = map(float, re.match(r"Training: task (\d) of 3, (\S+) of (\S+) epochs", sentence).groups())
        assert whole == pytest.approx(epochs, rel=0.01)
        assert share == pytest.approx((task - 1 + done / whole) / 3, rel=0.01)


def reasons(run):
    return " ".join(event.reason for event in run.snapshot().events)


def test_congestion_makes_miro_swap_less_until_it_is_over(live):
    run = live(replace(SETTINGS, epochs=30, memory_budget="24 samples"))
    until(lambda: len(run.snapshot().epochs) > 30)
    run.set_congestion(100.0)  # a second an epoch at least: longer than a busy machine trains
    until(lambda: "waited for storage" in reasons(run))
    assert run.snapshot().config.swap_ratio < 1
    run.set_congestion(None)
    until(lambda: "without congestion" in reasons(run) or run.ended.is_set())
    assert "without congestion" in reasons(run)
