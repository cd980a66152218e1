import numpy as np
import pandas as pd
import pytest
from arrivals import arrived

from mirolib import InputError
from mirolib.controller import candidate_grid


def test_the_grid_spans_what_has_been_seen(make_memory):
    task, _, memory = arrived(make_memory, task=2)
    grid = candidate_grid(task, memory)
    sizes = np.array([(c.stream_size, c.episodic_size) for c in grid])
    # 36 new samples of 2 classes, 72 old ones of 4: from two a class (or an eighth) to all
    assert sizes[:, 0].min() == 4 and sizes[:, 0].max() == 36
    assert sizes[:, 1].min() == 8 and sizes[:, 1].max() == 72
    assert len(grid) == 20 == len({tuple(pair) for pair in sizes.tolist()})
    assert (np.diff(sizes.sum(axis=1)) >= 0).all() and all(c.swap_ratio == 1.0 for c in grid)
    thinned = candidate_grid(task, memory, limit=5)
    assert len(thinned) == 5 and thinned[0] == grid[0] and thinned[-1] == grid[-1]


def test_a_budget_bounds_the_grid_and_is_used_up_at_every_stream_size(make_memory):
    task, _, memory = arrived(make_memory, task=2)
    for samples in (6, 12, 20, 50):
        grid = candidate_grid(task, memory, samples * memory.slot_bytes + 1)
        totals = pd.Series([c.stream_size + c.episodic_size for c in grid])
        best = totals.groupby([c.stream_size for c in grid]).max()
        assert totals.max() == samples and (best == samples).all()
    with pytest.raises(InputError, match=r"for slots, 5 samples, but the smallest configuration needs 6 \(2 in"):
        candidate_grid(task, memory, 5 * memory.slot_bytes)


def test_the_first_task_has_nothing_to_replay(make_memory):
    task, _, memory = arrived(make_memory, task=0)
    assert {c.episodic_size for c in candidate_grid(task, memory)} == {1}
    task, _, single = arrived(make_memory, task=0, hierarchical=False)
    assert {c.episodic_size for c in candidate_grid(task, single, swap_ratio=0.0)} == {36}, "lost unless kept now"
    task, _, single = arrived(make_memory, task=1, hierarchical=False)
    budget = 60 * single.slot_bytes
    pairs = [(c.stream_size, c.episodic_size) for c in candidate_grid(task, single, budget, swap_ratio=0.0)]
    assert all(sum(pair) == 60 and pair[1] >= 30 for pair in pairs) and len(pairs) == 4


def test_where_nothing_is_replayed_the_episodic_memory_is_as_small_as_can_be(make_memory):
    task, _, memory = arrived(make_memory, task=2)
    assert {c.episodic_size for c in candidate_grid(task, memory, replays=False)} == {1}


def test_a_users_own_pairs_replace_the_grid(make_memory):
    task, _, memory = arrived(make_memory)
    grid = candidate_grid(task, memory, 40 * memory.slot_bytes, pairs=[(10, 10), (20, 20), (30, 30)])
    assert [(c.stream_size, c.episodic_size) for c in grid] == [(10, 10), (20, 20)]
    with pytest.raises(InputError, match="choose 1 candidate or more"):
        candidate_grid(task, memory, limit=0)
