"""The cell magic `%%energy`: what the cell below it costs."""

from functools import cache
from typing import Any

from mirolib.base.errors import InputError
from mirolib.energy.ledger import Reading
from mirolib.energy.meter import EnergyMeter


@cache
def cell_meter() -> EnergyMeter:
    """The meter that all cells share, made at the first use."""
    meter = EnergyMeter.auto()
    meter.watch(synchronise=_synchronise)
    return meter


def _synchronise() -> None:
    import torch

    if torch.cuda.is_initialized():  # starting CUDA only to wait for it would take seconds
        torch.cuda.synchronize()


def measure_cell(shell: Any, line: str, cell: str) -> Reading:
    """Runs a cell in IPython's shell and measures it; `line` is what stands behind `%%energy`, a name for the activity.

    The notebook shows the reading as a badge; it is kept as `_energy` too.
    """
    if len(line.split()) > 1:
        raise InputError(f"%%energy takes one word, a name for the activity; got {line.strip()!r}.")
    with cell_meter().window(line.strip() or "cell") as window:
        shell.run_cell(cell).raise_error()
    shell.user_ns["_energy"] = window.reading
    return window.reading


def register(shell: Any) -> None:
    """Makes the magic known to IPython; `%load_ext mirolib` calls it."""
    shell.register_magic_function(lambda line, cell: measure_cell(shell, line, cell), "cell", "energy")
