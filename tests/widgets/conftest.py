from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from watching import DATASET, PATIENCE_S, SETTINGS

from mirolib import RecordedRun
from mirolib.widgets.live import LiveRun


@pytest.fixture
def live(tmp_path):
    """Makes runs that train in a thread of their own; they are stopped in the end."""
    made = {}
    with ThreadPoolExecutor() as pool:

        def make(settings=SETTINGS, *, held=False):
            run = LiveRun(lambda disturb: RecordedRun(settings, dataset=DATASET, results=tmp_path, disturb=disturb))
            (run.pause if held else run.resume)()
            return made.setdefault(pool.submit(run.train), run)

        yield make
        for run in made.values():
            run.stop()
        assert not wait(made, PATIENCE_S).not_done
    assert all(future.exception() is run.error for future, run in made.items())
