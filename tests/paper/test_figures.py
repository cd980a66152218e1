import pandas as pd
import pytest
from studies import TABLES, leave

from mirolib.paper import FIGURES, paper_numbers, states, studies

SMOKE = {study.name: study for study in studies("smoke")}
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


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for name in TABLES:
        leave(results, SMOKE[name])
    return states("smoke", results)


def test_numbers_say_where_they_are_from():
    numbers = paper_numbers()
    assert numbers.notna().all(axis=None) and numbers["accuracy_percent"].between(0, 100).all()
    assert set(numbers["figure"]) == {"2c", "5a", "5b", "5c", "5d", "6", "headline"}
    assert len(paper_numbers("2c")) == 14 and set(paper_numbers("5a", "5b")["figure"]) == {"5a", "5b"}


@pytest.mark.parametrize("key", FIGURES)
def test_figures_show_what_the_runs_hold(smoke, key):
    report = FIGURES[key].report(smoke)
    assert all(words in report for words in [FIGURES[key].claim, *SAYS[key]])
    drawn = FIGURES[key].draw(smoke)
    assert len(drawn.data) > sum(len(panel.lines) for panel in FIGURES[key].paper()) * (key != "end-to-end")


def test_ours_is_drawn_in_percent_and_in_the_colours_of_the_paper(smoke):
    drawn = FIGURES["2c"].draw(smoke)
    paper, ours = (trace for trace in drawn.data if trace.name == "tiered")
    assert list(ours.x) == [20, 100] and list(ours.y) == pytest.approx([70, 85])
    assert paper.y[0] == 43 and paper.marker.color == ours.marker.color


@pytest.mark.parametrize("kinds", [["measured", "measured"], ["measured", "replayed"]])
def test_joules_are_preferred_to_work_where_all_runs_have_them_of_one_kind(tmp_path, kinds):
    def with_joules(table):
        return table.assign(learning_energy_j=[10.0, 9.0], energy_kind=kinds)

    leave(tmp_path, SMOKE["baselines-digits"], change=with_joules)
    report = FIGURES["end-to-end"].report(states("smoke", tmp_path))
    alike = len(set(kinds)) == 1
    assert ("10 to 10 % saved (energy, J (measured)" if alike else "50 to 50 % saved (work, sample visits") in report


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("baselines-digits", lambda table: table.drop(columns="final_accuracy"), "final_accuracy"),
        ("baselines-digits", lambda t: t.astype({"final_accuracy": object}).replace(0.82, "x"), "could not convert"),
        ("baselines-digits", lambda table: pd.DataFrame(), "No columns to parse"),
        ("adaptation-digits", lambda table: table[table["run"] != "throttled"], "KeyError('throttled')"),
        ("baselines-digits", "changed by hand", "SHA256SUMS"),
    ],
)
def test_an_unusable_table_is_named_and_the_rest_is_shown(tmp_path, name, change, words):
    leave(tmp_path, SMOKE["swapping-er-digits"])
    if change == "changed by hand":
        file = leave(tmp_path, SMOKE[name])
        file.write_text(file.read_text().replace("0.82", "0.99"))
    else:
        leave(tmp_path, SMOKE[name], change=change)
    found = states("smoke", tmp_path)
    (key,) = SMOKE[name].figures
    assert words in FIGURES[key].report(found) and "70.0 against 50.0" in FIGURES["2c"].report(found)
    FIGURES[key].draw(found)
