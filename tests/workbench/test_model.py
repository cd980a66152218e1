import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from media import full_disk
from runs import QUICK
from samples import make_dataset
from torch import nn

from mirolib import (
    Dataset,
    ExperienceReplay,
    InputError,
    RecordedRun,
    RunSettings,
    StorageError,
    load_dataset,
    load_model,
    load_runs,
    open_run,
    run_experiment,
)
from mirolib.__main__ import main
from mirolib.learning.methods import METHODS

FIXED = replace(QUICK, controller="fixed", energy="none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_experiment(replace(FIXED, epochs=4), results=tmp_path_factory.mktemp("results"), progress=False)


def test_a_finished_run_keeps_what_it_has_learnt(run):
    test, names = load_dataset("digits").test, np.array(load_dataset("digits").class_names)
    own = names[run.learner.predict(test.data)]
    for model in (
        run.model,
        open_run(run.path).model,
        load_model(run.path),
        load_model(run.path / "model.safetensors"),
    ):
        assert model.predict(test.data).tolist() == own.tolist()
    assert (own == names[test.labels]).mean() == pytest.approx(run.summary["final_accuracy"], abs=0.02)
    assert run.summary["final_accuracy"] > 0.5
    with pytest.raises(InputError, match=r"was read from disk; what it learnt, to predict with, is run\.model\."):
        _ = open_run(run.path).learner


@pytest.mark.parametrize("settings", [
    replace(FIXED, method="bic"), replace(FIXED, model="mlp-bn"), replace(QUICK, memory="single-level"),
])  # fmt: skip
def test_of_other_methods_and_models_too(tmp_path, settings):
    done = run_experiment(settings, results=tmp_path, progress=False)
    data = load_dataset("digits")
    assert done.model.predict(data.test.data).tolist() == [
        data.class_names[label] for label in done.learner.predict(data.test.data)
    ]
    assert (settings.method == "bic") == (done.learner.method.classifier(done.learner.head) is not done.learner.head)


def test_the_file_is_counted_and_vouched_for_and_may_be_deleted(tmp_path, run):
    where = tmp_path / "10_run" / run.path.name
    shutil.copytree(run.path, where)
    file = where / "model.safetensors"
    said = json.loads((where / "run.json").read_text())
    assert said["writes"][0]["result_bytes"] > file.stat().st_size
    assert "  model.safetensors\n" in (where / "SHA256SUMS").read_text()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for path in (where, file):
        with pytest.raises(InputError, match="model.safetensors is not what SHA256SUMS says"):
            load_model(path)
    file.unlink()
    assert load_runs(tmp_path)["status"].tolist() == ["finished"]
    with pytest.raises(InputError, match="a run has its model once it has finished, unless it was deleted"):
        _ = open_run(where).model


def test_a_file_that_was_taken_elsewhere_is_read(tmp_path, run):
    other = tmp_path / "mine.safetensors"
    shutil.copy(run.path / "model.safetensors", other)
    (tmp_path / "SHA256SUMS").write_text("of something else")
    assert load_model(other).class_names == run.model.class_names
    other.write_bytes(b"")
    with pytest.raises(InputError, match="no model that can be used"):
        load_model(other)


def test_a_run_that_was_stopped_has_none_and_has_one_once_it_is_resumed(tmp_path):
    recorded = RecordedRun(FIXED, results=tmp_path, run_id="cut", checkpoint_minutes=0)
    steps = recorded.steps(progress=False)
    for _ in range(4):
        next(steps)
    steps.close()
    assert not (recorded.folder.path / "model.safetensors").exists()
    (recorded.folder.path / "model.safetensors").write_bytes(b"of a process that was killed")
    recorded = RecordedRun(FIXED, results=tmp_path, run_id="cut", resume=True)
    steps = recorded.steps(progress=False)
    next(steps)
    steps.close()
    assert not (recorded.folder.path / "model.safetensors").exists()
    again = run_experiment(FIXED, results=tmp_path, run_id="cut", resume=True, progress=False)
    whole = run_experiment(FIXED, results=tmp_path, run_id="whole", progress=False)
    files = [(one.path / "model.safetensors").read_bytes() for one in (again, whole)]
    assert files[0] == files[1]


def test_a_full_disk_at_the_model_is_told_and_the_run_goes_on_from_there(tmp_path, monkeypatch):
    recorded = RecordedRun(FIXED, results=tmp_path, run_id="cut")
    steps = recorded.steps(progress=False)
    for _ in range(9):
        next(steps)
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr("os.fsync", full_disk)
        next(steps)
    assert run_experiment(FIXED, results=tmp_path, run_id="cut", resume=True, progress=False).model


def test_a_classifier_that_no_file_holds_is_warned_of(tmp_path, monkeypatch, caplog):
    class Nearest(ExperienceReplay):
        def classifier(self, head):
            return nn.Sequential(head, nn.Softmax(1))

    monkeypatch.setitem(METHODS, "nearest", lambda loss: Nearest())
    settings = RunSettings(tasks=2, epochs=1, method="nearest", controller="fixed", energy="none")
    with caplog.at_level(logging.WARNING):
        done = run_experiment(settings, dataset=make_dataset(), results=tmp_path, progress=False)
    assert load_runs(tmp_path)["status"].tolist() == ["finished"] and not list(done.path.glob("*.safetensors"))
    assert "keeps no model.safetensors: A model's file holds linear classifiers" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's exporter and the packages it takes
def test_export_writes_onnx_of_a_run_by_its_id_or_folder(tmp_path, run, capsys):
    import onnxruntime

    results, to = run.path.parents[1], tmp_path / "digits.onnx"
    assert main(["export", run.path.name, "--results", str(results), "--to", str(to)]) == 0
    assert main(["export", str(run.path)]) == 0
    assert capsys.readouterr().out.split() == [str(to), str(run.path / "model.onnx")]
    test = load_dataset("digits").test.data
    for file in (to, run.path / "model.onnx"):
        scores = onnxruntime.InferenceSession(file).run(None, {"samples": test})[0]
        np.testing.assert_allclose(scores, run.model.scores(test), atol=1e-4)
    (run.path / "model.onnx").unlink()
    assert main(["export", "nonsense", "--results", str(results)]) == 1
    assert "0 runs are called 'nonsense'" in capsys.readouterr().err


# --- classes of which there is no validation sample


def uneven(counts):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts)
    test = np.repeat(np.arange(len(counts)), 3)
    samples, tests = (rng.random((len(y), 9)) + y[:, None] for y in (labels, test))
    return Dataset.from_arrays(samples, labels, tests, test)


