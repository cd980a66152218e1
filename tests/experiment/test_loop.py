import math
import time
from dataclasses import replace

import numpy as np
import pytest
from samples import make_dataset

from mirolib import (
    BudgetSchedule,
    Controller,
    Dataset,
    Decision,
    EnergyMeter,
    EpochRecord,
    Experiment,
    Finetuning,
    FixedController,
    InputError,
    Learner,
    LiveBudget,
    MemoryConfig,
    MiroController,
    NullSource,
    ResourceMonitor,
    RunSettings,
    Storage,
    TaskStream,
    check_study,
    run,
    run_all,
    summarise,
)
from mirolib.controller.selectors import HighestAccuracy
from mirolib.memory.swapper import SwapCounts

STREAM = TaskStream(make_dataset(classes=6, per_class=20), 3, seed=0)
PRESET = replace(STREAM.dataset.spec.preset(), epochs=3, batch_size=8)
CONFIG = MemoryConfig(20, 18, 0.5)


def learner(**options):
    return Learner(STREAM.dataset.spec, PRESET, **options)


def test_records_after_every_task(make_memory):
    memory = make_memory(STREAM, CONFIG)
    records = list(run(STREAM, learner(), memory, FixedController(CONFIG), EnergyMeter(NullSource()), progress=False))
    assert [len(record.accuracies) for record in records] == [1, 2, 3]
    assert [record.stored for record in records] == [36, 72, 108]
    assert [record.episodic_fill for record in records] == [18, 18, 18]
    assert all(len(record.epochs) == 3 for record in records)
    assert {record.memory_bytes for record in records} == {(20 + 18) * (16 + 16)}, "pixels, label and id"
    assert "stream 20, episodic 18: 1.2 KiB" in records[0].headline
    windows = ["receive", "profile", "train", "retain", "evaluate"]
    assert [reading.window for reading in records[1].readings] == windows
    first, second = (record.readings[2].work.visits for record in records[:2])
    assert (first, second) == (3 * 20, 3 * (20 + 18))
    assert [sum(epoch.swaps.swapped for epoch in record.epochs) for record in records] == [0, 27, 27]
    assert records[1].readings[0].work.bytes_written == 40 * (16 + 8)
    assert math.isnan(records[0].forgetting) and records[0].row()["energy_kind"] == "none"


def test_the_record_agrees_with_the_learner_it_describes(make_memory):
    memory, one = make_memory(STREAM, CONFIG), learner()
    for record in run(STREAM, one, memory, FixedController(CONFIG), progress=False):
        accuracies = [one.accuracy(test) for test in STREAM.tests(record.task)]
        assert list(record.accuracies) == accuracies
        assert record.average_accuracy == np.mean(accuracies)


class SlowStorage(Storage):
    """A store on a disk that takes its time."""

    def read(self, ids, part="train"):
        time.sleep(0.002)
        return super().read(ids, part)


def facts(records):
    """Everything of a run but its times."""
    return [
        (
            r.accuracies,
            r.config,
            r.episodic_fill,
            [(e.loss, e.swaps.swapped, e.swaps.unavailable) for e in r.epochs],
            [(reading.window, reading.work.visits, reading.work.bytes_read) for reading in r.readings],
        )
        for r in records
    ]


def test_same_seed_same_run_bit_for_bit_whatever_the_disk(make_memory):
    runs = []
    for seed, slow in ((0, False), (0, True), (1, False)):
        memory = make_memory(STREAM, CONFIG, seed=seed)
        if slow:
            memory.storage.__class__ = SlowStorage
        runs.append(facts(run(STREAM, learner(seed=seed), memory, FixedController(CONFIG), progress=False)))
    assert runs[0] == runs[1] != runs[2]


class Stepwise(Controller):
    """Another size at each epoch."""

    def __init__(self):
        self.seen = []

    def choose(self, task, learner, memory, resources):
        return Decision(MemoryConfig(20, 18, 0.5))

    def observe(self, record):
        self.seen.append(record.task)

    def adapt(self, config, resources):
        assert resources.memory_used_bytes > 0 and 0 <= resources.stall_share <= 1
        smaller = replace(config, stream_size=config.stream_size - 3, episodic_size=config.episodic_size + 2)
        return Decision(smaller, "another size")


