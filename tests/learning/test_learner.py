import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from samples import make_dataset
from sklearn.metrics import accuracy_score
from torch import nn

from mirolib import (
    Batch,
    BiC,
    Dataset,
    ExperienceReplay,
    FixedController,
    InputError,
    Learner,
    MemoryConfig,
    TaskStream,
    run,
)
from mirolib.experiment.checkpoint import decoded, encoded
from mirolib.learning.bic import BiasLayer, Frozen
from mirolib.learning.learner import LOSSES
from mirolib.learning.schedules import SCHEDULES

DATASET = make_dataset(classes=4, per_class=20)
STREAM = TaskStream(DATASET, 2, validation_share=0.0)
PRESET = replace(DATASET.spec.preset(), batch_size=8, epochs=4, lr=0.3, weight_decay=0.01,
                 schedule="milestones", milestones=(2,), gamma=0.1)  # fmt: skip


def batches(task, epochs=4):
    data, labels = task.train.read(slice(None)), task.train.labels
    for _ in range(epochs):
        yield [Batch(data[k : k + 8], labels[k : k + 8], np.empty(0, int)) for k in range(0, len(labels), 8)]


@pytest.mark.parametrize("loss_name", ["bce", "ce"])
def test_training_equals_a_plain_loop(loss_name):
    """SGD with momentum and decay, written out: same losses, same predictions, over two tasks and a milestone."""
    learner = Learner(DATASET.spec, PRESET, model=nn.Flatten(), method=ExperienceReplay(loss_name), seed=1)
    mean, std = (torch.tensor(values) for values in (DATASET.spec.mean, DATASET.spec.std))
    for task in STREAM:
        learner.grow(task.classes)
        weight, bias = learner.head.weight.detach().clone(), learner.head.bias.detach().clone()
        velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
        for epoch, steps in enumerate(batches(task)):
            lr = 0.3 if epoch < 2 else 0.03
            learner.set_rate(epoch)
            for batch in steps:
                x = (torch.from_numpy(batch.samples).float() / 255 - mean) / std
                x, y = x.reshape(len(x), -1), torch.from_numpy(batch.labels)
                logits, target = x @ weight.T + bias, torch.eye(len(bias))[y]
                if loss_name == "bce":
                    loss = -(target * logits.sigmoid().log() + (1 - target) * (1 - logits.sigmoid()).log()).mean()
                    slope = (logits.sigmoid() - target) / target.numel()
                else:
                    loss = -(logits.log_softmax(1) * target).sum(1).mean()
                    slope = (logits.softmax(1) - target) / len(target)
                for k, (value, grad) in enumerate(((weight, slope.T @ x), (bias, slope.sum(0)))):
                    velocity[k] = 0.9 * velocity[k] + grad + 0.01 * value
                    value -= lr * velocity[k]
                assert learner.step(batch).item() == pytest.approx(loss.item(), rel=1e-4)
        torch.testing.assert_close(learner.head.weight.detach(), weight, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(learner.head.bias.detach(), bias, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal((x @ weight.T + bias).argmax(1), learner.predict(batch.samples))
    assert learner.tally.visits == 2 * 4 * 40


def test_accuracy_is_scikit_learns_in_labels_of_the_stream():
    learner = Learner(DATASET.spec, PRESET, seed=0)
    learner.grow(STREAM[0].classes, STREAM[0].dataset_labels)
    for batch in next(batches(STREAM[0])):
        learner.step(batch)
    test = STREAM.tests(0)[0]
    assert learner.accuracy(test) == accuracy_score(test.labels, learner.stream_labels(test.read(slice(None))))


def test_predicting_leaves_the_model_as_it_was():
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    learner = Learner(DATASET.spec, PRESET, model=backbone)
    learner.grow((0, 1))
    before = [value.clone() for value in backbone.state_dict().values()]
    learner.predict(DATASET.train.data)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.state_dict().values(), strict=True))
    assert backbone.training