COUNTS = [(30, 30, 30, 1), (1, 1, 30, 30), (1, 1, 1, 1)]
SMALL = RunSettings(epochs=2, energy="none", controller="fixed")


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("tasks", [2, 4])
def test_bic_runs_on_and_says_where_it_corrects_nothing(tmp_path, caplog, counts, tasks):
    told = False
    for seed in range(3):
        settings = replace(SMALL, method="bic", tasks=tasks, seed=seed)
        done = run_experiment(settings, dataset=uneven(counts), results=tmp_path, progress=False)
        layers, order = done.learner.method.layers, np.array(counts)[list(done.learner.dataset_labels)]
        assert len(layers) == tasks - 1
        for layer in layers:
            blind = max(order[layer.first : layer.last]) == 1 or max(order[: layer.first]) == 1
            assert ((layer.alpha, layer.beta) == (1.0, 0.0)) == blind
            told |= blind
    assert told == ("have none: it stays the identity there" in caplog.text) and (told or tasks == 2)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("profiler", ["probe", "trial"])
def test_miro_runs_on_and_says_what_its_scores_leave_out(tmp_path, counts, profiler):
    for seed in range(2):
        settings = replace(SMALL, controller="miro-2023", profiler=profiler, tasks=4, seed=seed)
        done = run_experiment(settings, dataset=uneven(counts), results=tmp_path, progress=False)
        assert len(done.records) == 4
        said = done.events[done.events["epoch"] == -1].set_index("task")["reason"]
        assert f"Scores say nothing of classes without a validation sample, {counts.count(1)} so far." in said[3]
        if counts.count(1) == 4:
            assert said.str.contains("nothing can be scored yet, so that candidates are ranked by their share").all()
