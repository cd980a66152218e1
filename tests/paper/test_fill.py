from types import SimpleNamespace

from studies import TABLES, leave

import mirolib.__main__ as command_line
from mirolib import paper
from mirolib.base.errors import RunError
from mirolib.paper import fill, overview, states, studies

SMOKE = {study.name: study for study in studies("smoke")}


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
    monkeypatch.setattr(
        command_line, "launch", lambda *args, **options: drawn.append(args) or SimpleNamespace(notebook="N")
    )
    for some, code in ((found, 1), ([state for state in found if state.status == "finished"], 0)):
        monkeypatch.setattr(command_line, "fill", lambda preset, results, some=some: some)
        assert command_line.main(["paper", "smoke"]) == code
        text = capsys.readouterr().out
        assert ("not run     swapping-bic-digits" in text) == bool(code) and "notebook: N" in text
    assert drawn == [("20_paper_figures",)] * 2
