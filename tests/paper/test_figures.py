import shlex
from types import SimpleNamespace

import pandas as pd
import pytest

import mirolib.__main__ as command_line
from mirolib import RunFolder, paper
from mirolib.base.errors import InputError, RunError
from mirolib.memory.budget import parse_budget
from mirolib.paper import FIGURES, fill, overview, paper_numbers, states, studies
from mirolib.paper.plan import PLAN
from mirolib.workbench.launch import check_parameters

ALL = [study for preset in PLAN for study in studies(preset)]
ENERGY = {"learning_work": [100.0, 50.0], "learning_energy_j": [None, None], "energy_kind": ["none", "none"]}
TABLES = {
    "swapping-er-digits": ("runs", {
        "episodic_size": [20, 20, 20, 20, 100, 100], "swap_ratio": [0.0, 0.2, 1.0, 1.0, 0.0, 1.0],
        "final_accuracy": [0.5, 0.68, 0.69, 0.71, 0.8, 0.85], "method": ["er"] * 6,
    }),
    "allocation-digits": ("runs", {
        "stream_size": [10, 20, 10, 20], "episodic_size": [10, 10, 10, 10], "tasks_done": [1, 1, 2, 2],
        "final_accuracy": [0.9, 0.8, 0.5, 0.7], "learning_work": [10.0, 20.0, 20.0, 60.0],
        "learning_energy_j": [None] * 4, "energy_kind": ["none"] * 4,
    }),
    "over-time-digits": ("table", {
        "seed": [0, 0, 0], "task": [0, 1, 2], "stream_size": [5, 5, 9], "episodic_size": [1, 5, 9],
        "chosen": [True, True, True], "accuracy": [1.0, 0.9, 0.9], "cost": [1.0, 2.0, 3.0],
    }),
    "baselines-digits": ("table", {
        "setting": ["whole memory", "miro, gain-per-joule"], "final_accuracy": [0.80, 0.82], **ENERGY,
    }),
    "generality-digits": ("table", {
        "dataset": ["digits"] * 4, "setting": ["single-level", "tiered, full swapping (CarM)", "whole memory", "Miro"],
        "final_accuracy": [0.6, 0.7, 0.9, 0.8], "learning_work": [1.0, 1.0, 4.0, 1.0],
    }),
    "scalability": ("tasks", {
        "task": range(10), "stored": range(100, 1100, 100), "train_visits": [10] * 10,
        "train_s": [1.0] * 5 + [2.0] * 5,
    }),
    "adaptation-digits": ("table", {
        "run": ["calm", "budget falls and rises", "throttled", "throttled, fixed"],
        "final_accuracy": [0.9, 0.8, 0.85, 0.9], "stall_s": [0.0, 0.0, 1.0, 5.0], "train_s": [1.0] * 4,
        "lowest_swap_ratio": [1.0, 1.0, 0.25, 1.0],
    }),
}  # fmt: skip
SAYS = {
    "2c": ["70.0 against 50.0 % with 20 samples", "85.0 against 80.0 % with 100", "smallest memory: yes"],
    "5": ["cheapest of 2 configurations reaches 50.0 %", "(20 + 10 samples) 70.0 % at 3.0 times", "the best: yes"],
    "6": ["50.0 % without swapping, 70.0 with full swapping (+20.0 points); a ratio of 0.2 brings 90% of it"],
    "best-over-time": ["every task: no (2 in all)"],
    "end-to-end": ["against 1 baselines: 50 to 50 % saved", "at +2.0 to +2.0 points", "both than 1 of them"],
    "generality": ["brings +10.0 points against none (60.0 %)", "80.0 % with 25% of the whole memory's work (90.0 %)"],
    "scalability": ["10 tasks and 1,000 stored samples, a visit costs 2.00 times"],
    "adaptation": ["fell to 0.25 and training waited 1.0 s instead of 5.0 s, at 85.0 against 90.0 %"],
}


