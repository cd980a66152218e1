"""Runs on disk: folders, recording, launching, sweeps, and the comparison of what they left."""

from mirolib.base.faces import wear as _wear

__all__ = _wear(__name__)
