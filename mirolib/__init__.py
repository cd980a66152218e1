"""The Miro workbench: cost-effective on-device continual learning over a memory hierarchy."""

import sys as _sys

from mirolib.base.faces import wear as _wear
from mirolib.base.moved import MovedFinder as _MovedFinder

__all__ = _wear(__name__)

_sys.meta_path.insert(0, _MovedFinder())


def load_ipython_extension(shell: object) -> None:
    """Adds the cell magic `%%energy`: `%load_ext mirolib`."""
    from mirolib.energy.magic import register

    register(shell)
