"""Samples a second through the whole data path, against Avalanche.

CIFAR-shaped random images, ten classes in two tasks, a linear model with softmax cross-entropy, batches of 128. In
the second task, with 2,000 old samples in the episodic memory and 5,000 new ones in the stream buffer, each step
gathers a batch, crops, mirrors and normalises it, trains, and exchanges every replayed sample with storage; in an epoch
of the task, every new one too. Avalanche
0.6.0 learns the same with Naive and ReplayPlugin(mem_size=2000), torchvision's transforms, no workers and no metrics,
in a process of its own; every sample that passes counts, replayed ones too. Epochs of both alternate; each value is
the median over epochs. What bounds it are the linear model's own step and the transform, see the parts below.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.common import random_images, row, second_task, table
from mirolib.experiment.experiment import Experiment

PER_CLASS, BATCH, ROUNDS, EPOCHS = 1200, 128, 7, 8


def run() -> pd.DataFrame:
    """Measures both and splits ours into its parts."""
    with second_task(
        random_images(PER_CLASS), model="linear", loss="ce", batch_size=BATCH, stream_size=5000, episodic_size=2000
    ) as experiment:
        peers = _peer()
        ours, both, theirs = [], [], []
        for _ in range(ROUNDS):
            ours += [_epoch(experiment) for _ in range(EPOCHS)]
            both += [_epoch(experiment, passing=True) for _ in range(EPOCHS)]
            theirs.append(next(peers, np.nan))
        peers.close()
        parts = _breakdown(experiment)
    speed, peer = float(np.median(ours[1:])), float(np.median(theirs))
    missing = " (avalanche not installed: pip install -e '.[bench]')" if np.isnan(peer) else ""
    return table(
        [
            row("data path, swap ratio 1", speed, "samples/s", at_least=100_000),
            row("the same, an epoch of the task: both buffers swap", float(np.median(both[1:])), "samples/s"),
            row(f"Avalanche 0.6.0, Naive + ReplayPlugin{missing}", peer, "samples/s"),
            row("data path / Avalanche", speed / peer, "ratio", at_least=20),
            *(row(f"of which {part}", value, "µs/sample") for part, value in parts.items()),
        ]
    )


def _epoch(experiment: Experiment, passing: bool = False) -> float:
    """Samples a second of one epoch, of the buffers or of the task, as the training loop runs it."""
    learner, memory = experiment.learner, experiment.memory
    total, samples, start = torch.zeros(()), 0, time.perf_counter()
    for batch in memory.passes(BATCH, 0.4) if passing else memory.batches(BATCH):
        total += learner.step(batch) * len(batch.labels)
        samples += len(batch.labels)
        memory.swap(batch)
    return samples / (time.perf_counter() - start)


def _breakdown(experiment: Experiment) -> dict[str, float]:
    """Microseconds a sample of each part, the median over epochs, with the parts under a stopwatch."""
    learner, memory = experiment.learner, experiment.memory
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(owner: object, name: str, part: str) -> None:
        inner: Callable[..., object] = getattr(owner, name)

        def outer(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - start

        setattr(owner, name, outer)

    timed(learner._transform, "train", "transform")
    timed(learner, "step", "step")
    timed(memory._swapper, "swap", "swap: request")
    timed(memory._swapper, "settle", "swap: commit")
    epochs = []
    for _ in range(EPOCHS * ROUNDS // 2):
        spent.clear()
        speed = _epoch(experiment)
        parts = {part: 1e6 * value / (len(memory.stream_buffer) + len(memory.episodic_memory))
                 for part, value in spent.items()}  # fmt: skip
        parts["swap: request"] -= parts["swap: commit"]  # a swap does both
        step, total = parts.pop("step"), 1e6 / speed
        parts["model step"] = step - parts["transform"]
        parts["gather"] = total - sum(parts.values())
        epochs.append(parts)
    order = ["gather", "transform", "model step", "swap: request", "swap: commit"]
    return {part: float(np.median([parts[part] for parts in epochs])) for part in order}


def _peer() -> Iterator[float]:
    """Avalanche's samples a second, one epoch at each `next`; nothing where it isn't installed."""
    here = importlib.util.find_spec("avalanche") is not None
    interpreter = sys.executable if here else os.environ.get("MIRO_BENCH_PYTHON")
    if not interpreter:
        return
    script = Path(__file__).with_name("avalanche_peer.py")
    command = [interpreter, "-W", "ignore", str(script), str(PER_CLASS), str(ROUNDS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    ) as process:
        assert process.stdin and process.stdout
        try:
            for _ in range(ROUNDS):
                process.stdin.write("\n")
                process.stdin.flush()
                for line in process.stdout:
                    if line.startswith("speed "):
                        yield float(line.split()[1])
                        break
                else:
                    raise RuntimeError(f"{script.name} ended early; its message is above.")
        finally:
            process.kill()
