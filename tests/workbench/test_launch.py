import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from kernels import kernels, kill, once, trained

from mirolib import InputError, RecordedRun, RunFolder, RunSettings, StorageError, launch, load_runs
from mirolib.__main__ import main
from mirolib.base.errors import RunError
from mirolib.workbench.launch import NOTEBOOKS, check_parameters


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"seed": "3", "swap_ratio": "0.5", "dataset": "digits"}, {"seed": 3, "swap_ratio": 0.5, "dataset": "digits"}),
        ({"swap_ratio": 1, "epochs": None}, {"swap_ratio": 1.0, "epochs": None}),
        ({"model": "None", "run_id": "None"}, {"model": None, "run_id": "None"}),
        ({"epochs": "None", "keep_store": "true"}, {"epochs": None, "keep_store": True}),
        ({"stream_size": "450", "episodic_size": "64MB"}, {"stream_size": 450, "episodic_size": "64MB"}),
        ({"stream_size": 450, "episodic_size": "None"}, {"stream_size": 450, "episodic_size": None}),
        ({"swap_ratio": ".05", "lr": "+0.1"}, {"swap_ratio": 0.05, "lr": 0.1}),
        ({"swap_ratio": "1.", "lr": "1e-3", "run_id": "7."}, {"swap_ratio": 1.0, "lr": 1e-3, "run_id": "7."}),
        ({"seed": np.int64(3), "lr": np.float32(0.5), "results": Path("x")}, {"seed": 3, "lr": 0.5, "results": "x"}),
    ],
)
def test_parameters_get_their_declared_types(given, taken):
    fixed = {"controller": "fixed"}
    assert check_parameters("10_run", fixed | given) == fixed | taken


def test_own_data_are_located_from_here_for_the_kernel(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((4, 2)), y_train=[0, 1, 0, 1])
    monkeypatch.chdir(tmp_path)
    place = f"{tmp_path}/mine.npz"
    assert check_parameters("10_run", {"dataset": "mine.npz"}) == {"dataset": "mine", "data": place}
    assert check_parameters("10_run", {"dataset": "birds", "data": "mine.npz"}) == {"dataset": "birds", "data": place}
    assert check_parameters("18_sweep", {"dataset": "mine.npz"}) == {"dataset": place}
    assert check_parameters("16_generality", {"datasets": '["digits", "mine.npz"]'}) == {"datasets": ["digits", place]}
    assert check_parameters("19_compare_runs", {"dataset": "mine"}) == {"dataset": "mine"}


def test_lists_from_the_command_line():
    assert check_parameters("13_swap_ratio", {"episodic_sizes": "[10, 20]"}) == {"episodic_sizes": [10, 20]}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sead": 1}, "no parameter 'sead'; it takes dataset, preset"),
        ({"seed": 1.5}, "seed is 1.5; give a value of type int"),
        ({"seed": "1e2"}, "give a value of type int"),
        ({"seed": True}, "give a value of type int"),
        ({"seed": None}, "give a value of type int"),
        ({"seed": "[" * 100_000}, r"seed is '\[{199}; give a value of type int"),
        ({"run_id": 5}, "run_id is 5; give a value of type str"),
        ({"dataset": 3}, "give a value of type str"),
        ({"swap_ratio": "lots"}, r"give a value of type Optional\[float\]"),
        ({"swap_ratio": float("nan")}, "give a value of type Optional"),
        ({"keep_store": "yes"}, "give a value of type bool"),
        ({"stream_size": 4.5}, r"give a value of type Union\[int, str, None\]"),
    ],
)
def test_unknown_or_ill_typed_parameters_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        check_parameters("10_run", given)


def test_unknown_notebooks_are_refused(tmp_path):
    with pytest.raises(InputError, match="no notebook '11_magic'; choose one of 00_quickstart"):
        launch("11_magic", results=str(tmp_path))
    for name in ("../10_run", "notebooks/10_run", None):
        with pytest.raises(InputError, match=f"no notebook {name!r}; choose one of .* without its folder"):
            launch(name, results=str(tmp_path))
    with pytest.raises(InputError, match="no parameter run_id"):
        launch("01_task_streams", results=str(tmp_path))


