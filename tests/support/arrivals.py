"""A learner and a memory on their way through three small tasks."""

from dataclasses import replace

import numpy as np
from samples import make_dataset

from mirolib import Learner, MemoryConfig, TaskStream
from mirolib.controller.resources import Resources
from mirolib.learning.learner import train_epoch

STREAM = TaskStream(make_dataset(classes=6, per_class=20), 3, seed=0)  # 18 of a class to train on, 2 held out
TASKS = list(STREAM)
SAMPLE_OF_ID = {int(i): task.train.read(np.array([k]))[0] for task in TASKS for k, i in enumerate(task.train_ids)}
PRESET = replace(STREAM.dataset.spec.preset(), epochs=3, batch_size=8, epoch_of="buffers")
OF_TASK = replace(PRESET, epoch_of="task")
CONFIG = MemoryConfig(20, 18, 0.5)
UNLIMITED = Resources(None, 0, 0.0, 1.0)


def learner(preset=PRESET, **options):
    return Learner(STREAM.dataset.spec, preset, **options)


def arrived(make_memory, task=1, config=CONFIG, method=None, epochs=1, preset=PRESET, **options):
    """A task that has arrived, and a learner and a memory that have been through those before it."""
    config = replace(config, swap_ratio=0.0) if options else config
    one, memory = learner(preset, method=method), make_memory(STREAM, config, **options)
    for index in range(task + 1):
        memory.receive(STREAM[index])
        one.grow(STREAM[index].classes, STREAM[index].dataset_labels)
        one.begin(STREAM[index], memory)
        if index < task:
            for _ in range(epochs):
                train_epoch(one, memory)
            memory.settle()
            one.method.finish(one, STREAM[index], memory)
            memory.retain(STREAM[index])
    return STREAM[task], one, memory


def trained(memory, tasks=TASKS, epochs=3, batch_size=8, *, after_receive=lambda: None, observe=lambda batch: None):
    """Takes a memory, without a learner, through tasks."""
    for task in tasks:
        memory.receive(task)
        after_receive()
        for _ in range(epochs):
            swapped(memory, batch_size, observe)
        memory.retain(task)


def swapped(memory, batch_size=8, observe=lambda batch: None):
    """An epoch of swapping; each batch is looked at before its exchanges."""
    for batch in memory.batches(batch_size):
        observe(batch)
        memory.swap(batch)


def check(memory):
    """Every sample in RAM is the one its id says, with its label, and none is there twice."""
    for buffer in (memory.stream_buffer, memory.episodic_memory):
        ids = buffer.array.ids
        samples, labels = np.empty((len(ids), *STREAM.dataset.spec.sample_shape), np.uint8), np.empty(len(ids), int)
        buffer.array.gather(np.arange(len(ids)), samples, labels)  # the door that a batch comes through
        assert len(set(ids.tolist())) == len(ids) <= buffer.array.capacity
        np.testing.assert_array_equal(labels, ids >> 32)
        for id_, sample in zip(ids.tolist(), samples, strict=True):
            np.testing.assert_array_equal(sample, SAMPLE_OF_ID[id_])
