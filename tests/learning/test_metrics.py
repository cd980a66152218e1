import math

import pytest

from mirolib import AccuracyMatrix


def matrix(*rows):
    result = AccuracyMatrix(len(rows))
    for row in rows:
        result.append(list(row))
    return result


@pytest.mark.parametrize(
    ("rows", "average", "incremental", "forgetting", "transfer"),
    [
        # task 0: best before the end 0.9, when learnt too, now 0.7; task 1: 0.8, now 0.2
        (([0.9], [0.6, 0.8], [0.7, 0.2, 1.0]), 1.9 / 3, (0.9 + 0.7 + 1.9 / 3) / 3, (0.2 + 0.6) / 2, (-0.2 - 0.6) / 2),
        # forgetting is measured from the best, not from the first
        (([0.5], [0.9, 1.0], [0.6, 1.0, 1.0]), 2.6 / 3, (0.5 + 0.95 + 2.6 / 3) / 3, 0.3 / 2, 0.1 / 2),
        # improving with time is negative forgetting
        (([0.5], [0.7, 1.0]), 0.85, (0.5 + 0.85) / 2, -0.2, 0.2),
    ],
)
def test_worked_by_hand(rows, average, incremental, forgetting, transfer):
    m = matrix(*rows)
    assert m.average_accuracy == pytest.approx(average)
    assert m.average_incremental_accuracy == pytest.approx(incremental)
    assert (m.forgetting, m.backward_transfer) == pytest.approx((forgetting, transfer))


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
