import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from arrivals import CONFIG, PRESET, STREAM, arrived, learner
from scipy.optimize import minimize
from torch.nn import functional

from mirolib import (
    EnergyMeter,
    ExperienceReplay,
    FixedController,
    InputError,
    Method,
    NullSource,
    RunSettings,
    run,
    run_experiment,
    summarise,
)
from mirolib.controller.profiler import ProfileRequest
from mirolib.data.stream import labels_of
from mirolib.learning.bic import BiasLayer, BiC, _condensed, distillation_loss, fit_bias_layer
from mirolib.learning.learner import train_epoch
from mirolib.learning.models import ExpandingHead, evaluating


def with_bic(make_memory, task=1, config=CONFIG):
    """A learner that has been through whole tasks with BiC, and its memory, at the moment a task has arrived."""
    return arrived(make_memory, task, config, BiC(), epochs=3, preset=replace(PRESET, warm_start=1.0))


# --- stage 1


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_by_hand(temperature):
    """At T, logits (0, T ln 3) stand for (1/4, 3/4); the new class's logit plays no part, and there is no factor T²."""
    log3 = temperature * math.log(3)
    old = torch.tensor([[0.0, log3], [0.0, log3]])
    new = torch.tensor([[5.0, 5.0, 100.0], [log3, 0.0, -7.0]])
    second = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    assert distillation_loss(new, old, temperature).item() == pytest.approx((math.log(2) + second) / 2)
    assert distillation_loss(new[:1], old[:1]).item() == pytest.approx(math.log(2))


def test_the_distillation_weight_is_the_share_of_old_classes_and_what_training_reaches_lowers_it():
    method = BiC()
    assert method.distillation_weight(2, 4) == 0.5 and method.distillation_weight(20, 25) == 0.8
    assert method.distillation_weight(20, 25, 1.0) == 0.4
    assert method.distillation_weight(20, 25, 0.5) == pytest.approx(0.6)
    assert BiC(swap_factor=1.0).distillation_weight(20, 25, 1.0) == 0.8
    assert BiC(swap_factor=0.0).distillation_weight(20, 25, 1.0) == 0.0


