from math import log

import numpy as np
import pytest
import torch
from arrivals import arrived
from hypothesis import given, strategies as st

from mirolib.controller.curve import LearningCurve, Look
from mirolib.data.stream import labels_of
from mirolib.memory.replace_damaged import read_all


def looks(exponent, scale=0.2, many=100_000, sd=0.0):
    """Looks at a task whose odds of an error fall with a power of the work, as many held-out samples would show it."""
    works = [0.5, 1.0, 2.0, 4.0]
    errors = [1 / (1 + w**exponent / scale) for w in works]
    known = [(many, many, error, (many * error) ** -0.5) for error in errors]
    return [Look(0, works[0], *known[0])] + [
        Look(0, w, *one, exponent, sd) for w, one in zip(works[1:], known[1:], strict=True)
    ]


def look(task, epochs, error, *exponent, many=1000):
    return Look(task, epochs, many, many, error, (many * error) ** -0.5, *exponent)


def test_what_a_power_law_shows_is_what_it_is():
    curve = LearningCurve(looks(0.8))
    found, deviation = curve.exponent()
    assert found == pytest.approx(0.8, abs=0.12) and deviation < 0.4, "the guess before any look is 0.7"
    for exponent in (0.2, 1.5):
        guess, found = 0.7, LearningCurve(looks(exponent)).exponent()[0]
        assert abs(found - exponent) < abs(guess - exponent) / 2


def test_the_exponent_by_hand():
    # weights: 1 / 0.4² for the guess 0.7; 1 / (0.4² + 0.3²) for the one step, which is of the task at hand
    curve = LearningCurve([look(1, 1.0, 0.2), look(1, 2.0, 0.1, 1.0, 0.4)])
    a, b = 1 / 0.16, 1 / 0.25
    assert curve.exponent() == pytest.approx(((0.7 * a + 1.0 * b) / (a + b), (a + b) ** -0.5))


def test_looks_that_are_long_ago_count_for_less():
    steep, old = look(0, 2.0, 0.1, 2.0, 0.0), look(4, 0.5, 0.2)
    assert LearningCurve([steep, old]).exponent()[0] < LearningCurve([steep]).exponent()[0]
    early = LearningCurve([look(0, 1.0, 0.1, 2.0, 0.0), look(0, 9.0, 0.1)])
    assert early.exponent()[0] == 0.7, "a look at a ninth of the work says nothing of what comes"


@given(st.floats(0.05, 1.5), st.floats(0.01, 0.9), st.integers(2, 5000))
def test_a_forecast_is_in_order(exponent, scale, many):
    curve = LearningCurve(looks(exponent, scale, many))
    epochs = np.geomspace(8, 80, 9)
    found = curve.forecast(0, epochs, 0.5)
    assert (np.diff(found.accuracy) >= 0).all() and (np.diff(found.gain) <= 1e-12).all() and (found.gain >= 0).all()
    assert (found.low >= 0).all() and (found.low <= found.accuracy).all()
    assert (found.accuracy <= found.high).all() and (found.high <= 1).all()


def test_fewer_samples_make_a_wider_interval():
    few, many = (LearningCurve(looks(0.5, many=n)).forecast(0, np.array([8.0]), 0.5) for n in (10, 1000))
    assert few.high - few.low > 1.5 * (many.high - many.low) and few.accuracy == many.accuracy


def test_the_gain_of_another_tenth_is_that_of_the_forecast():
    curve = LearningCurve(looks(0.7))
    here, further = (curve.forecast(0, np.array([e]), 0.5) for e in (8.0, 8.8))
    assert here.gain[0] == pytest.approx(100 * (further.accuracy[0] - here.accuracy[0]))


def test_a_curve_that_is_still_flat_is_no_knee():
    """Near chance another tenth of work brings little, and much later on."""
    gain = LearningCurve(looks(1.2, scale=500)).forecast(0, np.geomspace(1, 10_000, 40), 1.0).gain
    assert gain[0] == gain.max() > 1


def test_nothing_is_forecast_of_a_task_that_was_not_looked_at():
    assert np.isnan(LearningCurve(looks(0.7)).forecast(1, np.array([1.0]), 0.5).accuracy).all()
    assert np.isnan(LearningCurve().forecast(0, np.array([1.0]), 0.5).accuracy).all()


def test_a_look_is_the_mean_probability_of_the_true_classes(make_memory):
    _, one, memory = arrived(make_memory, task=1)
    one.epochs_done = 1.0
    curve = LearningCurve()
    seen = curve.look(1, one, memory, 1000)
    ids = np.sort(memory.validation_ids())
    scores = torch.softmax(one.classify(one.features(read_all(memory.storage, ids, "validation"))).double(), 1)
    truth = scores[torch.arange(len(ids)), torch.from_numpy(labels_of(ids))].numpy()
    assert seen.samples == seen.of == len(ids) == 8, "two of each of four classes"
    assert seen.error == pytest.approx(((1 - truth).sum() + 0.1) / 8.1)
    assert seen.error_sd == pytest.approx((8 * truth.var() + 0.1) ** 0.5 / (8 * seen.error))
    np.testing.assert_array_equal(np.sort(curve.ids), ids)


def test_fewer_samples_than_there_are_are_of_all_classes(make_memory):
    _, one, memory = arrived(make_memory, task=1)
    curve = LearningCurve()
    assert curve.look(1, one, memory, 4).samples == 4 and sorted(labels_of(curve.ids)) == [0, 1, 2, 3]


def test_two_looks_are_compared_by_the_samples_that_both_saw(make_memory):
    _, one, memory = arrived(make_memory, task=1)
    curve = LearningCurve()
    one.epochs_done = 1.0
    curve.look(1, one, memory, 4)
    one.epochs_done = 2.0
    assert curve.look(1, one, memory, 8).exponent == 0.0, "the model has not changed, only more samples are looked at"


def test_the_end_of_a_task_tells_the_power_from_probabilities_to_hits(make_memory):
    _, one, memory = arrived(make_memory, task=1)
    curve = LearningCurve([look(1, 1.0, 0.3, many=8)])
    one.epochs_done = one.epochs = 2.0
    assert curve.finish(1, one, memory, 8, 0.5) == 8
    ids = memory.validation_ids()
    missed = int((one.stream_labels(read_all(memory.storage, ids, "validation")) != labels_of(ids)).sum())
    ((task, power, off),) = curve.ends
    assert (task, power) == (1, pytest.approx(log((missed + 0.5) / 9) / log(0.3)))
    assert off == pytest.approx((missed + 0.5) ** -0.5 / -log(0.3))
    assert curve.finish(2, one, memory, 8, 0.5) == 0, "a task that was not looked at tells nothing"
