"""The methods by name, and those that are a loss of their own on today's hooks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mirolib.base.errors import InputError
from mirolib.base.state import State, loaded
from mirolib.data.stream import Task
from mirolib.learning.bic import BiC, Frozen, distillation_loss
from mirolib.learning.learner import ExperienceReplay, Finetuning, Learner, Method
from mirolib.memory.tiered import TieredMemory


@dataclass(eq=False)
class _OfTask(Method):
    """A method that knows which classes the task at hand has; its loss is softmax cross-entropy."""

    _classes: list[int] = field(default_factory=list, init=False, repr=False)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross-entropy over all classes, mean over the batch."""
        return functional.cross_entropy(logits, labels)

    def begin(self, learner: Learner, task: Task, memory: TieredMemory) -> None:
        """Notes the task's classes."""
        self._classes = list(task.classes)

    def loss_among(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same over the classes of the task and of these labels alone: the others' logits play no part."""
        is_out = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        is_out[self._classes] = False
        is_out[labels] = False  # left on the device, so that a GPU need not be waited for
        return self.loss(logits.masked_fill(is_out, -torch.inf), labels)

    def state(self) -> State:
        """The task's classes."""
        return {"classes": self._classes}

    def restore(self, state: State, learner: Learner) -> None:
        """Takes back what `state` gave; an `InputError` if it is that of other classes."""
        self._classes = loaded(list[int], state["classes"])
        if not all(0 <= label < learner.num_classes for label in self._classes):
            raise InputError("its task is one of other classes")


@dataclass(eq=False)
class ErAce(_OfTask):
    """ER with asymmetric cross-entropy: new samples push the old classes away less than replayed ones do.

    Source: Caccia, Aljundi, Asadi, Tuytelaars, Pineau, Belilovsky, "New Insights on Reducing Abrupt Representation
    Change in Online Continual Learning", ICLR 2022 (arXiv 2104.05025), Eq. 4. Own choices: new samples are told apart
    among the classes of their task rather than of their batch, where a small one may hold a single class. The paper's
    memory holds samples of the task at hand too, by which its classes learn to stand against the old ones; here it gets
    them at the task's end, and so new samples compare with all in the share that a memory balanced by class would hold
    of them. Losses weigh as their samples do, so that a step is as long as ER's.
    """

    def step_loss(self, learner: Learner, inputs: Tensor, logits: Tensor, labels: Tensor, new: int) -> Tensor:
        """Cross-entropy of new samples among the task's classes and, by that share, all; of replayed ones among all."""
        whole, share = self.loss(logits, labels), new / len(labels)
        if not new:
            return whole
        of_task = len(self._classes) / logits.shape[1]
        among, against_all = self.loss_among(logits[:new], labels[:new]), self.loss(logits[:new], labels[:new])
        return whole + share * (1 - of_task) * (among - against_all)


@dataclass(eq=False)
class LwF(_OfTask):
    """Learning without Forgetting: distillation from the model of the last task's end, and no replay at all.

    Source: Li, Hoiem, "Learning without Forgetting", ECCV 2016 (arXiv 1606.09282), Eqs. 1 to 3, for a head that all
    tasks share: cross-entropy among the task's classes beside distillation on the old ones. A baseline: the classes of
    different tasks are never compared, so that accuracy among all classes stays low. It keeps a copy of the model, and
    each step of a later task adds a forward pass of every sample to the learner's tally.

    Attributes:
        weight: Weight of the distillation (the paper's lambda).
        temperature: What logits are divided by in it.

    Raises:
        InputError: If an attribute is out of range.
    """

    replays: ClassVar[bool] = False
    weight: float = 1.0
    temperature: float = 2.0
    _old: Frozen | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.weight >= 0 or not self.temperature > 0:
            raise InputError(
                f"LwF needs a weight of 0 or more and a temperature above 0; got {self.weight} and {self.temperature}."
            )

    def begin(self, learner: Learner, task: Task, memory: TieredMemory) -> None:
        """Keeps the model as the last task left it."""
        super().begin(learner, task, memory)
        known = len(memory.episodic_memory.classes)
        self._old = Frozen(learner.backbone, learner.head, known) if known else None

    def step_loss(self, learner: Learner, inputs: Tensor, logits: Tensor, labels: Tensor, new: int) -> Tensor:
        """Cross-entropy among the task's classes and, from the second task on, distillation."""
        classification = self.loss_among(logits, labels)
        if self._old is None:
            return classification
        learner.tally.forward_visits += len(inputs)  # this model is the method's own
        return self.weight * distillation_loss(logits, self._old.logits(inputs), self.temperature) + classification

    def finish(self, learner: Learner, task: Task, memory: TieredMemory) -> None:
        """Lets go of the old model."""
        self._old = None

    def state(self) -> State:
        """The task's classes and the model of the last task's end."""
        return super().state() | {"old": self._old and self._old.state()}

    def restore(self, state: State, learner: Learner) -> None:
        """Takes back what `state` gave; an `InputError` if it is that of other classes."""
        super().restore(state, learner)
        self._old = None if state["old"] is None else Frozen.restored(state["old"], learner)


def _of_own_loss(method: Callable[[], Method]) -> Callable[[str], Method]:
    """What makes a method whose loss is its paper's; the name given must be one all the same."""

    def make(loss_name: str) -> Method:
        ExperienceReplay(loss_name)
        return method()

    return make


METHODS: dict[str, Callable[[str], Method]] = {
    "er": ExperienceReplay,
    "er-ace": _of_own_loss(ErAce),
    "bic": _of_own_loss(BiC),
    "lwf": _of_own_loss(LwF),
    "finetuning": Finetuning,
}
"""The methods by name, each made of the name of a loss."""
