import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from arrivals import CONFIG, PRESET, STREAM, arrived, learner

from mirolib import EnergyMeter, FixedController, InputError, NullSource, RunSettings, run, run_experiment
from mirolib.learning import ErAce, LwF
from mirolib.learning.bic import BiC
from mirolib.learning.learner import Finetuning, train_epoch
from mirolib.learning.methods import METHODS


def plain_cross_entropy(logits, labels, among):
    """Mean of -log softmax at the labels, the softmax over some classes alone: in NumPy, sample by sample."""
    found = []
    for row, label in zip(logits, labels, strict=True):
        powers = {k: np.exp(row[k]) for k in among}
        found.append(-np.log(powers[label] / sum(powers.values())))
    return np.mean(found)


def a_batch(one, memory, replayed=True):
    """Inputs, logits, labels and how many samples are new, of a batch of the third task."""
    train_epoch(one, memory)
    batch = next(memory.batches(8, replay=replayed))
    new = len(batch.labels) - len(batch.replayed)
    inputs, labels = one._transform.evaluate(batch.samples), torch.from_numpy(batch.labels)
    one.backbone.eval()
    return inputs, one.logits(inputs), labels, new


def test_asymmetric_cross_entropy_is_the_papers(make_memory):
    """Two of six classes are new: a third of the new samples' loss compares with all, as a balanced memory would."""
    _, one, memory = arrived(make_memory, 2, CONFIG, ErAce())
    inputs, logits, labels, new = a_batch(one, memory)
    rows, known = logits.detach().double().numpy(), labels.tolist()
    assert 0 < new < 8 and set(known[:new]) <= {4, 5}
    among, against_all = (plain_cross_entropy(rows[:new], known[:new], classes) for classes in ([4, 5], range(6)))
    of_new, of_old = among * 2 / 3 + against_all / 3, plain_cross_entropy(rows[new:], known[new:], range(6))
    loss = one.method.step_loss(one, inputs, logits, labels, new)
    assert loss.item() == pytest.approx((new * of_new + (8 - new) * of_old) / 8, rel=1e-5)
    alone = one.method.step_loss(one, inputs[:new], logits[:new], labels[:new], new)
    assert alone.item() == pytest.approx(of_new, rel=1e-5)
    only_old = one.method.step_loss(one, inputs[new:], logits[new:], labels[new:], 0)
    assert only_old.item() == pytest.approx(of_old, rel=1e-5)
    # a class of another task in this one, as blurry boundaries bring, takes part
    mixed = one.method.loss_among(logits[:2], torch.tensor([0, 5]))
    assert mixed.item() == pytest.approx(plain_cross_entropy(rows[:2], [0, 5], [0, 4, 5]), rel=1e-5)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 2.0), (0.3, 1.0)])
def test_learning_without_forgetting_is_the_papers(make_memory, weight, temperature):
    _, one, memory = arrived(make_memory, 2, CONFIG, LwF(weight, temperature), preset=replace(PRESET, warm_start=1.0))
    before = copy.deepcopy((one.backbone, one.head))
    inputs, logits, labels, new = a_batch(one, memory, replayed=False)
    assert new == len(labels)
    rows = logits.detach().double().numpy()
    with torch.no_grad():
        old = before[1](before[0].eval()(inputs))[:, :4].double().numpy()
    distilled = []
    for now, then in zip(rows, old, strict=True):
        target, found = (np.exp(v / temperature) / np.exp(v / temperature).sum() for v in (then, now[:4]))
        distilled.append(-(target * np.log(found)).sum())
    expected = plain_cross_entropy(rows, labels.tolist(), [4, 5]) + weight * np.mean(distilled)
    assert one.method.step_loss(one, inputs, logits, labels, new).item() == pytest.approx(expected, rel=1e-5)


def test_extra_passes_are_in_the_books(make_memory):
    for method, each in ((LwF(), 1), (ErAce(), 0), (Finetuning(), 0)):
        one, memory = learner(method=method), make_memory(STREAM, CONFIG)
        for record in run(STREAM, one, memory, FixedController(CONFIG), EnergyMeter(NullSource()), progress=False):
            (work,) = (reading.work for reading in record.readings if reading.window == "train")
            assert work.forward_visits == (each * work.visits if record.task else 0)
            assert method.replays or work.visits == 3 * 20


DIGITS = RunSettings(controller="fixed", stream_size=250, episodic_size=20, swap_ratio=0.2, epochs=4, energy="none")


def test_no_two_methods_are_alike_and_replay_is_above_fine_tuning(tmp_path):
    found = {}
    for name in METHODS:
        records = run_experiment(replace(DIGITS, method=name), results=tmp_path, progress=False).records
        found[name] = records[-1].average_accuracy, tuple(records[-1].accuracies)
    assert len(set(found.values())) == len(METHODS)
    assert min(found[name][0] for name in ("er", "er-ace", "bic")) > 0.6 > 0.4 > found["finetuning"][0]
    scarce = replace(DIGITS, epoch_of="buffers", controller="fixed")  # the paper's case: few old samples in a batch
    both = [
        run_experiment(replace(scarce, method=name), results=tmp_path, progress=False).records[-1].average_accuracy
        for name in ("er", "er-ace")
    ]
    assert both[1] > both[0] + 0.2


@pytest.mark.parametrize("method", [BiC, LwF])
def test_what_is_distilled_is_the_model_as_the_last_task_left_it(make_memory, method):
    """Not what a warm start makes of it, of which a third of the weights is left."""
    _, one, memory = arrived(make_memory, 0, CONFIG, method(), preset=replace(PRESET, warm_start=0.3))
    train_epoch(one, memory)
    one.method.finish(one, STREAM[0], memory)
    memory.retain(STREAM[0])
    left = copy.deepcopy(one.backbone.state_dict())
    memory.receive(STREAM[1])
    one.grow(STREAM[1].classes, STREAM[1].dataset_labels)
    one.begin(STREAM[1], memory)
    kept = one.method._old.state()["backbone"]
    assert all(torch.equal(kept[name], left[name]) for name in left)
    assert not all(torch.equal(value, left[name]) for name, value in one.backbone.state_dict().items())


@pytest.mark.parametrize(("settings", "name"), [((-1.0, 2.0), "-1.0"), ((1.0, 0.0), "0.0")])
def test_values_out_of_range_are_refused(settings, name):
    with pytest.raises(InputError, match=f"LwF needs a weight .*{name}"):
        LwF(*settings)


def test_a_state_of_other_classes_is_refused(make_memory):
    for method in (ErAce(), LwF()):
        _, one, _ = arrived(make_memory, 1, CONFIG, method)
        state = one.state()
        other = learner(method=type(method)())
        other.restore(state)
        assert other.method._classes == [2, 3]
        state["method"][1]["classes"] = [9]
        with pytest.raises(InputError, match="its task is one of other classes"):
            other.restore(state)
    with pytest.raises(InputError, match="its method is 'LwF', not BiC"):
        learner(method=BiC()).restore(state)