def test_the_seed_decides_the_weights_and_torchs_generator_neither_does_nor_is_touched():
    weights = []
    for global_seed, seed in ((1, 7), (2, 7), (2, 8)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        learner = Learner(DATASET.spec, PRESET, seed=seed)
        learner.grow((0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        weights.append([p.detach() for p in [next(learner.backbone.parameters()), *learner.head.parameters()]])
    one, same, other = weights
    for a, b, c in zip(one, same, other, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_frozen_norm_stays_frozen_and_layouts_of_ones_own_work():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval()

        def forward(self, x):
            x = self.norm(self.conv(x))
            return x.view(x.size(0), -1)

    learner = Learner(DATASET.spec, PRESET, model=Viewing())
    learner.grow((0, 1))
    learner.predict(DATASET.train.data)
    learner.step(next(batches(STREAM[0]))[0])
    assert not learner.backbone.norm.training and learner.backbone.conv.training


def test_training_augments_and_evaluation_does_not():
    spec = replace(DATASET.spec, flip=True, crop_padding=1)
    batch = next(batches(STREAM[0]))[0]
    losses = []
    for one in (DATASET.spec, spec):
        learner = Learner(one, PRESET, seed=2)
        learner.grow(STREAM[0].classes)
        predicted = learner.predict(batch.samples).tolist()
        losses.append((predicted, learner.step(batch).item()))
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_schedules_by_hand():
    falling = replace(PRESET, schedule="falling", milestones=(), epochs=10, fall=0.4)
    assert [round(SCHEDULES["falling"](falling, done), 6) for done in (0, 5.9, 6, 8, 9, 9.75)] == [
        1,
        1,
        1,
        0.5,
        0.25,
        0.0625,
    ]
    stones = replace(PRESET, epochs=10, milestones=(3, 6), gamma=0.1)
    factors = [SCHEDULES["milestones"](stones, done) for done in (0, 2.9, 3, 5.9, 6, 9)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert stones.with_epochs(5).milestones == (1.5, 3) and stones.with_epochs(10) == stones


def test_an_optimiser_of_ones_own_keeps_its_rates_apart():
    def make(parameters, settings):
        return torch.optim.Adam([{"params": parameters[:-2]}, {"params": parameters[-2:], "lr": 1.0}], lr=settings.lr)

    learner = Learner(DATASET.spec, replace(PRESET, optimizer=make, epochs=10, schedule="falling", milestones=()))
    learner.set_rate(7.5)
    assert [group["lr"] for group in learner._optimizer.param_groups] == [0.3 * 0.5, 0.5]
    with pytest.raises(InputError, match="no optimizer 'adam'; choose one of sgd, adamw"):
        Learner(DATASET.spec, replace(PRESET, optimizer="adam"))
    with pytest.raises(InputError, match="no schedule 'cosine'; choose one of constant"):
        Learner(DATASET.spec, replace(PRESET, schedule="cosine", milestones=()))


def test_a_new_task_begins_as_near_to_the_first_weights_as_warm_start_says():
    learner = Learner(DATASET.spec, replace(PRESET, model="cnn", warm_start=0.25), seed=1)
    first = [weight.detach().clone() for weight in learner.backbone.parameters()]
    learner.grow((0, 1))
    for steps in batches(STREAM[0], 1):
        for batch in steps:
            learner.step(batch)
    trained = [weight.detach().clone() for weight in learner.backbone.parameters()]
    head = learner.head.weight.detach().clone()
    resumed = Learner(DATASET.spec, learner.settings, seed=2)
    resumed.restore(learner.state())
    for one in (learner, learner.clone(0), resumed):
        one.grow((2, 3))
        one.begin(STREAM[1], None)
        for weight, before, begun in zip(one.backbone.parameters(), trained, first, strict=True):
            torch.testing.assert_close(weight.detach(), 0.25 * before + 0.75 * begun)
        assert torch.equal(one.head.weight[:2], head), "what tells the old classes apart stays"


def test_summed_bce_is_the_papers_times_classes():
    logits, labels = torch.randn(4, 7), torch.tensor([0, 3, 6, 1])
    assert LOSSES["bce-sum"](logits, labels).item() == pytest.approx(7 * LOSSES["bce"](logits, labels).item())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_learns_what_the_cpu_learns():
    losses = []
    for device in ("cpu", "cuda"):
        learner = Learner(DATASET.spec, PRESET, device=device, seed=3)
        learner.grow(STREAM[0].classes)
        losses.append([learner.step(batch).item() for batch in next(batches(STREAM[0]))])
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Learner(DATASET.spec, PRESET, device="gpu7"), "use cpu"),
        (lambda: Learner(DATASET.spec, PRESET, device="meta"), "no training on meta"),
        (lambda: Learner(DATASET.spec, replace(PRESET, batch_size=0)), "batch_size is 0"),
        (lambda: Learner(DATASET.spec, PRESET, method="bic"), "give an object such as"),
        (lambda: Learner(DATASET.spec, PRESET, method=ExperienceReplay), "give an object such as"),
        (lambda: ExperienceReplay("mse"), "choose one of bce, bce-sum, ce"),
    ],
)
def test_bad_parts_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


# --- what predictions are given and say


def test_predictions_are_labels_of_the_data_set(make_memory):
    """By the class order of seed 0, labels of the stream are others: read as such, few would be right."""
    assert STREAM.class_order != (0, 1, 2, 3)
    config = MemoryConfig(40, 40, 0.0)
    learner = Learner(DATASET.spec, replace(PRESET, lr=0.05, epochs=8), model=nn.Flatten())
    done = list(run(STREAM, learner, make_memory(STREAM, config), FixedController(config), progress=False))
    predicted = learner.predict(DATASET.test.data)
    assert (predicted == DATASET.test.labels).mean() == pytest.approx(done[-1].average_accuracy)
    in_stream = (learner.stream_labels(DATASET.test.data) == DATASET.test.labels).mean()
    assert done[-1].average_accuracy > 0.6 > 0.4 > in_stream
    assert learner.dataset_labels == STREAM.class_order


def grown(spec, model=None):
    learner = Learner(spec, replace(spec.preset(), model="linear"), model=model)
    learner.grow((0, 1, 2), (2, 0, 1))
    return learner


def arrays(shape, layout="", dtype=np.float32):
    rng = np.random.default_rng(0)
    samples = (rng.random((12, *shape)) * 200).astype(dtype)
    labels = np.arange(12) % 3
    return Dataset.from_arrays(samples, labels, samples, labels, layout=layout), samples


@pytest.mark.parametrize(
    ("shape", "layout", "dtype"),
    [
        ((6, 5), "images", np.uint8),
        ((3, 6, 5), "images", np.float32),
        ((6, 5, 3), "channels-last", np.uint8),
        ((4, 4, 3), "channels-last", np.float32),
        ((9, 2), "windows", np.float32),
        ((2, 9), "channels-first", np.float32),
        ((7,), "table", np.float32),
    ],
)
def test_samples_are_taken_as_the_user_has_them_and_as_the_spec_says(shape, layout, dtype):
    dataset, own = arrays(shape, layout, dtype)
    learner = grown(dataset.spec)
    expected = learner.stream_labels(dataset.train.data)
    for samples in (own, dataset.train.data, own.tolist() if dtype == np.float32 else own[:, ...]):
        np.testing.assert_array_equal(learner.predict(samples), np.array([2, 0, 1])[expected])
    if dtype == np.float32:
        np.testing.assert_array_equal(learner.predict(own.astype(np.float64)), np.array([2, 0, 1])[expected])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x: x / np.float32(255), r"are \(6, 5\) float32, but this model takes \(1, 6, 5\) uint8"),
        (lambda x: x.astype(int), "float32, but this model takes .* uint8"),
        (lambda x: x.repeat(2, 1).repeat(2, 2), r"are \(12, 10\) uint8, but this model takes \(1, 6, 5\) uint8"),
        (lambda x: x[0], "are \\(5,\\) uint8, but|are no images"),
        (lambda x: x[:0], "with n > 0"),
        (lambda x: np.uint8(3), "give an array"),
        (lambda x: "a.png", "give an array"),
        (lambda x: None, "give an array"),
        (lambda x: [[1, 2], [3]], "ragged"),
    ],
)
def test_other_samples_are_refused(spoil, sentence):
    dataset, own = arrays((6, 5), "images", np.uint8)
    with pytest.raises(InputError, match=sentence):
        grown(dataset.spec).predict(spoil(own))


