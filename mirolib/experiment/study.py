"""What the study notebooks share: values checked before anything is trained, and many runs one after another."""

import logging
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data import Dataset
from mirolib.energy import Difference, EnergyMeter, compare
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.settings import RunSettings
from mirolib.experiment.summary import concerns, summarise
from mirolib.learning.learner import train_epoch

logger = logging.getLogger(__name__)

_STUDIED: dict[type, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number, 1 or more", lambda value: isinstance(value, Integral) and int(value) >= 1),
    float: ("a number from 0 to 1", lambda value: isinstance(value, Real) and 0 <= float(value) <= 1),
    str: ("a name", lambda value: isinstance(value, str) and bool(value)),
    tuple: ("a pair of sizes", lambda value: isinstance(value, list | tuple) and len(value) == 2),
}


def check_study(kind: type, *, least: int = 1, **values: object) -> None:
    """Checks what a study is to compare, values or lists of at least so many different ones, before it is trained.

    Each is of its kind: `int` (1 or more), `float` (0 to 1), `str` (a name) or `tuple` (a pair of sizes). There is an
    `InputError` if a value is of another kind, or a list too short.
    """
    what, fits = _STUDIED[kind]
    several = f"a list of {least} or more different values, each {what}"
    for name, value in values.items():
        entries = value if isinstance(value, list) else [value]
        enough = entries is not value or len({str(entry) for entry in entries}) >= least
        if not enough or not all(fits(entry) and not isinstance(entry, bool) for entry in entries):
            raise InputError(f"{name} is {value!r:.200}; give {several if entries is value else what}.")


def run_all(
    settings: Iterable[RunSettings],
    *,
    dataset: Dataset | None = None,
    save: Callable[[pd.DataFrame], object] | None = None,
    by_task: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Runs settings one after another in this process, each on a store of its own that is deleted afterwards.

    `save` is called after each run with the rows so far, so that an error in one does not lose the others.

    Returns:
        One row a run, or, `by_task`, a row a task: its settings, then what `summarise` says of the run up to there.
    """
    rows = []
    for one in tqdm(list(settings), unit="run", disable=not progress):
        with tempfile.TemporaryDirectory(prefix="miro-") as store:
            experiment = Experiment.build(one, store, dataset)
            records = list(experiment.run(progress=False))
            for concern in concerns(records):
                logger.warning("%s", concern)
            for done in range(1 if by_task else len(records), len(records) + 1):
                rows.append(asdict(experiment.settings) | summarise(records[:done]))
        if save is not None:
            save(pd.DataFrame(rows))
    return pd.DataFrame(rows)


def swapping_cost(
    settings: RunSettings,
    meter: EnergyMeter | None = None,
    *,
    dataset: Dataset | None = None,
    epochs: int = 1,
    pairs: int = 8,
    progress: bool = True,
) -> Difference:
    """What swapping costs in the second task: epochs with all exchanged that can be, against epochs with nothing.

    Sizes come from the settings, or from their preset; their controller and swap ratio play no part. Without a meter,
    what their `energy` says measures. A metered run has so many epochs, or as often so many as the sensor needs.

    Raises:
        InputError: See `compare` and `Experiment.build`.
    """
    energy = settings.energy if meter is None else "none"
    settings = replace(settings, controller="fixed", memory="tiered", swap_ratio=1.0, energy=energy, energy_budget=None)
    with tempfile.TemporaryDirectory(prefix="miro-") as store:
        experiment = Experiment.build(settings, store, dataset)
        meter = meter or experiment.meter
        meter.watch(synchronise=experiment.learner.synchronise)
        with experiment.memory as memory, closing(experiment.meter.source):
            learner, config = experiment.learner, memory.config
            for task in list(experiment.stream)[:2]:
                memory.receive(task)
                learner.grow(task.classes, task.dataset_labels)
                if task.index == 0:
                    train_epoch(learner, memory)
                    memory.retain(task)

            def run(swap_ratio: float) -> None:
                memory.resize(replace(config, swap_ratio=swap_ratio))
                for _ in range(epochs):
                    train_epoch(learner, memory)
                memory.settle()

            swapping, without = partial(run, 1.0), partial(run, 0.0)
            return compare(meter, swapping, without, names=("swapping", "no swapping"), pairs=pairs, progress=progress)
