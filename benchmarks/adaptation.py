"""Adapting to resources: `python -m benchmarks.adaptation`, CIFAR-100 (preset small) in MIRO_DATA, some twenty minutes.

Runs of the controller with the same work (an energy budget of a quarter of the preset's), three seeds: undisturbed with
as little RAM as it takes by itself; under a memory budget that falls to a quarter in the middle of a task and comes
back two tasks later; with reads from storage throttled for two tasks; with a cold page cache and two real competitors
that write, sync and read the same disk meanwhile; and with budget and competitors at once. Fixed sizes with full
swapping stand beside the disturbed ones. Reported are the rounds in which the buffers' bytes were over the budget, the
share of training's time spent waiting for storage, the lowest swap ratio, slots at the end, and final accuracy. Energy
isn't measured. What benchmarks/measured/adaptation.csv has is kept; the page is written anew each time.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.common import machine
from benchmarks.controller import epoch_visits
from mirolib import RunResult, RunSettings, load_dataset, run_experiment
from mirolib.experiment.experiment import Disturbance
from mirolib.experiment.injectors import competing, throttling

SEEDS = (330, 331, 332)
ROOT = Path(__file__).parents[1]
PAGE, FILE = ROOT / "docs" / "adaptation.md", ROOT / "benchmarks" / "measured" / "adaptation.csv"
SHARE, RATE = 0.25, 5e5
"""Work as a share of the preset's, and the throttle in bytes a second: some 160 samples."""


def cases(seed: int) -> dict[str, tuple[RunSettings, Disturbance | None]]:
    """Settings and disturbance by name."""
    dataset = load_dataset("cifar100", preset="small")
    preset, each = dataset.spec.preset(), epoch_visits(dataset.spec.preset().tasks)
    samples = 0.9 * len(dataset.train) / preset.tasks
    epochs = SHARE * preset.epochs
    objective = f"energy_budget={epochs * samples * each.sum():.0f} visits"
    base = RunSettings("cifar100", preset="small", seed=seed, energy="none", objective=objective)
    fixed = replace(
        base, controller="fixed", epochs=epochs, swap_ratio=1.0, stream_size=96, episodic_size=96, objective="knee"
    )
    first, last = 2 * epochs, 4 * epochs
    falls = f"0: 600 samples, {first + epochs / 2:g}: 150 samples, {last + epochs / 2:g}: 600 samples"
    throttle, compete = throttling(first, last, RATE), competing(first, last, 2)
    budget = replace(base, memory_budget=falls)
    return {
        "undisturbed": (base, None), "undisturbed, fixed": (fixed, None),
        "budget of 600 samples": (replace(base, memory_budget="600 samples"), None),
        "budget falls to a quarter": (budget, None),
        "throttle": (base, throttle), "throttle, fixed": (fixed, throttle),
        "competitors": (base, compete), "competitors, fixed": (fixed, compete),
        "budget falls, competitors": (budget, compete),
    }  # fmt: skip


def facts(result: RunResult) -> dict[str, float]:
    """What is reported of a run."""
    epochs, events = result.epochs, result.events
    sizes = events.reindex(columns=["memory_bytes", "memory_budget_bytes"]).astype(float)  # no budget is NaN
    over = sizes["memory_bytes"] > sizes["memory_budget_bytes"]
    return {
        "final accuracy, %": 100 * float(result.summary["final_accuracy"]),  # type: ignore[arg-type]
        "rounds over the budget": float(over.sum()),
        "waiting, % of training": 100 * epochs["stall_s"].sum() / epochs["duration_s"].sum(),
        "waited, s": epochs["stall_s"].sum(),
        "lowest swap ratio": epochs["swap_ratio"].min(),
        "slots at the end": float(epochs[["stream_size", "episodic_size"]].iloc[-1].sum()),
        "visits": float(result.summary["train_visits"]),  # type: ignore[arg-type]
    }


def main() -> None:
    """Runs what is missing and writes docs/adaptation.md."""
    rows = pd.read_csv(FILE).to_dict("records") if FILE.exists() else []
    for seed in SEEDS:
        for name, (settings, disturb) in cases(seed).items():
            if any((row["seed"], row["case"]) == (seed, name) for row in rows):
                continue
            with tempfile.TemporaryDirectory(dir=ROOT / "results") as results:  # on a disk, which /tmp may not be
                result = run_experiment(settings, results=results, disturb=disturb, progress=False)
            rows.append({"seed": seed, "case": name, **facts(result)})
            pd.DataFrame(rows).to_csv(FILE, index=False)
    table = pd.DataFrame(rows)
    means = table.drop(columns="seed").groupby("case", sort=False).agg(["mean", "std"])
    shown = pd.DataFrame({
        name: [f"{mean:,.2f} ± {deviation:,.2f}" for mean, deviation in means[name].to_numpy()]
        for name in means.columns.levels[0]
    }, index=means.index)  # fmt: skip
    text = [
        "# Adapting to resources",
        " ".join((__doc__ or "").split()),
        f"Machine: {machine()}",
        f"Means and standard deviations over {table['seed'].nunique()} seeds:",
        shown.to_markdown(),
    ]
    PAGE.write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
