"""The stream of tasks: classes arrive in groups, in an order drawn from the seed (class-incremental split).

Labels inside a stream are positions in the class order, so that the classes of task 0 come first and output `j` of the
learner's head is label `j`. A sample's id is `label << 32 | ordinal`, where ordinals count the training samples of a
class in their order of arrival: it names the sample in memory and in storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mirolib.base.display import grid
from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, Samples

ORDINAL_BITS = 32  # half of an id: both halves then have room for more than any set has
ORDINAL_MASK = (1 << ORDINAL_BITS) - 1


def make_ids(labels: np.ndarray, ordinals: np.ndarray) -> np.ndarray:
    """Ids `(n,) int64` of samples from their labels and their ordinals within the class."""
    return (labels.astype(np.int64) << ORDINAL_BITS) | ordinals


def labels_of(ids: np.ndarray) -> np.ndarray:
    """Labels `(n,) int64` that the ids `(n,) int64` carry."""
    return ids >> ORDINAL_BITS


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same label, `(n,) int64`."""
    order = np.argsort(labels, kind="stable")  # which keeps the order of arrival within a class
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks


@dataclass(frozen=True)
class Task:
    """One step of the stream: new classes with their samples.

    Attributes:
        index: Position in the stream, from 0.
        classes: Labels of the new classes.
        train: Training samples in their order of arrival.
        train_ids: Id of each training sample, `(n,) int64`.
        validation: Samples held out of training, on which configurations are judged.
        validation_ids: Id of each validation sample (numbered apart from the training samples).
        dataset_labels: The data set's label of each of its classes; empty where they are the same.
    """

    index: int
    classes: tuple[int, ...]
    train: Samples
    train_ids: np.ndarray
    validation: Samples
    validation_ids: np.ndarray
    dataset_labels: tuple[int, ...] = ()


@dataclass(frozen=True, repr=False)
class TaskStream:
    """A data set as a sequence of tasks with disjoint classes.

    Attributes:
        dataset: The data set.
        num_tasks: Number of tasks; classes are spread as evenly as they go.
        seed: Seed of the class order, the order of arrival and the held-out samples.
        validation_share: Share of each class's training samples held out for validation, in [0, 1); of a data set with
            validation samples of its own, none.

    Raises:
        InputError: If there are fewer classes than tasks or the share leaves a class without training samples.
    """

    dataset: Dataset
    num_tasks: int = 5
    seed: int = 0
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        tasks, classes, share = self.num_tasks, self.num_classes, self.validation_share
        if not 1 <= tasks <= classes:
            raise InputError(f"{tasks} tasks cannot share {classes} classes; choose between 1 and {classes} tasks.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; choose 0 or more.")
        if not 0 <= share < 1:
            raise InputError(f"validation_share is {share}; choose a value from 0 up to, not including, 1.")
        smallest = int(np.bincount(self.dataset.train.labels).min())
        if smallest - self._held_out(smallest) < 1:
            raise InputError(f"validation_share {share} leaves a class of {smallest} nothing to train on; lower it.")

    def __repr__(self) -> str:
        name = self.dataset.spec.name
        return f"TaskStream({name}: {self.num_classes} classes in {self.num_tasks} tasks, seed {self.seed})"

    def _repr_html_(self) -> str:
        name = self.dataset.spec.name
        return grid(f"Stream of {name}: {self.num_tasks} tasks, seed {self.seed}", self.describe())

    @property
    def num_classes(self) -> int:
        """Number of classes over all tasks."""
        return len(self.dataset.class_names)

    @property
    def class_order(self) -> tuple[int, ...]:
        """The data set's class at each label of the stream."""
        return tuple(int(c) for c in np.random.default_rng([self.seed, 0]).permutation(self.num_classes))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class name at each label of the stream."""
        return tuple(self.dataset.class_names[c] for c in self.class_order)

    @property
    def task_classes(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each task."""
        return tuple(tuple(part.tolist()) for part in np.array_split(np.arange(self.num_classes), self.num_tasks))

    def _held_out(self, count: int) -> int:
        """Validation samples of a class with `count` samples: the share, and one at least if there are two."""
        if self.dataset.validation is not None:
            return 0
        # one at least, since a class without any would not count in the choice of sizes
        return max(round(count * self.validation_share), int(self.validation_share > 0 and count > 1))

    def most_samples(self) -> tuple[int, int]:
        """Training samples, held-out ones excluded, of the largest task and of all tasks together."""
        counts = np.bincount(self.dataset.train.labels, minlength=self.num_classes)[list(self.class_order)]
        kept = np.array([n - self._held_out(n) for n in counts.tolist()])
        return max(int(kept[list(classes)].sum()) for classes in self.task_classes), int(kept.sum())

    def __len__(self) -> int:
        return self.num_tasks

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(self.num_tasks))

    def __getitem__(self, index: int) -> Task:
        """The task at `index`, the same whenever it is asked for; an `IndexError` if there is none.

        Which samples of a class are held out, and the order of the others, depends on seed and class alone; only how
        the classes mingle on arrival depends on the task. A sample's id is therefore the same for any number of tasks.
        """
        if not 0 <= index < self.num_tasks:
            raise IndexError(f"There is no task {index}; the stream has {self.num_tasks}.")
        classes = self.task_classes[index]
        samples = self._of(self.dataset.train, classes)
        judged = samples if self.dataset.validation is None else self._of(self.dataset.validation, classes)
        train, validation = [], []
        for label in classes:
            # a generator a class, since one for all would draw by the classes that happen to share the task
            order = np.random.default_rng([self.seed, 1, label]).permutation(np.flatnonzero(samples.labels == label))
            held_out = self._held_out(len(order))
            train.append(order[held_out:])
            validation.append(order[:held_out] if judged is samples else np.flatnonzero(judged.labels == label))
        rng = np.random.default_rng([self.seed, 2, *classes])
        parts = [self._mingled(samples, train, rng), self._mingled(judged, validation, rng)]
        (first, ids), (second, its) = ((part, make_ids(part.labels, rank_in_class(part.labels))) for part in parts)
        return Task(index, classes, first, ids, second, its, tuple(self.class_order[label] for label in classes))

    def tests(self, up_to: int) -> list[Samples]:
        """Test samples of each task from the first to task `up_to`, that one included."""
        return [self._of(self.dataset.test, classes) for classes in self.task_classes[: up_to + 1]]

    def _of(self, samples: Samples, classes: tuple[int, ...]) -> Samples:
        """Samples of some classes of the stream, relabelled."""
        labels = np.argsort(self.class_order)[samples.labels]  # the inverse of the order: the label of each class
        positions = np.flatnonzero(np.isin(labels, classes))
        return samples.select(positions, labels[positions])

    @staticmethod
    def _mingled(samples: Samples, by_class: list[np.ndarray], rng: np.random.Generator) -> Samples:
        """Samples of several classes in a random order that keeps the order within each class."""
        source = rng.permutation(np.repeat(np.arange(len(by_class)), [len(part) for part in by_class]))
        order = np.empty_like(source)
        order[np.argsort(source, kind="stable")] = np.concatenate(by_class)
        return samples.select(order)

    def describe(self) -> list[dict[str, object]]:
        """One row a task: its classes by name and its sample counts, ready for a DataFrame."""
        rows: list[dict[str, object]] = []
        for task, test in zip(self, self.tests(self.num_tasks - 1), strict=True):
            names = ", ".join(self.class_names[label] for label in task.classes)
            counts = {"train": len(task.train), "validation": len(task.validation), "test": len(test)}
            rows.append({"task": task.index, "classes": names, **counts})
        return rows
