from dataclasses import replace

import pytest
from arrivals import UNLIMITED, arrived

from mirolib import Decision, FixedController, MemoryConfig, MiroController
from mirolib.controller import RandomController, WholeBudgetController, candidate_grid


def test_baselines(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    grid = candidate_grid(task, memory)
    assert WholeBudgetController().choose(task, one, memory, UNLIMITED).config == MemoryConfig(36, 72, 1.0)
    budget = replace(UNLIMITED, memory_budget_bytes=40 * memory.slot_bytes)
    whole = WholeBudgetController().choose(task, one, memory, budget).config
    assert whole.stream_size + whole.episodic_size == 40
    drawn = [RandomController(seed=seed).choose(task, one, memory, UNLIMITED).config for seed in range(20)]
    assert set(drawn) <= set(grid) and len(set(drawn)) > 5
    assert RandomController(seed=3).choose(task, one, memory, UNLIMITED).config == drawn[3]
    for controller in (RandomController(), WholeBudgetController(), FixedController(grid[0])):
        assert controller.adapt(grid[1], UNLIMITED) == Decision(grid[1])


@pytest.mark.parametrize(
    "make",
    [lambda: FixedController(MemoryConfig(20, 18, 1.0)), WholeBudgetController, RandomController, MiroController],
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


@pytest.mark.parametrize("controller", [WholeBudgetController(), RandomController()])
def test_a_cap_never_makes_a_single_level_memory_swap(make_memory, controller):
    task, one, memory = arrived(make_memory, hierarchical=False)
    config = controller.choose(task, one, memory, UNLIMITED).config
    assert controller.adapt(config, replace(UNLIMITED, swap_ratio_cap=0.5)) == Decision(config)
