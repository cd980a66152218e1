from dataclasses import replace

import pytest
from arrivals import PRESET, STREAM, UNLIMITED, arrived

from mirolib import Decision, FixedController, InputError, Learner, MemoryConfig, Miro2023Controller
from mirolib.controller import (
    RandomController,
    ShareController,
    TunedController,
    candidate_grid,
)


def test_baselines(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    grid = candidate_grid(task, memory)
    whole_budget = ShareController(1.0)
    assert whole_budget.choose(task, one, memory, UNLIMITED).config == MemoryConfig(36, 72, 1.0)
    budget = replace(UNLIMITED, memory_budget_bytes=40 * memory.slot_bytes)
    whole = whole_budget.choose(task, one, memory, budget).config
    assert whole.stream_size + whole.episodic_size == 40
    drawn = [RandomController(seed=seed).choose(task, one, memory, UNLIMITED).config for seed in range(20)]
    assert set(drawn) <= set(grid) and len(set(drawn)) > 5
    assert RandomController(seed=3).choose(task, one, memory, UNLIMITED).config == drawn[3]
    for controller in (RandomController(), whole_budget, FixedController(grid[0])):
        assert controller.adapt(grid[1], UNLIMITED) == Decision(grid[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedController(MemoryConfig(20, 18, 1.0)),
        RandomController,
        ShareController,
        Miro2023Controller,
    ],
)
def test_a_cap_on_the_swap_ratio_acts_at_once_and_is_given_back(make_memory, make):
    task, one, memory = arrived(make_memory)
    controller = make()
    config = controller.choose(task, one, memory, UNLIMITED).config
    assert config.swap_ratio == 1.0
    lowered = controller.adapt(config, replace(UNLIMITED, swap_ratio_cap=0.25))
    assert lowered.config == replace(config, swap_ratio=0.25) and "swap ratio 1 to 0.25" in lowered.reason
    again = controller.adapt(lowered.config, replace(UNLIMITED, swap_ratio_cap=0.25))
    assert again == Decision(lowered.config), "nothing has changed, so there is nothing to say"
    raised = controller.adapt(lowered.config, UNLIMITED)
    assert raised.config == config and "swap ratio 0.25 to 1" in raised.reason
    chosen = controller.choose(task, one, memory, replace(UNLIMITED, swap_ratio_cap=0.5))
    assert chosen.config.swap_ratio == 0.5


@pytest.mark.parametrize("controller", [ShareController(1.0), RandomController()])
def test_a_cap_never_makes_a_single_level_memory_swap(make_memory, controller):
    task, one, memory = arrived(make_memory, hierarchical=False)
    config = controller.choose(task, one, memory, UNLIMITED).config
    assert controller.adapt(config, replace(UNLIMITED, swap_ratio_cap=0.5)) == Decision(config)


@pytest.mark.parametrize(
    ("share", "slots", "sizes"),
    [
        (0.5, None, (18, 36)),  # of 36 new samples and 72 old ones
        (1.0, None, (36, 72)),
        (0.5, 27, (9, 18)),  # a quarter of both is what the budget holds
        (0.5, 1000, (18, 36)),  # a budget that is not needed
        (0.01, None, (2, 4)),  # a sample of each class at least, new and old
    ],
)
def test_shares_of_the_task_and_of_what_is_stored(make_memory, share, slots, sizes):
    task, one, memory = arrived(make_memory, task=2)
    budget = None if slots is None else slots * memory.slot_bytes
    resources = replace(UNLIMITED, memory_budget_bytes=budget)
    decision = ShareController(share).choose(task, one, memory, resources)
    assert decision.config == MemoryConfig(*sizes, 1.0) and decision.epochs == one.epochs == 3


def test_a_share_of_the_epochs_is_a_whole_number(make_memory):
    task, one, memory = arrived(make_memory, task=1)
    chosen = [ShareController(1.0, epochs).choose(task, one, memory, UNLIMITED).epochs for epochs in (0.1, 0.5, 1.0)]
    assert chosen == [1, 2, 3]


def test_shares_of_a_single_level_memory_do_not_swap_and_count_this_task(make_memory):
    task, one, memory = arrived(make_memory, task=0, hierarchical=False)
    assert ShareController().choose(task, one, memory, UNLIMITED).config == MemoryConfig(18, 18, 0.0)


def tuning(make_memory, task, monkeypatch, found):
    """A tuned controller whose tries find these accuracies, a task that has arrived, and the epochs that it tries."""
    _, _, memory = arrived(make_memory, task=task)
    one, tried, left = Learner(STREAM.dataset.spec, replace(PRESET, epoch_of="task", epochs=16)), [], iter(found)
    monkeypatch.setattr(
        TunedController, "_tried", lambda self, epochs, *parts: tried.append(round(epochs, 6)) or next(left)
    )
    return TunedController(), STREAM[task], one, memory, tried


def test_tuned_takes_the_least_within_a_point_at_the_first_task_and_keeps_it(make_memory, monkeypatch):
    controller, task, one, memory, tried = tuning(make_memory, 0, monkeypatch, [0.5, 0.85, 0.895, 0.9, 0.89])
    decision = controller.choose(task, one, memory, UNLIMITED)
    assert (
        tried == [1, 2, 4, 8, 16] and decision.epochs == pytest.approx(4) and "4 epochs, the least" in decision.reason
    )
    other = TunedController()
    other.restore(controller.state())
    for again in (controller, other):
        assert again.choose(task, one, memory, UNLIMITED).epochs == pytest.approx(4), "what is left has no more tries"


def test_tuned_tries_on_copies(make_memory):
    task, _, memory = arrived(make_memory, task=0)
    one = Learner(STREAM.dataset.spec, replace(PRESET, epoch_of="task", epochs=4))
    one.grow(task.classes, task.dataset_labels)
    before, done = one.state(), one.tally.visits
    decision = TunedController().choose(task, one, memory, UNLIMITED)
    assert 0.25 <= decision.epochs <= 4 and one.epochs == 4 and one.epochs_done == 0
    assert one.tally.visits > done, "trying is work"
    after = one.state()
    assert str(before.keys()) == str(after.keys())


@pytest.mark.parametrize(
    ("task", "slots", "sizes"),
    [
        (2, None, (24, 24)),  # a batch of 8 and two under way in each buffer
        (2, 40, (20, 20)),  # half of it, for full steps
        (1, 60, (24, 36)),  # full steps; there are no more old samples
        (1, 90, (36, 36)),  # there are no more
        (2, 60, (24, 36)),
        (2, 100, (28, 72)),  # what one has no use for goes to the other
    ],
)
def test_sizes_by_rule(make_memory, monkeypatch, task, slots, sizes):
    controller, task, one, memory, _ = tuning(make_memory, task, monkeypatch, [0.9] * 5)
    budget = None if slots is None else slots * memory.slot_bytes
    resources = replace(UNLIMITED, memory_budget_bytes=budget, swap_ratio_cap=1.0)
    assert controller.choose(task, one, memory, resources).config == MemoryConfig(*sizes, 1.0)


def test_a_cap_on_the_swap_ratio_takes_fewer_slots_and_is_given_back(make_memory, monkeypatch):
    controller, task, one, memory, _ = tuning(make_memory, 2, monkeypatch, [0.9] * 5)
    capped = controller.choose(task, one, memory, replace(UNLIMITED, swap_ratio_cap=0.5))
    assert capped.config == MemoryConfig(16, 16, 0.5) and "swap ratio 1 to 0.5" in capped.reason
    raised = controller.adapt(capped.config, UNLIMITED)
    assert raised.config.swap_ratio == 1.0


def test_rules_refuse_what_they_can_not_size(make_memory, monkeypatch):
    controller, task, one, memory, _ = tuning(make_memory, 1, monkeypatch, [])
    with pytest.raises(InputError, match="does not hold one sample in each buffer"):
        controller.choose(task, one, memory, replace(UNLIMITED, memory_budget_bytes=memory.slot_bytes))
    with pytest.raises(InputError, match="give the learner a preset with epochs of the task"):
        controller.choose(task, Learner(STREAM.dataset.spec, PRESET), memory, UNLIMITED)
