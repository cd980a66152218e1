"""Trials: short trainings of clones, the paper's way of profiling."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from mirolib.base.errors import InputError
from mirolib.controller.profiler import Profiler, ProfileRequest
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner, train_epoch
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory


@dataclass(frozen=True)
class TrialProfiler(Profiler):
    """Short trainings on a share of the data from one shared checkpoint (paper: section on profiling, Fig. 8).

    A clone of the live model is trained for `checkpoint_epochs` on the middle candidate's share of the data; each
    candidate goes on from there for `trail_epochs` with its own share, swapping included, and is scored on the
    validation samples. A share never leaves a class without a sample.

    Attributes:
        data_share: Share of each buffer's samples that a trial trains on, in (0, 1].
        checkpoint_epochs: Epochs that all candidates have in common.
        trail_epochs: Epochs of each candidate; None for as many as the task's training has.
    """

    data_share: float = 0.05
    checkpoint_epochs: int = 10
    trail_epochs: int | None = 5
    name = "trial"

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether each candidate is trained just as the task will be."""
        return self.data_share == 1 and not self.checkpoint_epochs and self.trail_epochs is None

    def __post_init__(self) -> None:
        if not 0 < self.data_share <= 1:
            raise InputError(f"data_share is {self.data_share}; choose a value above 0, up to 1.")
        if self.checkpoint_epochs < 0 or (self.trail_epochs is not None and self.trail_epochs < 1):
            raise InputError("A trial needs checkpoint_epochs of 0 or more and trail_epochs of 1 or more.")

    def scores(self, request: ProfileRequest) -> np.ndarray:
        """Validation accuracy of each candidate's clone."""
        learner, live = request.learner, request.memory
        trail = int(learner.epochs if self.trail_epochs is None else min(self.trail_epochs, learner.epochs))
        ahead = min(self.checkpoint_epochs, int(learner.epochs) - trail)  # beyond a task's epochs its rate is zero
        seeds = iter(np.random.SeedSequence(request.seed).generate_state(2 * len(request.candidates) + 2).tolist())
        scaled = [self._scaled(request, config) for config in request.candidates]
        # A model with dropout draws from PyTorch's own generator, which must be left as it was.
        with torch.random.fork_rng(devices=[learner.device] if learner.device.type == "cuda" else []):
            checkpoint = learner.clone(next(seeds))
            if ahead:
                train_on_copy(checkpoint, live, next(seeds), scaled[len(scaled) // 2], ahead)
            found = []
            for config in scaled:
                clone = checkpoint.clone(next(seeds))
                train_on_copy(clone, live, next(seeds), config, trail, request.task)
                found.append(request.accuracy(clone))
        return np.array(found)

    def _scaled(self, request: ProfileRequest, config: MemoryConfig) -> MemoryConfig:
        """The candidate's sizes times the share, one sample a class at least."""
        new, old = len(request.task.classes), max(1, len(request.memory.episodic_memory.classes))
        stream_size = min(config.stream_size, max(new, round(self.data_share * config.stream_size)))
        episodic_size = min(config.episodic_size, max(old, round(self.data_share * config.episodic_size)))
        return replace(config, stream_size=stream_size, episodic_size=episodic_size)


def train_on_copy(
    learner: Learner, live: TieredMemory, seed: int, config: MemoryConfig, epochs: float, finished: Task | None = None
) -> None:
    """Trains a clone on a copy of the memory; with `finished`, that task's training is over then."""
    with live.fork(seed) as memory:
        memory.resize(config)
        while learner.epochs_done < epochs:
            train_epoch(learner, memory, end=learner.round_end(memory))
        memory.settle()
        if finished is not None:
            learner.method.finish(learner, finished, memory)


def full_training() -> TrialProfiler:
    """The oracle's profiler: every candidate is trained on all of its data, as long as the task's training is."""
    return TrialProfiler(data_share=1.0, checkpoint_epochs=0, trail_epochs=None)
