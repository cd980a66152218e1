"""The marginal cost of swapping: the same epoch with and without exchanges, metered in pairs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from mirolib.data import Dataset
from mirolib.energy import Difference, EnergyMeter, Work, compare
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.settings import RunSettings
from mirolib.learning.learner import train_epoch


def swapping_cost(
    settings: RunSettings,
    meter: EnergyMeter | None = None,
    *,
    dataset: Dataset | None = None,
    epochs: int = 1,
    pairs: int = 8,
    progress: bool = True,
) -> Difference:
    """What swapping costs in the second task: epochs with every replayed sample exchanged against epochs with none.

    Args:
        settings: The experiment; sizes come from it, or from its preset. Its controller and swap ratio play no part.
        meter: Measures; by default what the settings' `energy` says.
        dataset: The data set itself, where it is the user's own.
        epochs: Epochs of one metered run, enough of them for the sensor (seconds).
        pairs: Pairs of metered runs.
        progress: Whether to show a progress bar.

    Raises:
        InputError: See `compare` and `Experiment.build`.
    """
    settings = replace(settings, controller="fixed", memory="tiered", swap_ratio=1.0)
    if meter is not None:
        settings = replace(settings, energy="none")
    with tempfile.TemporaryDirectory(prefix="miro-") as store:
        experiment = Experiment.build(settings, store, dataset)
        meter = meter or experiment.meter
        meter.watch(lambda: Work(cpu_s=time.process_time()), experiment.learner.synchronise)
        with experiment.memory as memory, closing(experiment.meter.source):
            learner, config = experiment.learner, memory.config
            first, second = list(experiment.stream)[:2]
            memory.receive(first)
            learner.grow(first.classes)
            train_epoch(learner, memory)
            memory.retain(first)
            memory.receive(second)
            learner.grow(second.classes)

            def run(swap_ratio: float) -> Callable[[], None]:
                def action() -> None:
                    memory.resize(replace(config, swap_ratio=swap_ratio))
                    for _ in range(epochs):
                        train_epoch(learner, memory)
                    memory.settle()

                return action

            return compare(meter, run(1.0), run(0.0), names=("swapping", "no swapping"), pairs=pairs, progress=progress)
