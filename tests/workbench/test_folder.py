import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from media import full_disk
from samples import make_dataset

from mirolib import InputError, RecordedRun, RunFolder, RunSettings, StorageError, load_runs, run_experiment
from mirolib.base.files import write_atomic
from mirolib.experiment.summary import concerns
from mirolib.workbench.folder import new_run_id
from mirolib.workbench.run import open_run

QUICK = RunSettings(epochs=1, controller="miro-2023")


def test_a_run_leaves_its_tables(tmp_path):
    result = run_experiment(QUICK, results=tmp_path, progress=False)
    tables = [f"{name}.csv" for name in ("energy", "events", "swaps", "tasks", "trials")]
    assert sorted(os.listdir(result.path)) == sorted(["SHA256SUMS", "model.safetensors", "run.json", *tables])
    tasks, energy = pd.read_csv(result.path / "tasks.csv"), pd.read_csv(result.path / "energy.csv")
    assert len(tasks) == 5 and len(energy) == 32 and len(pd.read_csv(result.path / "swaps.csv")) == 5
    assert set(energy["kind"]) <= {"none", "measured-partial"}
    (row,) = load_runs(tmp_path).to_dict("records")
    assert row["status"] == "finished" and row["final_accuracy"] == pytest.approx(tasks["average_accuracy"].iloc[-1])
    assert row["dataset"] == "digits" and row["controller"] == "miro-2023"
    stamp = json.loads((result.path / "run.json").read_text())["environment"]
    assert {"python", "torch", "numpy", "mirolib", "device", "host"} <= set(stamp)
    assert result.tasks["task"].tolist() == list(range(5)) and len(result.energy) == 32


def test_a_data_set_of_ones_own_goes_by_its_own_name(tmp_path):
    result = run_experiment(QUICK, dataset=make_dataset(), results=tmp_path, progress=False)
    assert result.settings.dataset == "arrays"
    assert json.loads((result.path / "run.json").read_text())["dataset_fingerprint"] == make_dataset().fingerprint


def test_a_run_that_diverges_says_so(tmp_path):
    for lr, diverged in ((0.05, 0), (1e6, 2)):
        settings = RunSettings(epochs=1, tasks=2, controller="fixed", model="small-cnn", lr=lr, energy="none")
        assert run_experiment(settings, results=tmp_path, progress=False).summary["diverged_epochs"] == diverged


def test_a_run_that_learnt_little_says_so(tmp_path, caplog):
    settings = RunSettings(epochs=1, tasks=2, controller="fixed", energy="none", batch_size=512, lr=1e-9)
    done = run_experiment(settings, results=tmp_path, progress=False)
    for sentence in (
        "near chance (10.0%). Likeliest: samples that are not",
        "Task 1 saw 2 training steps: choose more",
    ):
        assert sentence in done.summary["concerns"] and sentence in caplog.text and sentence in repr(done)
    assert load_runs(tmp_path)["concerns"].item() == done.summary["concerns"]
    trials = pd.DataFrame({"chosen": [True], "accuracy": [0.9]})
    (record,) = done.records[-1:]
    assert "where the controller had predicted 90%" in " ".join(concerns([replace(record, trials=trials)]))
    assert "predicted" not in " ".join(concerns([replace(record, trials=trials.assign(accuracy=np.nan))]))


def test_numbers_of_numpy_stay_numbers(tmp_path):
    with RunFolder("10_run", {"size": np.int64(5), "ratio": np.float32(0.5), "no": np.nan}, results=tmp_path):
        pass
    (row,) = load_runs(tmp_path).to_dict("records")
    assert (row["size"], row["ratio"], row["no"]) == (5, 0.5, None)


