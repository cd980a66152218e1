import json
import logging
import shutil
import time
from dataclasses import asdict, replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from media import full_disk
from runs import QUICK, assert_same
from samples import make_dataset

from mirolib import (
    EnergyMeter,
    FixedController,
    InputError,
    Learner,
    MemoryConfig,
    NullSource,
    RecordedRun,
    RunSettings,
    StorageError,
    TaskStream,
    load_runs,
    run,
    run_experiment,
)
from mirolib.base.errors import Interrupted
from mirolib.controller import RandomController
from mirolib.controller.adaptation import SwapGovernor
from mirolib.controller.resources import Resources
from mirolib.experiment.checkpoint import Checkpoints
from mirolib.experiment.loop import Loop
from mirolib.memory.budget import store_budget
from mirolib.memory.store_check import verify
from mirolib.records import EpochRecord
from mirolib.viz import figures as plots
from mirolib.widgets import Dashboard
from mirolib.workbench.folder import RunFolder
from mirolib.workbench.run import open_run

STREAM = TaskStream(make_dataset(classes=6, per_class=20), 3, seed=0)
PRESET = replace(STREAM.dataset.spec.preset(), epochs=3, batch_size=8, schedule="milestones", milestones=(1, 2),
                 gamma=0.5)  # fmt: skip
CONFIG = MemoryConfig(20, 18, 0.5)


def stopped(settings, results, run_id, steps, **options):
    """A run that is stopped after some steps."""
    recorded = RecordedRun(settings, results=results, run_id=run_id, checkpoint_minutes=0, **options)
    going = recorded.steps(progress=False)
    for _ in range(steps):
        next(going)
    going.close()
    return recorded


def resumed(results, settings=QUICK, run_id="cut", **options):
    return run_experiment(settings, results=results, run_id=run_id, resume=True, progress=False, **options)


@pytest.fixture(scope="module", autouse=True)
def patient():
    """No wait is congestion: whether storage keeps up hangs on the load, and runs are compared bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwapGovernor, "step", lambda self, stall_share, stall_s=0.0: "")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run."""
    return run_experiment(QUICK, results=tmp_path_factory.mktemp("whole"), progress=False)


KINDS = {
    "miro-2023": QUICK,
    "budgets": replace(QUICK, memory_budget="0: 300 samples, 3: 150 samples, 5: none"),
    "miro": replace(QUICK, controller="miro"),
    "miro, budgets": replace(QUICK, controller="miro", memory_budget="0: 300 samples, 3: 150 samples, 5: none"),
    "energy budget": replace(QUICK, controller="miro", objective="energy_budget=3000 visits"),
    "tuned": replace(QUICK, controller="tuned"),
    "share": replace(QUICK, controller="share"),
    "store budget": replace(QUICK, store_budget="600 samples"),
    "bic": replace(QUICK, method="bic", loss="ce"),
    "er-ace": replace(QUICK, controller="fixed", method="er-ace"),
    "lwf": replace(QUICK, controller="fixed", method="lwf"),
    "random": replace(QUICK, controller="random"),
    "adamw": replace(QUICK, controller="fixed", optimizer="adamw"),
    "single-level": replace(QUICK, controller="fixed", memory="single-level", stream_size=100, episodic_size=50),
    "task": replace(
        QUICK, controller="fixed", epoch_of="task", stream_size=60, episodic_size=5, swap_ratio=1.0, model="mlp-bn"
    ),
    "fixed": replace(QUICK, controller="fixed", stream_size=100, episodic_size=50, swap_ratio=0.7, model="mlp"),
}


@pytest.fixture
def never_late(monkeypatch):
    """How long a busy machine waits for its disk is not reproducible, so that controllers are not told."""
    for owner in (Resources, EpochRecord):
        monkeypatch.setattr(owner, "stall_share", property(lambda self: 0.0))


@pytest.mark.usefixtures("never_late")
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, kind):
    whole = run_experiment(KINDS[kind], results=tmp_path, run_id="whole", progress=False)
    first = int((whole.epochs["task"] == 0).sum())
    for steps in (first + 1, first + 3):  # after a task, and after two rounds of the next
        stopped(KINDS[kind], tmp_path, f"cut{steps}", steps)
        again = resumed(tmp_path, KINDS[kind], f"cut{steps}")
        assert_same(whole, again)
        assert list(again.energy["window"]).count("gap") == 1