def test_a_controllers_decisions_are_applied_each_epoch(make_memory):
    memory = make_memory(STREAM, CONFIG)
    controller = Stepwise()
    records = list(run(STREAM, learner(), memory, controller, resources=ResourceMonitor(memory), progress=False))
    assert controller.seen == [0, 1, 2]
    sizes = [(e.config.stream_size, e.config.episodic_size) for e in records[1].epochs]
    assert sizes == [(17, 20), (14, 22), (11, 24)]
    assert records[1].readings[2].work.visits == sum(map(sum, sizes))
    assert [event.epoch for event in records[1].events] == [0, 1, 2]
    assert [event.memory_bytes for event in records[1].events] == [32 * sum(pair) for pair in sizes]
    assert records[1].events[0].row()["reason"] == "another size" and math.isnan(records[1].events[0].stall_share)


def test_without_replay_the_first_task_is_forgotten_and_with_it_less_so(make_memory):
    labels = np.repeat(np.arange(4), 30)
    images = np.zeros((120, 1, 4, 4), np.uint8)
    images[np.arange(120), 0, labels, :] = np.random.default_rng(0).integers(100, 255, (120, 4))
    dataset = Dataset.from_arrays(images, labels, images[::3], labels[::3])
    stream = TaskStream(dataset, 2)
    forgotten = []
    for method in (Finetuning(), None):
        one = Learner(dataset.spec, replace(dataset.spec.preset(), epochs=15, batch_size=8), method=method)
        memory = make_memory(stream, MemoryConfig(54, 20, 1.0))
        forgotten.append(list(run(stream, one, memory, FixedController(memory.config), progress=False))[-1].forgetting)
    assert forgotten[0] > 0.9 and forgotten[1] < 0.3


def test_sizes_above_what_exists_are_refused_before_anything_is_written(make_memory):
    for config, sentence in ((MemoryConfig(37, 10), "no task has more than 36"), (MemoryConfig(20, 109), "only 108")):
        memory = make_memory(STREAM, config)
        with pytest.raises(InputError, match=sentence):
            next(run(STREAM, learner(), memory, FixedController(config), progress=False))
        assert memory.storage.count(0) == 0


def test_what_a_controller_asks_for_is_checked_too(make_memory):
    memory = make_memory(STREAM, CONFIG)
    with pytest.raises(InputError, match="no task has more than 36"):
        next(run(STREAM, learner(), memory, FixedController(MemoryConfig(5000, 10)), progress=False))


def test_used_parts_are_refused(make_memory):
    memory, one = make_memory(STREAM, CONFIG), learner()
    next(run(STREAM, one, memory, FixedController(CONFIG), progress=False))
    for parts in ((one, make_memory(STREAM, CONFIG)), (learner(), memory)):
        with pytest.raises(InputError, match="make both anew"):
            next(run(STREAM, *parts, FixedController(CONFIG), progress=False))


def test_waiting_at_the_end_of_a_task_is_in_its_books(make_memory):
    memory = make_memory(STREAM, CONFIG, lag=40)
    memory.storage.__class__ = SlowStorage
    records = list(run(STREAM, learner(), memory, FixedController(CONFIG), progress=False))
    assert sum(record.swaps.stall_s for record in records) == pytest.approx(memory.counts.stall_s)
    assert memory.counts.stall_s > sum(e.swaps.stall_s for record in records for e in record.epochs)


def test_stopping_early_keeps_what_was_yielded(make_memory):
    memory = make_memory(STREAM, CONFIG)
    records = []
    for record in run(STREAM, learner(), memory, FixedController(CONFIG), progress=False):
        records.append(record)
        break
    assert len(records) == 1 and memory.stored == 36


