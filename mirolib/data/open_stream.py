"""A stream that is open at its end: data come later, of nobody knows how many tasks, classes or groups."""

import sys

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, Samples
from mirolib.data.spec import DatasetSpec
from mirolib.data.stream import ORDINAL_MASK, Task, TaskStream, labels_of, make_ids


class OpenStream:
    """Tasks in the order in which their data come; labels, of `class_names`, are numbered as classes turn up.

    To go on with a run after a restart, the same data are added again in the same order before its checkpoint is
    restored. Arrays that are mapped from files take no RAM.
    """

    content = "open-ended"
    class_order: tuple[int, ...] = ()  # known to nobody

    def __init__(self, spec: DatasetSpec, *, seed: int = 0, validation_share: float = 0.1) -> None:
        """A stream without a task, of samples of a spec, the rest as in `TaskStream`; an `InputError` if encoded."""
        if spec.encoded:
            raise InputError(f"Samples of {spec.name} are encoded, of any length; give decoded ones.")
        self.spec, self.seed, self.validation_share = spec, seed, validation_share
        self.class_names: tuple[str, ...] = ()
        self.task_classes: list[tuple[int, ...]] = []
        self._tasks: list[Task] = []
        self._tests: list[Samples] = []

    def add(self, dataset: Dataset) -> Task:
        """The next task, of a data set whose classes are new or known by name; an `InputError` on other samples."""
        theirs, mine = ((one.sample_shape, one.sample_dtype) for one in (dataset.spec, self.spec))
        if theirs != mine:
            raise InputError(f"Samples of task {len(self) + 1} are {theirs}, not {mine}, the stream's; change them.")
        whole = TaskStream(dataset, 1, self.seed, self.validation_share)
        task, names = whole[0], dict.fromkeys((*self.class_names, *whole.class_names))
        self.class_names = tuple(names)
        label_of = np.array([self.class_names.index(name) for name in whole.class_names])
        parts: list[Samples | np.ndarray] = []
        for part, ids in ((task.train, task.train_ids), (task.validation, task.validation_ids)):
            seen = [(one.validation if parts else one.train).labels for one in self._tasks]
            before = np.bincount(np.concatenate([*seen, label_of[:0]]), minlength=len(names))
            labels = label_of[labels_of(ids)]
            parts += [
                part.select(np.arange(len(part)), labels),
                make_ids(labels, before[labels] + (ids & ORDINAL_MASK)),
            ]
        self.task_classes.append(tuple(sorted(label_of.tolist())))
        self._tasks.append(Task(len(self), self.task_classes[-1], *parts))  # type: ignore[arg-type]
        test = whole.tests(0)[0]
        self._tests.append(test.select(np.arange(len(test)), label_of[test.labels]))
        return self._tasks[-1]

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> Task:
        return self._tasks[index]

    def tests(self, up_to: int) -> list[Samples]:
        """Test samples of each task from the first to task `up_to`, that one included."""
        return self._tests[: up_to + 1]

    def most_samples(self) -> tuple[int, int]:
        """Training samples of the largest task and of all: without a limit."""
        return sys.maxsize, sys.maxsize