def test_a_store_under_a_budget_keeps_to_it_in_a_whole_run_and_after_a_resume(tmp_path):
    settings = KINDS["store budget"]
    recorded = stopped(settings, tmp_path, "cut", 5)
    resumed(tmp_path, settings, keep_store=True)
    store = recorded.folder.path / "store"
    kept = verify(store, progress=False)
    budget = store_budget("600 samples", recorded.experiment.stream)
    assert kept.sound and 590 <= kept.classes["records"].sum() <= 600
    counts = kept.classes.set_index("part").loc["train", "records"]
    assert len(counts) == 10 and counts.max() - counts.min() <= 1
    assert 0 <= budget - sum((store / name).stat().st_size for name in ("data.bin", "index.bin")) < 200


def test_a_run_may_be_stopped_again_and_again(tmp_path, whole):
    stopped(QUICK, tmp_path, "cut", 1)
    for _ in range(5):
        stopped(QUICK, tmp_path, "cut", 1, resume=True)
    again = resumed(tmp_path)
    assert_same(whole, again)
    assert len(json.loads((again.path / "run.json").read_text())["resumed"]) == 6


def parts(memory, stream=STREAM, controller=None):
    """What a loop is made of."""
    learner = Learner(stream.dataset.spec, PRESET)
    return stream, learner, memory, controller or FixedController(CONFIG), EnergyMeter(NullSource())


def test_run_resumes_from_a_file_with_momentum_and_schedule(make_memory, tmp_path):
    whole = list(run(*parts(make_memory(STREAM, CONFIG)), progress=False))
    memory = make_memory(STREAM, CONFIG)
    loop = Loop(*parts(memory))
    steps = loop.steps(progress=False)
    for _ in range(6):
        next(steps)
    file = Checkpoints(tmp_path / "checkpoint").save(loop.state())
    steps.close()
    memory.close()
    rest = list(run(*parts(make_memory(STREAM, CONFIG)), progress=False, resume_from=file))
    assert [record.task for record in rest] == [1, 2]
    assert [record.accuracies for record in rest] == [record.accuracies for record in whole[1:]]
    losses = [[epoch.loss for epoch in record.epochs] for record in whole[1:]]
    assert [[epoch.loss for epoch in record.epochs] for record in rest] == losses


def test_exchanges_under_way_are_asked_for_again(make_memory):
    memory = make_memory(STREAM, CONFIG)
    steps = Loop(*parts(memory)).steps(progress=False)
    for _ in range(5):
        next(steps)
    state = memory.state()
    assert state["exchanger"]["under_way"], "the last batches of an epoch have asked for samples"
    steps.close()
    other = make_memory(STREAM, CONFIG)
    for index in range(2):
        other.store(STREAM[index])
    other.restore(state)
    memory.settle()
    other.settle()
    assert other.episodic_memory.array.ids.tolist() == memory.episodic_memory.array.ids.tolist()
    np.testing.assert_array_equal(other.episodic_memory._held, memory.episodic_memory._held)


def test_what_the_store_has_lost_is_written_again(tmp_path, whole):
    recorded = stopped(QUICK, tmp_path, "cut", 4)
    for file in (recorded.folder.path / "store").iterdir():
        file.unlink()
    assert_same(whole, resumed(tmp_path))


@pytest.mark.parametrize("checkpoint", [True, False])
def test_other_parameters_are_refused_and_named(tmp_path, checkpoint):
    recorded = stopped(QUICK, tmp_path, "cut", 3)
    if not checkpoint:
        shutil.rmtree(recorded.folder.path / "checkpoint")
    with pytest.raises(InputError, match=r"other parameters: lr None, now 0.2, seed 0, now 1\. Resume"):
        resumed(tmp_path, replace(QUICK, seed=1, lr=0.2))
    assert load_runs(tmp_path)[["status", "seed", "lr"]].values.tolist() == [["interrupted", 0, 0.05]]
    resumed(tmp_path)


