from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import make_dataset
from torch import nn

from mirolib import Batch, ExperienceReplay, Finetuning, InputError, Learner, MemoryConfig, TaskStream
from mirolib.learning.learner import binary_cross_entropy, train_epoch

DATASET = make_dataset(classes=4, per_class=20)
STREAM = TaskStream(DATASET, 2, validation_share=0.0)
PRESET = replace(DATASET.spec.preset(), batch_size=8, epochs=4, lr=0.3, weight_decay=0.01, milestones=(2,), gamma=0.1)


def batches(task, epochs=4):
    data, labels = task.train.read(slice(None)), task.train.labels
    for _ in range(epochs):
        yield [Batch(data[k : k + 8], labels[k : k + 8], np.empty(0, int)) for k in range(0, len(labels), 8)]


def test_binary_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    # -log σ(0) - log(1 - σ(2)) - log(1 - σ(-1)) - log σ(0), over four
    expected = (np.log(2) + np.log1p(np.exp(2)) + np.log1p(np.exp(-1)) + np.log(2)) / 4
    assert binary_cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(expected)


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
            learner.end_epoch()
        torch.testing.assert_close(learner.head.weight.detach(), weight, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(learner.head.bias.detach(), bias, rtol=1e-3, atol=1e-5)
        right = ((x @ weight.T + bias).argmax(1).numpy() == learner.predict(batch.samples)).all()
        assert right
    assert learner.tally.visits == 2 * 4 * 40


def test_accuracy_is_scikit_learns():
    from sklearn.metrics import accuracy_score

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


def test_same_seed_same_weights_whatever_the_global_generator():
    weights = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        learner = Learner(DATASET.spec, PRESET, seed=7)
        learner.grow((0, 1))
        weights.append([p.detach().clone() for p in [*learner.backbone.parameters(), *learner.head.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


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


def test_only_replay_replays():
    assert ExperienceReplay().replays and not Finetuning().replays


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_learns_what_the_cpu_learns():
    losses = []
    for device in ("cpu", "cuda"):
        learner = Learner(DATASET.spec, PRESET, device=device, seed=3)
        learner.grow(STREAM[0].classes)
        losses.append([learner.step(batch).item() for batch in next(batches(STREAM[0]))])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_bad_parts_are_refused():
    with pytest.raises(InputError, match="use cpu"):
        Learner(DATASET.spec, PRESET, device="gpu7")
    with pytest.raises(InputError, match="no training on meta"):
        Learner(DATASET.spec, PRESET, device="meta")
    with pytest.raises(InputError, match="batch_size 0"):
        Learner(DATASET.spec, replace(PRESET, batch_size=0))
    with pytest.raises(InputError, match="choose one of bce, ce"):
        ExperienceReplay("mse")


def test_a_method_that_is_none_and_a_loss_that_diverges_are_told(make_memory, caplog):
    stream = TaskStream(make_dataset(), num_tasks=3, seed=0)
    spec = stream.dataset.spec
    for wrong in ("bic", ExperienceReplay):
        with pytest.raises(InputError, match="give an object such as"):
            Learner(spec, spec.preset(), method=wrong)
    learner = Learner(spec, replace(spec.preset(), lr=1e30))
    memory = make_memory(stream, MemoryConfig(20, 10))
    memory.receive(stream[0])
    learner.grow(stream[0].classes)
    for _ in range(3):
        train_epoch(learner, memory)
    assert "diverged" in caplog.text
