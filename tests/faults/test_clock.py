"""Clocks that are set back, and on by hours: boards without a battery get the time when the network comes."""

import os
import signal
import time
from datetime import datetime, timedelta
from itertools import cycle

import psutil
import pytest
from runs import QUICK, assert_same

from mirolib import InputError, RecordedRun, RunFolder, load_runs, run_experiment
from mirolib.memory.wear import charge, wear
from mirolib.workbench.folder import new_run_id

JUMPS_S = (0, 7200, -7200, 86400, -86400)


def jumping(monkeypatch):
    """Sets the wall clock back and on by hours at each look."""
    wall, jumps = time.time, cycle(JUMPS_S)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(1.8e9, tz) + timedelta(seconds=next(jumps))

    monkeypatch.setattr("time.time", lambda: wall() + next(jumps))
    for module in ("workbench.folder", "memory.wear", "viz.report"):
        monkeypatch.setattr(f"mirolib.{module}.datetime", Jumping)


def test_a_run_is_the_same_whatever_the_clock_does(tmp_path, monkeypatch):
    whole = run_experiment(QUICK, results=tmp_path, run_id="whole", progress=False)
    jumping(monkeypatch)
    start = time.monotonic()
    recorded = RecordedRun(QUICK, results=tmp_path, run_id="mine", checkpoint_minutes=5)
    checkpoints = []
    for _ in recorded.steps(progress=False):
        checkpoints.append(len(list((recorded.folder.path / "checkpoint").glob("*"))))
    passed_s = time.monotonic() - start
    assert_same(whole, recorded.result)
    assert checkpoints == [1, 1, 2, 2, 2, 2, 2, 2, 2], "after the first round and each task, not for hours never passed"
    ledger = recorded.result.energy
    assert (ledger["duration_s"] >= 0).all() and ledger["duration_s"].sum() <= passed_s
    ends = (ledger["start_s"] + ledger["duration_s"]).to_numpy()
    assert (ledger["start_s"].to_numpy()[1:] >= ends[:-1] - 1e-6).all(), "one line of time"
    assert 0 <= load_runs(tmp_path).set_index("run_id").loc["mine", "duration_s"] <= passed_s


def test_runs_that_begin_at_the_same_time_again_lie_side_by_side(tmp_path, monkeypatch):
    jumping(monkeypatch)
    assert len({new_run_id() for _ in range(100)}) == 100
    for _ in range(10):
        with RunFolder("10_run", {}, results=tmp_path):
            pass
    assert load_runs(tmp_path)["status"].tolist() == ["finished"] * 10
    with RunFolder("10_run", {}, results=tmp_path, run_id="mine"):
        pass
    with pytest.raises(InputError, match="exists already"):
        RunFolder("10_run", {}, results=tmp_path, run_id="mine")


def test_wear_adds_up_whatever_the_clock_does(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRO_STATE", str(tmp_path))
    jumping(monkeypatch)
    for _ in range(5):
        charge("card", 100, 10**9, begun=True)
    assert wear()[["written_bytes", "runs"]].values.tolist() == [[500, 5]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another process is needed")
def test_a_run_that_lives_is_not_taken_for_dead_when_the_clock_is_set(tmp_path, monkeypatch):
    boot_s = psutil.boot_time()
    reading, writing = os.pipe()
    if not (child := os.fork()):
        _owner = RunFolder("10_run", {}, results=tmp_path, run_id="mine")
        os.write(writing, b"!")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reading, 1) == b"!"
        for hours in (-3, 3):
            with monkeypatch.context() as patch:
                jumping(patch)
                patch.setattr("psutil._psplatform.boot_time", lambda later_s=3600 * hours: boot_s + later_s)
                assert load_runs(tmp_path)["status"].tolist() == ["running"]
                with pytest.raises(InputError, match="still running"):
                    RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=True)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert load_runs(tmp_path)["status"].tolist() == ["died"]