@pytest.mark.parametrize("steps", [0, 5])
def test_a_run_killed_while_it_loads_its_data_goes_on(tmp_path, monkeypatch, whole, steps):
    """Its first process is killed at once (0), or stopped after a task (5), its second is killed in either case."""
    if steps:
        stopped(QUICK, tmp_path, "cut", steps)
    begun = RunFolder("10_run", asdict(QUICK), results=tmp_path, run_id="cut", resume=bool(steps))
    begun._owned.close()  # as the system does for a process that is gone
    assert load_runs(tmp_path)["status"].tolist() == ["died"] and begun.path.exists()
    with pytest.raises(InputError, match="seed 0, now 7"):
        resumed(tmp_path, replace(QUICK, seed=7))
    assert_same(whole, resumed(tmp_path))


def test_other_data_are_refused(tmp_path):
    settings = RunSettings(epochs=1, tasks=2)
    stopped(settings, tmp_path, "cut", 2, dataset=make_dataset())
    with pytest.raises(InputError, match="begun with other data"):
        resumed(tmp_path, settings, dataset=make_dataset(seed=1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda run: run | {"run_id": "other"}, "checkpoint of run cut is that of run other"),
        (lambda run: run | {"parameters": run["parameters"] | {"lr": 0.5}}, "with other parameters: lr 0.5, now "),
        (lambda run: run | {"dataset_fingerprint": "0"}, "is of other data"),
        (lambda run: None, "can't be used"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, sentence):
    checkpoints = Checkpoints(stopped(QUICK, tmp_path, "cut", 1).folder.path / "checkpoint")
    state = checkpoints.latest()
    state["run"] = change(state["run"])
    checkpoints.save(state)
    before = {file.name: file.read_bytes() for file in checkpoints.folder.iterdir()}
    with pytest.raises(InputError, match=sentence):
        resumed(tmp_path)
    assert {file.name: file.read_bytes() for file in checkpoints.folder.iterdir()} == before, "nothing is lost"


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_resumed_run_ends_with_is_what_its_checkpoint_holds(tmp_path, whole, gone):
    """All tasks were done and the end was not told: what lies in its folder by then is not taken for true."""
    folder = stopped(QUICK, tmp_path, "cut", 9).folder.path
    file = folder / "run.json"
    changed = file.read_text().replace('"final_accuracy": 0.', '"final_accuracy": 0.1')
    for name in ("run.json", "tasks.csv", "SHA256SUMS"):
        (folder / name).unlink()
    if not gone:
        file.write_text(changed)
    resumed(tmp_path)
    assert load_runs(tmp_path)["final_accuracy"].tolist() == [whole.summary["final_accuracy"]]
    assert open_run(folder).tasks["average_accuracy"].tolist() == pytest.approx(whole.tasks["average_accuracy"])


def test_a_copy_of_a_stopped_run_is_not_resumed(tmp_path):
    folder = stopped(QUICK, tmp_path, "cut", 1).folder.path
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder.with_name("copy") / "checkpoint")  # which would tell, too
    with pytest.raises(InputError, match=r"copy can't be resumed: it is run 10_run/cut: the folder was copied or"):
        resumed(tmp_path, run_id="copy")


def test_another_number_of_threads_is_told(tmp_path, caplog):
    folder = stopped(QUICK, tmp_path, "cut", 1).folder.path
    run = json.loads((folder / "run.json").read_text())
    run["environment"]["torch_threads"] += 1
    (folder / "SHA256SUMS").unlink()
    (folder / "run.json").write_text(json.dumps(run))
    resumed(tmp_path)
    assert "begun with torch_threads" in caplog.text and "may end with other numbers" in caplog.text


def test_a_checkpoint_of_another_stream_or_controller_is_refused(make_memory):
    state = Loop(*parts(make_memory(STREAM, CONFIG))).state()
    other = TaskStream(STREAM.dataset, 3, seed=1)
    with pytest.raises(InputError, match="another class order"):
        Loop(*parts(make_memory(other, CONFIG), other)).restore(state)
    with pytest.raises(InputError, match="another controller: 'FixedController', not 'RandomController'"):
        Loop(*parts(make_memory(STREAM, CONFIG), controller=RandomController())).restore(state)


