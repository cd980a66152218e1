"""The stream of tasks: classes, or groups of the same classes, arrive one after another in an order drawn from a seed.

Labels inside a stream are numbered in the order in which their classes first arrive, so that the classes of task 0 come
first and output `j` of the learner's head is label `j`. A sample's id is `label << 32 | ordinal`, where ordinals count
the training samples of a class in their order of arrival, over all tasks that bring some: it names the sample in memory
and in storage.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import xxhash

from mirolib.base.display import grid
from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, Samples
from mirolib.data.spec import DatasetSpec

ORDINAL_BITS = 32  # half of an id: both halves then have room for more than any set has
ORDINAL_MASK = (1 << ORDINAL_BITS) - 1
_KIND = re.compile(r"(?:class|domain)-incremental|(returning)(?:=([1-9]\d{0,5}))?|(blurry)(?:=(0?\.\d*[1-9]\d*))?")


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


def kind_of(text: str) -> tuple[int, float]:
    """Rounds, and share of other tasks' samples, of a kind such as `blurry=0.2`; an `InputError` if it is none."""
    found = _KIND.fullmatch(text)
    if not found:
        kinds = "class-incremental, domain-incremental, returning or blurry"
        raise InputError(f"The stream is {text!r}; choose {kinds}, such as 'returning=3' rounds or 'blurry=0.2'.")
    returns, rounds, blurs, share = found.groups()
    return int(rounds or (2 if returns else 1)), float(share or (0.1 if blurs else 0))


