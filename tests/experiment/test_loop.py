import math
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from arrivals import CONFIG, OF_TASK, PRESET, STREAM, arrived, learner
from samples import make_dataset
from tqdm import tqdm
from watching import BY_TASK

from mirolib import (
    BudgetSchedule,
    Controller,
    Dataset,
    Decision,
    EnergyMeter,
    EpochRecord,
    Finetuning,
    FixedController,
    InputError,
    Learner,
    LiveBudget,
    MemoryConfig,
    Miro2023Controller,
    NullSource,
    ResourceMonitor,
    RunSettings,
    TaskStream,
    run,
    run_experiment,
)
from mirolib.controller import SELECTORS
from mirolib.controller.adaptation import CongestionPolicy, SwapGovernor
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.loop import Loop
from mirolib.memory.budget import SlotBytes, parse_budget
from mirolib.memory.swapper import SwapCounts


def records_of(memory, one=None, controller=None, **options):
    """A run's records, one after the other."""
    return run(STREAM, one or learner(), memory, controller or FixedController(CONFIG), progress=False, **options)


def read_slowly(memory):
    """As if the store were on a disk that takes its time."""
    memory.storage.before_read = lambda size_bytes: time.sleep(0.002)


def test_records_after_every_task(make_memory):
    memory = make_memory(STREAM, CONFIG)
    records = list(records_of(memory, meter=EnergyMeter(NullSource())))
    assert [len(record.accuracies) for record in records] == [1, 2, 3]
    assert [record.stored for record in records] == [36, 72, 108]
    assert [record.episodic_fill for record in records] == [18, 18, 18]
    assert all(len(record.epochs) == 3 for record in records)
    sample = 16 + 16  # pixels, label and id
    assert records[-1].memory_bytes == (20 + 18 + memory.staged) * sample + memory.index_bytes
    assert 0 < memory.staged <= 2 * 8  # two steps of batches of 8
    assert "stream 20, episodic 18: 1.5 KiB" in records[0].headline
    windows = ["receive", "profile", "train", "retain", "evaluate"]
    assert [reading.window for reading in records[1].readings] == windows
    first, second = (record.readings[2].work.visits for record in records[:2])
    assert (first, second) == (3 * 20, 3 * (20 + 18))
    assert [sum(epoch.swaps.swapped for epoch in record.epochs) for record in records] == [0, 27, 27]
    assert records[1].readings[0].work.bytes_written == 40 * (16 + 16 + 32)
    assert math.isnan(records[0].forgetting) and records[0].row()["energy_kind"] == "none"


def test_the_record_agrees_with_the_learner_it_describes(make_memory):
    memory, one = make_memory(STREAM, CONFIG), learner()
    for record in records_of(memory, one):
        accuracies = [one.accuracy(test) for test in STREAM.tests(record.task)]
        assert list(record.accuracies) == accuracies
        assert record.average_accuracy == np.mean(accuracies)