def test_a_run_that_lives_or_has_finished_is_not_resumed(tmp_path):
    recorded = RecordedRun(QUICK, results=tmp_path, run_id="mine")
    with pytest.raises(InputError, match="mine is still running"):
        resumed(tmp_path, run_id="mine")
    recorded.experiment.memory.close()
    recorded.folder.end("interrupted")
    done = resumed(tmp_path, run_id="mine")
    assert not (done.path / "store").exists() and not (done.path / "checkpoint").exists()
    again = resumed(tmp_path, run_id="mine")
    pd.testing.assert_frame_equal(again.tasks, open_run(done.path).tasks)
    with pytest.raises(InputError, match="begun with other parameters: seed 0, now 3"):
        resumed(tmp_path, replace(QUICK, seed=3), run_id="mine")
    with pytest.raises(InputError, match="Name it by run_id"):
        resumed(tmp_path, run_id="")


def test_a_full_disk_ends_a_run_that_goes_on_once_there_is_space(tmp_path, monkeypatch, whole):
    going = RecordedRun(QUICK, results=tmp_path, run_id="cut", checkpoint_minutes=0).steps(progress=False)
    for _ in range(4):
        next(going)
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr("os.fsync", full_disk)
        next(going)
    assert_same(whole, resumed(tmp_path))


def test_the_ledger_keeps_both_parts_and_the_gap(tmp_path, monkeypatch):
    recorded = stopped(QUICK, tmp_path, "cut", 3)
    before = len(recorded.result.energy)
    wall = time.time
    monkeypatch.setattr("time.time", lambda: wall() + 3600)
    again = resumed(tmp_path)
    energy = again.energy
    gap = energy.index[energy["window"] == "gap"][0]
    assert before - 2 <= gap <= before and 3590 < energy["duration_s"][gap] < 3700
    assert (energy["start_s"].diff().dropna() >= -1e-6).all(), "one line of time"
    assert np.isnan(energy["energy_j"][gap]) and again.summary["learning_work"] > 0


def test_a_clock_that_was_set_back_makes_no_negative_gap(tmp_path, monkeypatch):
    stopped(QUICK, tmp_path, "cut", 3)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert (resumed(tmp_path).energy["duration_s"] >= 0).all()


def test_another_version_of_a_package_is_named(tmp_path, caplog):
    recorded = stopped(QUICK, tmp_path, "cut", 3)
    file = recorded.folder.path / "run.json"
    run_ = json.loads(file.read_text())
    run_["environment"]["torch"] = "0.1"
    file.write_text(json.dumps(run_))
    (file.parent / "SHA256SUMS").unlink()
    with caplog.at_level(logging.WARNING):
        resumed(tmp_path)
    assert "begun with torch 0.1" in caplog.text


def test_an_interrupt_in_the_first_task_is_a_sentence_and_the_run_goes_on(tmp_path, monkeypatch, whole):
    train, rounds = Loop._train, iter(range(100))
    monkeypatch.setattr(Loop, "_train", lambda *given: train(*given) if next(rounds) < 1 else interrupt())
    interrupt = Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(
        Interrupted, match=r"was stopped by the user; what its 0 finished tasks .*run_id='cut'"
    ) as error:
        run_experiment(QUICK, results=tmp_path, run_id="cut", progress=False)
    assert error.value._render_traceback_() == [f"Interrupted: {error.value}"]
    (row,) = load_runs(tmp_path).to_dict("records")
    assert (row["status"], row["error"]) == ("interrupted", "stopped by the user")
    assert Checkpoints(tmp_path / "10_run" / "cut" / "checkpoint").files(), "the first round is kept"
    monkeypatch.undo()
    assert_same(run_experiment(QUICK, results=tmp_path, run_id="cut", resume=True, progress=False), whole)


def test_what_is_mistaken_for_settings_or_a_run_is_a_sentence(tmp_path):
    for wrong in (lambda: run_experiment("digits", results=tmp_path), lambda: Dashboard("photos")):
        with pytest.raises(InputError, match=r"is no RunSettings; write RunSettings\('"):
            wrong()
    with pytest.raises(InputError, match="0 runs are called 'typo'"):
        open_run("typo")
    done = run_experiment(replace(QUICK, controller="fixed"), results=tmp_path, run_id="mine", progress=False)
    assert max(map(len, repr(open_run(done.path)).splitlines())) < 200
    assert "compared no candidates" in plots.trials(done.trials).layout.title.text
    assert len(plots.accuracy_by_task(done).data) == 1
