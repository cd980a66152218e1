import tempfile
from dataclasses import replace

import numpy as np
import pytest
from arrivals import OF_TASK, STREAM, learner

from mirolib import Dataset, EnergyMeter, InputError, MemoryConfig, MiroController, NullSource, RunSettings, run
from mirolib.energy import Availability, EnergySource, Measurement, in_windows
from mirolib.energy.ledger import LEARNING
from mirolib.experiment.experiment import Experiment


def blobs(classes=6, per_class=40, features=8, spread=0.6, counts=None, seed=0):
    """Clouds around centres that lie three apart or so: easy, and the easier the smaller the spread."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features)) * 2
    labels = np.repeat(np.arange(classes), per_class if counts is None else counts)
    test_labels = np.repeat(np.arange(classes), 20)
    train, test = (
        (centres[part] + spread * rng.normal(size=(len(part), features))).astype(np.float32)
        for part in (labels, test_labels)
    )
    return Dataset.from_arrays(train, labels, test, test_labels)


def records_of(dataset=None, **settings):
    """A whole run."""
    chosen = {"tasks": 3, "energy": "none"} | settings
    with tempfile.TemporaryDirectory() as store:
        return list(Experiment.build(RunSettings(**chosen), store, dataset or blobs()).run(progress=False))


def epochs(records):
    return [record.epochs[-1].epochs_done for record in records]


def work(records):
    """Cost of each run so far after each task."""
    learning = [in_windows(record.readings, *LEARNING) for record in records]
    return np.cumsum([sum(reading.work.visit_equivalents for reading in readings) for readings in learning])


def test_training_ends_where_another_tenth_brings_little():
    records = records_of(epochs=24)
    assert all(1 < done < 24 for done in epochs(records)), epochs(records)
    for record in records:
        (chosen,) = record.trials[record.trials["chosen"]].to_dict("records")
        assert chosen["gain"] <= 0.15 and record.epochs[-1].epochs_done == pytest.approx(chosen["epochs"])
        assert abs(chosen["accuracy"] - record.average_accuracy) < 0.1
        (event,) = [event for event in record.events if event.epoch >= 0]
        assert event.reason.startswith("knee: ") and event.epochs == pytest.approx(chosen["epochs"])
    asked_for_more = records_of(epochs=24, objective="knee=0.01")
    assert sum(epochs(asked_for_more)) > sum(epochs(records))


def test_what_is_still_hard_is_trained_to_the_end():
    records = records_of(blobs(spread=4.0), epochs=6)
    assert epochs(records)[-1] == 6 and "of 6 epochs" in records[-1].events[-1].reason


def test_later_tasks_are_never_trained_less_than_earlier_ones_were():
    for seed in range(3):
        done = epochs(records_of(epochs=16, seed=seed, tasks=6))
        for index in range(1, len(done)):
            assert done[index] >= 0.9 * np.exp(np.log(done[:index]).mean()), done


def test_looks_cost_less_than_a_twentieth_of_training():
    for options in ({"epochs": 20}, {"epochs": 2}, {"epochs": 40, "validation_share": 0.5}):
        records = records_of(**options)
        training = [r.work.visit_equivalents for record in records for r in in_windows(record.readings, "train")]
        looking = [r.work.visit_equivalents for record in records for r in in_windows(record.readings, "profile")]
        assert 0 < sum(looking) <= 0.05 * sum(training)


def test_the_least_work_for_an_accuracy():
    hard = blobs(spread=1.5)
    little, much = (records_of(hard, epochs=24, objective=f"accuracy={target}") for target in (0.5, 0.95))
    assert work(little)[-1] < work(much)[-1]
    assert little[-1].average_accuracy > 0.5 and epochs(much)[-1] == 24


def test_an_accuracy_that_is_not_reached_takes_all_epochs():
    records = records_of(blobs(spread=6.0), epochs=3, objective="accuracy=0.99")
    assert epochs(records) == [3, 3, 3]


@pytest.mark.parametrize("budget", [3000, 9000])
def test_an_energy_budget_is_kept_and_shared_out_evenly(budget):
    records = records_of(epochs=24, objective=f"energy_budget={budget} visits")
    assert work(records)[-1] == pytest.approx(budget, rel=0.05)
    done = epochs(records)
    assert max(done) < 1.1 * min(done)
    assert "energy_budget" in records[1].events[0].reason


class PerVisit(EnergySource):
    """A sensor that shows two hundredths of a joule for each sample visit, and a joule for each task received."""

    name, kind, scope = "fake", "measured", "all"

    def __init__(self, learner):
        tally = learner.tally
        self.clock = self.mark = lambda: tally.visits + tally.forward_visits / 3 + 1e-6

    def probe(self):
        return Availability(True, "a fake")

    def measure(self, start_s, end_s):
        joules = 0.02 * (end_s - start_s)
        return Measurement(joules, joules, joules, 1.0, 9, 0.0)


@pytest.mark.parametrize("schedule", ["falling", "constant"])
def test_a_budget_in_joules_is_kept_at_a_price_that_the_run_finds_out(make_memory, schedule):
    one = learner()
    one.settings = replace(OF_TASK, epochs=80, schedule=schedule)
    one.epochs = 80
    controller = MiroController("energy_budget=40 J", num_tasks=3, energy_kind="measured")
    memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
    records = list(run(STREAM, one, memory, controller, EnergyMeter(PerVisit(one)), progress=False))
    readings = [r for record in records for r in in_windows(record.readings, *LEARNING)]
    assert 0.02 * sum(r.work.visit_equivalents for r in readings) == pytest.approx(40, rel=0.05)


def test_a_rate_is_a_knee_at_a_price():
    hard = blobs(spread=1.5)
    dear, cheap = (records_of(hard, epochs=24, objective=f"rate={rate} points/1000 visits") for rate in (30, 0.03))
    assert work(dear)[-1] < work(cheap)[-1]
    (chosen,) = dear[-1].trials[dear[-1].trials["chosen"]].to_dict("records")
    of_epoch = chosen["cost"] / chosen["epochs"]
    assert chosen["gain"] <= 0.03 * 0.1 * chosen["epochs"] * of_epoch * 1.05


def test_joules_without_a_sensor_are_refused_with_what_to_write():
    for objective in ("energy_budget=5 J", "rate=1 points/kJ"):
        with pytest.raises(InputError, match="there is no energy sensor: state it in sample visits"):
            MiroController(objective, num_tasks=3)
    with pytest.raises(InputError, match="give num_tasks, or state a rate"):
        MiroController("energy_budget=500 visits")
    with pytest.raises(InputError, match="can't be read"):
        MiroController("best")


def test_too_few_held_out_samples_to_tell_mean_all_epochs_and_a_word():
    tiny = blobs(classes=4, per_class=3)
    records = records_of(tiny, tasks=2, epochs=4, batch_size=4)
    assert epochs(records)[0] == 4 and "too few held-out samples" in records[0].events[-1].reason


COLLAPSES = {
    "one step an epoch": (lambda: blobs(), {"batch_size": 512, "epochs": 20}),
    "two classes first": (lambda: blobs(classes=6), {"tasks": 3}),
    "two held-out samples": (lambda: blobs(classes=4, per_class=12), {"tasks": 2, "validation_share": 0.05}),
    "eight held-out samples": (lambda: blobs(classes=4, per_class=24), {"tasks": 2, "validation_share": 0.08}),
    "a hundred classes": (lambda: blobs(classes=100, per_class=6, features=32), {"tasks": 5, "epochs": 8}),
    "a hundred to one": (lambda: blobs(classes=4, counts=[300, 3, 300, 3]), {"tasks": 2}),
    "two slots a class": (lambda: blobs(), {"memory_budget": "12 samples", "epochs": 6}),
    "three classes, a task each": (lambda: blobs(classes=3), {"tasks": 3}),
}


@pytest.mark.parametrize("case", COLLAPSES)
def test_no_default_collapses(case):
    make, options = COLLAPSES[case]
    ours, rule = ([], [])
    for seed in range(2):
        dataset = make()
        ours.append(records_of(dataset, seed=seed, **options)[-1].average_accuracy)
        # as the rule has it, at its own cost, which is as a rule the higher
        rule.append(records_of(dataset, seed=seed, controller="share", **options)[-1].average_accuracy)
    assert np.mean(ours) >= 0.8 * np.mean(rule), (ours, rule)


def test_a_method_without_replay_counts_no_replayed_samples():
    records = records_of(epochs=4, method="finetuning", objective="energy_budget=900 visits")
    assert work(records)[-1] == pytest.approx(900, rel=0.05) and NullSource.kind == "none"
