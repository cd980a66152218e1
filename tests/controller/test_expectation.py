import numpy as np
import pytest
from hypothesis import given, strategies as st

from mirolib.controller import Calibration, CostModel


def test_calibration_learns_the_line_and_keeps_the_order():
    calibration = Calibration(forgetting=1.0)
    scores = np.array([0.4, 0.6, 0.8, 0.9])
    for score in np.repeat(scores, 10):
        calibration.observe(score, 1 - np.exp(-1.5 + 0.6 * np.log(1 - score)))
    predicted = calibration.predict(scores)
    assert np.abs(predicted - (1 - np.exp(-1.5 + 0.6 * np.log(1 - scores)))).max() < 0.02
    assert (np.diff(predicted) > 0).all() and (Calibration().predict(scores) < 1).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8), st.lists(st.floats(0, 1), min_size=2))
def test_calibrated_accuracies_are_accuracies_in_the_order_of_the_scores(points, scores):
    calibration = Calibration()
    for point in points:
        calibration.observe(*point)
    predicted = calibration.predict(np.sort(scores))
    assert (predicted >= 0).all() and (predicted <= 1).all() and (np.diff(predicted) >= -1e-12).all()


def test_before_the_first_measurement_the_best_candidate_is_supposed_to_reach_what_the_last_task_did():
    easy, hard = Calibration(), Calibration()
    easy.pseudo_observe(0.9, 0.99)
    hard.pseudo_observe(0.9, 0.4)
    assert easy.predict(np.array([0.9]))[0] > 0.95 > 0.75 > hard.predict(np.array([0.9]))[0]
    hard.observe(0.9, 0.99)
    after = hard.line()
    hard.pseudo_observe(0.9, 0.1)
    assert hard.line() == after, "a measurement outweighs any supposition"


def test_the_worst_scores_are_still_told_apart():
    calibration = Calibration()
    calibration.observe(0.9, 0.02)
    calibration.observe(0.95, 0.01)
    predicted = calibration.predict(np.linspace(0.0, 0.95, 20))
    assert len(set(predicted.tolist())) == 20 and predicted.min() >= 0


def test_without_a_sensor_cost_is_visits_exactly():
    costs = CostModel()
    costs.measure(1000, 50, float("nan"))
    assert costs.unit == "visits" and costs.known and costs.predict(123, 1e9) == 123


def test_the_cost_model_finds_what_a_machine_takes():
    rng, costs, errors = np.random.default_rng(0), CostModel("J"), []
    for _ in range(12):
        visits, size_bytes = rng.uniform(1e3, 1e4), rng.uniform(1e5, 1e7)
        cost = rng.normal(1, 0.01) * (5 + 2e-2 * visits + 3e-6 * size_bytes)
        errors.append(abs(float(costs.predict(visits, size_bytes)) - cost) / cost)
        costs.measure(visits, size_bytes, cost)
    assert costs.predict(4000, 2e6) == pytest.approx(5 + 80 + 6, rel=0.03)
    assert np.median(errors[6:]) < 0.05


def test_as_long_as_tasks_are_alike_the_cost_is_proportional_to_visits():
    costs = CostModel("J")
    assert not costs.known
    for visits, cost in ((62, 12.0), (80, 15.0), (90, 13.0)):
        costs.measure(visits, 1e6, cost)
    assert costs.known and costs.predict(1000, 1e9) == pytest.approx(1000 * 40 / 232)
    costs.measure(100, 0, float("nan"))
    assert costs.predict(1000, 0) == pytest.approx(1000 * 40 / 232), "a task without joules says nothing in joules"
