import shlex

import pytest
from studies import leave

from mirolib import InputError
from mirolib.memory.budget import parse_budget
from mirolib.paper import FIGURES, overview, states, studies
from mirolib.paper.plan import PLAN
from mirolib.workbench.launch import check_parameters

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
