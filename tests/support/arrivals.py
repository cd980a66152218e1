"""A learner and a memory at the moment a task has arrived, for the tests of controllers."""

from dataclasses import replace

from samples import make_dataset

from mirolib import (
    Learner,
    MemoryConfig,
    TaskStream,
)
from mirolib.controller.resources import Resources
from mirolib.learning.learner import train_epoch

STREAM = TaskStream(make_dataset(classes=6, per_class=20), 3, seed=0)

PRESET = replace(STREAM.dataset.spec.preset(), epochs=3, batch_size=8)

UNLIMITED = Resources(None, 0, 0.0, 1.0)


def learner(**options):
    return Learner(STREAM.dataset.spec, PRESET, **options)


def arrived(make_memory, task=1, **options):
    """A learner and a memory at the moment a task has arrived."""
    one, memory = learner(), make_memory(STREAM, MemoryConfig(20, 18, 0.0 if options else 0.5), **options)
    for index in range(task + 1):
        memory.receive(STREAM[index])
        one.grow(STREAM[index].classes)
        if index < task:
            train_epoch(one, memory)
            memory.settle()
            memory.retain(STREAM[index])
    return STREAM[task], one, memory
