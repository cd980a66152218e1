"""The continual learner: a backbone, a head that grows, and a method that turns a batch into a loss."""

from __future__ import annotations

import copy
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from mirolib.base.errors import InputError, brief
from mirolib.base.state import State, loaded
from mirolib.data import DatasetSpec, Preset, Samples
from mirolib.data.stream import Task
from mirolib.learning.inputs import Tally, Transform, features_in_batches, layout_of, taken, usable_device
from mirolib.learning.models import ExpandingHead, build_model, evaluating, feature_dim, features_of, norms_of
from mirolib.learning.schedules import OPTIMIZERS, SCHEDULES
from mirolib.memory.tiered import Batch, TieredMemory

ROUND_STEPS = 1000
"""Most training steps from one round to the next, unless told otherwise."""

logger = logging.getLogger(__name__)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on one-hot targets, mean over samples and classes (the paper's loss)."""
    targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
    return functional.binary_cross_entropy_with_logits(logits, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    # summed over classes: what one class teaches does not shrink as others are added
    "bce-sum": lambda logits, labels: binary_cross_entropy(logits, labels) * logits.shape[1],
    "ce": functional.cross_entropy,
}
"""Losses by name, of logits `(n, classes)` against labels `(n,) int64`."""


class Method(ABC):
    """A continual-learning method. Subclass it to add one: `loss` is all it needs, the other hooks do nothing.

    A learner's clone gets a deep copy of the method, so that trying something on a clone leaves the original alone: a
    method keeps what it needs of learner and memory, never those themselves.
    """

    replays: ClassVar[bool] = True
    """Whether training batches hold samples of the episodic memory."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits `(n, classes)` against labels `(n,) int64`."""

    def begin(self, learner: Learner, task: Task, memory: TieredMemory) -> None:  # noqa: B027
        """Called when a task has arrived: `memory` holds it, the head has grown, nothing is trained or chosen yet."""

    def begin_epoch(self, learner: Learner, memory: TieredMemory) -> None:  # noqa: B027
        """Called before each epoch, or round of a long one; `memory.config` holds sizes and swap ratio in force."""

    def step_loss(self, learner: Learner, inputs: Tensor, logits: Tensor, labels: Tensor, new: int) -> Tensor:
        """Scalar loss of a training step, for a method that looks at more than logits and labels.

        Inputs are augmented, normalised samples `(n, *sample_shape)` on the device, with their logits `(n, classes)`,
        not corrected, and labels `(n,) int64`; the first `new` are of the task at hand, the others replayed. What it
        sends through a model of its own it adds to `learner.tally`.
        """
        return self.loss(logits, labels)

    def finish(self, learner: Learner, task: Task, memory: TieredMemory) -> None:  # noqa: B027
        """Called after a task's last epoch, before the stream buffer is flushed."""

    def classifier(self, head: ExpandingHead) -> nn.Module:
        """What predictions use: features `(n, d)` to scores `(n, classes)`, the head itself by default."""
        return head

    def state(self) -> State:
        """What the method remembers between epochs, for a checkpoint: plain values, arrays and tensors."""
        return {}

    def restore(self, state: State, learner: Learner) -> None:  # noqa: B027
        """Takes back what `state` gave; `learner` is restored already."""


@dataclass(frozen=True)
class ExperienceReplay(Method):
    """Experience replay (ER): new and replayed samples count alike.

    Attributes:
        loss_name: `ce` for softmax cross-entropy; `bce`, the paper's mean over classes; `bce-sum`, the sum over them.
    """

    loss_name: str = "ce"

    def __post_init__(self) -> None:
        if self.loss_name not in LOSSES:
            raise InputError(f"There is no loss {self.loss_name!r}; choose one of {', '.join(LOSSES)}.")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the batch."""
        return LOSSES[self.loss_name](logits, labels)


@dataclass(frozen=True)
class Finetuning(ExperienceReplay):
    """Training on the new task alone: what replay is measured against."""

    replays: ClassVar[bool] = False


class Learner:
    """Trains and evaluates a model whose head grows with each task, on one device.

    `dataset_labels` has the data set's label at each output of the head; `model_name` is that in `MODELS`, or empty.
    """

    def __init__(
        self, spec: DatasetSpec, settings: Preset, *, model: nn.Module | None = None, method: Method | None = None,
        device: str = "cpu", seed: int = 0, round_steps: int = ROUND_STEPS,
    ) -> None:  # fmt: skip
        """A learner that knows no class yet.

        The preset's model is built unless a backbone of the user's own is given, `(n, *sample_shape) float32` to
        features `(n, d)`; the method is experience replay by default, the device one of PyTorch's, such as `cuda:0`.
        Weights and augmentation are drawn from `seed`. An epoch of the task of more than `round_steps` is parted. There
        is an `InputError` if the device can't be used, the model is unknown or its output is no feature vector.
        """
        self.spec, self.settings = spec, settings
        if method is not None and not isinstance(method, Method):
            raise InputError(f"method is {method!r}; give an object such as ExperienceReplay() or BiC().")
        self.method = method or ExperienceReplay(settings.loss)
        self.device = usable_device(device)
        self.batch_size, self.round_steps = settings.batch_size, round_steps
        children = np.random.SeedSequence([seed, 3]).generate_state(3).tolist()
        self.model_name = settings.model if model is None else ""
        if model is None:
            model = build_model(settings.model, spec.sample_shape, children[0])
        self.layout = layout_of(model, self.model_name)
        self.head = ExpandingHead(feature_dim(model, spec.sample_shape)).to(self.device)
        self.backbone = model.to(self.device).to(memory_format=self.layout)
        self._first = [weight.detach().clone() for weight in self.backbone.parameters() if settings.warm_start < 1]
        self.tally = Tally()
        self.dataset_labels: tuple[int, ...] = ()
        self._transform = Transform(spec, self.device, children[1])
        # its own, so that a head is the same above any model
        self._head_generator = torch.Generator().manual_seed(children[2])
        self._restart()
        if self.batch_size == 1 and norms_of(self.backbone):
            raise InputError("The model normalises over batches, and batch_size is 1; choose 2 or more.")

    def replayed(self, memory: TieredMemory) -> float:
        """Old samples that the task at hand replays over its epochs, as often as each."""
        if not self.method.replays:
            return 0.0
        if self.settings.epoch_of == "buffers":
            return self.epochs * len(memory.episodic_memory)
        return self.epochs * len(memory.stream_buffer.order) * memory.replays(self.settings.replay_ratio)

    def round_end(self, memory: TieredMemory, stop: float = math.inf) -> float:
        """Epochs of the task that are done when the next round ends: an epoch, or a part of a long one of the task.

        It ends at `stop`, too, or as near to it as leaves no rest below a batch.
        """
        if self.settings.epoch_of == "buffers":
            return self.epochs_done + 1
        samples = len(memory.stream_buffer.order)
        parts = math.ceil((samples + self.replayed(memory) / self.epochs) / self.batch_size / self.round_steps)
        batch = self.batch_size / samples
        # a look may have ended a round just before a boundary
        end = (math.floor(self.epochs_done * parts + min(batch * parts, 0.5)) + 1) / parts
        goal = max(stop, self.epochs_done + batch)
        goal = goal if self.epochs - goal >= batch else self.epochs
        return end if goal - end >= batch else goal

    @property
    def steady(self) -> float:
        """Share of a task's epochs over which its learning rate is the full one, so that their end may be moved."""
        schedule, settings = SCHEDULES[self.settings.schedule], self.settings
        full = [schedule(settings, settings.epochs * share / 1000) == 1 for share in range(1001)]
        return (full.index(False) - 1) / 1000 if False in full else 1.0

    @property
    def num_classes(self) -> int:
        """Classes the head knows."""
        return len(self.head.bias)

    def grow(self, classes: tuple[int, ...], dataset_labels: tuple[int, ...] = ()) -> None:
        """Adds those classes of a task that are new to the head, and starts optimiser and schedule anew as the paper's.

        `dataset_labels` are the classes in the data set, in which `predict` answers; by default the same. There is an
        `InputError` if new classes are not numbered on.
        """
        assert len(dataset_labels) in (0, len(classes)), "one label of the data set for each class"
        new = {a: b for a, b in zip(classes, dataset_labels or classes, strict=True) if a >= self.num_classes}
        if [*new] != [*range(self.num_classes, self.num_classes + len(new))]:  # output j of the head stands for label j
            raise InputError(f"The head knows {self.num_classes} classes, new are {[*new]}; number them on from there.")
        self.dataset_labels += tuple(new.values())
        self.head.grow(len(new), self._head_generator)
        self._restart()

    def begin(self, task: Task, memory: TieredMemory) -> None:
        """Has the method begin a task; then the backbone goes back to its first weights as far as `warm_start` says."""
        self.method.begin(self, task, memory)  # before: it may keep the model as the last task left it
        with torch.no_grad():
            for weight, first in zip(self.backbone.parameters(), self._first, strict=False):  # none where it is 1
                weight.lerp_(first, 1 - self.settings.warm_start)

    def _restart(self) -> None:
        """A new optimiser and schedule."""
        make, schedule = self.settings.optimizer, self.settings.schedule
        for what, name, names in (("optimizer", make, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
            if not callable(name) and name not in names:
                raise InputError(f"There is no {what} {name!r}; choose one of {', '.join(names)}.")
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self._optimizer = (make if callable(make) else OPTIMIZERS[make])(parameters, self.settings)
        for group in self._optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.epochs, self.epochs_done = self.settings.epochs, 0.0

    def state(self) -> State:
        """Weights, optimiser, schedule, generators and what the method remembers: a copy, for a checkpoint."""
        return copy.deepcopy({
            "dataset_labels": list(self.dataset_labels),
            "backbone": self.backbone.state_dict(),
            "head": self.head.state_dict(),
            "first": self._first,
            "optimizer": self._optimizer.state_dict(),
            "epochs": float(self.epochs),
            "epochs_done": self.epochs_done,
            "augmentation": self._transform.generator.get_state(),
            "head_generator": self._head_generator.get_state(),
            "method": [type(self.method).__name__, self.method.state()],
        })  # fmt: skip

    def restore(self, state: State) -> None:
        """Brings the learner, new or trained, to a state that `state` gave; one that is refused changes nothing.

        There is an `InputError` if the state is that of another model or method, or damaged.
        """
        try:
            trial = self.clone(0)
            trial._take(copy.deepcopy(state))
            # an optimiser finds out only in stepping what it can't go on with
            for weight in [*trial.backbone.parameters(), *trial.head.parameters()]:
                weight.grad = torch.zeros_like(weight)
            trial._optimizer.step()
            trial.set_rate(trial.epochs_done)
            self._take(copy.deepcopy(state))
        except Exception as error:  # of any kind: model and method may be the user's own
            raise InputError(f"The state is that of another model: {brief(error)}.") from error

    def _take(self, state: State) -> None:
        """Takes over a state; where it doesn't fit, what came before has been taken."""
        if (name := state["method"][0]) != type(self.method).__name__:
            raise InputError(f"its method is {name!r:.99}, not {type(self.method).__name__}")
        self.dataset_labels = tuple(loaded(list[int], state["dataset_labels"]))
        if [first.shape for first in state["first"]] != [first.shape for first in self._first]:
            raise InputError("its first weights have other shapes")
        self._first = [first.to(self.device) for first in state["first"]]
        self.backbone.load_state_dict(state["backbone"])
        self.head = ExpandingHead(self.head.feature_dim).to(self.device)
        self.head.grow(len(self.dataset_labels), torch.Generator())
        self.head.load_state_dict(state["head"])
        self._restart()  # for parameters that have just been replaced
        optimizer = state["optimizer"]
        numbered = {int(number): values for number, values in optimizer["state"].items()}  # JSON has text for keys
        self._optimizer.load_state_dict({**optimizer, "state": numbered})
        self.epochs, self.epochs_done = (loaded(NonNegativeFloat, state[name]) for name in ("epochs", "epochs_done"))
        self._transform.generator.set_state(state["augmentation"])
        self._head_generator.set_state(state["head_generator"])
        self.method.restore(state["method"][1], self)

    def clone(self, seed: int) -> Learner:
        """A copy with weights, optimiser and draws of its own, to try something on; its work counts as this one's.

        What it draws, augmentation and new weights of the head, comes from `seed`.
        """
        other = copy.copy(self)
        other.backbone, other.head, other.method = copy.deepcopy((self.backbone, self.head, self.method))
        other._transform = Transform(self.spec, self.device, seed)
        other._head_generator = torch.Generator().manual_seed(seed)
        other._restart()  # the old optimiser moves this one's weights
        return other

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `(n, num_classes)`, not corrected, of normalised inputs `(n, *sample_shape)`."""
        return self.head(features_of(self.backbone, inputs.contiguous(memory_format=self.layout)))

    def step(self, batch: Batch) -> Tensor:
        """One training step on a batch; its loss, a scalar left on the device, so that a GPU need not be waited for."""
        labels = torch.from_numpy(batch.labels).to(self.device)
        inputs = self._transform.train(batch.samples).contiguous(memory_format=self.layout)
        new = len(labels) - len(batch.replayed)
        with evaluating(*(norms_of(self.backbone) if len(labels) == 1 else [])):  # a lone sample has no deviation
            loss = self.method.step_loss(self, inputs, self.logits(inputs), labels, new)
        self._optimizer.zero_grad(set_to_none=True)  # frees them, where zeros would be written and added to
        loss.backward()
        self._optimizer.step()
        self.tally.visits += len(batch.labels)
        return loss.detach()

    def synchronise(self) -> None:
        """Waits until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def set_rate(self, done: float, samples: int = 0) -> None:
        """Sets the learning rate for what comes after so many epochs of the task, parts of one included.

        A step on less than half a batch, as few slots make, takes a rate that is smaller by the root of the shares.
        """
        # the schedule is that of the preset's epochs, drawn out or pressed to those of the task at hand
        factor = SCHEDULES[self.settings.schedule](self.settings, done * self.settings.epochs / self.epochs)
        if samples and 2 * samples < self.batch_size:
            factor *= math.sqrt(samples / self.batch_size)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def features(self, samples: np.ndarray) -> Tensor:
        """Features `(n, d)` on the device of raw samples `(n, *sample_shape)`, without augmentation."""
        self.tally.forward_visits += len(samples)
        return features_in_batches(self.backbone, self._transform, self.layout, samples)

    def classify(self, features: Tensor) -> Tensor:
        """Scores `(n, num_classes)` by the method's classifier of features `(n, d)`."""
        with torch.no_grad():
            return self.method.classifier(self.head)(features)

    def stream_labels(self, samples: np.ndarray) -> np.ndarray:
        """Predicted label in the stream, `(n,) int64`, of raw samples `(n, *sample_shape)`, which are not checked."""
        return self.classify(self.features(samples)).argmax(dim=1).cpu().numpy()

    def predict(self, samples: Any) -> np.ndarray:
        """Predicted label in the data set, `(n,) int64`, of raw samples as `taken` has them: an `InputError` else."""
        if not self.num_classes:
            raise InputError("The learner knows no class yet; train it before it predicts.")
        return np.array(self.dataset_labels)[self.stream_labels(taken(samples, self.spec))]

    def accuracy(self, samples: Samples) -> float:
        """Share of samples of a stream, in [0, 1], whose label is predicted among all classes seen so far."""
        return float(self.right(samples)[:, 0].mean())

    def right(self, samples: Samples, among: Sequence[int] = ()) -> np.ndarray:
        """Whose label is predicted, among all classes seen so far and among some alone, `(n, 2) bool`."""
        found, others = [], np.setdiff1d(np.arange(self.num_classes), among)
        for part in samples.chunks(4096):  # read at once, some forward passes: a test set need not fit RAM
            scores = self.classify(self.features(samples.read(part)))
            of_all, scores[:, others] = scores.argmax(dim=1), -torch.inf
            found.append(torch.stack([of_all, scores.argmax(dim=1)], dim=1).cpu().numpy() == samples.labels[part, None])
        return np.concatenate(found)


def train_epoch(
    learner: Learner, memory: TieredMemory, stop: Callable[[], bool] = lambda: False, end: float | None = None
) -> float:
    """One pass over the task, or over stream buffer and episodic memory, exchanging samples with storage on the way.

    It ends where `stop`, asked after each step, says so, or `end` epochs of the task are done, by default one more.

    Returns:
        The mean training loss over its samples.
    """
    method, settings = learner.method, learner.settings
    method.begin_epoch(learner, memory)
    total, samples, done = torch.zeros((), device=learner.device), 0, 0
    end = learner.epochs_done + 1 if end is None else end
    if settings.epoch_of == "task":
        whole = len(memory.stream_buffer.order)
        first, last = round(learner.epochs_done * whole), round(end * whole)
        ratio = settings.replay_ratio if method.replays else 0
        batches = memory.passes(learner.batch_size, ratio, learner.epochs_done, end)
    else:
        whole = len(memory.stream_buffer) + (len(memory.episodic_memory) if method.replays else 0)
        batches = memory.batches(learner.batch_size, replay=method.replays)
    for batch in batches:
        learner.set_rate(learner.epochs_done + done / whole, len(batch.labels))
        total += learner.step(batch) * len(batch.labels)
        samples += len(batch.labels)
        done += len(batch.labels if batch.streamed is None else batch.streamed)
        memory.swap(batch)
        if stop():
            break
    # where a pass was stopped, the next round goes on with it
    learner.epochs_done = (first + done) / whole if settings.epoch_of == "task" and first + done < last else end
    loss = float(total) / samples
    if not math.isfinite(loss):
        logger.warning("The training loss is %s: training has diverged; choose a lower learning rate.", loss)
    return loss
