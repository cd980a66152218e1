import re
from dataclasses import replace

import numpy as np
import pandas as pd
from pages import EVIL, Tags
from watching import BY_TASK, PATIENCE_S, SETTINGS

from mirolib.widgets import panels
from mirolib.widgets.live import Pace, PaceSampler
from mirolib.widgets.panels import PANELS, Snapshot


def test_every_panel_draws_a_run_that_has_not_begun():
    for draw, _ in PANELS.values():
        Tags(draw(Snapshot()))


def test_the_panels_show_what_the_run_does(live):
    run = live(replace(SETTINGS, memory_budget="0: 60 samples, 4: 7 samples"))
    sampler = None
    while not run.ended.wait(0.02):
        if sampler is None and run.experiment:
            sampler = PaceSampler(run.experiment.meter, run.experiment.learner.tally)
        state = run.snapshot(sampler.sample() if sampler else panels.NO_PACE)
        for draw, _ in PANELS.values():
            Tags(draw(state))
    assert run.state == "finished"
    state = run.snapshot(sampler.sample())
    assert len(state.epochs) == 9 and len(state.tasks) == 3
    assert {name for name, _, _ in state.pace.phases} >= {"receive", "profile", "train", "retain", "evaluate"}
    pages = {name: Tags(draw(state)).text for name, (draw, _) in PANELS.items()}
    assert {"average", "task 1", "task 3"} <= set(pages["accuracy"])
    assert "memory budget" in pages["sizes"] and "waiting for storage" in pages["swapping"]
    config, slot = state.config, state.slot_bytes
    assert f"{state.fill[1]:,} of {config.episodic_size:,} samples" in " ".join(pages["memory"])
    assert panels.size_text(config.stream_size * slot) in " ".join(pages["memory"])
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


def test_works_are_shown_with_what_is_expected_of_them():
    works = pd.DataFrame({
        "task": 1, "rank": [1, 2, 3], "epochs": [0.75, 1.5, 12.0], "accuracy": [0.5, 0.625, np.nan],
        "low": [0.25, 0.55, np.nan], "high": [0.6, 0.7, np.nan], "gain": [0.5, 0.125, np.nan],
        "cost": [1e5, 2.0, np.nan], "chosen": [False, True, False], "cost_unit": "visits", "energy_kind": "none",
        "objective": EVIL,
    })  # fmt: skip
    page = panels.candidates(Snapshot(trials=works, budget_bytes=1))
    assert re.findall(r'<tr class="(\w*)">', page) == ["", "chosen", ""], "a work has no size to be too large"
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr.*?</tr>", page)[1:]]
    assert rows == [
        ["", "0.75", "50.0%", "25.0% to 60.0%", "0.5", "100k"],
        ["► chosen", "1.5", "62.5%", "55.0% to 70.0%", "0.12", "2"],
        ["", "12", "", "", "", ""],
    ]
    assert len(re.findall("<th ", page)) == 6 and "cost, visits" in page and "script" not in Tags(page).seen


def test_the_works_of_a_run_are_shown(live):
    run = live(BY_TASK)
    assert run.ended.wait(PATIENCE_S) and run.error is None
    page = " ".join(Tags(panels.candidates(run.snapshot())).text)
    assert "task 3, accuracy=0.2" in page and page.count("► chosen") == 1
    assert any("accuracy=0.2: " in text for text in Tags(panels.log(run.snapshot())).text)


def test_power_is_drawn_where_there_is_a_sensor_and_work_where_there_is_none():
    time_s = np.arange(4.0)
    looks = {"time_s": time_s, "work": 10 * time_s, "power_w": np.array([np.nan, 7.0, 8.0, 7.5])}
    sensed = Snapshot(pace=Pace(**looks, kind="measured", phases=[("train+swap", 0.0, 2.0)]))
    assert {"Power over time (measured)", "power, W", "train+swap"} <= set(Tags(panels.pace(sensed)).text)
    blind = Tags(panels.pace(Snapshot(pace=Pace(**looks)))).text
    assert "Work over time (no power sensor)" in blind and "sample visits / s" in blind
    np.testing.assert_allclose(Pace(**looks).rate, [np.nan, 10, 10, 10])


def test_utilities_have_digits_that_tell_them_apart():
    row = {"task": 0, "profiler": "probe", "selector": "knee", "cost_unit": "visits", "rank": 1, "stream_size": 1}
    row |= {"episodic_size": 1, "memory_bytes": 8, "accuracy": 0.5, "cost": 1.0, "chosen": False}
    table = pd.DataFrame([row | {"utility": 0.12341}, row | {"utility": 0.12342}])
    drawn = panels.candidates(Snapshot(trials=table))
    assert "<td>0.12341</td>" in drawn and "<td>0.12342</td>" in drawn