def test_the_store_can_be_kept(tmp_path):
    assert (run_experiment(QUICK, results=tmp_path, keep_store=True, progress=False).path / "store").is_dir()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (RunSettings(controller="fixed", stream_size=9999), "no task has more than"),
        (RunSettings(device="cuda:99"), "use cpu"),
    ],
)
def test_a_failed_run_says_so_with_its_sentence(tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        run_experiment(settings, results=tmp_path, progress=False)
    (row,) = load_runs(tmp_path).to_dict("records")
    assert row["status"] == "failed" and sentence in row["error"]


def test_an_interrupted_run_keeps_its_rows(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunFolder("10_run", {"seed": 1}, results=tmp_path) as folder:
        folder.write_table("tasks", pd.DataFrame({"task": [0]}))
        raise KeyboardInterrupt
    assert load_runs(tmp_path)["status"].tolist() == ["interrupted"]
    assert (folder.path / "tasks.csv").read_text() == "task\n0\n"


def test_a_killed_run_never_looks_finished(tmp_path):
    code = f"import os, mirolib; mirolib.RunFolder('10_run', {{}}, results={str(tmp_path)!r}); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert load_runs(tmp_path)["status"].tolist() == ["died"]
    (file,) = tmp_path.glob("10_run/*/run.json")
    reused = json.loads(file.read_text())
    reused["environment"]["pid"] = os.getpid()  # its number has gone to another process
    file.write_text(json.dumps(reused))
    folder = RunFolder("10_run", {}, results=tmp_path)
    assert sorted(load_runs(tmp_path)["status"]) == ["died", "running"]
    folder.end("interrupted")


def test_only_one_takes_up_a_run_and_the_other_writes_nothing(tmp_path):
    owner = RunFolder("10_run", {}, results=tmp_path, run_id="mine")
    (owner.path / ".env").write_text("the user's own")
    before = {file: file.read_bytes() for file in owner.path.iterdir()}
    for resume in (True, False):
        with pytest.raises(InputError, match="mine is still running"):
            RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=resume)
    assert {file: file.read_bytes() for file in owner.path.iterdir()} == before
    link = tmp_path / "elsewhere"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert load_runs(link)["status"].tolist() == ["running"], "whatever name its folder goes by"
    owner.end("interrupted")
    RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=True).end("finished")
    assert (owner.path / ".env").exists() and not list(owner.path.glob(".*lock"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another process is needed")
def test_a_forked_process_keeps_no_lock_of_its_parents(tmp_path):
    reading, writing = os.pipe()
    if not (parent := os.fork()):
        _owner = RunFolder("10_run", {}, results=tmp_path, run_id="mine")
        if not os.fork():
            os.close(writing)
            time.sleep(5)  # outlives its parent
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"" and os.waitpid(parent, 0)[1] == 0
    assert load_runs(tmp_path)["status"].tolist() == ["died"]
    RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=True).end("finished")


SOUND = '{"format": 1, "status": "finished", "started": "", "duration_s": 1, "parameters": {}, "summary": {"x": %s}}'


@pytest.mark.parametrize(
    "content",
    [
        "", "not json", "[]", "{}", '{"format": 1}', '{"format": 99}', "\x00", '{"format": 1, "status": "running"}',
        SOUND % '"\\ud800"', SOUND % ("9" * 5000), SOUND % (1 << 63),
    ],
)  # fmt: skip
def test_an_unreadable_run_is_named_and_the_others_load(tmp_path, content, caplog):
    with RunFolder("10_run", {"seed": 1}, results=tmp_path):
        pass
    broken = tmp_path / "10_run" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text(content)
    table = load_runs(tmp_path).set_index("run_id")
    assert len(table) == 2 and table.loc["broken", "status"] == "unreadable" and table.loc["broken", "error"]
    assert load_runs(tmp_path / "nowhere").empty


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "a" * 200, "a b", "/root", 5])
def test_names_can_not_leave_the_results(tmp_path, name):
    with pytest.raises(InputError, match="can't name a run"):
        RunFolder(name, {}, results=tmp_path)
    if name:
        with pytest.raises(InputError, match="can't name a run"):
            RunFolder("10_run", {}, results=tmp_path, run_id=name)


def test_a_results_folder_whose_name_is_no_text(tmp_path):
    for name in ("caf\udce9", "line\nbreak"):
        with pytest.raises(InputError, match=r"The results folder's name, '.*\\.*', is no printable text; rename it"):
            load_runs(tmp_path / name)


def test_a_run_s_end_is_told_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder("10_run", {}, results=tmp_path, run_id="mine")
    folder.set_summary({"x": 1})
    replaced = iter([os.replace, Mock(side_effect=MemoryError)])  # checksums are there, `finished` is not
    monkeypatch.setattr(os, "replace", lambda *names: next(replaced)(*names))
    with pytest.raises(MemoryError):
        folder.end("finished")
    monkeypatch.undo()
    assert (folder.path / "SHA256SUMS").exists() and load_runs(tmp_path)["status"].tolist() == ["died"]
    RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=True).end("finished")
    assert load_runs(tmp_path)["status"].tolist() == ["finished"]


def test_only_the_library_s_own_files_are_touched(tmp_path):
    theirs = [".ipynb_checkpoints/notebook.ipynb", ".gitignore", "notes.csv", "store/README", "checkpoint/mine.pt"]
    arguments = {"results": tmp_path, "run_id": "mine", "progress": False}
    with pytest.raises(InputError):
        run_experiment(replace(QUICK, controller="fixed", stream_size=9999), **arguments)
    run = tmp_path / "10_run" / "mine"
    for name in theirs:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("the user's")
    (run / ".miro-abcdefgh").write_text("half a table")
    with pytest.raises(InputError):  # other parameters: nothing changes
        run_experiment(QUICK, **arguments, resume=True)
    for name in theirs:
        assert (run / name).read_text() == "the user's"
    left = RecordedRun(QUICK, results=tmp_path, run_id="whole", checkpoint_minutes=0)
    for _ in left.steps(progress=False):
        for name in theirs:
            (left.folder.path / name).parent.mkdir(exist_ok=True)
            (left.folder.path / name).write_text("the user's")
    assert {str(file.relative_to(left.folder.path)) for file in left.folder.path.rglob("*")} >= set(theirs)
    assert not (left.folder.path / "store" / "data.bin").exists()
    assert [file.name for file in (left.folder.path / "checkpoint").iterdir()] == ["mine.pt"]
    (left.folder.path / "notes.csv").write_text("changed")
    assert load_runs(tmp_path).set_index("run_id").loc["whole", "status"] == "finished"


