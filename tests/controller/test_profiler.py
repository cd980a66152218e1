import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from arrivals import UNLIMITED, arrived

from mirolib import ExperienceReplay, MemoryConfig, Miro2023Controller, ProbeProfiler, TrialProfiler
from mirolib.controller import full_training
from mirolib.controller.profiler import smoothed
from mirolib.learning.bic import BiC
from mirolib.learning.learner import train_epoch


def state_of(one, memory):
    """All that trials must leave as it was."""
    swapper, frozen = memory._swapper, getattr(one.method, "_old", None)
    modules = [one.backbone, one.head, *([frozen._backbone, frozen._head] if frozen else [])]
    momenta = [value for of_weight in one._optimizer.state.values() for value in of_weight.values()]
    generators = [one._transform.generator.get_state(), one._head_generator.get_state(), torch.random.get_rng_state()]
    tensors = [value for module in modules for value in module.state_dict().values()] + momenta + generators
    state = {
        "tensors": [value if value is None else value.numpy() for value in tensors],
        "modes": [m.training for m in one.backbone.modules()],
        "method": {name: value for name, value in vars(one.method).items() if name != "_old"} | {"old": id(frozen)},
        "steps": [{k: v for k, v in group.items() if k != "params"} for group in one._optimizer.param_groups],
        "schedule": one.epochs_done,
        "numpy": np.random.get_state(),  # noqa: NPY002
        "buffers": [
            (a.ids, a.labels, a._samples[: len(a)]) for a in (memory.stream_buffer.array, memory.episodic_memory.array)
        ],
        "held": memory.episodic_memory._held,
        "draws": [g.bit_generator.state for g in (memory._batch_rng, swapper._rng, memory._select_rng)],
        "counts": replace(memory.counts, stall_s=0.0),
        "config": (memory.config, swapper._owed, memory._layout),
        "pending": [id(exchange) for exchange in swapper._pending],
    }
    return copy.deepcopy(state)


@pytest.mark.parametrize("method", [ExperienceReplay, BiC])
@pytest.mark.parametrize("profiler", [ProbeProfiler(), TrialProfiler(0.5, 1, 1), full_training()], ids=str)
def test_profiling_leaves_everything_as_it_was_bit_for_bit(make_memory, profiler, method):
    task, one, memory = arrived(make_memory, task=2, method=method())
    if method is ExperienceReplay:  # BiC forgets the layer that it corrects by when it begins to train
        train_epoch(one, memory)  # the optimiser has a momentum to lose
        memory.settle()
    before = state_of(one, memory)
    decision = Miro2023Controller(profiler, swap_ratio=0.5).choose(task, one, memory, UNLIMITED)
    np.testing.assert_equal(state_of(one, memory), before)
    assert len(decision.trials) == 20 and decision.trials["chosen"].sum() == 1 < decision.trials["score"].nunique()


def test_choices_are_decided_by_the_seed(make_memory):
    task, one, memory = arrived(make_memory)
    tables = [
        Miro2023Controller(TrialProfiler(1.0, 0, 1), seed=seed).choose(task, one, memory, UNLIMITED).trials
        for seed in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["score"].equals(tables[2]["score"])


def test_the_work_of_profiling_is_in_the_books_to_the_sample(make_memory):
    task, one, memory = arrived(make_memory)
    before = replace(one.tally)
    candidates = [MemoryConfig(10, 8, 1.0), MemoryConfig(20, 18, 1.0)]
    TrialProfiler(1.0, 1, 2).scores(TrialProfiler().request(task, one, memory, candidates, 0))
    validation = 8  # 2 of 20 samples are held out of each of 4 classes
    assert one.tally.visits - before.visits == 38 + 2 * (18 + 38)
    assert one.tally.forward_visits - before.forward_visits == 2 * validation
    for swap_ratio, old in ((1.0, 32), (0.0, 18)):
        probed = [replace(c, swap_ratio=swap_ratio) for c in candidates]
        before = replace(one.tally)
        ProbeProfiler(work_share=100.0).scores(ProbeProfiler(100.0).request(task, one, memory, probed, 0))
        assert one.tally.visits == before.visits
        # Of 36 stored, 18 are held: after three epochs that draw anew an eighth has not been seen, 4.5.
        assert one.tally.forward_visits - before.forward_visits == 20 + old + validation


def test_smoothing_takes_noise_out_and_leaves_a_smooth_surface_alone():
    candidates = [MemoryConfig(s, e) for s in (10, 30, 90, 270) for e in (5, 20, 80, 320, 1280)]
    sizes = np.log([(c.stream_size, c.episodic_size) for c in candidates])
    true = 1 - np.exp(-0.3 - 0.05 * sizes[:, 0] - 0.15 * sizes[:, 1])
    np.testing.assert_allclose(smoothed(candidates, true), true, atol=1e-9)
    noise = np.random.default_rng(0).normal(0, 0.03, (50, 20))
    left = [np.square(smoothed(candidates, true + one) - true).mean() for one in noise]
    assert np.mean(left) < 0.45 * np.square(noise).mean(), "six of twenty degrees of freedom stay: 0.3"
    noisy = true + noise[0]
    assert (smoothed(candidates[:7], noisy[:7]) == noisy[:7]).all()


def test_what_mere_size_is_worth_breaks_ties_of_the_surface_and_keeps_its_spread():
    candidates = [MemoryConfig(s, e) for s in (10, 40, 160) for e in (5, 20, 80)]
    # Errors fall with the stream buffer alone; by hand: standardised, both size logarithms are (-1, 0, 1) * 1.2247.
    by_stream = 1 - np.exp(-np.repeat([1.0, 2.0, 3.0], 3))
    blended = smoothed(candidates, by_stream, size_weight=np.sqrt(2))
    # size = e + s, of twice the variance of one: weight sqrt(2) makes it e + s beside the surface's s: 2 s + e.
    order = np.log(1 - blended).reshape(3, 3)
    np.testing.assert_allclose(np.diff(order, axis=0).mean(), 2 * np.diff(order, axis=1).mean())
    np.testing.assert_allclose(np.log(1 - blended).std(), np.sqrt(2 / 3))
    np.testing.assert_allclose(np.log(1 - blended).mean(), -2)
