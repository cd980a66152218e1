import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from samples import make_dataset
from sklearn.linear_model import Ridge

from mirolib import (
    BudgetSchedule,
    Decision,
    EnergyMeter,
    FixedController,
    InputError,
    Learner,
    LiveBudget,
    MemoryConfig,
    MiroController,
    NullSource,
    ProbeProfiler,
    ResourceMonitor,
    TaskStream,
    TrialProfiler,
    run,
    summarise,
)
from mirolib.controller import (
    SELECTORS,
    Calibration,
    CongestionPolicy,
    CostModel,
    Outlook,
    Profiler,
    RandomController,
    SwapGovernor,
    WholeBudgetController,
    above_cutline,
    candidate_grid,
    full_training,
)
from mirolib.controller.profiler import smoothed
from mirolib.controller.resources import Resources
from mirolib.controller.selectors import CheapestWithin, WithinBudget
from mirolib.data.stream import labels_of
from mirolib.learning.learner import train_epoch

STREAM = TaskStream(make_dataset(classes=6, per_class=20), 3, seed=0)
PRESET = replace(STREAM.dataset.spec.preset(), epochs=3, batch_size=8)
UNLIMITED = Resources(None, 0, 0.0, 1.0)


def learner(**options):
    return Learner(STREAM.dataset.spec, PRESET, **options)


def arrived(make_memory, task=1, **options):
    """A learner and a memory at the moment a task has arrived."""
    one, memory = learner(), make_memory(STREAM, MemoryConfig(20, 18, 0.0 if options else 0.5), **options)
    for index in range(task + 1):
        memory.receive(STREAM[index])
        one.grow(STREAM[index].classes)
        if index < task:
            train_epoch(one, memory)
            memory.settle()
            memory.retain(STREAM[index])
    return STREAM[task], one, memory


# --- the grid


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
    with pytest.raises(InputError, match=r"holds 5 samples, but the smallest configuration needs 6 \(2 in"):
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


# --- selectors and the cutline, against hand-worked tables

TABLE = pd.DataFrame(
    {"accuracy": [0.50, 0.60, 0.70, 0.71], "cost": [10.0, 11.0, 30.0, 60.0]}, index=["a", "b", "c", "d"]
)


@pytest.mark.parametrize(
    ("cutline", "above"), [(0.25, "d"), (0.5, "cd"), (0.51, "bcd"), (1.0, "abcd"), (0.01, "d"), (0.75, "bcd")]
)
def test_the_cutline_keeps_the_top_share(cutline, above):
    assert "".join(TABLE.index[above_cutline(TABLE["accuracy"], cutline)]) == above


@pytest.mark.parametrize("cutline", [0.0, -0.5, 1.01, math.nan])
def test_a_cutline_outside_its_range_is_refused(cutline):
    with pytest.raises(InputError, match="choose a share above 0, up to 1"):
        above_cutline(TABLE["accuracy"], cutline)


@pytest.mark.parametrize(
    ("name", "cutline", "picked"),
    [
        ("accuracy-per-joule", 1.0, "b"),  # .05 .0545 .0233 .0118
        ("accuracy-per-joule", 0.5, "c"),
        ("gain-per-joule", 1.0, "c"),  # now 0.45: .005 .01364 .00833 .00433 -> b; see below
        ("gain-per-joule", 0.5, "c"),
        ("highest-accuracy", 0.5, "d"),
        ("lowest-energy", 0.75, "b"),
        ("lowest-energy", 0.25, "d"),
        ("cheapest-within", 0.25, "c"),  # 2 points below 0.71
    ],
)
def test_selectors_against_a_table_worked_by_hand(name, cutline, picked):
    table = TABLE.assign(above_cutline=above_cutline(TABLE["accuracy"], cutline))
    selector = SELECTORS[name](2.0, None)
    now = 0.55 if name == "gain-per-joule" else 0.0  # gains -.05 .05 .15 .16: -.005 .00455 .005 .00267
    assert selector.pick(table, Outlook(accuracy_now=now))[0] == picked
    assert selector.name == name and selector.caption.endswith(".")


def test_of_equals_the_cheapest_is_picked():
    table = pd.DataFrame({"accuracy": [0.9, 0.9], "cost": [5.0, 4.0], "above_cutline": True})
    assert SELECTORS["highest-accuracy"](2.0, None).pick(table, Outlook())[0] == 1


