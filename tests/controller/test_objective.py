import pytest

from mirolib import InputError
from mirolib.controller import Objective, parse_objective


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("knee", Objective("knee", 0.15)),
        ("knee=0.2 points", Objective("knee", 0.2)),
        ("knee = 1", Objective("knee", 1.0)),
        ("accuracy=0.9", Objective("accuracy", 0.9)),
        ("accuracy=90 %", Objective("accuracy", 0.9)),
        ("energy_budget=50 kJ", Objective("energy_budget", 50_000.0, "J")),
        ("energy_budget=2Wh", Objective("energy_budget", 7200.0, "J")),
        ("energy_budget=1e5 visits", Objective("energy_budget", 100_000.0, "visits")),
        ("rate=0.2 points/kJ", Objective("rate", 0.0002, "J")),
        ("rate=0.5 points/1000 visits", Objective("rate", 0.0005, "visits")),
        (" rate=3 point / visit ", Objective("rate", 3.0, "visits")),
    ],
)
def test_objectives_by_hand(text, objective):
    found = parse_objective(text)
    assert (found.kind, found.unit) == (objective.kind, objective.unit)
    assert found.value == pytest.approx(objective.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "can't be read; write one of: knee"),
        ("best", "can't be read; write one of: knee"),
        ("accuracy", "write accuracy=0.9"),
        ("accuracy=90", "is out of range; write accuracy=0.9"),
        ("accuracy=0", "is out of range"),
        ("accuracy=0.9 kJ", "write accuracy=0.9"),
        ("energy_budget=50", "write energy_budget=50 kJ"),
        ("energy_budget=50 kWs", "write energy_budget=50 kJ"),
        ("energy_budget=-1 J", "is out of range"),
        ("energy_budget=1..2 J", "write energy_budget=50 kJ"),
        ("energy_budget=inf J", "can't be read"),
        ("rate=0.2", "write rate=0.2 points/kJ"),
        ("rate=0.2 points/0 J", "write rate=0.2 points/kJ"),
        ("rate=0.2 points/", "write rate=0.2 points/kJ"),
        ("knee=nan", "can't be read"),
        ("knee=1 J", "write knee"),
    ],
)
def test_what_is_none_is_refused_with_an_example(text, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_objective(text)