def test_a_run_is_not_overwritten(tmp_path):
    RunFolder("10_run", {}, results=tmp_path, run_id="mine")
    with pytest.raises(InputError, match="exists already"):
        RunFolder("10_run", {}, results=tmp_path, run_id="mine")
    assert new_run_id() != new_run_id()


def test_a_results_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        RunFolder("10_run", {}, results=tmp_path / "file")


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half a character: \ud800")
    with pytest.raises(StorageError, match=r"table.csv could not be written: No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def rows(start, stop, **more):
    return pd.DataFrame([{"task": k, "value": k / 3, **more} for k in range(start, stop)])


def test_tables_grow_by_their_new_rows_alone(tmp_path):
    with RunFolder("10_run", {}, results=tmp_path) as folder:
        sizes = []
        for k in range(40):
            before = folder.writes.read(0).result_bytes
            folder.append_rows("tasks", rows(k, k + 1))
            sizes.append(folder.writes.read(0).result_bytes - before)
    assert max(sizes[1:]) < 30, "a row each, however many there are"
    pd.testing.assert_frame_equal(pd.read_csv(folder.path / "tasks.csv"), rows(0, 40))


def test_a_table_gets_another_header_where_rows_bring_one(tmp_path):
    with RunFolder("10_run", {}, results=tmp_path) as folder:
        folder.append_rows("trials", rows(0, 2))
        folder.append_rows("trials", rows(2, 3, unit="visits"))
    table = pd.read_csv(folder.path / "trials.csv")
    assert table["value"].tolist() == [0, 1 / 3, 2 / 3] and table["unit"].tolist()[2] == "visits"


def test_a_full_disk_leaves_a_table_as_it_was(tmp_path, monkeypatch):
    folder = RunFolder("10_run", {}, results=tmp_path)
    folder.append_rows("tasks", rows(0, 1))
    before = (folder.path / "tasks.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(StorageError, match=r"tasks.csv could not be written: .* Free space"):
            folder.append_rows("tasks", rows(1, 2))
    assert (folder.path / "tasks.csv").read_bytes() == before
    folder.append_rows("tasks", rows(1, 2))
    assert len(pd.read_csv(folder.path / "tasks.csv")) == 2


def test_half_a_row_of_a_run_under_way_is_no_row(tmp_path):
    folder = RunFolder("10_run", {}, results=tmp_path)
    columns = ("task", "stream_size", "episodic_size", "swap_ratio", "memory_bytes", "average_accuracy", "classes")
    folder.append_rows("tasks", pd.DataFrame([dict.fromkeys(columns, 1)] * 2))
    with (folder.path / "tasks.csv").open("a") as file:
        file.write("1,1,")
    assert len(open_run(folder.path).tasks) == 2
    folder.end("failed", "stopped")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_or_a_file_of_holes_is_named_and_the_others_are_listed(tmp_path):
    for name in ("pipe", "holes", "sound", "sums"):
        with RunFolder("10_run", {}, results=tmp_path, run_id=name) as folder:
            folder.set_summary({"final_accuracy": 0.5})
    runs = tmp_path / "10_run"
    for file in (runs / "pipe" / "run.json", runs / "sums" / "SHA256SUMS"):
        file.unlink()
        os.mkfifo(file)
    os.truncate(runs / "holes" / "run.json", 1 << 40)
    listed = load_runs(tmp_path).set_index("run_id")
    assert listed["status"].to_dict() == {"sound": "finished"} | dict.fromkeys(("pipe", "holes", "sums"), "unreadable")
    assert listed.loc["pipe", "error"].endswith("run.json is no file of at most 64 MiB")


@pytest.mark.parametrize(
    "change",
    [
        {"environment": None}, {"asked": 3}, {"parameters": []}, {"duration_s": "long"}, {"writes": {}}, {"resumed": 0},
        {"status": ["running"]}, {"started": 0}, {"summary": 0},
    ],
)  # fmt: skip
def test_a_run_json_that_lacks_what_it_takes_is_a_sentence_at_resume(tmp_path, change):
    RunFolder("10_run", {}, results=tmp_path, run_id="mine").end("interrupted")
    file = tmp_path / "10_run" / "mine" / "run.json"
    (file.parent / "SHA256SUMS").unlink()
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = file.read_bytes()
    with pytest.raises(InputError, match="can't be resumed: its run.json is unreadable"):
        RunFolder("10_run", {}, results=tmp_path, run_id="mine", resume=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "time_s,rail\n1,2\n", "time_s,rail,power_w\nx,a,1\n", "\0"])
def test_an_odd_power_trace_is_left_out_with_a_word(tmp_path, text, caplog):
    with RunFolder("10_run", {}, results=tmp_path, run_id="mine"):
        pass
    path = tmp_path / "10_run" / "mine"
    (path / "SHA256SUMS").unlink()
    (path / "trace.csv").write_text(text)
    assert open_run(path).trace.empty and "trace.csv can't be read" in caplog.text