@pytest.mark.parametrize("swap_ratio", [0.0, 0.5, 1.0])
def test_the_loss_of_a_step_is_the_papers(make_memory, swap_ratio):
    """Four old and two new classes: lambda = 2/3, less by reach; targets are the old model's corrected logits."""
    _, one, memory = with_bic(make_memory, task=2, config=replace(CONFIG, swap_ratio=swap_ratio))
    held, stored = CONFIG.episodic_size, 4 * 18
    missed = (1 - held / stored) * math.exp(-swap_ratio * PRESET.epochs * held / stored)
    weight = 2 / 3 * (1 - 0.5 * (1 - missed))
    layer = one.method.layers[-1]
    assert (layer.first, layer.last) == (2, 4) and layer.alpha != 1
    before = copy.deepcopy((one.backbone, one.head))
    before[0].eval()
    train_epoch(one, memory)
    batch = next(memory.batches(8))
    inputs, labels = one._transform.evaluate(batch.samples), torch.from_numpy(batch.labels)
    logits = one.logits(inputs)
    old = before[1](before[0](inputs))[:, :4]
    old[:, 2:] = layer.alpha * old[:, 2:] + layer.beta
    targets, found = (old / 2).softmax(1), (logits[:, :4] / 2).log_softmax(1)
    expected = weight * -(targets * found).sum(1).mean() + (1 - weight) * functional.cross_entropy(logits, labels)
    assert one.method.step_loss(one, inputs, logits, labels, 0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_first_task_is_plain_softmax_training(make_memory):
    weights = []
    for method in (BiC(), ExperienceReplay("ce")):
        one, memory = learner(method=method), make_memory(STREAM, CONFIG)
        next(run(STREAM, one, memory, FixedController(CONFIG), progress=False))
        weights.append([p.detach().clone() for p in [*one.backbone.parameters(), *one.head.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


# --- stage 2


def test_the_bias_layer_changes_the_new_logits_alone():
    logits = torch.arange(10.0).reshape(2, 5)
    corrected = BiasLayer(2, 4, 0.5, -3.0)(logits)
    assert corrected.tolist() == [[0, 1, -2, -1.5, 4], [5, 6, 0.5, 1, 9]]
    assert torch.equal(BiasLayer(2, 4)(logits), logits)


def biased(count, alpha, beta, seed=0):
    """Logits of six old and three new classes that need this layer: labels are drawn from the corrected softmax."""
    generator = torch.Generator().manual_seed(seed)
    true = 2 * torch.randn(count, 9, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    return torch.cat([true[:, :6], (true[:, 6:] - beta) / alpha], dim=1), labels


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, -1.5), (1.0, 0.0), (1.7, 0.8)])
def test_stage_2_recovers_a_known_layer(alpha, beta):
    layer = fit_bias_layer(*biased(40_000, alpha, beta), first=6)
    assert (layer.first, layer.last) == (6, 9)
    assert layer.alpha == pytest.approx(alpha, rel=0.04) and layer.beta == pytest.approx(beta, abs=0.06)


@pytest.mark.parametrize("pull", [0.0, 1.0, 50.0])
def test_stage_2_finds_the_minimum(pull):
    logits, labels = biased(300, 0.5, -1.0)
    logits = logits.double()

    def loss(values):
        corrected = torch.cat([logits[:, :6], values[0] * logits[:, 6:] + values[1]], dim=1)
        pulled = pull / 2 * ((values[0] - 1) ** 2 + values[1] ** 2) / 300
        return functional.cross_entropy(corrected, labels).item() + pulled

    layer = fit_bias_layer(logits, labels, 6, pull)
    np.testing.assert_allclose([layer.alpha, layer.beta], minimize(loss, [1.0, 0.0]).x, atol=1e-3)


def test_joining_the_old_classes_changes_nothing():
    logits, labels = biased(300, 0.5, -1.0)
    joined, positions = _condensed(logits, labels, 6)
    assert joined.shape == (300, 4) and positions[labels < 6].eq(0).all()
    whole, short = fit_bias_layer(logits, labels, 6), fit_bias_layer(joined, positions, 1)
    assert (short.alpha, short.beta) == pytest.approx((whole.alpha, whole.beta), abs=1e-6)


def test_separable_samples_give_a_finite_layer():
    logits = 50 * torch.eye(4)
    layer = fit_bias_layer(logits, torch.arange(4), 2)
    assert 0.5 < layer.alpha < 2 and abs(layer.beta) < 1


def test_stage_2_takes_an_equal_number_of_every_class(make_memory):
    _, one, memory = with_bic(make_memory, task=2)
    ids = memory.validation_ids()
    assert np.bincount(labels_of(ids)).tolist() == [2] * 6
    assert np.bincount(labels_of(one.method._balanced(ids, 6))).tolist() == [2] * 6
    assert np.bincount(labels_of(BiC(per_class=1)._balanced(ids, 6))).tolist() == [1] * 6
    uneven = np.delete(ids, [1, 6, 7])  # class 0 has one left, class 3 none
    assert np.bincount(labels_of(one.method._balanced(uneven, 6)), minlength=6).tolist() == [1, 1, 1, 0, 1, 1]


def test_predictions_use_corrected_logits_until_the_next_training_begins(make_memory):
    task, one, memory = with_bic(make_memory, task=2)
    one.method._layer = BiasLayer(2, 4, 1.0, 1e3)
    samples = STREAM.dataset.test.data
    assert set(one.stream_labels(samples)) <= {2, 3}
    reached, now = ProfileRequest(task, one, memory, [CONFIG], 0).accuracies()
    assert reached <= 0.5 and now <= 1 / 3, "only two classes are ever predicted"
    with evaluating(one.backbone):
        raw = one.logits(one._transform.evaluate(samples[:4]))
    torch.testing.assert_close(one.classify(one.features(samples[:4])), one.method._layer(raw.detach()))
    train_epoch(one, memory)
    assert one.method.classifier(one.head) is one.head


def test_a_folded_head_gives_the_corrected_logits_and_leaves_the_head_alone():
    head, features = ExpandingHead(7), torch.randn(5, 7)
    head.grow(6, torch.Generator().manual_seed(0))
    layer, before = BiasLayer(2, 4, 0.7, -1.5), head.weight.detach().clone()
    torch.testing.assert_close(layer.folded(head)(features), layer(head(features)))
    assert torch.equal(head.weight, before)


# --- the books, clones and hooks


def test_tallies_are_exact(make_memory):
    one, memory = learner(method=BiC()), make_memory(STREAM, CONFIG)
    records = list(run(STREAM, one, memory, FixedController(CONFIG), EnergyMeter(NullSource()), progress=False))
    for record in records:
        work = {reading.window: reading.work for reading in record.readings}
        visits = 3 * (20 + (18 if record.task else 0))
        held_out = 2 * 2 * (record.task + 1)
        assert work["train"].visits == visits
        assert work["train"].forward_visits == (visits + held_out if record.task else 0)
        assert work["evaluate"].forward_visits == 5 * 2 * (record.task + 1)
        assert not any(work[window].forward_visits for window in ("receive", "profile", "retain"))
    assert [(layer.first, layer.last) for layer in one.method.layers] == [(2, 4), (4, 6)]
    assert one.method._old is None, "the old model is kept during training only"


def test_a_clone_shares_the_frozen_model_and_nothing_else(make_memory):
    task, one, memory = with_bic(make_memory, task=2)
    clone, twin = one.clone(5), one.clone(5)
    assert clone.method is not one.method and clone.method._old is one.method._old
    assert not any(p.requires_grad for p in clone.method._old._backbone.parameters())
    fork, same = memory.fork(6), memory.fork(6)
    for each, copied in ((clone, fork), (twin, same)):
        train_epoch(each, copied)
        each.method.finish(each, task, copied)
    assert clone.method.layers == twin.method.layers and len(clone.method.layers) == 2
    assert len(one.method.layers) == 1 and one.method._layer is one.method.layers[0] and one.method._old is not None


class Watching(Method):
    """A method as one writes it in a notebook: says when it was asked what."""

    def __init__(self):
        self.calls = []

    def loss(self, logits, labels):
        return functional.cross_entropy(logits, labels)

    def begin(self, learner, task, memory):
        self.calls.append(("begin", task.index, learner.num_classes, memory.stored))

    def begin_epoch(self, learner, memory):
        self.calls.append(("epoch", memory.config.swap_ratio))

    def finish(self, learner, task, memory):
        self.calls.append(("finish", task.index, len(memory.stream_buffer)))


def test_the_hooks_of_a_method_of_ones_own(make_memory):
    one, memory = learner(method=Watching()), make_memory(STREAM, CONFIG)
    assert len(list(run(STREAM, one, memory, FixedController(CONFIG), progress=False))) == 3
    assert one.method.calls == [
        call
        for index in range(3)
        for call in [
            ("begin", index, 2 * (index + 1), 36 * (index + 1)), *[("epoch", 0.5)] * 3, ("finish", index, 20),
        ]
    ]  # fmt: skip


# --- whole runs


DIGITS = RunSettings(
    method="bic", controller="fixed", stream_size=250, episodic_size=20, swap_ratio=0.2, epochs=8, energy="none"
)


def test_a_run_on_digits_beats_finetuning_by_far(tmp_path):
    accuracy = [
        run_experiment(replace(DIGITS, method=method), results=tmp_path, progress=False).records[-1].average_accuracy
        for method in ("bic", "finetuning")
    ]
    assert accuracy[0] > 0.6 > 0.4 > accuracy[1]


def test_the_paper_s_controller_works_with_it(tmp_path):
    settings = replace(
        DIGITS, controller="miro-2023", stream_size=None, episodic_size=None, swap_ratio=None, tasks=3, epochs=4
    )
    result = run_experiment(settings, results=tmp_path, progress=False)
    summary = summarise(list(result.records))
    assert summary["final_accuracy"] > 0.5 and summary["cost_error"] == 0.0
    for record in result.records[1:]:
        assert record.trials["chosen"].sum() == 1 and record.trials["score"].notna().all()


# --- bad input


def test_without_validation_samples_it_says_so(tmp_path):
    with pytest.raises(InputError, match="The bic method looks at validation samples; set validation_share above 0"):
        replace(DIGITS, validation_share=0.0)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"swap_factor": 1.5}, {"per_class": 0}, {"pull": -1.0}, {"pull": math.nan}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="BiC needs a temperature above 0"):
        BiC(**options)
