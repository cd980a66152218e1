"""A stream that is open at its end: data come later, of nobody knows how many tasks, classes or groups."""

from __future__ import annotations

import sys

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, Samples
from mirolib.data.spec import DatasetSpec
from mirolib.data.stream import ORDINAL_MASK, Task, TaskStream, labels_of, make_ids


class OpenStream:
    """Tasks in the order in which their data come; labels are numbered as classes turn up.

    To go on with a run after a restart, the same data are added again in the same order before its checkpoint is
    restored. Arrays that are mapped from files take no RAM.

    Attributes:
        spec: Facts of all samples.
        class_names: Name of each class so far.
    """

    content = "open-ended"
    class_order: tuple[int, ...] = ()  # known to nobody

    def __init__(self, spec: DatasetSpec, *, seed: int = 0, validation_share: float = 0.1) -> None:
        """A stream without a task; `spec` is that of a first data set, say, the others as `TaskStream` has them.

        Raises:
            InputError: If samples are encoded, whose mean length can't be told.
        """
        if spec.encoded:
            raise InputError(f"Samples of {spec.name} are encoded, of any length; give decoded ones.")
        self.spec, self.seed, self.validation_share = spec, seed, validation_share
        self.class_names: tuple[str, ...] = ()
        self._tasks: list[Task] = []
        self._tests: list[Samples] = []

    def add(self, dataset: Dataset) -> Task:
        """The next task, of all samples of a data set, whose classes may be new or known by name.

        Raises:
            InputError: If its samples are of another shape or type.
        """
        theirs, mine = ((one.sample_shape, one.sample_dtype) for one in (dataset.spec, self.spec))
        if theirs != mine:
            raise InputError(f"The samples of task {len(self)} are {theirs}, those of the stream {mine}; make them so.")
        whole = TaskStream(dataset, 1, self.seed, self.validation_share)
        task, names = whole[0], dict.fromkeys((*self.class_names, *whole.class_names))
        self.class_names = tuple(names)
        label_of = np.array([self.class_names.index(name) for name in whole.class_names])
        parts: list[Samples | np.ndarray] = []
        for part, ids in ((task.train, task.train_ids), (task.validation, task.validation_ids)):
            before = np.zeros(len(names), dtype=np.int64)
            for one in self._tasks:
                np.add.at(before, (one.validation if len(parts) else one.train).labels, 1)
            labels = label_of[labels_of(ids)]
            samples = part.select(np.arange(len(part)), labels)
            parts += [samples, make_ids(labels, before[labels] + (ids & ORDINAL_MASK))]
        self._tasks.append(Task(len(self), tuple(sorted(label_of.tolist())), *parts))  # type: ignore[arg-type]
        test = whole.tests(0)[0]
        self._tests.append(test.select(np.arange(len(test)), label_of[test.labels]))
        return self._tasks[-1]

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> Task:
        return self._tasks[index]

    @property
    def num_classes(self) -> int:
        """Number of classes so far."""
        return len(self.class_names)

    @property
    def task_classes(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each task."""
        return tuple(task.classes for task in self._tasks)

    def tests(self, up_to: int) -> list[Samples]:
        """Test samples of each task from the first to task `up_to`, that one included."""
        return self._tests[: up_to + 1]

    def most_samples(self) -> tuple[int, int]:
        """Training samples of the largest task and of all: without a limit."""
        return sys.maxsize, sys.maxsize
