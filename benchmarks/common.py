"""What the benchmarks share: rows of the result table, a random data set, an experiment in its second task."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from mirolib import Dataset, load_dataset
from mirolib.energy.sensors.model import machine_name
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.settings import RunSettings

COLUMNS = ["what", "value", "unit", "bar", "met"]


def row(
    what: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> dict[str, object]:
    """One row of a result table; `met` is empty where there is no bar or no value."""
    bounds = [f"{sign} {bar:g}" for sign, bar in ((">=", at_least), ("<=", at_most)) if bar is not None]
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    judged = bool(bounds) and not np.isnan(value)
    return {
        "what": what,
        "value": value,
        "unit": unit,
        "bar": ", ".join(bounds),
        "met": ("yes" if met else "NO") if judged else "",
    }


def table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows as a result table."""
    return pd.DataFrame(rows, columns=COLUMNS)


def seconds(action: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def random_images(per_class: int, classes: int = 10) -> Dataset:
    """CIFAR-shaped random images with crop and mirror; `per_class` training samples of each class."""
    rng = np.random.default_rng(0)
    labels, test_labels = np.repeat(np.arange(classes), per_class), np.arange(classes)
    images, test_images = (
        rng.integers(0, 256, (len(part), 3, 32, 32), dtype=np.uint8) for part in (labels, test_labels)
    )
    dataset = Dataset.from_arrays(images, labels, test_images, test_labels)
    return replace(dataset, spec=replace(dataset.spec, crop_padding=4, flip=True))


@contextmanager
def second_task(dataset: Dataset | str, **settings: object) -> Iterator[Experiment]:
    """An experiment whose second task has just been received; swap ratio 1, so every replayed sample is exchanged.

    Args:
        dataset: A data set, or the name of one.
        **settings: Fields of `RunSettings`.
    """
    dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
    chosen = {
        "controller": "fixed",
        "tasks": 2,
        "swap_ratio": 1.0,
        "lr": 0.01,
        "device": "cpu",
        "energy": "none",
    } | settings
    with TemporaryDirectory(prefix="miro-bench-") as store:
        experiment = Experiment.build(RunSettings(**chosen), store, dataset)  # type: ignore[arg-type]
        with experiment.memory as memory:
            for task in (experiment.stream[0], experiment.stream[1]):
                memory.receive(task)
                experiment.learner.grow(task.classes, task.dataset_labels)
                if task.index == 0:
                    memory.retain(task)
            yield experiment


def machine() -> str:
    """Processor, cores and versions, in one line."""
    return (
        f"{machine_name()}, "
        f"{torch.get_num_threads()} PyTorch threads; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, NumPy {np.__version__}; "
        f"load average at the start {os.getloadavg()[0]:.1f}."
    )