@pytest.mark.parametrize(("points", "picked"), [(0.0, "d"), (1.0, "c"), (11.0, "b"), (100.0, "a")])
def test_cheapest_within_points(points, picked):
    assert CheapestWithin(points).pick(TABLE.assign(above_cutline=False), Outlook())[0] == picked


@pytest.mark.parametrize(
    ("budget", "outlook", "picked"),
    [
        (300.0, Outlook(tasks_left=5), "d"),  # 5 x 60
        (299.0, Outlook(tasks_left=5), "c"),
        (300.0, Outlook(tasks_left=5, spent=140), "c"),  # 160 left: 5 x 30
        (300.0, Outlook(tasks_left=5, spent=140, overhead=3), "b"),  # 5 x 33 = 165
        (20.0, Outlook(tasks_left=5), "a"),  # none can be afforded
    ],
)
def test_within_budget_plans_to_the_end_of_the_stream(budget, outlook, picked):
    assert WithinBudget(budget).pick(TABLE.assign(above_cutline=True), outlook)[0] == picked


# --- calibration and costs


def test_calibration_learns_the_line_and_keeps_the_order():
    calibration = Calibration(forgetting=1.0)
    scores = np.array([0.4, 0.6, 0.8, 0.9])
    for score in np.repeat(scores, 10):
        calibration.observe(score, 1 - np.exp(-1.5 + 0.6 * np.log(1 - score)))
    predicted = calibration.predict(scores)
    assert np.abs(predicted - (1 - np.exp(-1.5 + 0.6 * np.log(1 - scores)))).max() < 0.02
    assert (np.diff(predicted) > 0).all() and (Calibration().predict(scores) < 1).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8), st.lists(st.floats(0, 1), min_size=2))
def test_calibrated_accuracies_are_accuracies_in_the_order_of_the_scores(points, scores):
    calibration = Calibration()
    for point in points:
        calibration.observe(*point)
    predicted = calibration.predict(np.sort(scores))
    assert (predicted >= 0).all() and (predicted <= 1).all() and (np.diff(predicted) >= -1e-12).all()


def test_before_the_first_measurement_the_best_candidate_is_supposed_to_reach_what_the_last_task_did():
    easy, hard = Calibration(), Calibration()
    easy.suppose(0.9, 0.99)
    hard.suppose(0.9, 0.4)
    assert easy.predict(np.array([0.9]))[0] > 0.95 > 0.75 > hard.predict(np.array([0.9]))[0]
    hard.observe(0.9, 0.99)
    after = hard.line()
    hard.suppose(0.9, 0.1)
    assert hard.line() == after, "a measurement outweighs any supposition"


def test_the_worst_scores_are_still_told_apart():
    calibration = Calibration()
    calibration.observe(0.9, 0.02)
    calibration.observe(0.95, 0.01)
    predicted = calibration.predict(np.linspace(0.0, 0.95, 20))
    assert len(set(predicted.tolist())) == 20 and predicted.min() >= 0


def test_without_a_sensor_cost_is_visits_exactly():
    costs = CostModel()
    assert math.isnan(costs.median_error)
    costs.observe(1000, 50, float("nan"), expected=1000.0)
    assert costs.unit == "visits" and costs.predict(123, 1e9) == 123 and costs.median_error == 0
    costs.observe(1000, 50, float("nan"), expected=900.0)
    assert costs.errors[-1] == pytest.approx(0.1)


def test_the_cost_model_finds_what_a_machine_takes():
    rng, costs = np.random.default_rng(0), CostModel("J")
    for _ in range(12):
        visits, size_bytes = rng.uniform(1e3, 1e4), rng.uniform(1e5, 1e7)
        cost = rng.normal(1, 0.01) * (5 + 2e-2 * visits + 3e-6 * size_bytes)
        costs.observe(visits, size_bytes, cost, expected=float(costs.predict(visits, size_bytes)))
    assert costs.predict(4000, 2e6) == pytest.approx(5 + 80 + 6, rel=0.03)
    assert len(costs.errors) == 11 and np.median(costs.errors[5:]) < 0.05, "the first was not predicted in joules"


def test_as_long_as_tasks_are_alike_the_cost_is_proportional_to_visits():
    costs = CostModel("J")
    assert not costs.known
    for visits, cost in ((62, 12.0), (80, 15.0), (90, 13.0)):
        costs.observe(visits, 1e6, cost)
    assert costs.known and costs.predict(1000, 1e9) == pytest.approx(1000 * 40 / 232)
    costs.observe(100, 0, float("nan"))
    assert costs.predict(1000, 0) == pytest.approx(1000 * 40 / 232), "a task without joules says nothing in joules"


