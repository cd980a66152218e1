import threading

import pytest
from watching import DATASET, PATIENCE_S, SETTINGS

from mirolib import RecordedRun
from mirolib.widgets.live import LiveRun


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

        made.append((run, threading.Thread(target=train, daemon=True)))
        made[-1][1].start()
        return run

    yield make
    for run, thread in made:
        run.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
