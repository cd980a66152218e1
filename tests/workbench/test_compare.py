import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings, strategies as st

from mirolib import (
    InputError,
    RunFolder,
    RunSettings,
    StorageError,
    comparison_plots as plots,
    load_runs,
    run_experiment,
)
from mirolib.__main__ import main
from mirolib.viz.report import write_report
from mirolib.workbench.compare import MixedEnergyWarning, labels, over_seeds, pareto, select, unreadable_runs
from mirolib.workbench.run import open_run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two settings with two seeds, and a run of Miro's."""
    folder = tmp_path_factory.mktemp("results")
    for size in (20, 100):
        for seed in (0, 1):
            fixed = RunSettings(controller="fixed", episodic_size=size, epochs=1, tasks=2, seed=seed, energy="none")
            run_experiment(fixed, results=folder, progress=False, run_id=f"fixed{size}-{seed}")
    run_experiment(RunSettings(epochs=1, tasks=2, energy="none"), results=folder, progress=False, run_id="miro")
    return folder


def rows(*values):
    """Finished runs from (episodic_size, seed, accuracy, joules, kind)."""
    names = ["episodic_size", "seed", "average_incremental_accuracy", "learning_energy_j", "energy_kind"]
    table = pd.DataFrame(values, columns=names).assign(status="finished", dataset="digits", energy_scope="board")
    return table.assign(final_accuracy=table["average_incremental_accuracy"], learning_work=100.0, run_id="r", path="")


def test_runs_are_selected_by_value_whatever_its_type(results):
    runs = load_runs(results)
    assert len(select(runs, {"episodic_size": "20"})) == len(select(runs, {"episodic_size": 20.0, "seed": [0, 1]})) == 2
    assert select(runs, {"controller": "miro"})["run_id"].tolist() == ["miro"]
    assert not len(select(runs, {"dataset": "none"}))
    with pytest.raises(InputError, match="No run has a value 'sead'; choose from"):
        select(runs, {"sead": 1})


def test_seeds_are_averaged_with_their_spread(results):
    runs = load_runs(results)
    table = over_seeds(runs).set_index("setting")
    assert sorted(table["n"]) == [1, 2, 2]
    (name,) = (name for name in table.index if "episodic=20" in name.split(", "))
    ours = runs.loc[runs["run_id"].str.startswith("fixed20"), "final_accuracy"]
    assert table.loc[name, "final_accuracy"] == pytest.approx(ours.mean())
    assert table.loc[name, "final_accuracy_sd"] == pytest.approx(ours.std(ddof=1))
    assert np.isnan(table.loc[table["n"] == 1, "final_accuracy_sd"]).all() and set(table["cost_kind"]) == {"work"}
    assert len(over_seeds(runs, ["method"])) == 1 and over_seeds(runs, [])["setting"].tolist() == ["all"]
    with pytest.raises(InputError, match="No run has a value 'magic'"):
        over_seeds(runs, ["magic"])
    assert not len(over_seeds(runs[runs["status"] == "failed"]))


POINTS = st.lists(st.tuples(st.integers(0, 5) | st.just(np.nan), st.integers(0, 5)), max_size=12)


@settings(deadline=None)
@given(POINTS)
@example([])
@example([(1, 1), (np.nan, 2)])
def test_the_front_is_what_none_beats(points):
    table = pd.DataFrame(points, columns=["cost", "value"], dtype=float)
    for (cost, value), on_it in zip(points, pareto(table["cost"], table["value"]), strict=True):
        beaten = any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        assert on_it == (not np.isnan(cost) and not beaten)


