import json
import multiprocessing
import os

import pytest

from mirolib import InputError, RunSettings, StorageError
from mirolib.__main__ import main
from mirolib.base.files import write_atomic
from mirolib.memory.wear import WriteMeter, Writes, charge, describe, forget, ledger_path, wear


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


def test_a_capacity_nobody_told_is_that_of_the_file_system():
    describe("card", None, 3000)
    (row,) = wear().to_dict("records")
    assert row["cycles"] == 3000 and row["capacity_bytes"] is None and row["worn"] != row["worn"]
    charge("card", 6000, 10)
    charge("card", 0, 20)
    (row,) = wear().to_dict("records")
    assert (row["capacity_bytes"], row["worn"]) == (10, 6000 / (10 * 3000))


def test_naming_a_medium_shows_it_and_makes_none(capsys):
    assert main(["wear", "card"]) == 1 and not ledger_path().exists()
    assert "no medium 'card' (it has: none); name one" in capsys.readouterr().err
    charge("card", 5, 10)
    charge("other", 5, 10)
    assert main(["wear", "card"]) == 0 and "other" not in capsys.readouterr().out
    assert main(["wear", "card", "--forget"]) == 0 and "card" not in capsys.readouterr().out
    assert wear()["medium"].tolist() == ["other"]
    with pytest.raises(InputError, match=r"no medium 'card' \(it has: other\)"):
        forget("card")


@pytest.mark.parametrize("name", ["", "a\nb", " a", "\x1b[31m", "a" * 129, "\ud800", 5])
def test_what_would_spoil_the_table_is_no_name_for_a_medium(name):
    with pytest.raises(InputError, match="can't name a medium; use up to 128"):
        describe(name, 10, None)
    if name and name != 5:
        with pytest.raises(InputError, match="can't name a medium"):
            RunSettings(medium=name)
    assert not ledger_path().exists() and RunSettings(medium="SD-Karte für Läufe")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--capacity", "1 GB"], "about one medium; name it"),
        (["--forget"], "about one medium; name it"),
        (["card", "--forget", "--cycles", "1"], "described or forgotten"),
        (["card", "--capacity", "none"], "'card'"),
        (["card", "--capacity", "64"], "'64' can't be read; write an amount such as '2 GB'"),
        (["card", "--capacity", "20000 samples"], "'20000 samples' can't be read; write an amount such as '2 GB'"),
        (["card", "--cycles", "9" * 30], "give a number above 0, up to 1,000"),
    ],
)
def test_options_that_say_nothing_of_a_medium_are_refused(options, sentence, capsys):
    assert main(["wear", *options]) == 1 and not ledger_path().exists()
    assert sentence in capsys.readouterr().err


def test_a_ledger_that_can_have_no_folder_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setenv("MIRO_STATE", "/dev/null/x")
    assert main(["wear"]) == 0 and "nothing booked yet" in capsys.readouterr().out
    assert main(["wear", "card", "--cycles", "3000"]) == 1
    assert "/dev/null/x/wear.json can't be written: Not a directory; make" in capsys.readouterr().err


OUT_OF_RANGE = json.dumps(
    {"format": 1, "media": {"a": {"capacity_bytes": 1, "cycles": 10**400, "written_bytes": 0, "runs": 0}}}
)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2, "media": {}}', '{"format": 1, "media": {"a": {}}}', OUT_OF_RANGE, "[" * 99999]
)
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
