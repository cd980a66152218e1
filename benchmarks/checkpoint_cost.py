"""What checkpoints cost: `python -m benchmarks.checkpoint_cost`.

Runs on digits and, where MIRO_DATA names its folder, on CIFAR-100, in their preset `small` but for two tasks and, on
CIFAR-100, ten epochs, once with the default interval and once with a checkpoint after each epoch. Time is that of the
ledger's window `checkpoint`, next to all others but `evaluate`; size is that of the newest file, next to the bytes of
weights and momentum and of the ids that it holds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd

from mirolib import RecordedRun, RunSettings, available_datasets
from mirolib.energy import in_windows
from mirolib.experiment.checkpoint import read_checkpoint


def measure(settings: RunSettings, minutes: float) -> dict[str, object]:
    """One run's row."""
    with tempfile.TemporaryDirectory(prefix="miro-") as folder:
        run = RecordedRun(settings, results=folder, run_id="one", keep_store=True, checkpoint_minutes=minutes)
        for _ in run.steps(progress=False):
            pass
        readings = run.experiment.meter.readings
        file = max((Path(folder) / "10_run" / "one" / "checkpoint").iterdir())
        state = read_checkpoint(file)
        saved = in_windows(readings, "checkpoint")
        rest_s = sum(r.duration_s for r in readings if r.window not in ("checkpoint", "evaluate", "idle"))
        weights = [*state["learner"]["backbone"].values(), *state["learner"]["head"].values()]
        tensors = weights + [buffer for buffer in state["learner"]["momentum"] if buffer is not None]
        ids = [value for value in state["memory"].values() if hasattr(value, "nbytes")]
        return {
            "data set": settings.dataset,
            "a checkpoint after": "each task" if minutes else "each epoch",
            "checkpoints": len(saved),
            "ms each": round(1000 * sum(r.duration_s for r in saved) / len(saved), 1),
            "share of the run": f"{sum(r.duration_s for r in saved) / rest_s:.2%}",
            "size, bytes": file.stat().st_size,
            "weights and momentum, bytes": sum(tensor.nbytes for tensor in tensors),
            "ids, bytes": sum(value.nbytes for value in ids),
        }


def main() -> None:
    """Prints the table."""
    runs = [RunSettings(tasks=2, energy="none")]
    if "cifar100" in available_datasets():
        runs.append(RunSettings(dataset="cifar100", tasks=2, epochs=10, energy="none"))
    rows = [measure(settings, minutes) for settings in runs for minutes in (5.0, 0.0)]
    sys.stdout.write(pd.DataFrame(rows).to_markdown(index=False) + "\n")


if __name__ == "__main__":
    main()
