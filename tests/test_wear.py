import multiprocessing
import os

import pytest

from mirolib import InputError, StorageError
from mirolib.__main__ import main
from mirolib.atomic import write_atomic
from mirolib.wear import WriteMeter, Writes, charge, describe, ledger_path, wear


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRO_STATE", str(tmp_path / "state"))


def test_what_a_run_writes_is_counted_and_booked_once(tmp_path):
    meter = WriteMeter(tmp_path)
    meter.add(result_bytes=write_atomic(tmp_path / "a.csv", "äb"))
    meter.add(checkpoint_bytes=write_atomic(tmp_path / "b", b"12345"))
    written = meter.read(store_bytes=1000)
    assert (written.result_bytes, written.checkpoint_bytes, written.payload_bytes) == (3, 5, 1008)
    for _ in range(2):
        meter.charge("card", Writes(store_bytes=700))
    meter.charge("card", Writes(store_bytes=700, process_bytes=900))
    meter.charge("", Writes(store_bytes=10**9))
    (row,) = wear().to_dict("records")
    assert (row["medium"], row["written_bytes"], row["runs"], row["cycles"]) == ("card", 900, 1, 1000)
    about = os.statvfs(tmp_path)
    assert row["capacity_bytes"] == about.f_frsize * about.f_blocks
    assert row["worn"] == pytest.approx(900 / (row["capacity_bytes"] * 1000))


def test_amplification_is_what_the_process_sent_by_payload():
    assert Writes(store_bytes=100, result_bytes=100, process_bytes=500).row()["amplification"] == 2.5
    assert Writes(store_bytes=100).row()["amplification"] != Writes(store_bytes=100).row()["amplification"]  # unknown


def test_a_medium_is_described_on_the_command_line(capsys):
    charge("card", 64 * 10**9, 10**9)
    assert main(["wear", "card", "--capacity", "64 GB", "--cycles", "3000"]) == 0
    (row,) = wear().to_dict("records")
    assert row["worn"] == pytest.approx(1 / 3000) and "card" in capsys.readouterr().out
    with pytest.raises(InputError, match="cycles of card is 0"):
        describe("card", None, 0)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "media": {}}', '{"format": 1, "media": {"a": {}}}'])
def test_a_damaged_ledger_is_refused_and_ends_no_run(tmp_path, text, caplog):
    ledger_path().parent.mkdir(parents=True)
    ledger_path().write_text(text)
    with pytest.raises(StorageError, match="unreadable .*repair or delete it"):
        wear()
    WriteMeter(tmp_path).charge("card", Writes(store_bytes=5))
    assert "not booked" in caplog.text and ledger_path().read_text() == text


def add_often() -> None:
    for _ in range(20):
        charge("card", 1, 1)


def test_processes_side_by_side_lose_nothing():
    processes = [multiprocessing.get_context("fork").Process(target=add_often) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert wear()["written_bytes"].tolist() == [60]