def test_a_run_is_not_launched_over(tmp_path):
    with RunFolder("10_run", {}, results=tmp_path, run_id="mine"):
        pass
    with pytest.raises(InputError, match="mine exists already"):
        launch("10_run", results=str(tmp_path), run_id="mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        launch("10_run", results=str(tmp_path / "file"))


def test_launching_from_another_folder_leaves_a_run_and_its_notebook(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="mirolib")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    deep = tmp_path / "{deep}" / ("t" * 100)  # a socket's path can't be as long, and papermill fills in braces
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    results = tmp_path / "{seed} {{" / "results"
    done = launch("10_run", results=str(results), progress=False, epochs=1, seed=4)
    assert done.run["status"] == "finished" and done.run["seed"] == 4 and done.run["epochs"] == 1
    assert done.notebook.parent == Path(done.run["path"]) and done.notebook.stat().st_size < 200_000
    assert "widgets" not in json.loads(done.notebook.read_text())["metadata"]
    assert list((tmp_path / "elsewhere").iterdir()) == [] and Path.cwd() == tmp_path / "elsewhere"
    assert len([line for line in caplog.messages if ": task " in line]) == 5
    again = {"results": str(results), "run_id": done.run["run_id"], "resume": True}
    assert launch("10_run", **again, seed=4).run["started"] == done.run["started"]
    with pytest.raises(InputError, match="begun with other parameters: epochs 1, now 2, seed 4, now 99"):
        launch("10_run", **again, epochs=2, seed=99)


def test_an_interrupt_while_a_launch_is_starting_leaves_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("papermill.execute_notebook", Mock(side_effect=KeyboardInterrupt))
    assert main(["launch", "10_run", f"results={tmp_path}", "run_id=mine"]) == 130
    assert "was stopped by the user; what it had done is in" in capsys.readouterr().err
    assert load_runs(tmp_path)["status"].tolist() == ["interrupted"]
    (tmp_path / "10_run" / "mine" / "run.json").unlink()
    with RunFolder("10_run", {}, results=tmp_path, run_id="mine") as folder:  # the kernel has it still
        folder.path.joinpath("run.json").unlink()
        launching = import_module("mirolib.workbench.launch")
        launching._leave("10_run", folder.path / "notebook.ipynb", {"results": tmp_path}, "interrupted", "")


def test_a_kernel_that_does_not_start_is_a_failed_run(tmp_path, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", Mock(side_effect=RuntimeError("Kernel died before replying")))
    with pytest.raises(RunError, match="its kernel did not start .Kernel died"):
        launch("10_run", results=str(tmp_path), progress=False)
    assert load_runs(tmp_path)["status"].tolist() == ["failed"]


def test_too_few_open_files_are_a_sentence_before_anything_is_made(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (127, hard))
    try:
        with pytest.raises(InputError, match="takes 128 open files, and 127 are allowed; raise that with ulimit -n"):
            launch("10_run", results=str(tmp_path / "results"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_failed_launch_says_the_runs_own_sentence(tmp_path, capsys):
    with pytest.raises(RunError, match="InputError: stream_size is 9999 but no task has more than"):
        launch("10_run", results=str(tmp_path), progress=False, controller="fixed", stream_size=9999)
    assert load_runs(tmp_path)["status"].tolist() == ["failed"]
    assert main(["launch", "14_miro_vs_baselines", f"results={tmp_path}", "rules=[]"]) == 1  # before its kernel starts
    assert "rules is []; give" in capsys.readouterr().err and len(load_runs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "magic"}, "method is 'magic'; choose one of"),
        ({"dataset": "mnist"}, "no data set 'mnist'; choose one of digits"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"model": "gpt"}, "model is 'gpt'"),
        ({"energy": "sun"}, "no energy source 'sun'"),
        ({"swap_ratio": 1.5}, "swap_ratio is 1.5; choose a value from 0"),
        ({"tasks": 0}, "tasks is 0; choose a value above 0"),
        ({"cutline": 2.0}, "cutline is 2.0; choose a share from 0 to 1"),
        ({"validation_share": 1.0}, "validation_share is 1.0; choose a share"),
        ({"loss": "mse"}, "mse"),
        ({"device": "banana"}, "device is 'banana'; choose one of auto, cpu"),
        ({"lr": 1e300}, "lr is 1e[+]300; choose at most"),
        ({"energy": "nowhere.csv"}, "There is no file nowhere.csv"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes is -1.0; choose 0"),
        ({"controller": "fixed", "stream_size": 0}, "stream_size is 0; give a whole number"),
        ({"controller": "fixed", "memory": "single-level", "swap_ratio": 0.5}, "single-level memory can't swap"),
    ],
)
def test_values_out_of_range_are_refused_before_a_kernel_starts(tmp_path, given, sentence):
    with pytest.raises(InputError, match=sentence):
        launch("10_run", results=str(tmp_path), **given)
    assert not list(tmp_path.iterdir())


def test_two_launches_side_by_side(tmp_path):
    command = [sys.executable, "-m", "mirolib", "launch", "10_run", "epochs=1", f"results={tmp_path}"]
    both = [subprocess.Popen([*command, f"seed={seed}"], stdout=-3, stderr=-3) for seed in (0, 1)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    assert load_runs(tmp_path)["status"].tolist() == ["finished", "finished"]
    assert not list(NOTEBOOKS.glob("kernel-ipc*"))


def test_a_killed_kernel_is_no_finished_run(tmp_path):
    once(lambda: trained(tmp_path), lambda: kill(kernels()))
    with pytest.raises(RunError, match="10_run failed: its kernel died"):
        launch("10_run", results=str(tmp_path), progress=False, epochs=20)
    (run,) = load_runs(tmp_path).to_dict("records")
    assert run["status"] == "died" and len(pd.read_csv(Path(run["path"]) / "tasks.csv")) >= 1


def test_the_command_line(tmp_path, capsys):
    assert main(["parameters"]) == 0
    assert capsys.readouterr().out == f"{RunSettings.cell()}\n"
    assert main(["runs", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no runs yet\n"
    assert main(["launch", "10_run", "seed"]) == 1
    assert "write name=value" in capsys.readouterr().err
    for twice in (["seed=1", "seed=2"], ["results=1", "--results=2"]):
        assert main(["launch", "10_run", *twice]) == 1
        assert "is given twice, '1' and '2'; keep one of them" in capsys.readouterr().err
    assert main(["launch", "10_run", "progress=no"]) == 1
    assert "no parameter 'progress'" in capsys.readouterr().err
    assert main(["launch", "10_run", "epochs=1", f"results={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "average_accuracy" in out and "notebook.ipynb" in out
    assert main(["runs", "--results", str(tmp_path)]) == 0
    assert "finished" in capsys.readouterr().out


def test_what_a_run_says_of_itself_can_not_move_the_cursor(tmp_path, capsys):
    evil = "\x1b[2J\x9b1m\u202e\r"
    RunFolder("10_run", {"dataset": evil}, results=tmp_path, run_id="a").end("failed", f"{evil}\nmore")
    (tmp_path / "10_run" / "a" / "SHA256SUMS").unlink()
    file = tmp_path / "10_run" / "a" / "run.json"
    file.write_text(file.read_text().replace('"failed"', json.dumps(f"fine\n{evil}")))
    assert main(["runs", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(c.isprintable() for c in out.replace("\n", "")) and out.count("\\x1b[2J\\x9b1m\\u202e") >= 3
    assert len(out.splitlines()) == 3
    assert main(["launch", evil]) == 1 and "\x1b" not in capsys.readouterr().err


def test_papermill_alone_works_too_and_explains_the_parameters(tmp_path):
    notebook = Path(__file__).parents[2] / "notebooks" / "10_run.ipynb"
    papermill = [sys.executable, "-m", "papermill"]
    told = subprocess.run([*papermill, "--help-notebook", str(notebook)], capture_output=True, text=True, check=True)
    assert "swap_ratio: Optional[float]" in told.stdout and "share of replayed samples" in told.stdout
    command = [*papermill, str(notebook), "out.ipynb", "-p", "epochs", "1", "-p", "results", str(tmp_path / "results")]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    (run,) = load_runs(tmp_path / "results").to_dict("records")
    assert run["status"] == "finished"
    assert len(pd.read_csv(Path(run["path"]) / "tasks.csv")) == 5


def test_paths_are_the_caller_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.csv").write_text("time_s,power_w\n" + "".join(f"{k / 1000},3\n" for k in range(60_000)))
    done = launch(
        "10_run", energy="trace.csv", controller="fixed", epochs=1, results=str(tmp_path / "results"), progress=False
    )
    assert done.run["energy_kind"] == "replayed" and done.run["energy"] == str(tmp_path / "trace.csv")
    assert done.run["train_energy_j"] == pytest.approx(3 * done.run["train_s"], rel=1e-6)


def test_a_resumed_launch_need_not_repeat_what_was_asked(tmp_path):
    settings = RunSettings(epochs=2, tasks=2, controller="fixed", energy="none")
    steps = RecordedRun(settings, results=tmp_path, run_id="mine").steps(progress=False)
    next(steps)
    steps.close()
    done = launch("10_run", results=str(tmp_path), run_id="mine", resume=True, progress=False).run
    assert (done["status"], done["epochs"], done["controller"]) == ("finished", 2, "fixed")
    with pytest.raises(InputError, match="epochs 2, now 3"):
        launch("10_run", results=str(tmp_path), run_id="mine", resume=True, progress=False, epochs=3)


@pytest.mark.parametrize(
    ("notebook", "given", "sentence"),
    [
        ("13_swap_ratio", {"episodic_sizes": [0, 5]}, r"episodic_sizes is \[0, 5\]; give a list of 1 or more"),
        ("11_buffer_allocation", {"budgets": [40]}, "budgets is .40.; give a list of 2 or more different values"),
        ("12_best_over_time", {"seeds": 0}, "seeds is 0; give a whole number, 1 or more"),
    ],
)
def test_what_a_study_compares_is_checked_before_a_kernel_starts(tmp_path, notebook, given, sentence):
    with pytest.raises(InputError, match=sentence):
        launch(notebook, results=str(tmp_path), **given)
    assert not list(tmp_path.iterdir())
