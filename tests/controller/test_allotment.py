from dataclasses import replace

import pytest
from arrivals import OF_TASK, UNLIMITED, arrived

from mirolib import InputError, MemoryConfig, Resources
from mirolib.controller import AllottingController, CongestionPolicy


def at(make_memory, task=1, **options):
    """A task of 36 samples that has arrived after others, and a learner of batches of 8 with epochs of the task."""
    new, one, memory = arrived(make_memory, task, **options)
    one.settings = OF_TASK
    return new, one, memory


def chosen(controller, parts, budget=None):
    return controller.choose(*parts, replace(UNLIMITED, memory_budget_bytes=budget)).config


def test_without_a_budget_there_are_slots_for_steps_and_exchanges(make_memory):
    parts = at(make_memory)
    assert chosen(AllottingController(), parts) == MemoryConfig(24, 24, 1.0), "8 in a step, 16 on their way"
    assert chosen(AllottingController(swap_ratio=0.25), parts) == MemoryConfig(12, 12, 0.25)


def test_the_first_task_has_nothing_to_replay(make_memory):
    assert chosen(AllottingController(), at(make_memory, task=0)) == MemoryConfig(24, 1, 1.0)


def test_many_old_classes_have_two_slots_each(make_memory):
    parts = at(make_memory, task=2)
    parts[1].batch_size = 2
    assert chosen(AllottingController(), parts) == MemoryConfig(6, 8, 1.0), "four old classes"


@pytest.mark.parametrize(
    ("slots", "sizes", "ratio"),
    [
        (2, (1, 1), 0.0),  # no room for what is on its way
        (6, (3, 3), 1.0),
        (20, (10, 10), 1.0),  # less than the 24 that full steps need: half
        (60, (24, 36), 1.0),  # a quarter is less than full steps need, and there are 36 old ones
        (1000, (36, 36), 1.0),  # all there is
    ],
)
def test_a_budget_is_used_up(make_memory, slots, sizes, ratio):
    parts = at(make_memory)
    slot = parts[2].slot_bytes
    assert chosen(AllottingController(), parts, slots * slot + slot - 1) == MemoryConfig(*sizes, ratio)


def test_a_quarter_goes_to_the_stream_buffer_where_little_is_swapped(make_memory):
    parts = at(make_memory, task=2)
    assert chosen(AllottingController(swap_ratio=0.1), parts, 80 * parts[2].slot_bytes) == MemoryConfig(20, 60, 0.1)


def test_a_budget_below_two_samples_is_refused(make_memory):
    parts = at(make_memory)
    with pytest.raises(InputError, match="does not hold one sample in each buffer"):
        chosen(AllottingController(), parts, parts[2].slot_bytes)


def test_a_single_level_memory_gets_all_there_is_or_what_the_budget_leaves(make_memory):
    parts = at(make_memory, hierarchical=False)
    held = len(parts[2].episodic_memory)
    config = chosen(AllottingController(), parts)
    assert config.swap_ratio == 0 and config.stream_size == 36 and config.episodic_size >= held
    small = chosen(AllottingController(), parts, 16 * parts[2].slot_bytes)
    assert small.stream_size + small.episodic_size == 16 and small.swap_ratio == 0


def test_waiting_doubles_the_slots_until_they_hold_everything(make_memory):
    parts = at(make_memory)
    controller = AllottingController()
    config, sizes = chosen(controller, parts), []
    for _ in range(3):
        decision = controller.adapt(config, Resources(None, 0.06, 1.0))
        sizes.append((decision.config.stream_size, decision.config.episodic_size, bool(decision.reason)))
        config = decision.config
    assert sizes == [(36, 36, True), (36, 36, False), (36, 36, False)] and config.swap_ratio == 1.0
    calm = AllottingController()
    config = chosen(calm, parts)
    assert calm.adapt(config, Resources(None, 0.01, 1.0)).config == config, "one per cent is not waiting"
    assert calm.adapt(config, Resources(None, 0.001, 0.01)).config == config, "nor is a millisecond"


def test_larger_buffers_when_the_swap_ratio_falls(make_memory):
    parts = at(make_memory, task=2)
    controller = AllottingController(congestion=CongestionPolicy(floor=0.25))
    parts[1].batch_size = 2
    config = chosen(controller, parts)
    decision = controller.adapt(config, Resources(None, 0.5, 1.0))
    # least_slots(2, 0.5) = 4, doubled; two a class, doubled
    assert decision.config == MemoryConfig(8, 16, 0.5) and "swap ratio 1 to 0.5" in decision.reason
    assert "14 to 24 samples" in decision.reason


def test_a_budget_that_falls_is_heeded_at_once_and_its_return_when_it_has_lasted(make_memory):
    parts = at(make_memory)
    controller, slot = AllottingController(), parts[2].slot_bytes
    config, used = chosen(controller, parts, 60 * slot), []
    for budget in (60, 20, 20, 60, 60, 60):
        config = controller.adapt(config, Resources(budget * slot, 0.0, 1.0)).config
        used.append(config.stream_size + config.episodic_size)
    assert used == [60, 20, 20, 20, 60, 60]


def test_what_was_decided_goes_on_after_a_checkpoint(make_memory):
    parts = at(make_memory)
    controller = AllottingController()
    config = controller.adapt(chosen(controller, parts), Resources(None, 0.5, 1.0)).config
    other = AllottingController()
    other.restore(controller.state())
    for resources in (Resources(None, 0.0, 1.0), Resources(None, 0.5, 1.0), Resources(10**4, 0.0, 1.0)):
        assert controller.adapt(config, resources) == other.adapt(config, resources)


def test_epochs_of_the_buffers_are_refused(make_memory):
    with pytest.raises(InputError, match="with epochs of the task"):
        AllottingController().choose(*arrived(make_memory), UNLIMITED)
