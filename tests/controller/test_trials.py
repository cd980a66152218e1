import numpy as np
import pytest
from arrivals import arrived

from mirolib import ExperienceReplay, InputError, MemoryConfig, TrialProfiler
from mirolib.controller import candidate_grid, full_training
from mirolib.data.stream import labels_of
from mirolib.learning.bic import BiC
from mirolib.learning.learner import train_epoch


@pytest.mark.parametrize("method", [ExperienceReplay, BiC])
def test_a_trial_is_the_training_that_would_follow(make_memory, method):
    """What follows it included: the score of a candidate is what a run with it, from the same draws, reaches."""
    task, one, memory = arrived(make_memory, task=2, method=method())
    candidate = MemoryConfig(20, 18, 1.0)
    profiler = full_training()
    (score,) = profiler.scores(profiler.request(task, one, memory, [candidate], seed=5))
    seeds = np.random.SeedSequence(5).generate_state(4).tolist()
    clone, fork = one.clone(seeds[0]).clone(seeds[1]), memory.fork(seeds[2])
    fork.resize(candidate)
    for _ in range(3):
        train_epoch(clone, fork)
    fork.settle()
    clone.method.finish(clone, task, fork)
    fork.close()
    ids = memory.validation_ids()
    assert score == np.mean(clone.stream_labels(memory.storage.read(ids, "validation")) == labels_of(ids))


def test_a_small_share_leaves_no_class_without_a_sample(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    profiler = TrialProfiler(0.001, 1, 1)
    request = profiler.request(task, one, memory, candidate_grid(task, memory), 0)
    assert {(profiler._scaled(request, c).stream_size, profiler._scaled(request, c).episodic_size)
            for c in request.candidates} == {(2, 4)}  # fmt: skip
    assert len(profiler.scores(request)) == 20


@pytest.mark.parametrize(
    "options", [{"data_share": 0.0}, {"data_share": 1.5}, {"trail_epochs": 0}, {"checkpoint_epochs": -1}]
)
def test_trials_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="choose a value above 0|needs checkpoint_epochs"):
        TrialProfiler(**options)