# --- the swap governor


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.0}, {"floor": 0.0}, {"clean_epochs": 0}])
def test_a_policy_out_of_range_is_refused(options):
    with pytest.raises(InputError, match="choose"):
        CongestionPolicy(**options)


def test_halving_and_recovery_by_hand():
    governor = SwapGovernor(1.0, CongestionPolicy(threshold=0.1, floor=0.25, clean_epochs=2))
    ratios = []
    for stall in (0.0, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05, 0.05):
        reason = governor.step(stall)
        assert bool(reason) == (len(ratios) == 0 or governor.ratio != ratios[-1]) or not ratios
        ratios.append(governor.ratio)
    assert ratios == [1.0, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]


def test_a_wait_of_milliseconds_is_no_congestion():
    governor = SwapGovernor(1.0, CongestionPolicy(least_wait_s=0.05))
    assert not governor.step(0.5, 0.049) and governor.ratio == 1.0
    assert governor.step(0.5, 0.051) and governor.ratio == 0.5


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.01, 1.0), st.integers(1, 5))
def test_the_ratio_stays_between_floor_and_highest(stalls, floor, clean):
    governor = SwapGovernor(0.8, CongestionPolicy(floor=floor, clean_epochs=clean))
    for stall in stalls:
        governor.step(stall)
        assert floor * 0.8 - 1e-12 <= governor.ratio <= 0.8


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.5, 3.0))
def test_under_constant_conditions_changes_become_rare(scale, power):
    """A disk on which waiting grows with the ratio: it settles, and tries again ever more rarely."""
    governor, changed = SwapGovernor(1.0), []
    for epoch in range(4000):
        if governor.step(scale * governor.ratio**power):
            changed.append(epoch)
    assert len(changed) <= 4 + 2 * math.log2(4000)
    assert sum(epoch >= 2000 for epoch in changed) <= 4


def test_after_relief_the_ratio_comes_back_soon_even_after_long_congestion():
    governor = SwapGovernor(1.0)
    for _ in range(500):
        governor.step(0.15 * governor.ratio)
    patience = governor._patience
    assert governor.ratio < 1 and patience > 16
    needed = next(n for n in range(500) if not governor.step(0.0) and governor.ratio == 1.0)
    assert needed <= 6, "as soon as there is less waiting than there was at the same ratio"


# --- profilers


def state_of(one, memory):
    """All that trials must leave as it was."""
    swapper = memory._swapper
    return copy.deepcopy(
        {
            "weights": {k: v.clone() for m in (one.backbone, one.head) for k, v in m.state_dict().items()},
            "modes": [m.training for m in one.backbone.modules()],
            "optimizer": one._optimizer.state_dict(),
            "schedule": one._schedule.state_dict(),
            "generators": (one._transform.generator.get_state(), one._head_generator.get_state()),
            "torch": torch.random.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002
            "buffers": [
                (a.ids, a.labels, a._samples[: len(a)].copy())
                for a in (memory.stream_buffer.array, memory.episodic_memory.array)
            ],
            "held": memory.episodic_memory._held,
            "draws": [g.bit_generator.state for g in (memory._batch_rng, swapper._rng, memory._select_rng)],
            "counts": replace(memory.counts, stall_s=0.0),
            "config": (memory.config, swapper._owed, memory._layout),
            "pending": [id(exchange) for exchange in swapper._pending],
        }
    )


def assert_same(one, other, where=""):
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(one, np.ndarray | torch.Tensor):
        assert np.array_equal(np.asarray(one), np.asarray(other)), where
    else:
        assert one == other, where


@pytest.mark.parametrize("profiler", [ProbeProfiler(), TrialProfiler(0.5, 1, 1), full_training()], ids=str)
def test_profiling_leaves_everything_as_it_was_bit_for_bit(make_memory, profiler):
    task, one, memory = arrived(make_memory)
    train_epoch(one, memory)  # the optimiser has a momentum to lose
    memory.settle()
    before = state_of(one, memory)
    decision = MiroController(profiler, swap_ratio=0.5).choose(task, one, memory, UNLIMITED)
    assert_same(before, state_of(one, memory))
    assert len(decision.trials) == 20 and decision.trials["chosen"].sum() == 1