def leave(results, study, status="finished", change=None, run_id=""):
    """A run of a study as its notebook leaves it."""
    name, columns = TABLES[study.name]
    folder = RunFolder(study.notebook, dict(study.parameters), results=results, run_id=run_id or study.run_id)
    table = pd.DataFrame(columns)
    folder.write_table(name, table if change is None else change(table))
    folder.end(status, None if status == "finished" else "RunError: <b>no luck</b>")
    return folder.path / f"{name}.csv"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for study in studies("smoke"):
        if study.name in TABLES:
            leave(results, study)
    return states("smoke", results)


def test_numbers_say_where_they_are_from():
    numbers = paper_numbers()
    assert numbers.notna().all(axis=None) and numbers["accuracy_percent"].between(0, 100).all()
    assert set(numbers["figure"]) == {"2c", "5a", "5b", "5c", "5d", "6", "headline"}
    assert len(paper_numbers("2c")) == 14 and set(paper_numbers("5a", "5b")["figure"]) == {"5a", "5b"}


@pytest.mark.parametrize("preset", PLAN)
def test_each_preset_fills_every_figure_with_runs_of_their_own(preset):
    plan = studies(preset)
    assert {key for study in plan for key in study.figures} == set(FIGURES)
    assert len({study.run_id for study in plan}) == len(plan)


@pytest.mark.parametrize("study", ALL, ids=lambda study: study.run_id)
def test_the_command_of_a_study_says_what_its_notebook_takes(study):
    words = shlex.split(study.command(study.run_id))
    assert words[:5] == ["python", "-m", "mirolib", "launch", study.notebook]
    given = dict(word.split("=", 1) for word in words[5:])
    assert given.pop("run_id") == study.run_id
    assert check_parameters(study.notebook, given) == check_parameters(study.notebook, dict(study.parameters))
    for name in ("memory", "budget"):
        parse_budget(study.parameters.get(name, ""), 1)


def test_other_parameters_make_another_run():
    one, other = studies("small")[:2]
    assert one.run_id.rsplit("-", 1)[1] != other.run_id.rsplit("-", 1)[1]


def test_nothing_run_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRO_DATA", str(tmp_path / "data"))
    found = states("smoke", tmp_path)
    assert {state.status for state in found} == {"not run"}
    for figure in FIGURES.values():
        assert "not run" in figure.report(found) and "python -m mirolib launch" in figure.report(found)
        figure.draw(found)
    small = {state.study.dataset: state for state in states("small", tmp_path)}
    assert small["cifar100"].status == "no data set" and "data/README.md" in small["cifar100"].note
    assert small[""].status == "not run"


@pytest.mark.parametrize("key", FIGURES)
def test_figures_show_what_the_runs_hold(smoke, key):
    report = FIGURES[key].report(smoke)
    assert FIGURES[key].claim in report
    for words in SAYS[key]:
        assert words in report
    drawn = FIGURES[key].draw(smoke)
    assert len(drawn.data) > sum(len(panel.lines) for panel in FIGURES[key].paper()) * (key != "end-to-end")


def test_ours_is_drawn_in_percent_and_in_the_colours_of_the_paper(smoke):
    drawn = FIGURES["2c"].draw(smoke)
    paper, ours = ([trace for trace in drawn.data if trace.name == "tiered"][i] for i in (0, 1))
    assert list(ours.x) == [20, 100] and list(ours.y) == pytest.approx([70, 85])
    assert paper.y[0] == 43 and paper.marker.color == ours.marker.color


def test_joules_are_preferred_to_work_where_all_runs_have_them(tmp_path):
    (study,) = (study for study in studies("smoke") if study.name == "baselines-digits")
    leave(tmp_path, study, change=lambda t: t.assign(learning_energy_j=[10.0, 9.0], energy_kind="measured"))
    assert "10 to 10 % saved (energy, J (measured)" in FIGURES["end-to-end"].report(states("smoke", tmp_path))


