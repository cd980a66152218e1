"""New persons, the same activities: `python -m benchmarks.domain_drift [SEEDS]`, in some minutes, writes its page.

DSADS by subject, a person a task, with the preset `small`, three epochs a task and 57 + 60 of its 1,672 samples in
RAM: tiered memory, a single-level memory of the same size, and fine-tuning, each balanced by class; and tiered memory
balanced by class and task. Accuracy is that on test samples of all persons so far; nothing was chosen on it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student

from mirolib import RunSettings, run_all

ROOT = Path(__file__).parents[1]
PAGE, TABLE = ROOT / "docs" / "domain_drift.md", ROOT / "docs" / "tables" / "domain_drift.csv"
WAYS: dict[str, dict[str, Any]] = {
    "tiered": {},
    "tiered, by class and task": {"balance": "class-and-task"},
    "single-level": {"memory": "single-level", "swap_ratio": 0.0},
    "fine-tuning": {"method": "finetuning"},
}
COMMON: dict[str, Any] = {
    "dataset": "dsads?group=subject", "stream": "domain-incremental", "controller": "fixed", "epochs": 3,
    "stream_size": 60, "episodic_size": 57, "energy": "none", "device": "cpu",
}  # fmt: skip
MEASURES = {
    "overall_accuracy": "accuracy, %", "average_incremental_accuracy": "average incremental, %",
    "forgetting": "forgetting, points", "backward_transfer": "backward transfer, points",
    "forward_transfer": "forward transfer, points",
}  # fmt: skip
INTRODUCTION = """# New persons: DSADS by subject

Written by `python -m benchmarks.domain_drift` ([every run](tables/domain_drift.csv)). Eight tasks bring the same 19
activities, each of another person. 60 + 57 samples are in RAM, three a class in the episodic memory; work and mix are
the same in every row but that of fine-tuning, which replays nothing. Accuracy is that on test segments of all eight
persons after the last task; ± is the standard deviation over {seeds} seeds, differences to `tiered` are in points,
paired by seed, with 95 % (Student's t). Segments of 5 s do not overlap, but neighbours are of one recording, and the
test has every fifth: new persons are told apart here, not new recordings of a person.

Forward transfer is accuracy on a person who has not been seen yet, less chance; see
[streams](howto/streams.md) for what the measures mean."""


def measure(seeds: int) -> pd.DataFrame:
    """A row a run."""
    settings = [RunSettings(**{**COMMON, **way, "seed": seed}) for seed in range(seeds) for way in WAYS.values()]
    return run_all(settings).assign(way=[*WAYS] * seeds)[["way", "seed", *MEASURES, "learning_work"]]


def page(runs: pd.DataFrame) -> str:
    """What the runs say."""
    rows, base = [], runs[runs["way"] == "tiered"].set_index("seed")
    for way, part in runs.groupby("way", sort=False):
        difference = 100 * (part.set_index("seed")["overall_accuracy"] - base["overall_accuracy"])
        half = student.ppf(0.975, len(part) - 1) * difference.std() / len(part) ** 0.5
        values = {title: 100 * part[name] for name, title in MEASURES.items()}
        said = {title: f"{one.mean():.1f} ± {one.std():.1f}" for title, one in values.items()}
        rows.append({"memory": way, **said, "against tiered": f"{difference.mean():+.1f} ± {half:.1f}"})
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"{INTRODUCTION.format(seeds=runs['seed'].nunique())}\n\n{table}\n"


if __name__ == "__main__":
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    found.to_csv(TABLE, index=False)
    PAGE.write_text(page(found), encoding="utf-8")