def facts(records):
    """Everything of a run but its times."""
    return [
        (
            *(r.accuracies, r.config, r.episodic_fill),
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
            read_slowly(memory)
        runs.append(facts(records_of(memory, learner(seed=seed))))
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
        assert 0 <= resources.stall_share <= 1
        smaller = replace(config, stream_size=config.stream_size - 3, episodic_size=config.episodic_size + 2)
        return Decision(smaller, "another size")


def test_a_controllers_decisions_are_applied_each_epoch(make_memory):
    memory = make_memory(STREAM, CONFIG)
    controller = Stepwise()
    records = list(records_of(memory, controller=controller, resources=ResourceMonitor(memory)))
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


@pytest.mark.parametrize(
    ("wanted", "sentence"), [(MemoryConfig(37, 10), "no task has more than 36"), (MemoryConfig(20, 109), "only 108")]
)
def test_sizes_above_what_exists_are_refused_before_anything_is_written(make_memory, wanted, sentence):
    for config in (wanted, CONFIG):  # the memory's own, and what a controller asks for
        memory = make_memory(STREAM, config)
        with pytest.raises(InputError, match=sentence):
            next(records_of(memory, controller=FixedController(wanted)))
        assert config == CONFIG or memory.storage.count(0) == 0


def test_used_parts_are_refused(make_memory):
    memory, one = make_memory(STREAM, CONFIG), learner()
    next(records_of(memory, one))
    for parts in ((make_memory(STREAM, CONFIG), one), (memory, learner())):
        with pytest.raises(InputError, match="make both anew"):
            next(records_of(*parts))


def test_waiting_at_the_end_of_a_task_is_in_its_books(make_memory):
    memory = make_memory(STREAM, CONFIG, lag=40)
    read_slowly(memory)
    records = list(records_of(memory))
    assert sum(record.swaps.stall_s for record in records) == pytest.approx(memory.counts.stall_s)
    assert memory.counts.stall_s > sum(e.swaps.stall_s for record in records for e in record.epochs)


def test_resource_monitor_reads_the_stall_share_of_the_last_epoch(make_memory):
    memory = make_memory(STREAM, CONFIG)
    monitor = ResourceMonitor(memory, BudgetSchedule({0: SlotBytes(10_000)}))
    epoch = EpochRecord(0, 0, CONFIG, 0.5, SwapCounts(stall_s=1.0), 4.0, 1.0)
    first, second = monitor.probe(1, epoch), monitor.probe(2)
    assert (first.stall_share, second.stall_share) == (0.25, 0.0)
    assert first.after_epoch and not second.after_epoch
    assert first.memory_budget_bytes == 10_000


def test_a_budget_in_bytes_holds_staging_and_index_too_and_one_in_samples_slots_alone(make_memory):
    memory = make_memory(STREAM, CONFIG)
    list(records_of(memory))
    assert memory.memory_bytes == memory.allocated_bytes + memory.staged * 32 + memory.index_bytes
    assert 0 < memory.staged <= 2 * 8 and memory.index_bytes >= 5 * 108
    for text, left in (("10000 bytes", 10_000 - memory.overhead_bytes), ("100 samples", 3_200), ("1 bytes", 0)):
        assert ResourceMonitor(memory, parse_budget(text, memory.slot_bytes)).probe().memory_budget_bytes == left


class ShortAtTheEnd(LiveBudget):
    """Memory runs out in the second task's last epoch."""

    def __init__(self, slot_bytes):
        super().__init__(SlotBytes(200 * slot_bytes))
        self.slot_bytes, self.epochs_done = slot_bytes, 0

    def read(self, epochs_done, used_bytes):
        self.epochs_done = epochs_done
        return self.size_bytes

    def is_short(self):
        if self.epochs_done == 2 * PRESET.epochs - 1:
            self.size_bytes = SlotBytes(20 * self.slot_bytes)
            return True
        return False


def test_a_shortage_in_a_task_s_last_epoch_is_acted_upon_before_the_task_ends(make_memory, monkeypatch):
    monkeypatch.setattr("mirolib.controller.resources._SHORTAGE_EVERY_S", 0.0)
    memory, sizes = make_memory(STREAM, MemoryConfig(1, 1)), []
    retain = memory.retain
    monkeypatch.setattr(memory, "retain", lambda task: sizes.append(memory.allocated_bytes) or retain(task))
    resources = ResourceMonitor(memory, ShortAtTheEnd(memory.slot_bytes))
    controller = Miro2023Controller(selector=SELECTORS["highest-accuracy"])
    records = list(records_of(memory, controller=controller, resources=resources))
    assert sizes[1] <= 20 * memory.slot_bytes < sizes[0]
    last = records[1].events[-1]
    assert last.epoch == PRESET.epochs and "memory budget" in last.reason
    assert len(records[1].epochs) == PRESET.epochs


def test_the_last_epoch_of_a_task_may_be_a_part_of_one(tmp_path):
    settings = RunSettings(
        "digits", tasks=2, epoch_of="task", epochs=1.5, replay_ratio=1, stream_size=80, episodic_size=20,
        swap_ratio=1.0, controller="fixed", energy="none",
    )  # fmt: skip
    experiment = Experiment.build(settings, tmp_path)
    sizes = [len(task.train) for task in experiment.stream]
    records = list(experiment.run(progress=False))
    assert [len(record.epochs) for record in records] == [2, 2]
    visits = [round(1.5 * size) * (1 + (index > 0)) for index, size in enumerate(sizes)]
    assert experiment.learner.tally.visits == pytest.approx(sum(visits), abs=4)
    with pytest.raises(InputError, match="epochs is 1.5; an epoch of the buffers is not parted"):
        Experiment.build(replace(settings, epoch_of="buffers", replay_ratio=None), tmp_path / "other")


def passing(folder, **changes):
    """A run with epochs of the task, 20 steps each."""
    settings = RunSettings(
        "digits", tasks=2, epoch_of="task", epochs=1.5, replay_ratio=1, stream_size=80, episodic_size=20,
        swap_ratio=1.0, batch_size=16, controller="fixed", energy="none", **changes,
    )  # fmt: skip
    return Experiment.build(settings, folder)


def test_a_long_epoch_is_parted_into_rounds(tmp_path):
    experiment = passing(tmp_path, round_steps=15)
    sizes = [len(task.train) for task in experiment.stream]
    steps = [size * (1 + index) / 16 for index, size in enumerate(sizes)]
    records = list(experiment.run(progress=False))
    for record, of_epoch in zip(records, steps, strict=True):
        parts = math.ceil(of_epoch / 15)
        ends = [min(1.5, (number + 1) / parts) for number in range(math.ceil(1.5 * parts))]
        assert [one.epochs_done for one in record.epochs] == ends
        assert all(one.swaps.steps <= 16 for one in record.epochs)
    whole = passing(tmp_path / "whole")
    assert [len(record.epochs) for record in whole.run(progress=False)] == [2, 2]
    assert experiment.learner.tally.visits == pytest.approx(whole.learner.tally.visits, abs=4)


def test_a_shortage_within_a_pass_ends_the_round_and_the_next_goes_on_with_it(tmp_path, monkeypatch):
    experiment = passing(tmp_path)
    seen, looks = [], iter([False] * 4 + [True] + [False] * 1000)
    monkeypatch.setattr(experiment.resources, "is_short", lambda: next(looks))
    step = experiment.learner.step
    monkeypatch.setattr(
        experiment.learner, "step",
        lambda batch: seen.extend(experiment.memory.stream_buffer.array.ids_at(batch.streamed).tolist()) or step(batch),
    )  # fmt: skip
    first = next(experiment.run(progress=False))
    assert len(first.epochs) == 3 and 0 < first.epochs[0].epochs_done < first.epochs[1].epochs_done == 1
    samples = len(experiment.stream[0].train)
    assert len(set(seen[:samples])) == samples and len(seen) == round(1.5 * samples)


class Governed(FixedController):
    """Fixed sizes, and the swap ratio that congestion leaves."""

    def __init__(self, config):
        super().__init__(config)
        self.governor = SwapGovernor(1.0, CongestionPolicy(threshold=0.3, least_wait_s=0.0, clean_epochs=1))

    def adapt(self, config, resources):
        if resources.after_epoch:
            self.governor.step(resources.stall_share, resources.stall_s)
        return Decision(replace(config, swap_ratio=self.governor.ratio))


def test_congestion_halves_the_swap_ratio_of_both_buffers_and_it_recovers(make_memory):
    config, preset = MemoryConfig(24, 6, 1.0), replace(PRESET, epoch_of="task", replay_ratio=1, epochs=12)
    memory, one = make_memory(STREAM, config), Learner(STREAM.dataset.spec, preset)
    for step in Loop(STREAM, one, memory, Governed(config)).steps(progress=False):
        if isinstance(step, EpochRecord):
            slow = step.task == 1 and step.epoch in (2, 3)
            memory.storage.before_read = (lambda size_bytes: time.sleep(0.1)) if slow else None
        elif step.task == 1:
            break
    shares = [one.swaps.streamed / one.swaps.passed for one in step.epochs]
    ratios = [one.config.swap_ratio for one in step.epochs]
    assert ratios[:4] == [1, 1, 1, 1] and ratios[4] == 0.5 and min(ratios) >= 0.125 and ratios[-1] == 1
    np.testing.assert_allclose(shares, ratios, atol=0.05)
    assert {one.swaps.passed for one in step.epochs} == {36}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"replay_ratio": -1}, "replay_ratio is -1; give a number from 0 up"),
        ({"replay_ratio": "all"}, "replay_ratio is 'all'; give a number"),
        ({"epoch_of": "buffers", "replay_ratio": 1}, "replay_ratio is for epochs of the task"),
        ({"epoch_of": "pass"}, "choose one of buffers, task"),
        ({"epoch_of": "task", "controller": "miro-2023"}, "miro-2023 controller goes by epochs of the buffers"),
        ({"epoch_of": "buffers", "controller": "miro"}, "miro controller goes by epochs of the task"),
        ({"epochs": 0}, "epochs is 0; choose a value above 0"),
    ],
)
def test_what_an_epoch_can_not_be_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        RunSettings("digits", **({"controller": "fixed"} | changes))


