import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from samples import make_dataset

from mirolib import InputError, TaskStream, load_dataset
from mirolib.data.stream import labels_of, make_ids, rank_in_class


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.3]))
def test_every_sample_is_in_one_task_and_one_part(num_tasks, seed, share):
    dataset = make_dataset(classes=7, per_class=5)
    stream = TaskStream(dataset, num_tasks, seed, share)
    rows = [np.concatenate([task.train.rows, task.validation.rows]) for task in stream]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(dataset.train)))
    sizes = [len(task.classes) for task in stream]
    assert sum(sizes) == 7 and max(sizes) - min(sizes) <= 1
    assert stream.most_samples() == (max(len(t.train) for t in stream), sum(len(t.train) for t in stream))


def test_labels_follow_the_class_order():
    dataset = load_dataset("digits")
    stream = TaskStream(dataset, 5, seed=3)
    for task in stream:
        original = dataset.train.labels[task.train.rows]
        np.testing.assert_array_equal(np.array(stream.class_order)[task.train.labels], original)
        assert set(task.train.labels) == set(task.classes) == set(stream.tests(task.index)[-1].labels)
    assert [stream.class_names[label] for label in stream[0].classes] == [str(c) for c in stream.class_order[:2]]


def test_the_seed_decides_order_and_split():
    dataset = make_dataset()
    one, same, other = (TaskStream(dataset, 3, seed) for seed in (1, 1, 2))
    assert one.class_order == same.class_order != other.class_order
    np.testing.assert_array_equal(one[1].train.rows, same[1].train.rows)
    np.testing.assert_array_equal(one[1].train_ids, same[1].train_ids)


def test_a_sample_has_the_same_id_however_many_tasks_there_are():
    dataset = make_dataset()
    named = []
    for num_tasks in (1, 2, 3, 6):
        tasks = list(TaskStream(dataset, num_tasks, seed=4))
        named.append({int(i): int(row) for t in tasks for i, row in zip(t.train_ids, t.train.rows, strict=True)})
    assert named[0] == named[1] == named[2] == named[3]


def test_classes_mingle_on_arrival():
    labels = TaskStream(make_dataset(), 2)[0].train.labels
    assert 20 < (np.diff(labels) != 0).sum() < 50


def test_tasks_beyond_the_stream_are_refused():
    for index in (-1, 3):
        with pytest.raises(IndexError, match="has 3"):
            TaskStream(make_dataset(), 3)[index]


def test_held_out_share_by_class():
    task = TaskStream(make_dataset(per_class=20), 3, validation_share=0.1)[0]
    np.testing.assert_array_equal(np.bincount(task.validation.labels)[list(task.classes)], [2, 2])
    assert len(TaskStream(make_dataset(), 3, validation_share=0.0)[0].validation) == 0


def test_ids_carry_label_and_arrival():
    labels = np.array([2, 0, 2, 2, 0])
    np.testing.assert_array_equal(rank_in_class(labels), [0, 0, 1, 2, 1])
    ids = make_ids(labels, rank_in_class(labels))
    assert ids[3] == (2 << 32) + 2
    np.testing.assert_array_equal(labels_of(ids), labels)


def test_tests_up_to_a_task():
    stream = TaskStream(make_dataset(), 3)
    assert [len(test) for test in stream.tests(1)] == [10, 10]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_tasks": 7}, "between 1 and 6 tasks"),
        ({"num_tasks": 0}, "between 1 and 6 tasks"),
        ({"validation_share": 1.0}, "choose a value from 0"),
        ({"validation_share": -0.1}, "choose a value from 0"),
        ({"seed": -1}, "seed is -1"),
        ({"validation_share": 0.99}, "nothing to train on"),
    ],
)
def test_bad_streams_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        TaskStream(make_dataset(), **options)