def test_choices_are_decided_by_the_seed(make_memory):
    task, one, memory = arrived(make_memory)
    tables = [
        MiroController(TrialProfiler(1.0, 0, 1), seed=seed).choose(task, one, memory, UNLIMITED).trials
        for seed in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["score"].equals(tables[2]["score"])


def test_a_trial_is_the_training_that_would_follow(make_memory):
    """The oracle's score of a candidate is what a run with it, from the same draws, reaches."""
    task, one, memory = arrived(make_memory)
    (candidate,) = candidate_grid(task, memory, pairs=[(20, 18)])
    profiler = full_training()
    situation = profiler.situation(task, one, memory, [candidate], seed=5)
    (score,) = profiler.scores(situation)
    seeds = np.random.SeedSequence(5).generate_state(4).tolist()
    clone, fork = one.clone(seeds[0]).clone(seeds[1]), memory.fork(seeds[2])
    fork.resize(candidate)
    for _ in range(3):
        train_epoch(clone, fork)
    fork.close()
    ids = memory.validation_ids()
    assert score == np.mean(clone.predict(memory.storage.read(ids, "validation")) == labels_of(ids))


def test_a_small_share_leaves_no_class_without_a_sample(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    profiler = TrialProfiler(0.001, 1, 1)
    situation = profiler.situation(task, one, memory, candidate_grid(task, memory), 0)
    assert {(profiler._scaled(situation, c).stream_size, profiler._scaled(situation, c).episodic_size)
            for c in situation.candidates} == {(2, 4)}  # fmt: skip
    assert len(profiler.scores(situation)) == 20


def test_the_work_of_profiling_is_in_the_books_to_the_sample(make_memory):
    task, one, memory = arrived(make_memory)
    before = replace(one.tally)
    candidates = [MemoryConfig(10, 8, 1.0), MemoryConfig(20, 18, 1.0)]
    TrialProfiler(1.0, 2, 3).scores(TrialProfiler().situation(task, one, memory, candidates, 0))
    validation = 8  # 2 of 20 samples are held out of each of 4 classes
    assert one.tally.visits - before.visits == 2 * 38 + 3 * (18 + 38)
    assert one.tally.forward_visits - before.forward_visits == 2 * validation
    for swap_ratio, old in ((1.0, 32), (0.0, 18)):
        probed = [replace(c, swap_ratio=swap_ratio) for c in candidates]
        before = replace(one.tally)
        ProbeProfiler(work_share=100.0).scores(ProbeProfiler(100.0).situation(task, one, memory, probed, 0))
        assert one.tally.visits == before.visits
        # Of 36 stored, 18 are held: after three epochs that draw anew an eighth has not been seen, 4.5.
        assert one.tally.forward_visits - before.forward_visits == 20 + old + validation


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
    situation = profiler.situation(task, one, memory, candidates, 3)
    validation = one.features(memory.storage.read(situation.validation_ids, "validation")).double().numpy()
    mean, deviation = validation.mean(axis=0), validation.std(axis=0)
    used = deviation > 1e-6 * deviation.max()
    old = memory.old_ids(round(max(seen.values())), np.random.default_rng(3))
    expected = []
    for c in candidates:
        replayed = old[: round(seen[c.episodic_size])]
        ids = np.concatenate([memory.stream_buffer.first(c.stream_size), replayed])
        weights = np.repeat([1.0, c.episodic_size / seen[c.episodic_size]], [c.stream_size, len(replayed)])
        features = (one.features(memory.storage.read(ids)).double().numpy() - mean)[:, used] / deviation[used]
        features = np.column_stack([features, np.ones(len(ids))])
        penalty = profiler.penalty * (weights[:, None] * features**2).sum() / (len(used) + 1)
        targets = 2 * np.eye(6)[labels_of(ids)] - 1
        ridge = Ridge(penalty, fit_intercept=False).fit(features, targets, sample_weight=weights)
        scaled = np.column_stack([(validation - mean)[:, used] / deviation[used], np.ones(len(validation))])
        expected.append((ridge.predict(scaled).argmax(axis=1) == situation.validation_labels).mean())
    np.testing.assert_allclose(profiler.scores(situation), expected, atol=1e-12)


def test_a_cheap_probe_looks_at_a_fraction_of_the_samples(make_memory):
    task, one, memory = arrived(make_memory, task=2)
    profiler = ProbeProfiler(work_share=0.001)
    before = one.tally.forward_visits
    profiler.scores(profiler.situation(task, one, memory, candidate_grid(task, memory), 0))
    assert one.tally.forward_visits - before == 36 / 4 + 72 / 4 + 12, "never less than a quarter"


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


@pytest.mark.parametrize(
    "options", [{"data_share": 0.0}, {"data_share": 1.5}, {"trail_epochs": 0}, {"checkpoint_epochs": -1}]
)
def test_trials_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="choose a value above 0|needs checkpoint_epochs"):
        TrialProfiler(**options)


# --- the controller


def test_a_run_with_the_controller_end_to_end(make_memory):
    memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
    controller = MiroController(selector=CheapestWithin(), num_tasks=3)
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
    assert controller.costs.median_error == 0 == summarise(records)["cost_error"]
    assert [len(record.events) for record in records] == [1, 1, 1]


def decisions(controller, memory, task, one, budgets, stall_s=0.0):
    """What a controller applies, epoch by epoch, under a budget for each."""
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

    def scores(self, situation):
        return np.array([(c.stream_size + c.episodic_size) / 1000 for c in situation.candidates])


def greedy(**options):
    """A controller that wants as much memory as there is."""
    return MiroController(BySize(), SELECTORS["highest-accuracy"](2.0, None), **options)


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
    controller, slot = MiroController(), memory.slot_bytes
    budgets = [108 * slot, 5 * slot, 2 * slot, 108 * slot, 108 * slot]
    sizes = [memory.allocated_bytes // slot for _ in decisions(controller, memory, task, one, budgets)]
    assert sizes[1] <= 5 and sizes[2] == 2 and sizes[4] == sizes[0]
    with pytest.raises(InputError, match="does not hold one sample in each buffer"):
        list(decisions(controller, memory, task, one, [108 * slot, slot]))


def test_congestion_halves_the_swap_ratio_of_the_configuration(make_memory):
    task, one, memory = arrived(make_memory)
    controller = MiroController(congestion=CongestionPolicy(floor=0.25))
    ratios = [d.config.swap_ratio for d in decisions(controller, memory, task, one, [None] * 4, stall_s=0.5)]
    assert ratios == [1.0, 0.5, 0.25, 0.25], "the first epoch has not been trained yet"


def test_a_schedule_is_obeyed_in_a_whole_run(make_memory):
    memory = make_memory(STREAM, MemoryConfig(1, 1, 1.0))
    slot = memory.slot_bytes
    schedule = BudgetSchedule({0: 100 * slot, 4: 24 * slot, 7: 100 * slot})
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
        controller = MiroController(BySize(), WithinBudget(budget), num_tasks=3)
        records = list(run(STREAM, learner(), memory, controller, progress=False))
        learning = [r.work for record in records for r in record.readings if r.window != "evaluate"]
        spent[budget] = sum(work.visits + work.forward_visits / 3 for work in learning)
    assert 350 < spent[500.0] <= 500 < spent[1500.0] <= 1500
    with pytest.raises(InputError, match="give num_tasks"):
        MiroController(selector=WithinBudget(10.0))


def test_what_cannot_be_is_refused_with_a_sentence(make_memory):
    for options, sentence in (({"cutline": 1.5}, "cutline is 1.5"), ({"swap_ratio": 2.0}, "swap_ratio is 2.0")):
        with pytest.raises(InputError, match=sentence):
            MiroController(**options)
    stream = TaskStream(STREAM.dataset, 3, validation_share=0.0)
    memory = make_memory(stream, MemoryConfig(1, 1, 1.0))
    with pytest.raises(InputError, match="set validation_share above 0"):
        next(run(stream, learner(), memory, MiroController(), progress=False))


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


# --- a cap on the swap ratio


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


def test_what_congestion_took_does_not_come_back_with_a_higher_cap():
    governor = SwapGovernor(1.0, CongestionPolicy(clean_epochs=2))
    assert governor.cap(0.5) and governor.ratio == 0.5
    assert governor.step(0.9) and governor.ratio == 0.25
    assert governor.cap(1.0) == "" and governor.ratio == 0.25
    assert [bool(governor.step(0.0)) for _ in range(2)] == [False, True] and governor.ratio == 0.5
    assert governor.cap(0.1) and governor.ratio == 0.1
    assert governor.cap(1.0) and governor.ratio == 0.5, "where congestion had left it"
