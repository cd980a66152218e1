import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from samples import make_dataset, make_grouped

from mirolib import Dataset, InputError, OpenStream, TaskStream, load_dataset
from mirolib.data.stream import ORDINAL_MASK, labels_of, make_ids, rank_in_class


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


KINDS = {
    "own order": {"order": "5, 3, 1, 0, 2, 4"},
    "by task": {"order": [[0, 1, 2], [3], [4, 5]]},
    "base and increment": {"base": 3, "increment": 2},
    "one a task": {"num_tasks": 6},
    "all in one": {"num_tasks": 1},
    "returning": {"kind": "returning=3", "num_tasks": 6},
    "returning by task": {"order": "0, 1; 2, 3; 1, 2; 0, 4, 5"},
    "blurry": {"kind": "blurry=0.3", "num_tasks": 3},
    "class seed": {"class_seed": 9, "num_tasks": 3},
}


def check_stream(stream):
    """No sample is lost or there twice, ids are dense and in order of arrival, labels are numbered as they come."""
    tasks, known, ends = list(stream), 0, {}
    rows = np.concatenate([part.rows for task in tasks for part in (task.train, task.validation)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(stream.dataset.train)))
    for task in tasks:
        assert task.classes == tuple(sorted(task.classes)) == tuple(np.unique(task.train.labels).tolist())
        new = [label for label in task.classes if label >= known]
        assert new == list(range(known, known + len(new)))
        known += len(new)
        for which, part, ids in (("t", task.train, task.train_ids), ("v", task.validation, task.validation_ids)):
            np.testing.assert_array_equal(labels_of(ids), part.labels)
            np.testing.assert_array_equal(
                np.array(stream.class_order)[part.labels], stream.dataset.train.labels[part.rows]
            )
            for label in np.unique(part.labels).tolist():
                ordinals = (ids & ORDINAL_MASK)[part.labels == label]
                start = ends.get((which, label), 0)
                np.testing.assert_array_equal(ordinals, start + np.arange(len(ordinals)))
                ends[which, label] = start + len(ordinals)
    assert known == stream.num_classes
    assert stream.most_samples() == (max(len(t.train) for t in tasks), sum(len(t.train) for t in tasks))


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.3]), st.integers(9, 30))
def test_streams_of_every_kind_lose_no_sample_and_number_them_on(kind, seed, share, per_class):
    stream = TaskStream(make_dataset(per_class=per_class), seed=seed, validation_share=share, **KINDS[kind])
    check_stream(stream)
    again = TaskStream(stream.dataset, seed=seed, validation_share=share, **KINDS[kind])
    for index in reversed(range(len(stream))):  # whatever was asked for before
        np.testing.assert_array_equal(again[index].train_ids, stream[index].train_ids)
        np.testing.assert_array_equal(again[index].train.rows, stream[index].train.rows)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.4]))
def test_domains_bring_the_same_classes_of_other_groups(groups, num_tasks, seed, share):
    dataset = make_grouped(groups=groups, each=10)
    if num_tasks > groups:
        with pytest.raises(InputError, match="cannot share"):
            TaskStream(dataset, num_tasks, seed, share, "domain-incremental")
        return
    stream = TaskStream(dataset, num_tasks, seed, share, "domain-incremental")
    check_stream(stream)
    seen = []
    for task, test in zip(stream, stream.tests(num_tasks - 1), strict=True):
        assert task.classes == (0, 1, 2, 3)
        assert set(task.train.groups) | set(task.validation.groups) == set(test.groups)
        seen += sorted(set(test.groups))
    assert sorted(seen) == [*"abcd"[:groups]]


def test_the_plan_is_what_was_asked_for():
    dataset = make_dataset()
    sizes = [len(task.classes) for task in TaskStream(dataset, base=3, increment=2)]
    assert sizes == [3, 2, 1]
    assert TaskStream(dataset, 3, order="5, 3, 1, 0, 2, 4").class_order == (5, 3, 1, 0, 2, 4)
    twice = TaskStream(dataset, order="0, 1; 2, 3, 4, 5; 1, 0")
    assert twice.task_classes == ((0, 1), (2, 3, 4, 5), (0, 1)) and twice.returns
    assert [len(twice[k].train) for k in (0, 2)] == [2 * 9, 2 * 9]  # ten of twenty, one held out
    assert TaskStream(dataset, 3, seed=1, class_seed=2).class_order == TaskStream(dataset, 3, seed=2).class_order
    again = TaskStream(dataset, 6, kind="returning=2")
    assert sorted(label for part in again.task_classes[3:] for label in part) == [0, 1, 2, 3, 4, 5]
    domains = TaskStream(make_grouped(), kind="domain-incremental", order="c; a, b")
    assert [set(test.groups) for test in domains.tests(1)] == [{"c"}, {"a", "b"}]


