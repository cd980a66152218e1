import math
from dataclasses import replace

import pandas as pd
import pytest
from samples import make_dataset
from watching import BY_TASK

from mirolib import run_experiment, summarise
from mirolib.experiment.summary import concerns


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Of a run whose controller chooses works."""
    folder = tmp_path_factory.mktemp("results")
    return list(run_experiment(BY_TASK, dataset=make_dataset(), results=folder, progress=False).records)


def learning(record):
    return [reading.work for reading in record.readings if reading.window in ("receive", "profile", "train", "retain")]


def row(**columns):
    return pd.DataFrame({"chosen": [True], "accuracy": [0.5], "cost": [1.0], "cost_unit": ["visits"]} | columns)


def test_what_was_predicted_is_compared_with_what_was_reached(records):
    chosen = [record.trials[record.trials["chosen"]].iloc[0] for record in records]
    errors = [abs(one["accuracy"] - of.average_accuracy) for one, of in zip(chosen, records, strict=True)]
    assert summarise(records)["predicted_error"] == pytest.approx(100 * sorted(errors)[1])
    first = replace(records[0], trials=row(accuracy=[records[0].average_accuracy - 0.25]))
    assert summarise([first])["predicted_error"] == pytest.approx(25)
    unknown = replace(records[1], trials=row(accuracy=[math.nan]))
    assert summarise([first, unknown])["predicted_error"] == pytest.approx(25), "only of what was predicted"
    for trials in (pd.DataFrame(), row(accuracy=[math.nan]), row(chosen=[False])):
        assert math.isnan(summarise([replace(records[0], trials=trials)])["predicted_error"])


def test_the_cost_of_a_work_is_that_of_all_learning_and_that_of_sizes_of_training_alone(records):
    record, (half, other) = records[1], [replace(records[1].epochs[0].config, stream_size=n) for n in (5, 6)]
    changing = [replace(epoch, config=(half, other)[n % 2]) for n, epoch in enumerate(record.epochs)]
    changed = replace(record, epochs=tuple(changing))
    all_of_it, visits = (
        sum(getattr(work, name) for work in learning(record)) for name in ("visit_equivalents", "visits")
    )
    assert all_of_it > visits, "the looks cost something"

    def error(of, **columns):
        return summarise([replace(of, trials=row(**columns))])["cost_error"]

    for of in (record, changed):  # sizes follow rules, and say nothing of what a work costs
        assert error(of, epochs=[1.0], cost=[1.5 * all_of_it]) == pytest.approx(0.5)
    assert error(replace(record, epochs=record.epochs[:1]), cost=[1.5 * visits]) == pytest.approx(0.5)
    assert math.isnan(error(changed, cost=[1.5 * visits])), "its sizes were changed under way"
    assert math.isnan(error(record, epochs=[1.0], cost=[math.nan])), "its cost was not known"
    assert summarise(records)["cost_error"] < 0.2


@pytest.mark.parametrize(
    ("off", "low", "high", "warns"),
    [
        (0.15, -0.3, 0.3, False), (0.15, -0.09, 0.3, False), (0.25, -0.3, 0.3, True), (0.15, 0.11, 0.3, True),
        (-0.15, -0.3, -0.11, True), (-0.15, -0.3, -0.09, False),
    ],
)  # fmt: skip
def test_an_accuracy_far_from_what_was_predicted_is_told(records, off, low, high, warns):
    reached = records[0].average_accuracy
    trials = row(accuracy=[reached + off])
    said = f"predicted {reached + off:.0%}: its choices"
    assert (said in " ".join(concerns([replace(records[0], trials=trials)]))) == (abs(off) > 0.2)
    trials = trials.assign(epochs=1.0, low=reached + low, high=reached + high)
    said = f"predicted {reached + off:.0%} ({reached + low:.0%} to {reached + high:.0%}): its choices"
    assert (said in " ".join(concerns([replace(records[0], trials=trials)]))) == warns