def test_joules_of_different_kinds_warn_and_are_neither_averaged_nor_drawn_together():
    runs = rows((20, 0, 0.8, 5.0, "measured"), (20, 1, 0.9, 50.0, "replayed"), (40, 0, 0.7, np.nan, "none"))
    assert over_seeds(runs)["n"].tolist() == [1, 1, 1]
    with pytest.warns(MixedEnergyWarning, match="measured: board; replayed: board; work"):
        plot = plots.accuracy_over_energy(runs)
    points = [trace for trace in plot.data if "markers" in trace.mode]
    assert [(trace.xaxis, list(trace.x)) for trace in points] == [("x", [5.0]), ("x2", [50.0]), ("x3", [100.0])]
    alike = rows((20, 0, 0.8, 5.0, "measured"), (20, 1, 0.9, 7.0, "measured"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, points = plots.accuracy_over_energy(alike).data
    assert (list(points.x), list(points.text)) == ([6.0], ["0"])
    assert list(points.error_x.array) == [pytest.approx(np.sqrt(2))]


def test_runs_side_by_side(results):
    runs = {row["run_id"]: open_run(row["path"]) for row in load_runs(results).to_dict("records")}
    assert not any(run.problems for run in runs.values())
    assert runs["miro"].tables["events"]["reason"].str.len().gt(0).all() and len(runs["miro"].tables["trials"])
    matrix = plots.accuracy_matrices({"miro": runs["miro"]}).data[0].z
    np.testing.assert_allclose(matrix, 100 * runs["miro"].tables["tasks"][["accuracy_0", "accuracy_1"]])
    sizes = {line.name: list(line.y) for line in plots.configurations(runs).data if line.xaxis == "x2"}
    assert sizes["fixed20-0"] == [20, 20] and sizes["fixed100-0"] == [100, 100]
    bars = plots.energy_of_phases(runs)
    assert "work" in bars.layout.yaxis.title.text and {bar.name for bar in bars.data} >= {"train", "evaluate"}
    with pytest.raises(InputError, match="7 runs don't fit side by side"):
        plots.configurations({str(k): runs["miro"] for k in range(7)})


def test_runs_are_called_by_what_tells_them_apart():
    same = {"dataset": "digits", "controller": "fixed", "swap_ratio": 1.0}
    rows = [{"episodic_size": size, "epochs": size / 10, "seed": seed} for size in (10, 100) for seed in (0, 1)]
    rows.append({"controller": "miro", "seed": 0, "episodic_size": np.nan})
    runs = pd.DataFrame([same | row | {"run_id": f"id{k}"} for k, row in enumerate(rows)])
    # epochs go with the size, and so tell no more
    assert labels(runs) == [
        *(f"controller=fixed, episodic={size}, seed={seed}" for size in (10, 100) for seed in (0, 1)),
        "controller=miro, seed=0",
    ]
    assert labels(runs[:2]) == ["seed=0", "seed=1"]
    assert labels(runs.iloc[[0, 0]].assign(run_id=["a", "b"])) == ["a", "b"]
    assert labels(runs.iloc[[0, 0, 2]].assign(run_id=["a", "b", "c"])) == [
        "episodic=10 a",
        "episodic=10 b",
        "episodic=100",
    ]


def test_phases_show_joules_only_where_all_have_the_same_kind(results):
    run = open_run(load_runs(results)["path"][0])
    read = run.tables["energy"].assign(kind="measured", scope="board", energy_j=2.0, coverage=1.0)
    measured = replace(run, tables=dict(run.tables) | {"energy": read})
    assert "energy, J" in plots.energy_of_phases({"a": measured, "b": measured}).layout.yaxis.title.text
    assert "work" in plots.energy_of_phases({"a": measured, "b": run}).layout.yaxis.title.text


def broken_results(folder: Path) -> list[str]:
    """Files that are no runs; their paths."""
    (folder / "10_run" / "empty").mkdir(parents=True)
    (folder / "stray.txt").write_text("")
    (folder / "10_run" / "stray.csv").write_text("")
    (folder / "10_run" / "old").mkdir()
    (folder / "10_run" / "old" / "run.json").write_text('{"format": 0}')
    return ["stray.txt", "10_run/empty", "10_run/stray.csv", "10_run/old"]


def test_what_is_no_run_is_named(tmp_path):
    names = broken_results(tmp_path)
    with RunFolder("10_run", {"seed": 1}, results=tmp_path, run_id="good"):
        pass
    runs = load_runs(tmp_path)
    table = unreadable_runs(runs, tmp_path)
    assert sorted(table["path"]) == sorted(str(tmp_path / name) for name in names)
    assert "it is of format 0 and this version of mirolib reads 1" in table["problem"].iloc[-1]
    assert runs["status"].tolist().count("finished") == 1
    assert unreadable_runs(pd.DataFrame(), tmp_path / "nowhere").empty


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"task\nx\n", b'"', b"task,stream_size\n1,2,3,4\n"]
)
def test_a_damaged_table_is_named_and_the_others_are_read(results, tmp_path, content):
    run = open_run(load_runs(results)["path"][0])
    shutil.copytree(run.path, tmp_path, dirs_exist_ok=True)
    (tmp_path / "SHA256SUMS").unlink()  # which would tell
    (tmp_path / "energy.csv").write_bytes(content)
    broken = open_run(tmp_path)
    assert any("energy.csv can't be read" in problem for problem in broken.problems)
    pd.testing.assert_frame_equal(broken.tables["tasks"], run.tables["tasks"])
    assert plots.configurations({"a": broken}).data and plots.energy_of_phases({"a": broken}).layout