def test_blurry_tasks_hold_a_share_of_the_others():
    stream = TaskStream(make_dataset(classes=4, per_class=50), 2, validation_share=0.0, kind="blurry=0.2")
    for task, main in zip(stream, ((0, 1), (2, 3)), strict=True):
        counts = np.bincount(task.train.labels, minlength=4)
        assert counts.tolist() == [40 if label in main else 10 for label in range(4)]
    assert [sorted(set(test.labels)) for test in stream.tests(1)] == [[0, 1], [2, 3]]


def test_whole_groups_are_held_out_or_neighbours():
    task = TaskStream(make_grouped(groups=6), 1, validation_share=0.15)[0]  # 7 of 48 of each class: one group of 8
    for label in task.classes:
        held, kept = (set(part.groups[part.labels == label]) for part in (task.validation, task.train))
        assert len(held) == 1 and not held & kept
    for alone in TaskStream(make_grouped(groups=2, each=20), kind="domain-incremental", validation_share=0.2):
        for label in alone.classes:
            held = np.sort(alone.validation.rows[alone.validation.labels == label])
            assert len(held) == 4 and np.ptp(held) == 3  # neighbours, of which one pair is parted


def test_streams_that_number_samples_differently_have_other_stores():
    dataset = make_grouped()
    contents = {
        TaskStream(dataset, 3, kind=kind).content
        for kind in ("class-incremental", "domain-incremental", "blurry=0.2", "blurry=0.3")
    }
    assert len(contents) == 4
    plain = make_dataset()
    assert TaskStream(plain, 3).content == TaskStream(plain, base=2, increment=3).content == plain.fingerprint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "domain-incremental"}, "have no groups"),
        ({"kind": "cyclic"}, "choose class-incremental"),
        ({"kind": "blurry=2"}, "such as"),
        ({"kind": "returning=1.5"}, "such as"),
        ({"kind": "returning=2", "num_tasks": 5}, "in each of 2 rounds"),
        ({"order": "0, 1, 2"}, "leaves out 3, 4, 5"),
        ({"order": "0, 1, 2, 3, 4, 9"}, "names '9'"),
        ({"order": "0, 1; 2, 3, 4, 5", "num_tasks": 3}, "There are 2 tasks, not 3"),
        ({"class_seed": -1}, "choose 0 or more"),
    ],
)
def test_plans_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        TaskStream(make_dataset(), **options)


def test_a_task_without_a_test_sample_is_refused():
    dataset = make_grouped()
    test, few = dataset.test, np.flatnonzero(dataset.test.groups != "b")
    some = Dataset(dataset.spec, dataset.train, test.select(few), dataset.class_names, "x")
    with pytest.raises(InputError, match=r"Task \d \(b\) has no training or no test sample"):
        TaskStream(some, kind="domain-incremental")


def test_a_test_can_be_held_out_within_groups():
    whole = make_grouped(groups=3, each=10)
    options = {"groups": whole.train.groups, "test_share": 0.2}
    made = Dataset.from_arrays(whole.train.data, whole.train.labels, test_within=True, **options)
    assert len(made.test) == 4 * 3 * 2 and len(TaskStream(made, kind="domain-incremental")) == 3


def open_parts():
    """Three data sets that come one after another: two classes, one of them again beside a third, all again."""
    rng = np.random.default_rng(0)
    for names in (["cat", "dog"], ["ant", "dog"], ["ant", "cat", "dog"]):
        labels = np.repeat(names, 20)
        yield Dataset.from_arrays(rng.integers(0, 255, (len(labels), 1, 4, 4)).astype(np.uint8), labels)


def test_an_open_stream_numbers_classes_as_they_turn_up():
    parts = list(open_parts())
    stream = OpenStream(parts[0].spec)
    tasks = [stream.add(part) for part in parts]
    assert {*stream.class_names[:2]} == {"cat", "dog"} and stream.class_names[2] == "ant"
    assert [task.classes for task in tasks][::2] == [(0, 1), (0, 1, 2)] and tasks[1].classes[-1] == 2
    ids = np.concatenate([task.train_ids for task in tasks])
    for label, count in zip(*np.unique(labels_of(ids), return_counts=True), strict=True):
        ordinals = ids[labels_of(ids) == label] & ORDINAL_MASK
        np.testing.assert_array_equal(np.sort(ordinals), np.arange(count))
    assert len(stream) == 3 and [len(test) for test in stream.tests(2)] == [8, 8, 12]


def test_what_does_not_belong_to_an_open_stream_is_refused():
    first = next(open_parts())
    with pytest.raises(InputError, match="Samples of task 1"):
        OpenStream(first.spec).add(make_dataset(shape=(1, 5, 5)))