def test_the_bar_counts_tasks_whatever_epochs_they_have(tmp_path, monkeypatch):
    class Bar(tqdm):
        def update(self, n=1):
            super().update(n)
            seen.append(self.n)
            assert self.total == 3

    seen = []
    monkeypatch.setattr("mirolib.experiment.loop.tqdm", Bar)
    for record in Experiment.build(BY_TASK, tmp_path, make_dataset()).run():
        assert seen[-1] == record.task + 1
    assert seen[0] > 0 and np.diff(seen).min() > -0.3


@pytest.mark.parametrize("done", [0.0, 0.3, 0.97, 0.995, 1.0, 1.96])
@pytest.mark.parametrize("stop", [0.31, 0.999, 1.001, 1.4, 2.0, 9.0])
def test_no_round_is_shorter_than_a_batch_wherever_a_look_ends_it(make_memory, done, stop):
    _, one, memory = arrived(make_memory)
    one.settings, one.epochs, one.epochs_done = OF_TASK, 2.0, done  # 36 samples an epoch, 8 in a batch
    if done < 1.9:
        end = one.round_end(memory, stop)
        assert end - done >= 8 / 36 - 1e-9 and end <= 2.0 and (2.0 - end >= 8 / 36 - 1e-9 or end == 2.0)
    else:
        assert one.round_end(memory, stop) == 2.0


def test_the_progress_bar_stays_a_bar_with_time_left(capsys, tmp_path):
    run_experiment(RunSettings(epochs=2, tasks=2, controller="fixed", energy="none"), results=tmp_path)
    last = capsys.readouterr().err.split("\r")[-1].strip()
    assert re.search(r"100%\|.+\| 2 of 2 tasks, \d\d:\d\d, \d\d:\d\d left, accuracy \d+\.\d%$", last) and len(last) < 99
