import math

import pytest

from mirolib import AccuracyMatrix


def matrix(*rows):
    result = AccuracyMatrix(len(rows))
    for row in rows:
        result.append(list(row))
    return result


def test_worked_by_hand():
    m = matrix([0.9], [0.6, 0.8], [0.7, 0.2, 1.0])
    assert m.average_accuracy == pytest.approx(1.9 / 3)
    assert m.average_incremental_accuracy == pytest.approx((0.9 + 0.7 + 1.9 / 3) / 3)
    # task 0: best before the end 0.9, now 0.7; task 1: best 0.8, now 0.2
    assert m.forgetting == pytest.approx((0.2 + 0.6) / 2)
    # task 0: 0.7 after 0.9 when learnt; task 1: 0.2 after 0.8
    assert m.backward_transfer == pytest.approx((-0.2 - 0.6) / 2)


def test_forgetting_is_measured_from_the_best_not_from_the_first():
    m = matrix([0.5], [0.9, 1.0], [0.6, 1.0, 1.0])
    assert m.forgetting == pytest.approx((0.3 + 0.0) / 2)
    assert m.backward_transfer == pytest.approx((0.1 + 0.0) / 2)


def test_improving_with_time_is_negative_forgetting():
    m = matrix([0.5], [0.7, 1.0])
    assert m.forgetting == pytest.approx(-0.2) and m.backward_transfer == pytest.approx(0.2)


def test_after_one_task_nothing_can_be_forgotten():
    m = matrix([0.9])
    assert m.average_accuracy == m.average_incremental_accuracy == 0.9
    assert math.isnan(m.forgetting) and math.isnan(m.backward_transfer)


def test_midway_only_what_was_measured_counts():
    m = AccuracyMatrix(5)
    m.append([1.0])
    m.append([0.5, 0.7])
    assert m.average_accuracy == pytest.approx(0.6)
    with pytest.raises(AssertionError):
        m.append([0.5])