def test_numbers_must_be_finite_and_bytes_are_no_numbers():
    dataset, own = arrays((7,), "table")
    learner = grown(dataset.spec)
    spoilt = own.copy()
    spoilt[3, 0] = np.nan
    with pytest.raises(InputError, match="1 given samples hold NaN or infinite values, first at row 3"):
        learner.predict(spoilt)
    with pytest.raises(InputError, match=r"are \(7,\) uint8, but this model takes \(7,\) float32"):
        learner.predict(own.astype(np.uint8))
    with pytest.raises(InputError, match="knows no class yet"):
        Learner(dataset.spec, dataset.spec.preset()).predict(own)


# --- state


def trained(method=None, steps=3, seed=0, **changes):
    """A learner in the middle of its second task, with momentum."""
    method = method or ExperienceReplay()
    learner = Learner(DATASET.spec, replace(PRESET, model="cnn", warm_start=0.5, **changes), method=method, seed=seed)
    for task in STREAM:
        learner.grow(task.classes, task.dataset_labels)
        for batch in next(batches(task))[:steps]:
            learner.step(batch)
    if isinstance(method, BiC):
        method.layers, method._layer = (BiasLayer(2, 4, 0.5, 0.1),), BiasLayer(2, 4, 0.5, 0.1)
        method._old = Frozen(learner.backbone, learner.head, 2, None)
    learner.epochs_done = 1.0
    return learner


