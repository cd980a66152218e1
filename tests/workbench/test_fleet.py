import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster
from kernels import kernels, once

from mirolib import InputError, RunError, RunFolder, StorageError, load_sweep, sweep
from mirolib.workbench import fleet

pytestmark = pytest.mark.filterwarnings("ignore")  # dask's own, of sockets that it closes late
SMALL = {"tasks": 2, "epochs": 1, "controller": "fixed", "energy": "none"}


@pytest.fixture(scope="module")
def client():
    """A cluster of one worker in this process, so that its parts can be replaced; its threads take turns."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def finished(notebook, *, progress, run_id, results, **parameters):
    assert fleet._one_at_a_time.locked()
    with RunFolder(notebook, parameters, results=results, run_id=run_id) as folder:
        folder.set_summary({"final_accuracy": 0.5})


def broken(notebook, *, progress, run_id, results, **parameters):
    if parameters["seed"] == 0:
        raise StorageError("the board's card is full")
    RunFolder(notebook, parameters, results=results, run_id=run_id).end("failed", "it broke")
    raise RunError("it broke")


def test_results_come_back_as_files(client, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "launch", finished)
    done = sweep("10_run", seeds=3, parameters=SMALL, name="mine", results=tmp_path, client=client)
    assert done.runs["status"].tolist() == ["finished"] * 3 and done.runs["final_accuracy"].eq(0.5).all()
    monkeypatch.setattr(fleet, "launch", broken)  # nothing is run a second time
    assert sweep("10_run", seeds=3, parameters=SMALL, name="mine", results=tmp_path, client=client).failed.empty
    assert not list(tmp_path.rglob(".miro-*"))


def test_what_fails_there_is_told_here(client, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "launch", broken)
    done = sweep("10_run", seeds=2, parameters=SMALL, name="mine", results=tmp_path, client=client)
    assert done.runs["status"].tolist() == ["failed", "failed"]
    assert done.runs["error"].tolist() == ["StorageError: the board's card is full", "it broke"]


def test_a_run_whose_kernel_died_there_has_died_here(tmp_path, monkeypatch):
    def dying(notebook, *, progress, run_id, results, **parameters):
        folder = RunFolder(notebook, parameters, results=results, run_id=run_id)
        folder._owned.close()  # as the system does
        raise RunError("its kernel died")

    monkeypatch.setattr(fleet, "launch", dying)
    files = fleet.run_on_worker("10_run", "mine-1", SMALL, fleet.versions("10_run"))
    assert json.loads(files["run.json"])["status"] == "died"


@pytest.mark.parametrize("what", ["mirolib", "torch", "python", "notebook 10_run"])
def test_another_version_is_refused_by_name(client, tmp_path, monkeypatch, what):
    true = fleet.versions
    versions = [true("10_run"), true("10_run") | {what: "another"}]
    monkeypatch.setattr(fleet, "versions", lambda notebook: versions.pop() if versions else true(notebook))
    with pytest.raises(InputError, match=rf"has {what} .*another.*; install the same on both"):
        sweep("10_run", parameters=SMALL, name="mine", results=tmp_path, client=client)
    with pytest.raises(InputError, match="has torch"):  # a worker that came later looks for itself
        fleet.run_on_worker("10_run", "mine-1", SMALL, true("10_run") | {"torch": "0.1"})
    assert load_sweep("mine", tmp_path).runs["status"].tolist() == ["not started"]


def test_one_worker_on_a_machine_with_a_sensor(client, tmp_path, monkeypatch):
    told = {"versions": fleet.versions("10_run"), "host": "board", "reads": ["jetson"]}
    monkeypatch.setattr(client, "run", lambda *_: {"tcp://1": told, "tcp://2": told})
    with pytest.raises(InputError, match=r"2 workers on board would each count the other's joules \(jetson\)"):
        sweep("10_run", parameters=SMALL, name="mine", results=tmp_path, client=client)


def test_no_worker_and_no_scheduler(client, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "run", lambda *_: {})
    with pytest.raises(InputError, match="has no workers; start one on each device"):
        sweep("10_run", parameters=SMALL, name="mine", results=tmp_path, client=client)
    with pytest.raises(InputError, match="No scheduler answers at nonsense://"), fleet.connection("nonsense://"):
        pass


def test_a_folder_that_can_not_be_written_leaves_nothing(tmp_path):
    (tmp_path / "10_run").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        fleet.write_run({"run.json": b"{}"}, tmp_path / "10_run" / "mine-1")
    assert [path.name for path in tmp_path.iterdir()] == ["10_run"]


def test_a_run_whose_worker_is_killed_finishes_on_another(tmp_path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        workers = list(client.run(os.getpid).values())
        training = lambda: [pid for pid in workers if kernels(pid)]  # noqa: E731
        killer = once(training, lambda: os.kill(training()[0], 9))
        done = sweep("10_run", parameters=SMALL, name="mine", results=tmp_path, client=client)
        killer.join(timeout=5)
        assert not killer.is_alive() and set(client.run(os.getpid).values()) != set(workers)
    assert done.runs["status"].tolist() == ["finished"]
    assert (tmp_path / "10_run" / done.runs["run_id"][0] / "notebook.ipynb").exists()


DOCS = Path(__file__).parents[2] / "docs" / "sweeps.md"


@pytest.fixture
def cluster():
    """A scheduler and a worker as docs/sweeps.md starts them, on ports of their own."""
    lines = DOCS.read_text().replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line.startswith(("dask scheduler --host", "dask worker tcp:"))]
    started = []
    try:
        for command in commands:
            for port in ("8786", "8787", "8801", "8901"):
                command = command.replace(port, f"1{port}")
            words = [str(Path(sys.executable).with_name("dask")), *shlex.split(command)[1:]]
            started.append(psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield started
    finally:
        for one in started:
            for child in one.children(recursive=True):
                child.kill()
            one.kill()
            one.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="sockets of other processes are looked at")
def test_the_documented_cluster_is_reached_from_this_machine_alone_and_its_scheduler_s_end_is_told(cluster, tmp_path):
    scheduler, worker = cluster
    with Client("tcp://127.0.0.1:18786", timeout=60) as client:
        client.wait_for_workers(1, timeout=60)
        processes = [scheduler, worker, *worker.children(recursive=True)]
        heard = [
            one.laddr for process in processes for one in process.net_connections("inet") if one.status == "LISTEN"
        ]
        assert len(heard) >= 5 and {address.ip for address in heard} == {"127.0.0.1"}
        killer = once(lambda: kernels(worker.pid), scheduler.kill)
        with pytest.raises(RunError, match="The scheduler is gone; start it and its workers, then run the sweep again"):
            sweep("10_run", parameters=SMALL | {"epochs": 4000}, name="mine", results=tmp_path, client=client)
    killer.join(timeout=5)
    deadline = time.monotonic() + 25  # by itself, dask would wait for half a minute
    while kernels(worker.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not kernels(worker.pid)
