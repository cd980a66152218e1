"""What is watched on a dashboard, and waiting for it."""

import time
from dataclasses import replace

from samples import make_dataset

from mirolib import RunSettings

PATIENCE_S = 120
DATASET = make_dataset()
SETTINGS = RunSettings(tasks=3, epochs=3, energy="none", controller="miro-2023", selector="highest-accuracy")
LONG = replace(SETTINGS, epochs=1000)
BY_TASK = RunSettings(
    tasks=3, epochs=30, energy="none", objective="accuracy=0.2", batch_size=4, validation_share=0.5, round_steps=5
)


def until(condition):
    """Waits for something another thread does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)
