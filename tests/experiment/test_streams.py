"""Runs over streams in which classes return, come in other groups, or come later: see tests/data/test_stream.py."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from samples import make_dataset, make_grouped

from mirolib import (
    Dataset,
    Fingerprint,
    FixedController,
    InputError,
    Learner,
    Loop,
    MemoryConfig,
    MiroController,
    OpenStream,
    RunSettings,
    Storage,
    TaskRecord,
    TaskStream,
    TieredMemory,
)
from mirolib.data.stream import ORDINAL_MASK, labels_of
from mirolib.experiment.checkpoint import decoded, encoded
from mirolib.experiment.experiment import Experiment
from mirolib.memory.buffers import balanced_quotas

STREAMS = {
    "class-incremental": {"base_classes": 2, "increment": 1},
    "domain-incremental": {"stream": "domain-incremental"},
    "returning": {"stream": "returning=2", "tasks": 4},
    "blurry": {"stream": "blurry=0.3", "tasks": 2},
    "one a task": {"tasks": 4},
}
SMALL = {"dataset": "arrays", "epochs": 1, "batch_size": 4, "energy": "none", "device": "cpu", "validation_share": 0.25}


def records_of(tmp_path, **options):
    dataset = make_grouped(classes=4, groups=3, each=8)
    experiment = Experiment.build(RunSettings(**SMALL | options), tmp_path / "store", dataset)
    return list(experiment.run(progress=False))


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "options",
    [
        {"controller": "miro"},
        {"controller": "miro", "objective": "rate=0.2 points/1000 visits", "method": "bic"},
        {"controller": "tuned", "epochs": 4},
        {"controller": "miro-2023", "epochs": 2},
        {"controller": "miro-2023", "epochs": 2, "profiler": "trial", "method": "bic"},
        {"controller": "whole-budget", "memory_budget": "30 samples"},
        {"controller": "random", "memory": "single-level"},
        {"controller": "fixed", "method": "finetuning", "stream_size": 12, "episodic_size": 8},
        {"controller": "fixed", "balance": "class-and-task", "stream_size": 12, "episodic_size": 8},
    ],
    ids=str,
)
def test_every_controller_and_method_goes_through_every_stream(stream, options, tmp_path):
    records = records_of(tmp_path, **options, **STREAMS[stream])
    last = records[-1]
    known_ahead = [bool(record.ahead == record.ahead) for record in records]
    assert known_ahead == {
        "class-incremental": [False] * 3, "domain-incremental": [False, True, True], "blurry": [False, True],
        "returning": [False, False, True, True], "one a task": [False] * 4,
    }[stream]  # fmt: skip
    for value in (last.overall_accuracy, last.task_aware_accuracy, last.average_accuracy):
        assert 0 <= value <= 1
    assert last.task_aware_accuracy >= last.average_accuracy  # among fewer classes a guess is easier
    if stream in ("domain-incremental", "blurry"):  # whose tasks have all classes
        assert last.task_aware_accuracy == last.average_accuracy


def test_a_budget_for_storage_is_refused_where_classes_return(tmp_path):
    with pytest.raises(InputError, match="store_budget is for classes that come once"):
        records_of(tmp_path, stream="domain-incremental", store_budget="200 samples")


def checked(memory, stream, index):
    """Samples in RAM are what their ids say, no old one is from a task to come, and none is there twice."""
    sample_of = {}
    for task in list(stream)[: index + 1]:
        sample_of |= {int(i): task.train.read(np.array([k]))[0] for k, i in enumerate(task.train_ids)}
    now, old = stream[index], memory.episodic_memory.array
    held, others = old.ids, memory.stream_buffer.array.ids
    assert len(set(held.tolist())) == len(held) and not set(held.tolist()) & set(now.train_ids.tolist())
    assert set(others.tolist()) <= set(now.train_ids.tolist())
    for array in (old, memory.stream_buffer.array):
        samples, labels = np.empty((len(array), 1, 4, 4), np.uint8), np.empty(len(array), int)
        array.gather(np.arange(len(array)), samples, labels)
        for id_, sample, label in zip(array.ids.tolist(), samples, labels, strict=True):
            np.testing.assert_array_equal(sample, sample_of[id_])
            assert label == id_ >> 32


@settings(max_examples=15)
@given(
    st.sampled_from(["domain-incremental", "returning=2", "blurry=0.3"]), st.booleans(), st.integers(1, 16),
    st.sampled_from(["class", "class-and-task"]), st.integers(0, 3),
)  # fmt: skip
def test_old_samples_of_classes_that_return_are_apart_from_the_new_ones(
    tmp_path_factory, kind, hierarchical, size, balance, seed
):
    stream = TaskStream(make_grouped(each=10), 4 if kind == "returning=2" else 3, seed, kind=kind)
    config = MemoryConfig(9, size, 0.5 if hierarchical else 0.0)
    storage = Storage(tmp_path_factory.mktemp("store"), Fingerprint.of(stream))
    with TieredMemory(storage, config, 4, seed=seed, hierarchical=hierarchical, balance=balance) as memory:
        for task in stream:
            memory.receive(task)
            assert memory.stored == sum(len(stream[k].train) for k in range(task.index + 1))
            assert len(memory.validation_ids()) == sum(len(stream[k].validation) for k in range(task.index + 1))
            for _ in range(2):
                for batch in memory.passes(4, 1.0):
                    memory.swap(batch)
                    checked(memory, stream, task.index)
            for other in (size + 2, size):  # what the stream buffer holds is not old before the task has ended
                memory.resize(replace(config, episodic_size=other))
                checked(memory, stream, task.index)
            memory.retain(task)
            if hierarchical:
                quotas = balanced_quotas(size, memory.reachable())
                np.testing.assert_array_equal(memory.episodic_memory.class_counts(4), quotas)


@pytest.mark.parametrize("balance", ["class", "class-and-task"])
def test_each_task_has_its_share_of_the_episodic_memory(balance, tmp_path):
    # a task of many samples and then two of few, all of the same two classes
    labels, groups = np.tile([0, 1], 140), np.repeat(["a", "b", "c"], [200, 40, 40])
    images = np.zeros((280, 1, 4, 4), np.uint8)
    dataset = Dataset.from_arrays(images, labels, images, labels, groups=groups, test_groups=groups)
    stream, shares = TaskStream(dataset, 3, 0, 0.0, "domain-incremental", "a, b, c"), []
    for seed in range(20):
        storage = Storage(tmp_path / str(seed), Fingerprint.of(stream))
        with TieredMemory(storage, MemoryConfig(30, 42, 1.0), 2, seed=seed, balance=balance) as memory:
            for task in stream:
                memory.receive(task)
                for batch in memory.passes(10, 1.0):
                    memory.swap(batch)
                memory.retain(task)
            bounds = np.cumsum([len(task.train) // 2 for task in stream])
            ordinals = memory.episodic_memory.array.ids & ORDINAL_MASK
            shares.append(np.bincount(np.searchsorted(bounds, ordinals, "right"), minlength=3))
    wanted = 42 * np.array([200, 40, 40]) / 280 if balance == "class" else np.array([14, 14, 14])
    assert abs(np.mean(shares, axis=0) - wanted).max() < 2.5, np.mean(shares, axis=0)


def test_looks_see_every_task_alike(tmp_path):
    stream = TaskStream(make_grouped(each=10), 3, 0, 0.2, "domain-incremental")
    with TieredMemory(Storage(tmp_path, Fingerprint.of(stream)), MemoryConfig(9, 9), 4) as memory:
        for task in stream:
            memory.receive(task)
            memory.retain(task)
        first = memory.judged_ids()[:12]  # one of each class and task
    of_task = [int(np.isin(first, task.validation_ids).sum()) for task in stream]
    assert of_task == [4, 4, 4] and np.bincount(labels_of(first)).tolist() == [3, 3, 3, 3]


def facts(record):
    return record.accuracies, record.overall_accuracy, record.ahead, [epoch.loss for epoch in record.epochs]


@pytest.mark.parametrize("stream", ["domain-incremental", "returning", "blurry"])
@pytest.mark.parametrize("options", [{"method": "bic"}, {"balance": "class-and-task"}], ids=str)
def test_a_run_goes_on_bit_for_bit_after_any_step(stream, options, tmp_path):
    dataset = make_grouped(classes=4, groups=3, each=8)
    run = SMALL | STREAMS[stream] | options | {"controller": "fixed", "stream_size": 12, "episodic_size": 8}
    whole = Experiment.build(RunSettings(**run), tmp_path / "whole", dataset)
    states, ends = [], []
    for step in whole.steps(progress=False):
        states.append(encoded(whole.loop.state()))
        ends += [facts(step)] if isinstance(step, TaskRecord) else []
    for number, state in enumerate(states[1::2]):
        again = Experiment.build(RunSettings(**run), tmp_path / f"again{number}", dataset)
        again.loop.restore(decoded(state))
        list(again.run(progress=False))
        assert repr([facts(record) for record in again.loop.records]) == repr(ends)


def open_loop(folder, controller=None, spec=None):
    """A run over a stream that is open, and the data that come."""
    parts = [make_dataset(classes=2), make_dataset(classes=4, seed=1), make_dataset(classes=3, seed=2)]
    spec = parts[0].spec
    stream = OpenStream(spec, validation_share=0.2)
    learner = Learner(spec, replace(spec.preset().with_epochs(2, "task"), batch_size=8))
    memory = TieredMemory(Storage(folder, Fingerprint.of(stream)), MemoryConfig(40, 12, 1.0), 0)
    return Loop(stream, learner, memory, controller or FixedController(memory.config)), stream, memory, parts


@pytest.mark.parametrize("objective", ["", "knee", "rate=0.2 points/1000 visits"])
def test_data_may_come_later_and_a_run_goes_on_after_a_restart(objective, tmp_path):
    make = (lambda: MiroController(objective)) if objective else (lambda: None)
    loop, stream, memory, parts = open_loop(tmp_path / "one", make())
    with memory:
        ends = [loop.learn(stream.add(part)) for part in parts[:2]]
        state = encoded(loop.state())
        ends.append(loop.learn(stream.add(parts[2])))
    assert [len(end.accuracies) for end in ends] == [1, 2, 3] and ends[1].classes == ("0", "1", "2", "3")
    sizes = [len(test) for test in stream.tests(2)]
    assert ends[2].overall_accuracy == pytest.approx(np.average(ends[2].accuracies, weights=sizes))
    assert np.isnan(ends[1].ahead) and not np.isnan(ends[2].ahead) and loop.share == 1
    loop, stream, memory, parts = open_loop(tmp_path / "one", make())  # the store is as the other run left it
    with memory, pytest.raises(InputError, match="has 2 tasks, the stream 0"):
        loop.restore(decoded(state))
    loop, stream, memory, parts = open_loop(tmp_path / "one", make())
    with memory:
        for part in parts[:2]:
            stream.add(part)
        loop.restore(decoded(state))
        assert repr(facts(loop.learn(stream.add(parts[2])))) == repr(facts(ends[2]))
        with pytest.raises(InputError, match="Task 4 of the stream comes next, not 3"):
            loop.learn(stream[2])


def test_an_energy_budget_needs_the_number_of_tasks():
    with pytest.raises(InputError, match="state a rate"):
        MiroController("energy_budget=1000 visits")
