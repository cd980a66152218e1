import math
from dataclasses import replace

import numpy as np
import pytest
from arrivals import STREAM, arrived, learner

from mirolib import (
    BudgetSchedule,
    EnergyMeter,
    InputError,
    LiveBudget,
    MemoryConfig,
    Miro2023Controller,
    NullSource,
    ResourceMonitor,
    TaskStream,
    run,
    summarise,
)
from mirolib.controller import SELECTORS, CongestionPolicy, Profiler
from mirolib.memory.budget import SlotBytes


def test_a_run_with_the_controller_end_to_end(make_memory):
    memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
    controller = Miro2023Controller(selector=SELECTORS["cheapest-within"], num_tasks=3)
    records = list(run(STREAM, learner(), memory, controller, EnergyMeter(NullSource()), progress=False))
    for record in records:
        (chosen,) = record.trials[record.trials["chosen"]].to_dict("records")
        assert (chosen["stream_size"], chosen["episodic_size"]) == (
            record.config.stream_size, record.config.episodic_size,
        )  # fmt: skip
        best = record.trials["accuracy"].max() - 0.02
        if record.task:
            assert chosen["cost"] == record.trials.loc[record.trials["accuracy"] >= best - 1e-12, "cost"].min()
        else:
            assert chosen["stream_size"] == 36 and math.isnan(chosen["accuracy"]), "nothing to probe with yet"
        assert chosen["cost"] == record.row()["train_visits"] and chosen["cost_unit"] == "visits"
        profile = next(reading for reading in record.readings if reading.window == "profile")
        assert profile.work.forward_visits > 0 and profile.work.visits == 0
    assert summarise(records)["cost_error"] == 0
    assert [len(record.events) for record in records] == [1, 1, 1]


def decisions(controller, memory, task, one, budgets, stall_s=0.0):
    """What a controller applies, epoch by epoch, under a budget for each."""
    budgets = [None if budget is None else SlotBytes(budget) for budget in budgets]
    monitor_budget = LiveBudget(budgets[0])
    monitor = ResourceMonitor(memory, monitor_budget)
    memory.resize(controller.choose(task, one, memory, monitor.probe()).config)
    for epoch, budget in enumerate(budgets):
        monitor_budget.size_bytes = budget
        state = replace(monitor.probe(epoch), stall_s=stall_s, elapsed_s=float(epoch > 0))
        decision = controller.adapt(memory.config, state)
        memory.resize(decision.config)
        yield decision


class BySize(Profiler):
    """The larger, the better."""

    name = "by-size"

    def scores(self, request):
        return np.array([(c.stream_size + c.episodic_size) / 1000 for c in request.candidates])


def greedy(**options):
    """A controller that wants as much memory as there is."""
    return Miro2023Controller(BySize(), SELECTORS["highest-accuracy"], **options)


def test_rows_over_the_budget_are_blacklisted_and_come_back(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    slot = memory.slot_bytes
    controller = greedy()
    budgets = [108 * slot, 40 * slot, 40 * slot, 20 * slot, 108 * slot, 40 * slot, 108 * slot, 108 * slot, 108 * slot]
    used = []
    for budget, decision in zip(budgets, decisions(controller, memory, task, one, budgets), strict=True):
        assert memory.allocated_bytes <= budget, "within the new budget before the epoch begins"
        used.append((memory.allocated_bytes // slot, bool(decision.reason)))
    sizes = [size for size, _ in used]
    assert [changed for _, changed in used] == [False, True, False, True, False, True, False, True, False]
    assert sizes[0] == sizes[-1] == sizes[-2] and sizes[1] == sizes[2] <= 40 and sizes[3] <= 20
    assert sizes[4] == sizes[3], "a larger budget must last"


def test_a_budget_below_every_row_shrinks_the_smallest_one(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    controller, slot = Miro2023Controller(), memory.slot_bytes
    budgets = [108 * slot, 5 * slot, 2 * slot, 108 * slot, 108 * slot]
    sizes = [memory.allocated_bytes // slot for _ in decisions(controller, memory, task, one, budgets)]
    assert sizes[1] <= 5 and sizes[2] == 2 and sizes[4] == sizes[0]
    with pytest.raises(InputError, match="does not hold one sample in each buffer"):
        list(decisions(controller, memory, task, one, [108 * slot, slot]))


def test_congestion_halves_the_swap_ratio_of_the_configuration(make_memory):
    task, one, memory = arrived(make_memory)
    controller = Miro2023Controller(congestion=CongestionPolicy(floor=0.25))
    ratios = [d.config.swap_ratio for d in decisions(controller, memory, task, one, [None] * 4, stall_s=0.5)]
    assert ratios == [1.0, 0.5, 0.25, 0.25], "the first epoch has not been trained yet"


def test_a_schedule_is_obeyed_in_a_whole_run(make_memory):
    memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
    slot = memory.slot_bytes
    schedule = BudgetSchedule({0: SlotBytes(100 * slot), 4: SlotBytes(24 * slot), 7: SlotBytes(100 * slot)})
    controller = greedy()
    records = list(
        run(STREAM, learner(), memory, controller, resources=ResourceMonitor(memory, schedule), progress=False)
    )
    epochs = [epoch for record in records for epoch in record.epochs]
    sizes = [e.config.stream_size + e.config.episodic_size for e in epochs]
    assert all(20 <= size <= 24 for size in sizes[4:7]) and min(sizes[3], sizes[8]) > 30
    assert any("memory budget" in event.reason for event in records[1].events)


def test_an_energy_budget_is_kept(make_memory):
    spent = {}
    for budget in (500.0, 1500.0):
        memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
        controller = Miro2023Controller(BySize(), SELECTORS["within-budget"], energy_budget=budget, num_tasks=3)
        records = list(run(STREAM, learner(), memory, controller, progress=False))
        learning = [r.work for record in records for r in record.readings if r.window != "evaluate"]
        spent[budget] = sum(work.visit_equivalents for work in learning)
    assert 350 < spent[500.0] <= 500 < spent[1500.0] <= 1500
    with pytest.raises(InputError, match="give num_tasks"):
        Miro2023Controller(selector=SELECTORS["within-budget"], energy_budget=10.0)


def test_what_cannot_be_is_refused_with_a_sentence(make_memory):
    for options, sentence in (({"cutline": 1.5}, "cutline is 1.5"), ({"swap_ratio": 2.0}, "swap_ratio is 2.0")):
        with pytest.raises(InputError, match=sentence):
            Miro2023Controller(**options)
    stream = TaskStream(STREAM.dataset, 3, validation_share=0.0)
    memory = make_memory(stream, MemoryConfig(1, 1, 1.0))
    with pytest.raises(InputError, match="set validation_share above 0"):
        next(run(stream, learner(), memory, Miro2023Controller(), progress=False))