def test_resource_monitor_reads_the_stall_share_of_the_last_epoch(make_memory):
    memory = make_memory(STREAM, CONFIG)
    monitor = ResourceMonitor(memory, BudgetSchedule({0: 10_000}))
    epoch = EpochRecord(0, 0, CONFIG, 0.5, SwapCounts(stall_s=1.0), 4.0)
    first, second = monitor.probe(1, epoch), monitor.probe(2)
    assert (first.stall_share, second.stall_share) == (0.25, 0.0)
    assert first.after_epoch and not second.after_epoch
    assert first.memory_budget_bytes == 10_000 and first.memory_used_bytes == (20 + 18) * (16 + 16)


def test_settings_fill_in_the_preset(tmp_path):
    experiment = Experiment.build(RunSettings(controller="fixed", epochs=2, seed=3), tmp_path)
    filled = experiment.settings
    assert (filled.preset, filled.tasks, filled.model, filled.epochs) == ("small", 5, "small-cnn", 2)
    assert filled.swap_ratio == 0.2 and filled.device in ("cpu", "cuda")
    experiment.memory.close()
    single = Experiment.build(RunSettings(controller="fixed", memory="single-level"), tmp_path / "single")
    assert single.settings.swap_ratio == 0.0 and not single.memory.hierarchical
    single.memory.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "mnist"}, "no data set 'mnist'"),
        ({"preset": "vast"}, "no preset 'vast'"),
        ({"method": "magic"}, "method is 'magic'; choose one of er, finetuning"),
        ({"memory": "endless"}, "choose one of tiered, single-level"),
        ({"controller": "oracle"}, "choose one of miro, fixed, whole-budget, random"),
        ({"profiler": "guess"}, "choose one of probe, trial, oracle"),
        ({"selector": "best"}, "choose one of gain-per-joule"),
        ({"selector": "within-budget"}, "needs energy_budget"),
        ({"cutline": 0.0}, "cutline is 0.0"),
        ({"points": -1.0}, "points is -1.0"),
        ({"memory_budget": "plenty"}, "memory budget 'plenty' can't be read"),
        ({"controller": "miro", "stream_size": 50}, "sizes are for|are for the fixed controller"),
        ({"loss": "l2"}, "no loss 'l2'"),
        ({"model": "gpt"}, "model is 'gpt'"),
        ({"tasks": 11}, "11 tasks cannot share 10 classes"),
        ({"seed": -1}, "seed is -1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, r"epochs is 1.5; give a value of type int \| None"),
        ({"epochs": "3"}, "give a value of type int"),
        ({"seed": "a"}, "give a value of type int"),
        ({"controller": "fixed", "episodic_size": True}, "give a value of type int"),
        ({"swap_ratio": "0.5"}, "give a value of type float"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"dataset": None}, "give a value of type str"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"controller": "fixed", "swap_ratio": 2.0}, "swap_ratio is 2.0"),
        ({"controller": "fixed", "stream_size": 0}, "stream_size is 0"),
        ({"controller": "fixed", "stream_size": 5000}, "no task has more than"),
        ({"controller": "fixed", "episodic_size": 5000}, "only 1260 training samples"),
        ({"controller": "fixed", "stream_size": "64MB"}, "no task has more than"),
        ({"controller": "fixed", "stream_size": "much"}, "The size 'much' can't be read; write a whole number"),
        ({"controller": "fixed", "episodic_size": "60 B"}, "60 B does not hold one sample, which takes 80 bytes"),
        ({"controller": "fixed", "episodic_size": 1.5}, r"give a value of type int \| str \| None"),
        ({"controller": "miro", "stream_size": "8 kB"}, "are for the fixed controller"),
        ({"memory": "single-level", "swap_ratio": 0.5}, "single-level memory can't swap"),
        ({"energy": "nowhere.csv"}, "no power trace"),
        ({"device": "tpu:9"}, "choose one of auto, cpu, cuda, mps"),
    ],
)
def test_bad_settings_are_refused_and_leave_no_store(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        Experiment.build(RunSettings(**options), tmp_path / "store")
    assert not (tmp_path / "store" / "data.mdb").exists()


def test_a_part_that_is_replaced_takes_part(tmp_path):
    built = Experiment.build(RunSettings(epochs=1, tasks=2, energy="none", controller="fixed"), tmp_path)
    ours = FixedController(MemoryConfig(30, 7, 0.0))
    records = list(replace(built, controller=ours).run(progress=False))
    assert [record.config.episodic_size for record in records] == [7, 7]


def test_sizes_in_bytes_become_samples_of_the_data_set(tmp_path):
    settings = RunSettings(controller="fixed", stream_size="8 kB", episodic_size="30 samples", epochs=1)
    experiment = Experiment.build(settings, tmp_path / "store")
    assert (experiment.settings.stream_size, experiment.settings.episodic_size) == (100, 30)
    assert experiment.memory.allocated_bytes == 8000 + 30 * 80
    experiment.memory.close()


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (int, {"seeds": 0}, "seeds is 0; give a whole number, 1 or more."),
        (int, {"seeds": True}, "seeds is True; give a whole number"),
        (int, {"seeds": 1, "budgets": []}, r"budgets is \[\]; give a list of 1 or more different values, each a whole"),
        (int, {"budgets": [40, "x"]}, r"budgets is \[40, 'x'\]; give a list"),
        (int, {"budgets": [40, 40], "least": 2}, "give a list of 2 or more different values"),
        (float, {"shares": [0.5, 1.5]}, "each a number from 0 to 1"),
        (float, {"shares": [math.nan]}, "each a number from 0 to 1"),
        (str, {"datasets": [""]}, "each a name"),
        (tuple, {"fixed": [60, 30]}, "each a pair of sizes"),
        (tuple, {"fixed": [[60]]}, "each a pair of sizes"),
    ],
)
def test_what_a_study_can_not_compare_is_refused(kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        check_study(kind, **options)


def test_what_a_study_can_compare_passes():
    check_study(int, seeds=np.int64(1), episodic_sizes=[20, 100])
    check_study(float, swap_ratios=[0, 0.2, 1.0])
    check_study(str, datasets=["digits"])
    check_study(tuple, fixed=[[60, 30], ("64 MB", 30)])


def test_run_all_gives_one_row_a_run():
    table = run_all([RunSettings(controller="fixed", epochs=1, seed=seed) for seed in (0, 1)], progress=False)
    assert table["seed"].tolist() == [0, 1]
    assert table["final_accuracy"].between(0, 1).all()
    assert (table["train_visits"] > 0).all() and (table["profile_visits"] == 0).all()
    assert summarise([]) == {}


class ShortAtTheEnd(LiveBudget):
    """Memory runs out in the second task's last epoch."""

    def __init__(self, slot_bytes):
        super().__init__(200 * slot_bytes)
        self.slot_bytes, self.epochs_done = slot_bytes, 0

    def read(self, epochs_done, used_bytes):
        self.epochs_done = epochs_done
        return self.size_bytes

    def is_short(self):
        if self.epochs_done == 2 * PRESET.epochs - 1:
            self.size_bytes = 20 * self.slot_bytes
            return True
        return False


def test_a_shortage_in_a_task_s_last_epoch_is_acted_upon_before_the_task_ends(make_memory, monkeypatch):
    monkeypatch.setattr("mirolib.controller.resources._SHORTAGE_EVERY_S", 0.0)
    memory, sizes = make_memory(STREAM, MemoryConfig(1, 1)), []
    retain = memory.retain
    monkeypatch.setattr(memory, "retain", lambda task: sizes.append(memory.allocated_bytes) or retain(task))
    resources = ResourceMonitor(memory, ShortAtTheEnd(memory.slot_bytes))
    controller = MiroController(selector=HighestAccuracy())
    records = list(run(STREAM, learner(), memory, controller, resources=resources, progress=False))
    assert sizes[1] <= 20 * memory.slot_bytes < sizes[0]
    last = records[1].events[-1]
    assert last.epoch == PRESET.epochs and "memory budget" in last.reason
    assert len(records[1].epochs) == PRESET.epochs
