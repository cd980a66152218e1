"""What watching a run costs it: epochs under a dashboard that is drawn four times a second ÷ unwatched ones.

One run trains in a thread, as after the dashboard's Start, its thread of drawing beside it: a look at meter and
counters, every panel that has changed, and JSON of what has changed, as a kernel sends it. Drawing is switched on and
off between blocks of epochs of a second or more in groups (ABBA), so that both see the same machine and the same run.
The value is the median, over groups, of the ratio of the blocks' durations. Epochs of the digits are the shortest there
are, so that nearly every panel has changed at each drawing; the random images keep PyTorch at work for longer at a
stretch.
"""

from __future__ import annotations

import json
import threading
import time
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.common import random_images, row, table
from mirolib import Dataset, RecordedRun, RunSettings, load_dataset
from mirolib.widgets.dashboard import View
from mirolib.widgets.form import SettingsForm
from mirolib.widgets.live import LiveRun, PaceSampler

_PERIOD_S = 0.25
_DRAWN = (True, False, False, True)


def run() -> pd.DataFrame:
    """Measures two runs of the Miro controller."""
    return table(
        [
            *_rows("digits 1x8x8, small CNN", load_dataset("digits"), block=24, groups=8),
            *_rows("random images 3x32x32, small CNN", random_images(200), block=2, groups=8),
        ]
    )


def _rows(what: str, dataset: Dataset, *, block: int, groups: int) -> list[dict[str, object]]:
    """The ratio for one data set, and how long a drawing takes."""
    epochs = block * len(_DRAWN) * groups // 2  # whole groups in each of the two tasks, whose epochs differ
    settings = RunSettings(tasks=2, epochs=epochs, seed=0, device="cpu", energy="none", lr=0.01)
    with TemporaryDirectory(prefix="miro-bench-") as results:
        live = LiveRun(lambda disturb: RecordedRun(settings, dataset=dataset, results=results, disturb=disturb))
        thread = threading.Thread(target=live.train, daemon=True)
        thread.start()
        drawing_s = _watch(live, block)
        thread.join()
    durations = np.array([epoch.duration_s for epoch in live.snapshot().epochs]).reshape(-1, len(_DRAWN), block)
    seconds = durations.sum(axis=2)[1:]  # the first group warms up
    drawn = np.array(_DRAWN)
    ratios = seconds[:, drawn].sum(axis=1) / seconds[:, ~drawn].sum(axis=1)
    return [
        row(f"{what}: an epoch", 1e3 * float(np.median(durations)), "ms"),
        row(f"{what}: one drawing", 1e3 * drawing_s, "ms"),
        row(f"{what}: watched / unwatched", float(np.median(ratios)), "ratio", at_most=1.05),
    ]


def _watch(live: LiveRun, block: int) -> float:
    """Draws a run in every block in which it is to be drawn; the median time that takes, in processor seconds."""
    view, sent, times = View(SettingsForm(RunSettings()).widget), [], []
    for panel in view.widget.children[-1].children:
        panel.observe(lambda change: sent.append(json.dumps({"value": change["new"]})), "value")
    sampler: PaceSampler | None = None
    while not live.ended.wait(_PERIOD_S):
        if live.experiment is None or not _DRAWN[len(live.snapshot().epochs) // block % len(_DRAWN)]:
            continue
        start = time.thread_time()
        sampler = sampler or PaceSampler(live.experiment.meter, live.experiment.learner.tally)
        view.draw(live.snapshot(sampler.sample()))
        view.say(live.sentence, live.share)
        times.append(time.thread_time() - start)
        sent.clear()
    return float(np.median(times))
