import math

import pandas as pd
import pytest

from mirolib import InputError
from mirolib.controller import SELECTORS, SelectionContext, above_cutline

TABLE = pd.DataFrame(
    {"accuracy": [0.50, 0.60, 0.70, 0.71], "cost": [10.0, 11.0, 30.0, 60.0]}, index=["a", "b", "c", "d"]
)


def best(selector, **known):
    return selector.rank(TABLE, SelectionContext(**known)).index[0]


@pytest.mark.parametrize(
    ("cutline", "above"), [(0.25, "d"), (0.5, "cd"), (0.51, "bcd"), (1.0, "abcd"), (0.01, "d"), (0.75, "bcd")]
)
def test_the_cutline_keeps_the_top_share(cutline, above):
    assert "".join(TABLE.index[above_cutline(TABLE["accuracy"], cutline)]) == above


@pytest.mark.parametrize("cutline", [0.0, -0.5, 1.01, math.nan])
def test_a_cutline_outside_its_range_is_refused(cutline):
    with pytest.raises(InputError, match="choose a share above 0, up to 1"):
        above_cutline(TABLE["accuracy"], cutline)


@pytest.mark.parametrize(
    ("name", "cutline", "picked"),
    [
        ("accuracy-per-joule", 1.0, "b"),  # .05 .0545 .0233 .0118
        ("accuracy-per-joule", 0.5, "c"),
        ("gain-per-joule", 1.0, "c"),  # now 0.45: .005 .01364 .00833 .00433 -> b; see below
        ("gain-per-joule", 0.5, "c"),
        ("highest-accuracy", 0.5, "d"),
        ("lowest-energy", 0.75, "b"),
        ("lowest-energy", 0.25, "d"),
        ("cheapest-within", 0.25, "c"),  # 2 points below 0.71
    ],
)
def test_selectors_against_a_table_worked_by_hand(name, cutline, picked):
    selector = SELECTORS[name]
    now = 0.55 if name == "gain-per-joule" else 0.0  # gains -.05 .05 .15 .16: -.005 .00455 .005 .00267
    assert best(selector, accuracy_now=now, cutline=cutline) == picked
    assert selector.name == name and selector.caption.endswith(".")


def test_of_equals_the_cheapest_is_picked():
    table = pd.DataFrame({"accuracy": [0.9, 0.9], "cost": [5.0, 4.0]})
    assert SELECTORS["highest-accuracy"].rank(table, SelectionContext(cutline=1.0)).index[0] == 1


def test_ranking_marks_what_may_be_picked_and_puts_it_first():
    ranked = SELECTORS["lowest-energy"].rank(TABLE, SelectionContext(cutline=0.5))
    assert list(ranked.index) == ["c", "d", "a", "b"] and list(ranked["eligible"]) == [True, True, False, False]


@pytest.mark.parametrize(("points", "picked"), [(0.0, "d"), (1.0, "c"), (11.0, "b"), (100.0, "a")])
def test_cheapest_within_points(points, picked):
    assert best(SELECTORS["cheapest-within"], points=points, cutline=0.01) == picked


@pytest.mark.parametrize(
    ("budget", "context", "picked"),
    [
        (300.0, {"tasks_left": 5}, "d"),  # 5 x 60
        (299.0, {"tasks_left": 5}, "c"),
        (300.0, {"tasks_left": 5, "spent": 140}, "c"),  # 160 left: 5 x 30
        (300.0, {"tasks_left": 5, "spent": 140, "overhead": 3}, "b"),  # 5 x 33 = 165
        (20.0, {"tasks_left": 5}, "a"),  # none can be afforded
    ],
)
def test_within_budget_plans_to_the_end_of_the_stream(budget, context, picked):
    assert best(SELECTORS["within-budget"], energy_budget=budget, **context) == picked
