"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable

from mirolib.learning.bic import BiC
from mirolib.learning.learner import ExperienceReplay, Finetuning, Method


def _bias_correction(loss_name: str) -> Method:
    """BiC, whose loss is its paper's; the name given must be one all the same."""
    ExperienceReplay(loss_name)
    return BiC()


METHODS: dict[str, Callable[[str], Method]] = {
    "er": ExperienceReplay,
    "finetuning": Finetuning,
    "bic": _bias_correction,
}
