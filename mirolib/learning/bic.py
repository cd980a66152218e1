"""Bias Correction (BiC): distillation, then two numbers that take out the bias towards the new classes.

Source: Wu, Chen, Wang, Ye, Liu, Guo, Fu, "Large Scale Incremental Learning", CVPR 2019 (arXiv 1905.13260), whose
equations are named below. Own choices, where the paper leaves it open or this library differs:

- Validation split. The paper splits the exemplars; here the validation samples that storage holds out of training
  serve, an equal number of each class. A controller's scores look at the same samples.
- Stage 2 is a convex problem in two unknowns and is solved to its minimum on logits that are computed once, with a weak
  pull towards the identity, without which separable samples would send alpha to infinity.
- Swapping lowers the distillation weight, as CarM advises: the more, the more of the stored old samples training can
  reach; by how much is `BiC.swap_factor`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mirolib.base.errors import InputError
from mirolib.base.state import State, dumped, loaded
from mirolib.data.stream import Task, labels_of, rank_in_class
from mirolib.learning.learner import Learner, Method
from mirolib.learning.models import ExpandingHead
from mirolib.memory.replace_damaged import read_all
from mirolib.memory.tiered import TieredMemory

_CHUNK = 512  # validation samples read and passed at once, so that any number of them fits memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BiasLayer:
    """The bias correction layer (Eq. 4): `alpha * o + beta` for the newest classes, the other logits as they are.

    Those classes go from `first` to one before `last`.
    """

    first: int
    last: int
    alpha: float = 1.0
    beta: float = 0.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Corrected logits `(n, classes)` of logits `(n, classes)`, `classes >= last`."""
        new = self.alpha * logits[:, self.first : self.last] + self.beta
        return torch.cat([logits[:, : self.first], new, logits[:, self.last :]], dim=1)

    def folded(self, head: ExpandingHead) -> ExpandingHead:
        """A head whose logits are those that this layer makes of the head's."""
        other, new = copy.deepcopy(head), slice(self.first, self.last)
        with torch.no_grad():
            other.weight[new] *= self.alpha
            other.bias[new] = self.alpha * other.bias[new] + self.beta
        return other


_Layers = tuple[BiasLayer, ...]


