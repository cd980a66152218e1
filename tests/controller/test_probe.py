import numpy as np
import pytest
from arrivals import arrived
from sklearn.linear_model import Ridge

from mirolib import MemoryConfig, ProbeProfiler
from mirolib.controller import candidate_grid
from mirolib.controller.probe import old_ids
from mirolib.data.stream import labels_of


@pytest.mark.parametrize(
    ("swap_ratio", "seen"),
    # 72 are stored; 12 or 36 are held in each of three epochs: (5/6)^3 or (1/2)^3 are not seen, (5/6)^2 or (1/2)^2
    # where half of them are exchanged.
    [(0.0, {12: 12, 36: 36}), (0.5, {12: 22, 36: 54}), (1.0, {12: 91 / 3, 36: 63})],
)
def test_the_probe_is_ridge_regression_on_the_samples_that_training_sees(make_memory, swap_ratio, seen):
    task, one, memory = arrived(make_memory, task=2)
    candidates = [MemoryConfig(s, e, swap_ratio) for s, e in ((8, 12), (30, 12), (30, 36))]
    profiler = ProbeProfiler(work_share=100.0, smooth=False)
    request = profiler.request(task, one, memory, candidates, 3)
    validation = one.features(memory.storage.read(request.validation_ids, "validation")).double().numpy()
    mean, deviation = validation.mean(axis=0), validation.std(axis=0)
    used = deviation > 1e-6 * deviation.max()
    old = old_ids(memory, round(max(seen.values())), np.random.default_rng(3))
    expected = []
    for c in candidates:
        replayed = old[: round(seen[c.episodic_size])]
        ids = np.concatenate([memory.stream_buffer.order[: c.stream_size], replayed])
        weights = np.repeat([1.0, c.episodic_size / seen[c.episodic_size]], [c.stream_size, len(replayed)])
        features = (one.features(memory.storage.read(ids)).double().numpy() - mean)[:, used] / deviation[used]
        features = np.column_stack([features, np.ones(len(ids))])
        penalty = profiler.penalty * (weights[:, None] * features**2).sum() / (len(used) + 1)
        targets = 2 * np.eye(6)[labels_of(ids)] - 1
        ridge = Ridge(penalty, fit_intercept=False).fit(features, targets, sample_weight=weights)
        scaled = np.column_stack([(validation - mean)[:, used] / deviation[used], np.ones(len(validation))])
        expected.append((ridge.predict(scaled).argmax(axis=1) == request.validation_labels).mean())
    np.testing.assert_allclose(profiler.scores(request), expected, atol=1e-12)


def test_a_cheap_probe_looks_at_a_fraction_of_the_samples(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    profiler = ProbeProfiler(work_share=0.001)
    before = one.tally.forward_visits
    profiler.scores(profiler.request(task, one, memory, candidate_grid(task, memory), 0))
    assert one.tally.forward_visits - before == 36 / 4 + 72 / 4 + 12, "never less than a quarter"
