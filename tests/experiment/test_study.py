import math

import numpy as np
import pytest

from mirolib import InputError, RunSettings, check_study, run_all, summarise


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (int, {"seeds": 0}, "seeds is 0; give a whole number, 1 or more."),
        (int, {"seeds": True}, "seeds is True; give a whole number"),
        (int, {"seeds": 1, "budgets": []}, r"budgets is \[\]; give a list of 1 or more different values, each a whole"),
        (int, {"budgets": [40, "x"]}, r"budgets is \[40, 'x'\]; give a list"),
        (int, {"budgets": [40, 40], "least": 2}, "give a list of 2 or more different values"),
        (float, {"shares": [0.5, 1.5]}, "each a number from 0 to 1"),
        (float, {"shares": [math.nan]}, "each a number from 0 to 1"),
        (str, {"datasets": [""]}, "each a name"),
        (tuple, {"fixed": [60, 30]}, "each a pair of sizes"),
        (tuple, {"fixed": [[60]]}, "each a pair of sizes"),
    ],
)
def test_what_a_study_can_not_compare_is_refused(kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        check_study(kind, **options)


def test_what_a_study_can_compare_passes():
    check_study(int, seeds=np.int64(1), episodic_sizes=[20, 100])
    check_study(float, swap_ratios=[0, 0.2, 1.0])
    check_study(str, datasets=["digits"])
    check_study(tuple, fixed=[[60, 30], ("64 MB", 30)])


def test_run_all_gives_one_row_a_run():
    table = run_all([RunSettings(controller="fixed", epochs=1, seed=seed) for seed in (0, 1)], progress=False)
    assert table["seed"].tolist() == [0, 1]
    assert table["final_accuracy"].between(0, 1).all()
    assert (table["train_visits"] > 0).all() and (table["profile_visits"] == 0).all()
    assert summarise([]) == {}