@dataclass(frozen=True)
class Task:
    """One step of the stream: samples of new classes, new samples of classes seen before, or both.

    Attributes:
        index: Position in the stream, from 0.
        classes: Labels of its classes, rising; those that no earlier task had are the last.
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
    """A data set as a sequence of tasks, each sample of which is in one of them.

    A class in several tasks comes with an equal share of its samples in each. Where the data set has groups, whole ones
    are held out, or neighbours in the data where a task has too few of them: windows that overlap do not leak. There is
    an `InputError` if the tasks can't be made, or the share leaves a class without training samples.

    Attributes:
        dataset: The data set.
        num_tasks: Number of tasks, alike as far as it goes; by default 5, or one a group, or what the others say.
        seed: Seed of the class order, the order of arrival and the held-out samples.
        validation_share: Share of each class's training samples in a task held out for validation, in [0, 1); of a data
            set with validation samples of its own, none.
        kind: `class-incremental`; `domain-incremental`, each task with other groups; `returning=2`, where all classes
            come so often, in other company; or `blurry=0.1`, where that share of each is spread over other tasks.
        order: Classes (positions or names) or groups in their order, or a list of them for each task, which may name a
            class several times; also as a text such as `cat, dog; cow`. By default drawn.
        base: Number of classes or groups of the first task, where it has another one than the others.
        increment: Number of those of each further task.
        class_seed: Seed of the order of classes or groups alone; by default `seed`.
    """

    dataset: Dataset
    num_tasks: int | None = None
    seed: int = 0
    validation_share: float = 0.1
    kind: str = "class-incremental"
    order: str | Sequence[Any] = ()
    base: int = 0
    increment: int = 0
    class_seed: int | None = None

    def __post_init__(self) -> None:
        share = self.validation_share
        if self.seed < 0 or (self.class_seed or 0) < 0:
            raise InputError(f"seed is {min(self.seed, self.class_seed or 0)}; choose 0 or more.")
        if not 0 <= share < 1:
            raise InputError(f"validation_share is {share}; choose a value from 0 up to, not including, 1.")
        parts = {"training": self.dataset.train, "test": self.dataset.test, "validation": self.dataset.validation}
        if lacking := [k for k, part in parts.items() if part is not None and part.groups is None and self.by_group]:
            raise InputError(
                f"The {lacking[0]} samples of {self.spec.name} have no groups, such as a person each, by which domains "
                "could be told; give groups, or choose another stream (docs/howto/streams.md)."
            )
        for task, test in enumerate(self.tests(len(self) - 1)):
            if not len(test) or not self._parts[task]:
                what = f"Task {task + 1} ({', '.join(self._names[one] for one in self._plan[task])})"
                raise InputError(f"{what} has no training or no test sample; add some, or join tasks.")

    def __repr__(self) -> str:
        kind = "" if self.kind == "class-incremental" else f", {self.kind}"
        return f"TaskStream({self.spec.name}: {self.num_classes} classes in {len(self)} tasks{kind}, seed {self.seed})"

    def _repr_html_(self) -> str:
        return grid(f"Stream of {self.spec.name}: {len(self)} tasks, {self.kind}, seed {self.seed}", self.describe())

    @property
    def spec(self) -> DatasetSpec:
        """The facts of its samples."""
        return self.dataset.spec

    @property
    def by_group(self) -> bool:
        """Whether tasks differ by group, not by class."""
        return self.kind == "domain-incremental"

    @property
    def returns(self) -> bool:
        """Whether a class comes in more than one task."""
        return sum(map(len, self._parts)) > self.num_classes

    @cached_property
    def content(self) -> str:
        """Hash of what decides which samples have which ids, beside class order, seed and share."""
        if not self.returns and self.dataset.train.groups is None:
            return self.dataset.fingerprint
        found = (rows for part in self._parts for pair in part.values() for rows in pair)
        digest = xxhash.xxh3_128(b"".join(len(rows).to_bytes(8, "little") + rows.tobytes() for rows in found))
        return f"{self.dataset.fingerprint}/{digest.hexdigest()}"

    @property
    def num_classes(self) -> int:
        """Number of classes over all tasks."""
        return len(self.dataset.class_names)

    @cached_property
    def _groups(self) -> np.ndarray:
        return np.unique(np.asarray(self.dataset.train.groups))

    @cached_property
    def _names(self) -> list[str]:
        """What tasks are made of: classes of the data set, or groups, by name."""
        return list(map(str, self._groups)) if self.by_group else list(self.dataset.class_names)

    def _named(self, one: Any) -> int:
        """The position of what the order names."""
        if isinstance(one, Integral) and not self.by_group and 0 <= int(one) < len(self._names):
            return int(one)
        if (name := str(one).strip()) not in self._names:
            raise InputError(f"The order names {name!r:.99}; choose among {', '.join(self._names)[:300]}.")
        return self._names.index(name)

    @cached_property
    def _plan(self) -> list[list[int]]:
        """Positions of the classes or groups of each task."""
        order: Sequence[Any] = self.order
        if isinstance(order, str):
            lists = [part.split(",") for part in order.split(";")] if order.strip() else []
            order = lists if ";" in order else [one for part in lists for one in part]
        things, what = len(self._names), "groups" if self.by_group else "classes"
        rounds, _ = kind_of(self.kind)
        wanted = self.num_tasks if self.num_tasks is not None else things if self.by_group else rounds * min(5, things)
        rng, plan = np.random.default_rng([self.seed if self.class_seed is None else self.class_seed, 0]), []
        if any(not isinstance(one, str | Integral | np.generic) for one in order):
            plan = [list(dict.fromkeys(map(self._named, part))) for part in order]
        for _ in range(0 if plan else rounds):
            drawn = [self._named(one) for one in order] or rng.permutation(things).tolist()
            if self.base or self.increment:
                ends = np.arange(self.base or self.increment, things, self.increment or things)
            elif wanted % rounds or not 1 <= wanted // rounds <= things:
                each = f" in each of {rounds} rounds" if rounds > 1 else ""
                most = f"choose between {rounds} and {rounds * things} tasks"
                raise InputError(f"{wanted} tasks cannot share {things} {what}{each}; {most}.")
            else:
                ends = np.cumsum([len(part) for part in np.array_split(drawn, wanted // rounds)])[:-1]
            plan += [part.tolist() for part in np.split(np.array(drawn, dtype=int), ends)]
        if lacking := [self._names[one] for one in range(things) if not any(one in part for part in plan)]:
            raise InputError(f"The order leaves out {', '.join(lacking)[:300]}; name all {what}.")
        if self.num_tasks not in (None, len(plan)):
            raise InputError(f"There are {len(plan)} tasks, not {self.num_tasks}; leave num_tasks out.")
        return plan

    def _tasks_of(self, samples: Samples) -> np.ndarray:
        """The task of each sample of the data set, `(n,) int64`, -1 where it has none."""
        _, share = kind_of(self.kind)
        things, found = samples.labels, np.full(len(samples), -1)
        if self.by_group:
            things = np.searchsorted(self._groups, np.asarray(samples.groups)).clip(max=len(self._groups) - 1)
            things = np.where(self._groups[things] == samples.groups, things, -1)
        for thing in range(len(self._names)):
            rows, tasks = np.flatnonzero(things == thing), [t for t, part in enumerate(self._plan) if thing in part]
            others, rng = np.setdiff1d(np.arange(len(self)), tasks), np.random.default_rng([self.seed, 4, thing])
            if len(tasks) > 1 or share:
                rows = rng.permutation(rows)
            if len(others) and share:
                away, rows = np.split(rows, [round(share * len(rows))])
                found[away] = rng.permutation(np.resize(others, len(away)))
            for task, part in zip(tasks, np.array_split(rows, len(tasks)), strict=True):
                found[part] = task
        return found

    @cached_property
    def class_order(self) -> tuple[int, ...]:
        """The data set's class at each label of the stream."""
        train, first = self.dataset.train, np.full(self.num_classes, len(self))
        np.minimum.at(first, train.labels, self._tasks_of(train))
        drawn = np.random.default_rng([self.seed if self.class_seed is None else self.class_seed, 0])
        planned = [drawn.permutation(self.num_classes).tolist()] if self.by_group else self._plan
        return tuple(sorted(dict.fromkeys(itertools.chain(*planned)), key=lambda label: first[label]))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class name at each label of the stream."""
        return tuple(self.dataset.class_names[c] for c in self.class_order)

    @property
    def task_classes(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each task."""
        return tuple(tuple(sorted(part)) for part in self._parts)

    @cached_property
    def _parts(self) -> list[dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Of each task, by label, positions of its training and validation samples in their order of arrival.

        Which samples of a class are held out, and the order of the others, depends on seed, class and its tasks alone;
        a sample's id is therefore the same for any number of tasks, where each class comes in one of them.
        """
        found: list[dict[int, tuple[np.ndarray, np.ndarray]]] = [{} for _ in self._plan]
        own, train = self.dataset.validation, self.dataset.train
        tasks, judged = self._tasks_of(train), None if own is None else self._tasks_of(own)
        by_class = np.split(np.argsort(train.labels, kind="stable"), np.cumsum(np.bincount(train.labels))[:-1])
        for label, one in enumerate(self.class_order):
            # a generator a class, since one for all would draw by the classes that happen to share the task
            rows = np.random.default_rng([self.seed, 1, label]).permutation(by_class[one])
            for task in np.unique(tasks[rows]).tolist():
                kept, held = self._parted(rows[tasks[rows] == task])
                if own is not None:
                    held = np.flatnonzero((own.labels == one) & (judged == task))
                found[task][label] = kept, held
        return found

    def _parted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The samples of a class in a task that are trained on, and those held out."""
        count, share, held = len(rows), self.validation_share, np.zeros(len(rows), dtype=bool)
        # one at least, since a class without any would not count in the choice of sizes
        wanted = 0 if self.dataset.validation else max(round(count * share), int(share > 0 and count > 1))
        if self.dataset.train.groups is None or not wanted:
            held[:wanted] = True
        else:
            groups = self.dataset.train.groups[rows]
            for first in np.sort(np.unique(groups, return_index=True)[1]):  # as they come up in the random order
                those = groups == groups[first]
                if held.sum() < wanted and (held | those).sum() <= min(2 * wanted, count - 1):
                    held |= those
            if not held.any():
                held = np.isin(rows, np.sort(rows)[-wanted:])
        if held.all():
            raise InputError(f"validation_share {share} leaves a class of {count} nothing to train on; lower it.")
        return rows[~held], rows[held]

    def most_samples(self) -> tuple[int, int]:
        """Training samples, held-out ones excluded, of the largest task and of all tasks together."""
        counts = [sum(len(kept) for kept, _ in part.values()) for part in self._parts]
        return max(counts), sum(counts)

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Task:
        """The task at `index`, the same whenever it is asked for; an `IndexError` if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no task {index}; the stream has {len(self)}.")
        classes, before = self.task_classes[index], np.zeros((2, self.num_classes), dtype=np.int64)
        for label, pair in (item for part in self._parts[:index] for item in part.items()):
            before[:, label] += [len(rows) for rows in pair]
        rng, train = np.random.default_rng([self.seed, 2, *classes]), self.dataset.train
        samples, judged = (
            self._mingled(source, [self._parts[index][label][which] for label in classes], classes, rng)
            for which, source in enumerate((train, self.dataset.validation or train))
        )
        ids, its = (
            make_ids(part.labels, start[part.labels] + rank_in_class(part.labels))
            for part, start in zip((samples, judged), before, strict=True)
        )
        return Task(index, classes, samples, ids, judged, its, tuple(self.class_order[label] for label in classes))

    def tests(self, up_to: int) -> list[Samples]:
        """Test samples of each task from the first to task `up_to`, that one included: of its classes, or its groups.

        Where classes return, their test samples are those of several tasks.
        """
        test, labels = self.dataset.test, np.argsort(self.class_order)[self.dataset.test.labels]
        found = []
        for part in self._plan[: up_to + 1]:
            mine = np.isin(np.asarray(test.groups), self._groups[part]) if self.by_group else np.isin(test.labels, part)
            found.append(test.select(np.flatnonzero(mine), labels[mine]))
        return found

    @staticmethod
    def _mingled(
        samples: Samples, by_class: list[np.ndarray], classes: Sequence[int], rng: np.random.Generator
    ) -> Samples:
        """Samples of several classes, relabelled, in a random order that keeps the order within each class."""
        source = rng.permutation(np.repeat(np.arange(len(by_class)), [len(part) for part in by_class]))
        order = np.empty_like(source)
        order[np.argsort(source, kind="stable")] = np.concatenate(by_class)
        return samples.select(order, np.array(classes)[source])

    def describe(self) -> list[dict[str, object]]:
        """One row a task: its classes by name and its sample counts, ready for a DataFrame."""
        rows: list[dict[str, object]] = []
        for task, test in zip(self, self.tests(len(self) - 1), strict=True):
            names = ", ".join(self.class_names[label] for label in task.classes)
            groups = {"groups": ", ".join(self._names[one] for one in self._plan[task.index])} if self.by_group else {}
            counts = {"train": len(task.train), "validation": len(task.validation), "test": len(test)}
            rows.append({"task": task.index, **groups, "classes": names, **counts})
        return rows