def same(one, other):
    return encoded(one) == encoded(other)


@pytest.mark.parametrize("method", [ExperienceReplay, BiC])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trained_learner_restores_its_own_state_and_any_other(method, optimizer):
    one, other = (trained(method(), steps, optimizer=optimizer) for steps in (3, 5))
    state = one.state()
    assert not same(state, other.state())
    for each in (one, other, Learner(DATASET.spec, one.settings, method=method(), seed=3)):
        each.restore(decoded(encoded(state)))
        assert same(each.state(), state)
        np.testing.assert_array_equal(each.predict(DATASET.train.data), one.predict(DATASET.train.data))
    losses = [each.step(next(batches(STREAM[1]))[4]).item() for each in (one, other)]
    assert losses[0] == losses[1] and same(one.state(), other.state())


def test_a_state_stays_as_it_was():
    one = trained()
    state = one.state()
    before = encoded(state)
    one.step(next(batches(STREAM[1]))[4])
    assert encoded(state) == before and encoded(one.state()) != before
    other = trained()
    other.restore(state)
    other.step(next(batches(STREAM[1]))[4])
    assert encoded(state) == before


def places(value, at=()):
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, entry in inside for place in places(entry, (*at, key)))]


STATES = [decoded(encoded(trained(method()).state())) for method in (ExperienceReplay, BiC)]
JUNK = (
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
    | st.just(torch.zeros(2, 2)) | st.just(np.zeros(3)) | st.just("gone") | st.lists(st.integers(), max_size=4)
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([(k, place) for k, state in enumerate(STATES) for place in places(state)]), JUNK)
def test_a_spoilt_state_is_restored_or_refused_and_changes_nothing_then(at, junk):
    which, place = at
    spoilt = copy.deepcopy(STATES[which])
    target = spoilt
    for key in place[:-1]:
        target = target[key]
    if isinstance(junk, str) and junk == "gone":
        del target[place[-1]]
    else:
        target[place[-1]] = junk
    learner = trained((ExperienceReplay, BiC)[which](), steps=2, seed=1)
    before = encoded(learner.state())
    parts = learner.backbone, learner.head, learner.method, learner._optimizer
    try:
        learner.restore(spoilt)
    except InputError as error:
        assert "\n" not in str(error) and str(error).endswith(".")
        assert encoded(learner.state()) == before
        assert parts == (learner.backbone, learner.head, learner.method, learner._optimizer)
    learner.step(next(batches(STREAM[1]))[0])
    learner.predict(DATASET.test.data)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda: trained(BiC()), "its method is 'BiC', not ExperienceReplay"),
        (lambda: Learner(DATASET.spec, PRESET, model=nn.Flatten()), "shapes|of another model"),
    ],
)
def test_the_state_of_another_learner_is_refused(other, sentence):
    one = trained()
    before = encoded(one.state())
    with pytest.raises(InputError, match=sentence):
        one.restore(other().state())
    assert encoded(one.state()) == before