def test_a_number_that_was_changed_after_the_run_is_not_read_silently(results, tmp_path):
    copy = tmp_path / "10_run" / "run"
    shutil.copytree(load_runs(results)["path"][0], copy)
    assert not open_run(copy).problems
    tasks = copy / "tasks.csv"
    text = tasks.read_text()
    tasks.write_text(text[:-2] + ("8" if text[-2] == "9" else "9") + "\n")
    assert [problem for problem in open_run(copy).problems if "tasks.csv is not what SHA256SUMS says" in problem]
    (copy / "run.json").write_text((copy / "run.json").read_text().replace('"seed": 0', '"seed": 3'))
    (row,) = load_runs(tmp_path).to_dict("records")
    assert row["status"] == "unreadable" and "run.json is not what SHA256SUMS says" in row["error"]


class Page(HTMLParser):
    """Text of a page, its scripts and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.scripts, self.fetched, self.inside = "", 0, [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.scripts += tag == "script"
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data if self.inside not in ("script", "style") else ""


def test_a_report_is_one_page_that_fetches_nothing_and_escapes_names(results, tmp_path, capsys):
    copy = tmp_path / "results" / "10_run" / "evil"
    copy.mkdir(parents=True)
    source = load_runs(results)["path"].map(Path).iloc[0]
    evil = "<img src=http://x onerror=alert(1)></script>"
    sums = ""  # or they would tell
    for file in source.glob("*.[cj]s*"):
        text = file.read_text().replace('"small-cnn"', json.dumps(evil)).replace("train", evil)
        (copy / file.name).write_text(text := text.replace(source.name, "evil"))
        sums += f"{hashlib.sha256(text.encode()).hexdigest()}  {file.name}\n"
    (copy / "SHA256SUMS").write_text(sums)
    broken_results(tmp_path / "results" / "more")
    out = tmp_path / "report.html"
    assert main(["report", str(out), "--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = Page()
    page.feed(out.read_text())
    assert not page.fetched and page.text.count(evil) >= 1 and "no run.json" in page.text
    assert page.scripts == 5 and out.stat().st_size < 6_000_000  # plotly's own, and one a figure
    assert "<img" not in out.read_text().split("</script>", 1)[1]


def test_a_report_as_a_table_and_what_it_refuses(results, tmp_path, capsys):
    out = tmp_path / "runs.csv"
    assert main(["report", str(out), "controller=fixed", "seed=1", "--results", str(results)]) == 0
    assert sorted(pd.read_csv(out)["run_id"]) == ["fixed100-1", "fixed20-1"]
    runs = load_runs(results)
    for file, table, sentence in (("a.pdf", runs, "neither .html nor .csv"), ("a.csv", runs[:0], "no such runs")):
        with pytest.raises(InputError, match=sentence):
            write_report(tmp_path / file, table)
    with pytest.raises(InputError, match="There is no folder .*/no; make it"):
        write_report(tmp_path / "no" / "a.csv", runs)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(StorageError, match="a.csv could not be written: Is a directory"):
        write_report(tmp_path / "a.csv", runs)
    for missing in (str(tmp_path / "no"), str(out), ""):
        for command in (["runs"], ["report", str(out)]):
            assert main([*command, "--results", missing]) == 1
            assert f"no results folder {missing!r}; name one that is there" in capsys.readouterr().err
    assert main(["report", str(out), "--sweep", "none", "--results", str(results)]) == 1
    assert "no sweep 'none'" in capsys.readouterr().err


def test_a_report_holds_neither_folders_nor_the_machine_s_name_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("mirolib.viz.report.gethostname", lambda: "boardseven")
    results = tmp_path / "in a folder" / "results"
    asked = {"data": str(tmp_path / "my data"), "medium": "card"}
    with RunFolder("10_run", asked, results=results, run_id="good") as folder:
        folder.set_summary({"final_accuracy": 0.5})
    RunFolder("10_run", asked, results=results).end(
        "failed", f"the store {results}/10_run/a b/store is full; boardseven: see /var/log/miro.log, 3 / 4, boardsevens"
    )
    shutil.copytree(folder.path, results / "10_run" / "copied")
    runs = load_runs(results)
    for name in ("a.html", "a.csv"):
        plain, full = (
            write_report(tmp_path / name, runs, unreadable_runs(runs, results), places=places).read_text()
            for places in (False, True)
        )
        plain = plain.rsplit("</script>", 1)[-1]
        assert not {one for one in ("in a folder", str(tmp_path), "boardseven:", "/var/log") if one in plain}
        assert "store is full" in plain and "miro.log, 3 / 4, boardsevens" in plain and "copied or renamed" in plain
        assert str(results) in full and "boardseven:" in full


def test_a_copy_of_a_run_or_one_without_its_checksums_is_not_counted_and_says_why(results, tmp_path):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    names = [path.name for path in (tmp_path / "10_run").iterdir()]
    before = over_seeds(load_runs(tmp_path))
    shutil.copytree(tmp_path / "10_run" / "fixed20-0", tmp_path / "10_run" / "copy")
    shutil.copytree(tmp_path / "10_run" / "fixed20-0", tmp_path / "mine" / "fixed20-0")
    (tmp_path / "10_run" / "link").symlink_to(tmp_path / "10_run" / "fixed20-0")
    listed = load_runs(tmp_path).set_index("path")
    assert sorted(listed[listed["status"] == "finished"]["run_id"]) == sorted(names)
    assert set(listed["status"]) == {"finished", "unvouched"} and "copied or renamed" in str(set(listed["error"]))
    pd.testing.assert_frame_equal(over_seeds(load_runs(tmp_path)), before)
    assert "copied or renamed" in repr(open_run(tmp_path / "10_run" / "copy"))
    (tmp_path / "10_run" / "fixed20-0" / "SHA256SUMS").unlink()
    (tmp_path / "10_run" / "fixed20-1" / "swaps.csv").unlink()
    doubts = load_runs(tmp_path, "10_run").set_index("run_id")["error"]
    assert "SHA256SUMS is gone" in doubts["fixed20-0"] and "swaps.csv is gone" in doubts["fixed20-1"]
    assert len(over_seeds(load_runs(tmp_path))) == len(before) - 1
    assert set(unreadable_runs(load_runs(tmp_path), tmp_path)["problem"]) >= set(doubts.dropna())


def test_a_seed_that_is_run_again_is_one_seed_and_its_latest_run_counts():
    once = rows((20, 0, 0.5, 1.0, "measured"), (20, 1, 0.7, 3.0, "measured")).assign(started=["2026-02", "2026-03"])
    again = rows((20, 0, 0.6, 2.0, "measured"), (20, 0, 0.4, 2.0, "measured")).assign(started=["2026-04", "2026-01"])
    again["energy"] = "rapl"  # how it was read is no setting
    (row,) = over_seeds(pd.concat([once, again], ignore_index=True)).to_dict("records")
    assert (row["n"], row["repeats"]) == (2, 2)
    assert row["average_incremental_accuracy"] == pytest.approx((0.6 + 0.7) / 2) and row["cost"] == 2.5
    (row,) = over_seeds(again).to_dict("records")
    assert (row["n"], row["repeats"]) == (1, 1) and np.isnan(row["cost_sd"])


def test_settings_put_together_are_averaged_within_a_seed():
    both = rows((20, 0, 0.5, 1.0, "measured"), (30, 0, 0.7, 3.0, "measured"), (20, 1, 0.8, 2.0, "measured"))
    (row,) = over_seeds(both, []).to_dict("records")
    assert (row["n"], row["repeats"]) == (2, 0) and row["average_incremental_accuracy"] == pytest.approx(0.7)


def test_a_run_that_failed_stands_in_the_report_with_its_sentence(tmp_path):
    RunFolder("10_run", {}, results=tmp_path).end("failed", "<b>it broke</b>")
    text = write_report(tmp_path / "out.html", load_runs(tmp_path)).read_text().split("</script>", 1)[1]
    assert "&lt;b&gt;it broke" in text and "<b>it" not in text


def test_own_data_of_one_name_and_two_contents_are_not_averaged(tmp_path):
    def run(place, content, seed):
        asked = {"data": place, "dataset_fingerprint": content, "dataset": "mine", "seed": seed}
        return asked | {"status": "finished", "final_accuracy": 0.5, "learning_work": 100.0}

    rows = [run(f"{tmp_path}/{folder}/mine.npz?", content, seed)
            for folder, content in (("a", "123456789"), ("b", "abcdefghi")) for seed in (0, 1)]  # fmt: skip
    assert over_seeds(pd.DataFrame(rows))["dataset"].tolist() == ["mine (123456)", "mine (abcdef)"]
    assert over_seeds(pd.DataFrame(rows[:2]))["dataset"].tolist() == ["mine"]
    same = [row | {"data": "", "dataset": "arrays"} for row in rows]
    assert over_seeds(pd.DataFrame(same))["dataset"].tolist() == ["arrays (123456)", "arrays (abcdef)"]
    # drawn anew for each seed in Python: one setting, as its user says
    drawn = [row | {"data": "", "dataset": "arrays"} for row in rows]
    assert over_seeds(pd.DataFrame(drawn).drop_duplicates("dataset_fingerprint").assign(seed=[0, 1]))["n"].tolist() == [
        2
    ]
