"""Writes docs/generality.md and its picture from what `generality` and `oracle` left under results/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import generality, oracle
from benchmarks.common import machine
from benchmarks.generality import SETS, SINGLE_LEVEL, TIERED
from benchmarks.presets import percent, read
from mirolib import plots

PAGE = Path(__file__).parents[1] / "docs" / "generality.md"
SEEDS = (13, 14, 15)


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a setting, in the order of the plan."""
    order = [*dict.fromkeys(runs["setting"])]
    by_setting = runs.groupby(pd.Categorical(runs["setting"], order), observed=True)
    return pd.DataFrame(
        {
            "episodic memory": by_setting["episodic_size"].first().map(lambda size: "" if pd.isna(size) else int(size)),
            "average incremental accuracy": percent(by_setting["average_incremental_accuracy"]),
            "final accuracy": percent(by_setting["final_accuracy"]),
            "cost, sample visits": by_setting["learning_work"].mean().round(0).astype(int),
            "seeds": by_setting["seed"].nunique(),
        }
    ).rename_axis("setting")


def gains(runs: pd.DataFrame) -> str:
    """What storage below the small episodic memory brings, and whether that is beyond the spread."""
    final = runs.pivot(index="seed", columns="setting", values="final_accuracy") * 100
    pairs = final[[f"small memory, {SINGLE_LEVEL}", f"small memory, {TIERED}"]].dropna()
    single, tiered = pairs.iloc[:, 0], pairs.iloc[:, 1]
    gain, spread = tiered - single, max(single.std(), tiered.std())
    verdict = "beyond" if gain.mean() > spread else "NOT beyond"
    return (
        f"Storage below the small episodic memory brings {gain.mean():+.1f} points of final accuracy (by seed "
        f"{', '.join(f'{value:+.1f}' for value in gain)}), {verdict} the larger of the two standard deviations, "
        f"{spread:.1f}."
    )


def oracle_table() -> pd.DataFrame:
    """Miro's choices against the oracle's, a row a data set."""
    rows = []
    for name in SETS:
        table = read(oracle.FOLDER, name, SEEDS)
        if not len(table):
            continue
        pairs = {key: oracle.ratios(task) for key, task in table.groupby(["seed", "task"])}
        shares = pd.DataFrame.from_dict(pairs, orient="index", columns=["Miro", "ceiling"])
        lost, dearer = np.mean([oracle.differences(task) for _, task in table.groupby(["seed", "task"])], axis=0)
        probed = shares[[task > 0 for _, task in pairs]]
        rows.append(
            {
                "data set": name,
                "seeds": table["seed"].nunique(),
                "choices": len(shares),
                "Miro's utility ÷ the oracle's, mean": shares["Miro"].mean(),
                "median": shares["Miro"].median(),
                "mean without the first tasks": probed["Miro"].mean(),
                "points lost, mean": lost,
                "cost ÷ the oracle's, geometric mean": np.exp(dearer),
                "ceiling, mean": shares["ceiling"].mean(),
                "ceiling without the first tasks": probed["ceiling"].mean(),
            }
        )
    return pd.DataFrame(rows).set_index("data set") if rows else pd.DataFrame()


def report() -> None:
    """Writes the page."""
    joined, parts = [], [_INTRODUCTION, f"Machine: {machine()}"]
    for name in SETS:
        runs = read(generality.FOLDER, name, SEEDS)
        if len(runs):
            joined.append(runs)
            parts += [f"## {name}", runs_table(runs).to_markdown(), gains(runs)]
    picture = plots.accuracy_over_relative_cost(pd.concat(joined), "setting", f"small memory, {TIERED}")
    picture.update_layout(paper_bgcolor="white", plot_bgcolor="white", font_color="black", width=1100, height=600)
    picture.write_image(PAGE.with_name("generality.png"), scale=2)
    parts += ["![accuracy over work of every setting and data set](generality.png)", _ORACLE]
    parts += [oracle_table().round(3).to_markdown()]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_INTRODUCTION = f"""# Five data sets

Written by `python -m benchmarks.generality_report`; the method stands at the head of `benchmarks/generality.py`.
Accuracy in percent on the test sets, mean ± standard deviation over the seeds {", ".join(map(str, SEEDS))}, on which
nothing was set; but the probe was set anew, on held-out training samples of other seeds (see
[controller](miro_2023.md)), after earlier tables of these seeds had been seen. The test samples are the same for all
seeds, and the image sets were given 60 epochs after test results of other seeds had shown no gain from swapping at 15;
everything else was set on validation samples (see [presets](presets.md)). Where column `seeds` says fewer than three,
or a setting is absent, the rest has not been run; `make generality` goes on with it."""
_ORACLE = f"""## Choices against an oracle's

{(oracle.__doc__ or "").partition(chr(10) * 2)[2].strip()}

Measured by `python -m benchmarks.oracle DATASET SEED [TASKS]`."""


if __name__ == "__main__":
    report()