def test_joules_of_different_kinds_are_not_compared():
    table = pd.DataFrame(TABLES["baselines-digits"][1]).assign(learning_energy_j=[10.0, 9.0])
    assert "energy, J" in FIGURES["end-to-end"].says(table)
    assert "sample visits" in FIGURES["end-to-end"].says(table.assign(energy_kind=["measured", "replayed"]))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda table: table.drop(columns="final_accuracy"), "final_accuracy"),
        (lambda table: table.astype({"final_accuracy": object}).replace(0.82, "high"), "could not convert"),
        (lambda table: pd.DataFrame(), "No columns to parse"),
    ],
)
def test_an_unusable_table_is_named_and_the_rest_is_shown(tmp_path, change, words):
    for study in studies("smoke"):
        if study.name in ("baselines-digits", "swapping-er-digits"):
            leave(tmp_path, study, change=change if study.name == "baselines-digits" else None)
    found = states("smoke", tmp_path)
    table = overview(found).set_index("figure")
    assert table.loc["end-to-end", "status"] == "unusable" and words in table.loc["end-to-end", "note"]
    assert words in FIGURES["end-to-end"].report(found) and "70.0 against 50.0" in FIGURES["2c"].report(found)
    FIGURES["end-to-end"].draw(found)


def test_a_table_that_was_changed_by_hand_is_named(tmp_path):
    (study,) = (study for study in studies("smoke") if study.name == "baselines-digits")
    file = leave(tmp_path, study)
    file.write_text(file.read_text().replace("0.82", "0.99"))
    assert "SHA256SUMS" in FIGURES["end-to-end"].report(states("smoke", tmp_path))


def test_a_table_without_a_case_is_named(tmp_path):
    (study,) = (study for study in studies("smoke") if study.name == "adaptation-digits")
    leave(tmp_path, study, change=lambda table: table[table["run"] != "throttled"])
    assert "KeyError('throttled')" in FIGURES["adaptation"].report(states("smoke", tmp_path))


def test_a_failed_attempt_gets_a_further_name_and_its_sentence_is_escaped(tmp_path):
    study = studies("smoke")[0]
    leave(tmp_path, study, "failed")
    state = states("smoke", tmp_path)[0]
    assert (state.status, state.path, state.next_run_id) == ("failed", None, f"{study.run_id}-again1")
    assert "&lt;b&gt;no luck" in FIGURES["2c"].report([state]) and "<b>" not in FIGURES["2c"].report([state])
    leave(tmp_path, study, run_id=state.next_run_id)
    again = states("smoke", tmp_path)[0]
    assert again.status == "finished" and again.path.name == state.next_run_id
    assert again.command.endswith(state.next_run_id)


def test_filling_skips_what_is_finished_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    plan, launched = studies("smoke"), []
    by_notebook = {study.name: study for study in plan}
    leave(tmp_path, by_notebook["allocation-digits"])
    leave(tmp_path, by_notebook["adaptation-digits"]).write_text("damaged")

    def launch(notebook, *, progress, results, run_id, **parameters):
        launched.append(run_id)
        (study,) = (study for study in plan if run_id.startswith(study.run_id))
        assert (notebook, parameters) == (study.notebook, dict(study.parameters))
        if study.name in TABLES:
            leave(results, study, "failed" if study.name == "scalability" else "finished", run_id=run_id)
        if study.name == "scalability":
            raise RunError("no luck")

    monkeypatch.setattr(paper, "launch", launch)
    found = {state.study.name: state.status for state in fill("smoke", tmp_path)}
    assert found["scalability"] == "failed" and found["adaptation-digits"] == "finished"
    assert f"{by_notebook['adaptation-digits'].run_id}-again1" in launched
    assert by_notebook["allocation-digits"].run_id not in launched and len(launched) == len(plan) - 1
    launched.clear()
    fill("smoke", tmp_path)
    assert launched == [by_notebook["swapping-bic-digits"].run_id, f"{by_notebook['scalability'].run_id}-again1"]


def test_the_command_line_says_how_far_each_study_got(smoke, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(command_line, "fill", lambda preset, results: smoke)
    monkeypatch.setattr(
        command_line, "launch", lambda *args, **options: drawn.append(args) or SimpleNamespace(notebook="N")
    )
    assert command_line.main(["paper", "smoke"]) == 1
    assert "not run     swapping-bic-digits" in capsys.readouterr().out and drawn == [("20_paper_figures",)]
    monkeypatch.setattr(command_line, "fill", lambda preset, results: [s for s in smoke if s.status == "finished"])
    assert command_line.main(["paper", "smoke"]) == 0
    assert "notebook: N" in capsys.readouterr().out


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="smoke, small, paper"):
        states("tiny")
