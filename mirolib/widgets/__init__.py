"""The live dashboard: `Dashboard`."""

from mirolib.widgets.dashboard import Dashboard

__all__ = ["Dashboard"]
