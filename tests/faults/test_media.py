"""Runs on a disk that is really full, and on a medium that really turns read-only."""

import os
import shutil

import pytest
from runs import QUICK, assert_same
from stores import filled, opened

from mirolib import InputError, RecordedRun, RunFolder, StorageError, load_runs, run_experiment
from mirolib.__main__ import main
from mirolib.memory.store_check import verify

STORE = r"The store \S+ could not be written: No space left on device"
FULL = {  # steps before the disk fills up, bytes it leaves, what is told; steps are an epoch, an epoch, a task
    "first buffering": (0, 0, STORE),
    "buffering, a write cut short": (3, 20480, STORE),
    "checkpoint": (1, 65536, r"checkpoint/000002-\w+.safetensors could not be written: No space left on device"),
    "tables": (2, 8192, r"(energy|events|trials).csv could not be written: No space left on device"),
    "nothing left": (2, 0, "tasks.csv could not be written: No space left on device"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run."""
    return run_experiment(QUICK, results=tmp_path_factory.mktemp("whole"), run_id="whole", progress=False)


def begun(results, steps):
    """A run that has made some steps, and what makes the others."""
    recorded = RecordedRun(QUICK, results=results, run_id="cut", checkpoint_minutes=0)
    going = recorded.steps(progress=False)
    for _ in range(steps):
        next(going)
    return going


def resumed(results):
    return run_experiment(QUICK, results=results, run_id="cut", resume=True, checkpoint_minutes=0, progress=False)


def litter(folder):
    """What is left of files that could not be written."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".miro-")]


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_ends_a_run_in_a_sentence_and_it_goes_on_once_there_is_space(disk, whole, case):
    steps, leave_bytes, sentence = FULL[case]
    going = begun(disk.path, steps)
    disk.fill(leave_bytes)
    with pytest.raises(StorageError, match=sentence):
        list(going)
    assert not litter(disk.path)
    assert load_runs(disk.path)["status"].item() in ("failed", "died")
    if case == "nothing left":
        with pytest.raises(StorageError, match="run.json could not be written: No space"):
            resumed(disk.path)
    disk.free()
    assert_same(whole, resumed(disk.path))


def sentence_of(action) -> str:
    """What a fork of this process says of an action; it must end by itself."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            action()
        except StorageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the system has ended the process"
    return said


def test_opening_a_store_on_a_full_disk_ends_no_process(disk):
    filled(disk.path / "old")
    for leave_bytes in range(0, 40960, 4096):
        disk.fill(leave_bytes)
        for name in ("old", "new"):
            said = sentence_of(lambda name=name: opened(disk.path / name).close())
            assert not said or "No space left" in said
        disk.free()
        shutil.rmtree(disk.path / "new")
    sound = opened(disk.path / "old")
    assert sound.counts(2).tolist() == [200, 200]
    sound.close()


def test_a_store_that_was_refused_for_want_of_space_can_be_opened_later(disk):
    (disk.path / "new").mkdir()
    (disk.path / "new" / "process.lock").touch()
    disk.fill()
    with pytest.raises(StorageError, match="can't be opened: No space left on device"):
        opened(disk.path / "new")
    disk.free()
    opened(disk.path / "new").close()


def test_the_error_that_ends_a_run_is_told_even_where_nothing_can_be_written_any_more(disk, caplog):
    folder = RunFolder("10_run", {}, results=disk.path, run_id="mine")
    disk.fill()
    with pytest.raises(KeyboardInterrupt), folder:
        raise KeyboardInterrupt
    assert "SHA256SUMS could not be written: No space left" in caplog.text
    with pytest.raises(InputError, match="first"), folder.failing():
        raise InputError("first")


def test_a_launch_onto_a_full_disk_says_so_and_the_run_goes_on_once_there_is_space(disk, whole, capsys):
    command = ["launch", "--results", str(disk.path), "10_run", "run_id=cut", "tasks=3", "epochs=2"]
    command += ["controller=miro-2023"]
    disk.fill(8192)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "can't be written any more (No space left on device); leave the results folder in place and free" in said
    assert "Traceback" not in said and not list(disk.path.rglob("*.ipynb")), "papermill leaves a torn one"
    disk.free()
    disk.fill(400_000)  # room for a part of what a run writes
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "10_run failed: StorageError: " in said and "could not be written: No space left" in said
    assert "Traceback" not in said and load_runs(disk.path)["status"].tolist() == ["failed"]
    disk.free()
    # the last bits hang on the threads of the kernel in which its first round was trained
    found, known = (run.summary["final_accuracy"] for run in (resumed(disk.path), whole))
    assert found == pytest.approx(known, abs=0.01)


def test_a_card_that_fails_ends_a_run_in_a_sentence_and_it_goes_on_once_it_is_mended(card, whole):
    going = begun(card.path, 4)
    card.fail()
    with pytest.raises(StorageError, match=r"could not be written: Read-only file system\. Free space or make"):
        list(going)
    store = card.path / "10_run" / "cut" / "store"
    assert verify(store, progress=False).sound, "reading needs no writing"
    card.mend()
    assert not litter(card.path)
    assert_same(whole, resumed(card.path))


def test_a_medium_that_comes_back_read_only_refuses_to_resume_and_loses_nothing(disk, whole):
    begun(disk.path, 4).close()
    before = {path: path.read_bytes() for path in disk.path.rglob("*") if path.is_file()}
    disk.remount("ro")
    for go_on in (resumed, lambda results: run_experiment(QUICK, results=results, progress=False)):
        with pytest.raises(StorageError, match="can't be written: Read-only file system. Make it writable"):
            go_on(disk.path)
    assert load_runs(disk.path)["status"].tolist() == ["interrupted"]
    assert verify(disk.path / "10_run" / "cut" / "store", progress=False).sound
    with pytest.raises(StorageError, match="can't be opened: Read-only file system"):
        opened(disk.path / "10_run" / "cut" / "store")
    assert before == {path: path.read_bytes() for path in disk.path.rglob("*") if path.is_file()}
    disk.remount("rw")
    assert_same(whole, resumed(disk.path))
