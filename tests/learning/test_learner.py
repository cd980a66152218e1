from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import make_dataset
from sklearn.metrics import accuracy_score
from torch import nn

from mirolib import Batch, ExperienceReplay, InputError, Learner, TaskStream
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


def test_accuracy_is_scikit_learns():
    learner = Learner(DATASET.spec, PRESET, seed=0)
    learner.grow(STREAM[0].classes)
    for batch in next(batches(STREAM[0])):
        learner.step(batch)
    test = STREAM.tests(0)[0]
    assert learner.accuracy(test) == accuracy_score(test.labels, learner.predict(test.read(slice(None))))


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
