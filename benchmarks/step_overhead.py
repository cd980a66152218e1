"""A training step with everything on, divided by the bare step.

The full step gathers a batch from both buffers, crops, mirrors and normalises it, trains, and exchanges every
sample, new or replayed, with storage (an epoch of the task at swap ratio 1). The bare step trains the same learner on
tensors that lie ready, normalised and laid out as the model wants them, of the same batch size: forward, loss,
zero_grad, backward, SGD.
Blocks of both alternate in groups (ABBA); the first step of a block is left out, so that a full step always has the
previous one's read under way beside it and a bare step never has. The value is the median, over groups, of the ratio
of the medians of their steps. The small CNN's ratio depends on the machine's mood: on two shared virtual cores, where
the bare step itself takes 13 to 24 ms from run to run, it lay between 1.04 and 1.41.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from benchmarks.common import random_images, row, second_task, seconds, table
from mirolib import Dataset
from mirolib.experiment.experiment import Experiment
from mirolib.memory.tiered import Batch


def run() -> pd.DataFrame:
    """Measures three models."""
    images = random_images(700)
    return table(
        [
            *_rows("small-cnn, 3x32x32, batch 128", images, "small-cnn", 128, block=6, groups=13, at_most=1.05),
            *_rows("resnet18, 3x32x32, batch 32", images, "resnet18", 32, block=3, groups=6, at_most=1.02),
            *_rows("small-cnn, digits 1x8x8, batch 16", "digits", "small-cnn", 16, block=50, groups=13),
        ]
    )


def _rows(
    what: str,
    dataset: Dataset | str,
    model: str,
    batch_size: int,
    *,
    block: int,
    groups: int,
    at_most: float | None = None,
) -> list[dict[str, object]]:
    """The bare step's time and the overhead of the full step, of one model."""
    sizes = {"stream_size": 250, "episodic_size": 50} if dataset == "digits" else {}
    sizes = sizes or {"stream_size": 2500, "episodic_size": 1000}
    with second_task(dataset, model=model, batch_size=batch_size, **sizes) as experiment:
        ratio, bare = _measure(experiment, batch_size, block, groups)
    return [
        row(f"{what}: bare step", 1e3 * bare, "ms"),
        row(f"{what}: full / bare step", ratio, "ratio", at_most=at_most),
    ]


def _measure(experiment: Experiment, batch_size: int, block: int, groups: int) -> tuple[float, float]:
    """Ratio of a full to a bare step, and seconds of a bare step."""
    learner, memory = experiment.learner, experiment.memory
    batches = _endless(experiment, batch_size)
    first = next(batches)
    layout = learner.layout
    inputs = learner._transform.train(first.samples).contiguous(memory_format=layout)
    labels, total = torch.from_numpy(first.labels), torch.zeros(())
    used = len(labels)

    def full() -> None:
        nonlocal used
        batch = next(batches)
        total.add_(learner.step(batch) * len(batch.labels))
        memory.swap(batch)
        used = min(len(labels), len(batch.labels))

    def bare() -> None:
        loss = learner.method.loss(learner.logits(inputs[:used]), labels[:used])
        learner._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learner._optimizer.step()

    ratios, bares = [], []
    for _ in range(groups):
        times: dict[bool, list[float]] = {True: [], False: []}
        for everything in (True, False, False, True):
            step = full if everything else bare
            times[everything] += [seconds(step) for _ in range(block)][1:]
            time.sleep(0.01)  # lets the swapper finish
        ratios.append(np.median(times[True]) / np.median(times[False]))
        bares.append(np.median(times[False]))
    return float(np.median(ratios[1:])), float(np.median(bares[1:]))  # the first group warms up


def _endless(experiment: Experiment, batch_size: int) -> Iterator[Batch]:
    """Epoch after epoch of batches, as many old samples as new ones in each."""
    while True:
        yield from experiment.memory.passes(batch_size, replay_ratio=1)