def distillation_loss(logits: Tensor, old_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy between the softened softmaxes of two models over the old classes, mean over samples (Eq. 1).

    Of the logits `(n, classes)` in training those of new classes play no part; the old model's, `(n, old_classes)`, are
    bias-corrected.
    """
    targets = functional.softmax(old_logits / temperature, dim=1)
    found = functional.log_softmax(logits[:, : old_logits.shape[1]] / temperature, dim=1)
    return -(targets * found).sum(dim=1).mean()


def fit_bias_layer(logits: Tensor, labels: Tensor, first: int, pull: float = 1.0) -> BiasLayer:
    """The bias layer of least mean softmax cross-entropy on held-out samples (Eq. 5).

    They are given by uncorrected logits `(n, classes)`, the new classes from `first` on, and labels `(n,) int64`; each
    weighs 1, and `((alpha - 1)² + beta²) / 2` beside them `pull`.
    """
    identity = torch.tensor([1.0, 0.0], dtype=torch.float64)
    # doubles on the processor: the tolerances below are out of reach of float32, and MPS has no doubles
    logits, labels, values = logits.cpu().double(), labels.cpu(), identity.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [values], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        corrected = torch.cat([logits[:, :first], values[0] * logits[:, first:] + values[1]], dim=1)
        loss = functional.cross_entropy(corrected, labels) + pull / 2 * (values - identity).square().sum() / len(labels)
        loss.backward()
        return loss

    with torch.enable_grad():  # whatever the caller has set
        optimizer.step(closure)
    alpha, beta = values.tolist()
    return BiasLayer(first, logits.shape[1], alpha, beta)


def _condensed(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Logits `(n, 1 + new classes)` and labels `(n,)` with the old classes joined into one, class 0."""
    # the layer that fits best stays as it is, since a softmax sees the old classes' sum alone, and memory is saved
    joined = torch.cat([logits[:, :first].logsumexp(dim=1, keepdim=True), logits[:, first:]], dim=1)
    return joined, (labels - first + 1).clamp(min=0)


class Frozen:
    """The model of the last task's end with its bias layer; clones share it, for nothing changes it."""

    def __init__(self, backbone: nn.Module, head: nn.Module, classes: int, layer: BiasLayer | None = None) -> None:
        # of the head's outputs the first ones count: it has grown for the new task already
        self.classes, self._layer = classes, layer
        self._backbone, self._head = (copy.deepcopy(module).eval().requires_grad_(False) for module in (backbone, head))

    def __deepcopy__(self, memo: dict[int, object]) -> Frozen:
        return self

    @classmethod
    def restored(cls, state: State, learner: Learner) -> Frozen:
        """The model that `state` was taken of; the learner's has the same shape."""
        layer = loaded(BiasLayer | None, state["layer"])
        if not 0 < (classes := loaded(int, state["classes"])) <= learner.num_classes:
            raise InputError(f"it has kept a model of {classes} classes")
        frozen = cls(learner.backbone, learner.head, classes, layer)
        frozen._backbone.load_state_dict(state["backbone"])
        frozen._head.load_state_dict(state["head"])
        return frozen

    def state(self) -> State:
        """What it is, for a checkpoint."""
        return {
            "classes": self.classes,
            "layer": dumped(BiasLayer | None, self._layer),
            "backbone": self._backbone.state_dict(),
            "head": self._head.state_dict(),
        }

    def logits(self, inputs: Tensor) -> Tensor:
        """Corrected logits `(n, classes)` of normalised inputs `(n, *sample_shape)`."""
        with torch.no_grad():
            raw = self._head(self._backbone(inputs))[:, : self.classes]
            return raw if self._layer is None else self._layer(raw)


@dataclass(eq=False)
class BiC(Method):
    """Bias Correction (Wu et al. 2019).

    Stage 1 trains on new and replayed samples with softmax cross-entropy and distillation from the model of the last
    task's end, `weight * distillation + (1 - weight) * cross-entropy` (Eq. 3), `weight` being the share of the old
    among all classes. Stage 2, after a task's last epoch, fits the bias layer of its classes. It serves until the next
    task's training begins: distillation then teaches the model the corrected logits, so that only the newest classes
    are ever corrected, as in Eq. 4. The first task has neither, and one without new classes has no stage 2; in
    `weight`, a class counts once for each task that it came with.

    Each training step of a later task adds a forward pass of every sample to the learner's tally, stage 2 one of every
    validation sample it looks at; fitting two numbers to logits takes no pass.

    Attributes:
        temperature: What logits are divided by in distillation (the paper's T).
        swap_factor: What the distillation weight is multiplied by where training can reach all stored old samples, in
            [0, 1]; in between linearly. Samples bring back what the old model would have to tell.
        per_class: Most validation samples of a class in stage 2; no class gets more than any other has.
        pull: Weight, in samples, of stage 2's pull towards the identity.
        layers: The bias layer of each finished task but the first.

    Raises:
        InputError: If an attribute is out of range.
    """

    temperature: float = 2.0
    swap_factor: float = 0.5
    per_class: int = 20
    pull: float = 1.0
    layers: tuple[BiasLayer, ...] = field(default=(), init=False)
    _layer: BiasLayer | None = field(default=None, init=False, repr=False)
    _old: Frozen | None = field(default=None, init=False, repr=False)
    _reach: float = field(default=0.0, init=False, repr=False)
    _counts: tuple[int, int] = field(default=(0, 1), init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 <= self.swap_factor <= 1 or self.per_class < 1 or not self.pull >= 0:
            raise InputError(
                "BiC needs a temperature above 0, a swap_factor from 0 to 1, per_class of 1 or more and a pull of 0 or "
                f"more; got {self.temperature}, {self.swap_factor}, {self.per_class} and {self.pull}."
            )

    def distillation_weight(self, old: int, classes: int, reach: float = 0.0) -> float:
        """Weight of the distillation loss beside the cross-entropy, in [0, 1) (the paper's lambda at a reach of 0).

        `reach` is the share of the stored old samples that training can reach, in [0, 1].
        """
        return old / classes * (1 - (1 - self.swap_factor) * reach)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross-entropy over all classes, mean over the batch (Eq. 2)."""
        return functional.cross_entropy(logits, labels)

    def begin(self, learner: Learner, task: Task, memory: TieredMemory) -> None:
        """Keeps the model as the last task left it, and says so where the bias layer can't be fitted."""
        first, before = len(memory.episodic_memory.classes), int(memory.seen.tasks.sum())
        self._counts = before, before + len(task.classes)
        if 0 < first < learner.num_classes and (lacking := self._lacking(memory, first)):
            logger.warning(
                "BiC fits its bias layer on validation samples, of which the %s classes at task %d have none: it stays "
                "the identity there. Raise validation_share, or give each class two samples or more.",
                lacking, task.index + 1,
            )  # fmt: skip
        self._old = Frozen(learner.backbone, learner.head, first, self._layer) if first else None

    def begin_epoch(self, learner: Learner, memory: TieredMemory) -> None:
        """Notes how far training reaches at this swap ratio; the last bias layer has served its time."""
        self._reach, self._layer = memory.reach(memory.config.swap_ratio * learner.replayed(memory)), None

    def step_loss(self, learner: Learner, inputs: Tensor, logits: Tensor, labels: Tensor, new: int) -> Tensor:
        """Cross-entropy and, from the second task on, distillation (Eq. 3)."""
        classification = self.loss(logits, labels)
        if self._old is None:
            return classification
        distillation = distillation_loss(logits, self._old.logits(inputs), self.temperature)
        learner.tally.forward_visits += len(inputs)  # features() counts its own; this model is the method's
        weight = self.distillation_weight(*self._counts, self._reach)
        return weight * distillation + (1 - weight) * classification

    def finish(self, learner: Learner, task: Task, memory: TieredMemory) -> None:
        """Stage 2: fits the bias layer of the task's classes, and lets go of the old model."""
        self._old = None  # a checkpoint would hold it, and nothing asks for it any more
        if not 0 < (first := len(memory.episodic_memory.classes)) < learner.num_classes:
            return
        layer = BiasLayer(first, learner.num_classes)
        if not self._lacking(memory, first):
            ids, parts = self._balanced(memory.judged_ids(), learner.num_classes), []
            for piece in (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)):
                with torch.no_grad():
                    raw = learner.head(learner.features(read_all(memory.storage, piece, "validation"))).cpu().double()
                parts.append(_condensed(raw, torch.from_numpy(labels_of(piece)), first))
            joined, labels = (torch.cat(column) for column in zip(*parts, strict=True))
            layer = replace(fit_bias_layer(joined, labels, 1, self.pull), first=first, last=learner.num_classes)
        self._layer, self.layers = layer, (*self.layers, layer)

    @staticmethod
    def _lacking(memory: TieredMemory, first: int) -> str:
        """Which classes, `old` or `new`, have no validation sample; empty where both have some."""
        labels = labels_of(memory.validation_ids())
        return "new" if not (labels >= first).any() else "old" if not (labels < first).any() else ""

    def _balanced(self, ids: np.ndarray, classes: int) -> np.ndarray:
        """The first validation samples of each class seen, as many of each as of any that has some."""
        counts = np.bincount(labels_of(ids), minlength=classes)[:classes]
        each = min(self.per_class, int(counts[counts > 0].min()))  # a surplus of one class would be a bias of its own
        return np.sort(ids[(labels_of(ids) < classes) & (rank_in_class(labels_of(ids)) < each)])

    def state(self) -> State:
        """The bias layers and the model of the last task's end."""
        return {
            "layers": dumped(_Layers, self.layers),
            "layer": dumped(BiasLayer | None, self._layer),
            "reach": self._reach,
            "counts": list(self._counts),
            "old": self._old and self._old.state(),
        }

    def restore(self, state: State, learner: Learner) -> None:
        """Takes back what `state` gave; an `InputError` if it is that of other classes."""
        self.layers = loaded(_Layers, state["layers"])
        self._layer = loaded(BiasLayer | None, state["layer"])
        self._reach = loaded(float, state["reach"])
        self._old = None if state["old"] is None else Frozen.restored(state["old"], learner)
        known = self._old.classes if self._old else 0
        self._counts = loaded(tuple[int, int], state.get("counts", (known, max(1, learner.num_classes))))
        layers = filter(None, (*self.layers, self._layer))
        if any(not 0 <= layer.first <= layer.last <= learner.num_classes for layer in layers):
            raise InputError("its bias layers are those of other classes")

    def classifier(self, head: ExpandingHead) -> nn.Module:
        """The head with the bias layer in force, if there is one, folded into its weights."""
        return head if self._layer is None else self._layer.folded(head)
