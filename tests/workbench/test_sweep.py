import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import pytest
from kernels import kernels, kill, once, trained

from mirolib import InputError, RunError, RunFolder, StorageError, load_runs, load_sweep, sweep
from mirolib.__main__ import main
from mirolib.workbench.sweep_plan import make_plan

sweeps = import_module("mirolib.workbench.sweep")  # the package's face has the function of that name
GRID = {"epochs": [1, 2]}
SMALL = {"tasks": 2, "controller": "fixed", "energy": "none"}


class Launches:
    """In the place of `launch_from`: leaves a run at once, and keeps which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.resumed: list[str] = []
        self.ends: dict[int, str] = {}

    def __call__(self, warm, notebook, progress, resume, parameters):
        run_id, results = parameters.pop("run_id"), parameters.pop("results")
        self.asked.append(run_id)
        self.resumed += [run_id] * resume
        folder = RunFolder(notebook, parameters, results=results, run_id=run_id, resume=resume)
        papermill = {"metadata": {"papermill": {"parameters": parameters | {"run_id": run_id, "results": results}}}}
        (folder.path / "notebook.ipynb").write_text(json.dumps(papermill))
        end = self.ends.get(len(self.asked), "finished")
        if isinstance(end, BaseException):
            raise end
        folder.end(end, None if end == "finished" else "it broke")
        if end != "finished":
            raise RunError("it broke")


@pytest.fixture
def launches(monkeypatch):
    fake = Launches()
    monkeypatch.setattr(sweeps, "launch_from", fake)
    return fake


def again(tmp_path, **options):
    return sweep("10_run", grid=GRID, seeds=2, parameters=SMALL, name="mine", results=tmp_path, **options)


def test_a_sweep_runs_all_and_the_second_time_nothing(tmp_path, launches):
    done = again(tmp_path)
    assert done.runs["status"].tolist() == ["finished"] * 4 and len(launches.asked) == 4
    assert done.table[["epochs", "seed"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert len(again(tmp_path).runs) == 4 and len(launches.asked) == 4
    assert str(done) == "Sweep mine: 4 runs of 10_run: 4 finished."
    assert len(load_runs(tmp_path)) == 4
    larger = sweep("10_run", grid={"epochs": [1, 2, 3]}, seeds=2, parameters=SMALL, name="mine", results=tmp_path)
    assert len(launches.asked) == 6 and len(larger.runs) == 6


def test_a_failed_run_does_not_stop_the_others_and_is_rerun_on_request(tmp_path, launches):
    launches.ends = {2: "failed"}
    done = again(tmp_path)
    assert done.runs["status"].tolist() == ["finished", "failed", "finished", "finished"]
    assert done.failed[["seed", "status", "error"]].to_numpy().tolist() == [[1, "failed", "it broke"]]
    assert len(again(tmp_path).failed) == 1 and len(launches.asked) == 4
    assert not len(again(tmp_path, rerun="failed").failed) and launches.asked[4] == launches.asked[1]
    (kept,) = (tmp_path / "sweeps" / "mine" / "attempts").iterdir()
    assert json.loads((kept / "run.json").read_text())["error"] == "it broke"
    assert len(load_runs(tmp_path)) == 4
    with pytest.raises(InputError, match="rerun is 'all'; give failed"):
        again(tmp_path, rerun="all")


@pytest.mark.parametrize(
    ("status", "resumed"), [("interrupted", True), ("died", True), ("failed", False), ("unreadable", False)]
)
def test_what_broke_off_goes_on_or_is_run_again(tmp_path, launches, status, resumed):
    run_id = next(iter(make_plan("10_run", GRID, 2, SMALL, "mine").members))
    folder = RunFolder("10_run", {}, results=tmp_path, run_id=run_id)
    (folder.path / "store").mkdir()
    folder.end(status)
    if status == "unreadable":
        (folder.path / "run.json").write_text("{")
        with pytest.raises(InputError, match=f"Run {run_id} of this sweep can't be vouched for"):
            again(tmp_path)
    done = again(tmp_path, rerun="failed")
    assert done.runs["status"].tolist() == ["finished"] * 4 and len(load_runs(tmp_path)) == 4
    assert launches.resumed == [run_id] * resumed
    assert len(list(tmp_path.glob("sweeps/mine/attempts/*"))) == 1 - resumed
    assert len(list(tmp_path.glob("sweeps/mine/attempts/*/store"))) == (status == "unreadable")


def test_an_error_of_the_disk_ends_the_sweep_and_the_next_call_goes_on(tmp_path, launches):
    launches.ends = {2: StorageError("the disk is full")}
    with pytest.raises(StorageError, match="the disk is full"):
        again(tmp_path)
    assert len(launches.asked) == 2
    assert load_sweep("mine", tmp_path).runs["status"].tolist() == ["finished", "running", *["not started"] * 2]


def test_a_run_that_someone_else_is_at_is_left_alone(tmp_path, launches, monkeypatch):
    monkeypatch.setattr(sweeps, "_ORPHAN_S", 0.1)
    run_id = next(iter(make_plan("10_run", GRID, 2, SMALL, "mine").members))
    _owner = RunFolder("10_run", {}, results=tmp_path, run_id=run_id)
    with pytest.raises(InputError, match=rf"{run_id} of this sweep is still running; wait for it"):
        again(tmp_path)


def test_two_sweeps_in_one_folder(tmp_path, launches):
    (tmp_path / "sweeps" / "mine").mkdir(parents=True)
    refused = pytest.raises(InputError, match="mine is being run by another process; wait")
    with sweeps.owned(tmp_path / "sweeps" / "mine", "lock"), refused:
        again(tmp_path)
    assert again(tmp_path).runs["status"].eq("finished").all()
    with pytest.raises(InputError, match="mine runs 10_run, not 16_generality; choose another name"):
        sweep("16_generality", grid={"epochs": [1]}, name="mine", results=tmp_path)


def test_a_finished_run_of_other_parameters_is_not_taken_for_this_one(tmp_path, launches):
    done = again(tmp_path)
    first, second = (Path(path) for path in done.runs["path"][:2])
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(InputError, match=f"it is run 10_run/{first.name}: the folder was copied or renamed"):
        again(tmp_path)
    shutil.rmtree(second)
    with RunFolder("10_run", SMALL | {"epochs": 1, "seed": 7}, results=tmp_path, run_id=second.name):
        pass  # under the name of another run, as anyone can launch one
    assert load_sweep("mine", tmp_path).runs["status"].tolist() == ["finished", "unvouched", "finished", "finished"]
    with pytest.raises(InputError, match=r"begun with other parameters: seed 7, now 1\."):
        again(tmp_path)
    assert again(tmp_path, rerun="failed").runs["status"].eq("finished").all()


@pytest.mark.parametrize("other_disk", [False, True])
def test_attempts_are_set_aside_whatever_lies_there_and_wherever_they_lie(tmp_path, launches, monkeypatch, other_disk):
    run_id = next(iter(make_plan("10_run", GRID, 2, SMALL, "mine").members))
    RunFolder("10_run", {}, results=tmp_path, run_id=run_id).end("failed")
    theirs = tmp_path / "sweeps" / "mine" / "attempts" / f"{run_id}-2"  # the first one was deleted by hand
    theirs.mkdir(parents=True)
    (theirs / "note.txt").write_text("")
    if other_disk:
        monkeypatch.setattr(os, "rename", Mock(side_effect=OSError(errno.EXDEV, "Invalid cross-device link")))
    (tmp_path / "10_run" / run_id / "note.txt").write_text("the user's")
    assert again(tmp_path, rerun="failed").runs["status"].eq("finished").all()
    assert [path.name for path in theirs.iterdir()] == ["note.txt"]
    assert (theirs.with_name(f"{run_id}-1") / "note.txt").read_text() == "the user's"


def test_results_taken_away_midway(tmp_path, monkeypatch):
    class Taken(Launches):
        def __call__(self, *arguments, **options):
            super().__call__(*arguments, **options)
            shutil.rmtree(tmp_path / "results")

    monkeypatch.setattr(sweeps, "launch_from", launches := Taken())
    with pytest.raises(StorageError, match="mine was taken away while it ran"):
        again(tmp_path / "results")
    assert len(launches.asked) == 1


def test_folders_that_can_not_be_used(tmp_path, launches):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        again(tmp_path / "file")
    with pytest.raises(InputError, match="no sweep 'none' in .*; there are: none"):
        load_sweep("none", tmp_path)
    again(tmp_path)
    (tmp_path / "sweeps" / "mine" / "sweep.json").write_bytes(b"\xff")
    for look in (lambda: load_sweep("mine", tmp_path), lambda: again(tmp_path)):
        with pytest.raises(InputError, match=r"sweep.json is damaged"):
            look()


def test_energy_is_read_by_one_run_at_a_time(tmp_path, launches, monkeypatch):
    assert len(again(tmp_path, workers=2).runs) == 4
    monkeypatch.setattr(sweeps, "readable", lambda names: sorted(names))
    with pytest.raises(InputError, match=r"count the other's joules \(auto\); set workers to 1"):
        sweep("10_run", grid=GRID, results=tmp_path, workers=2)
    assert len(sweep("10_run", grid=GRID, parameters={"energy": "x.csv"}, results=tmp_path, workers=2).runs) == 2
    with pytest.raises(InputError, match="workers is 0"):
        again(tmp_path, workers=0)


def test_a_sweep_shows_itself_with_names_escaped(tmp_path, launches):
    launches.ends = {1: "failed"}
    done = again(tmp_path)
    done.runs.loc[0, "error"] = "<script>"
    page = done._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<table" in page
    assert "1 failed" in str(done) and "3 finished" in str(done)


LONG = {"epochs": 20, "controller": "fixed", "energy": "none", "tasks": 5}


def test_a_killed_kernel_is_run_again_by_the_same_call(tmp_path):
    thread = once(lambda: trained(tmp_path), lambda: kill(kernels()))
    done = sweep("10_run", parameters=LONG, name="mine", results=tmp_path)
    thread.join()
    assert done.runs["status"].tolist() == ["died"] and "ended without a word" in done.failed["error"].item()
    assert sweep("10_run", parameters=LONG, name="mine", results=tmp_path).runs["status"].tolist() == ["finished"]


def begun(results: Path, epochs: int) -> tuple[subprocess.Popen, list[str]]:
    """A sweep in a process that heeds Ctrl-C even where the shell has this one ignore it, and its command."""
    file = results / "sweep.yml"
    file.write_text(f"notebook: 10_run\nname: mine\nseeds: 2\nparameters: {LONG | {'epochs': epochs}}\n")
    command = ["sweep", str(file), "--results", str(results)]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    python = [sys.executable, "-m", "mirolib", *command]
    return subprocess.Popen(python, stdout=-3, stderr=subprocess.PIPE, text=True, preexec_fn=heed), command


def test_an_interrupt_ends_the_kernels_and_keeps_the_rows(tmp_path):
    going, _ = begun(tmp_path, epochs=200)
    once(lambda: trained(tmp_path), lambda: going.send_signal(signal.SIGINT)).join()
    _, said = going.communicate(timeout=60)
    assert going.returncode == 130 and "0 of 2 runs done; what they left is kept, and the same call goes on." in said
    done = load_sweep("mine", tmp_path)
    assert done.runs["status"].tolist() == ["interrupted", "not started"]
    assert (Path(done.runs["path"][0]) / "tasks.csv").exists()


def test_a_killed_sweep_goes_on_where_it_was(tmp_path, capsys):
    launcher, command = begun(tmp_path, epochs=15)
    once(lambda: trained(tmp_path, 2), launcher.kill).join()
    launcher.communicate()
    assert launcher.returncode == -9
    before = load_sweep("mine", tmp_path).runs
    assert before["status"].tolist() in (["finished", "running"], ["finished", "died"])
    written = (Path(before["path"][0]) / "run.json").stat().st_mtime_ns
    assert main(command) == 0
    assert "Sweep mine: 2 runs of 10_run: 2 finished." in capsys.readouterr().out
    assert (Path(before["path"][0]) / "run.json").stat().st_mtime_ns == written
    assert json.loads((Path(before["path"][1]) / "run.json").read_text())["resumed"]


def test_the_command_says_what_failed(tmp_path, launches, capsys):
    launches.ends = {2: "failed"}
    file = tmp_path / "sweep.yml"
    file.write_text("notebook: 10_run\ngrid: {epochs: [1, 2]}\nname: mine\n")
    assert main(["sweep", str(file), "--results", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "failed: it broke" in out and "1 finished, 1 failed" in out
    assert main(["runs", "--results", str(tmp_path)]) == 0
    assert "failed: it broke" in capsys.readouterr().out
    assert main(["sweep", str(file), "--results", str(tmp_path), "--rerun", "failed"]) == 0
    assert main(["sweep", str(tmp_path / "none.yml")]) == 1
    assert "can't be read as YAML" in capsys.readouterr().err


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr("mirolib.sweep_file", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["sweep", "any.yml"]) == 130
    assert "what is finished is kept" in capsys.readouterr().err
