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


def test_a_stream_whose_classes_return_worked_by_hand():
    # task 0 brings a and b, task 1 c, task 2 a and c again: before it, 0.6 of its samples are right, among three
    m = AccuracyMatrix()
    m.append([0.9])
    m.append([0.5, 0.8])
    m.append([0.7, 0.6, 0.9], ahead=0.6 - 1 / 3)
    assert m.average_accuracy == pytest.approx((0.7 + 0.6 + 0.9) / 3)
    assert m.average_incremental_accuracy == pytest.approx((0.9 + 0.65 + 2.2 / 3) / 3)
    assert m.forgetting == pytest.approx((0.9 - 0.7 + 0.8 - 0.6) / 2)
    assert m.backward_transfer == pytest.approx((0.7 - 0.9 + 0.6 - 0.8) / 2)
    assert m.forward_transfer == pytest.approx(0.6 - 1 / 3)
    m.append([0.7, 0.6, 0.8, 1.0], ahead=0.5)
    assert m.forward_transfer == pytest.approx((0.6 - 1 / 3 + 0.5) / 2) and m.values.shape == (4, 4)


def test_where_every_task_brings_new_classes_nothing_is_known_ahead():
    assert math.isnan(matrix([0.9], [0.5, 0.8]).forward_transfer)
