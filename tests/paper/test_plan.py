import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest
from studies import TABLES, leave

import mirolib.__main__ as command_line
from mirolib import InputError, paper
from mirolib.base.errors import RunError
from mirolib.memory.budget import parse_budget
from mirolib.paper import FIGURES, fill, overview, states, studies
from mirolib.paper.plan import PLAN
from mirolib.workbench.launch import check_parameters

SMOKE = {study.name: study for study in studies("smoke")}
ALL = [study for preset in PLAN for study in studies(preset)]


@pytest.mark.parametrize("preset", PLAN)
def test_each_preset_fills_every_figure_with_runs_of_their_own(preset):
    plan = studies(preset)
    assert {key for study in plan for key in study.figures} == set(FIGURES)
    assert len({study.run_id for study in plan}) == len(plan)


@pytest.mark.parametrize("study", ALL, ids=lambda study: f"{study.preset}-{study.name}")
def test_the_command_of_a_study_says_what_its_notebook_takes(study):
    words = shlex.split(study.command(study.run_id))
    assert words[:5] == ["python", "-m", "mirolib", "launch", study.notebook]
    given = dict(word.split("=", 1) for word in words[5:])
    assert given.pop("run_id") == study.run_id
    assert check_parameters(study.notebook, given) == check_parameters(study.notebook, dict(study.parameters))
    for name in ("memory", "budget"):
        parse_budget(study.parameters.get(name, ""), 1)


def test_other_parameters_make_another_run():
    study = SMOKE["scalability"]
    assert replace(study, parameters={"per_class": 7}).run_id[:-12] == study.run_id[:-12]
    assert replace(study, parameters={"per_class": 7}).run_id != study.run_id == replace(study).run_id


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


def test_a_failed_attempt_gets_a_further_name_and_its_sentence_is_escaped(tmp_path):
    study = studies("smoke")[0]
    leave(tmp_path, study, "failed")
    state = states("smoke", tmp_path)[0]
    assert (state.status, state.path, state.next_run_id) == ("failed", None, f"{study.run_id}-again1")
    assert "&lt;b&gt;no luck" in FIGURES["2c"].report([state]) and "<b>" not in FIGURES["2c"].report([state])
    leave(tmp_path, study, run_id=state.next_run_id)
    again = states("smoke", tmp_path)[0]
    assert again.status == "finished" and again.path.name == state.next_run_id
    assert overview([again])["command"].str.endswith(state.next_run_id).all()


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="smoke, small, paper"):
        states("tiny")


def test_filling_skips_what_is_finished_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    launched = []
    leave(tmp_path, SMOKE["allocation-digits"])
    leave(tmp_path, SMOKE["adaptation-digits"]).write_text("damaged")
    table = overview(states("smoke", tmp_path)).set_index("figure")
    assert table.loc["adaptation", "status"] == "unusable" and "SHA256SUMS" in table.loc["adaptation", "note"]
    assert table.loc["5", "status"] == "finished" and table.loc["adaptation", "command"].endswith("-again1")

    def launch(notebook, *, progress, results, run_id, **parameters):
        launched.append(run_id)
        (study,) = (study for study in SMOKE.values() if run_id.startswith(study.run_id))
        assert (notebook, parameters) == (study.notebook, dict(study.parameters))
        if study.name in TABLES:
            leave(results, study, "failed" if study.name == "scalability" else "finished", run_id=run_id)
        if study.name == "scalability":
            raise RunError("no luck")

    monkeypatch.setattr(paper, "launch", launch)
    found = {state.study.name: state.status for state in fill("smoke", tmp_path)}
    assert found["scalability"] == "failed" and found["adaptation-digits"] == "finished"
    assert f"{SMOKE['adaptation-digits'].run_id}-again1" in launched
    assert SMOKE["allocation-digits"].run_id not in launched and len(launched) == len(SMOKE) - 1
    launched.clear()
    fill("smoke", tmp_path)
    assert launched == [SMOKE["swapping-bic-digits"].run_id, f"{SMOKE['scalability'].run_id}-again1"]


def test_the_command_line_says_how_far_each_study_got(tmp_path, monkeypatch, capsys):
    drawn = []
    for name in TABLES:
        leave(tmp_path, SMOKE[name])
    found = states("smoke", tmp_path)
    fake = lambda *args, **options: drawn.append(args) or SimpleNamespace(notebook="N")  # noqa: E731
    monkeypatch.setattr("mirolib.launch", fake)
    for some, code in ((found, 1), ([state for state in found if state.status == "finished"], 0)):
        monkeypatch.setattr("mirolib.paper.fill", lambda preset, results, some=some: some)
        assert command_line.main(["paper", "smoke"]) == code
        text = capsys.readouterr().out
        assert ("not run     swapping-bic-digits" in text) == bool(code) and "notebook: N" in text
    assert drawn == [("20_paper_figures",)] * 2
