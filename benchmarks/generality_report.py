"""Writes docs/generality.md and its picture from what `generality`, `presets` and `oracle` left under results/."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks import generality, oracle, presets
from benchmarks.common import machine
from benchmarks.generality import SETS, SINGLE_LEVEL, TIERED
from mirolib import plots
from mirolib.datasets import LOADERS

PAGE = Path(__file__).parents[1] / "docs" / "generality.md"
SEEDS = (10, 11, 12)


def read(folder: Path, name: str, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The tables of a data set for some seeds, joined; without rows where there are none."""
    files = [folder / f"{name}-{seed}.csv" for seed in seeds]
    found = [pd.read_csv(file) for file in files if file.exists()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def percent(grouped: pd.api.typing.SeriesGroupBy) -> pd.Series:
    """Mean ± standard deviation in percent; the mean alone for one run."""
    mean, deviation = 100 * grouped.mean(), 100 * grouped.std()
    return mean.map("{:.1f}".format) + deviation.map(lambda value: "" if pd.isna(value) else f" ± {value:.1f}")


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


def presets_table(name: str) -> pd.DataFrame:
    """Candidates for a preset by validation accuracy."""
    seeds = tuple(int(file.stem.split("-")[-1]) for file in sorted(presets.FOLDER.glob(f"{name}-*.csv")))
    runs = read(presets.FOLDER, name, seeds)
    if not len(runs):
        return runs
    by_candidate = runs.groupby(["candidate", "memory"], sort=False)
    columns = {"final accuracy": "final", "average incremental": "incremental"}
    found = {
        f"{what}, {memory}": percent(by_candidate[column]).xs(memory, level="memory")
        for what, column in columns.items()
        for memory in ("single-level", "tiered")
    }
    one = runs.groupby("candidate", sort=False)
    visits = one["visits"].first()
    return pd.DataFrame(found).assign(**{"sample visits": visits, "seeds": one["seed"].nunique()}).loc[visits.index]


def oracle_table() -> pd.DataFrame:
    """Miro's choices against the oracle's, a row a data set."""
    rows = []
    for name in SETS:
        table = read(oracle.FOLDER, name, SEEDS)
        if not len(table):
            continue
        ratios = pd.Series({key: oracle.ratio(task) for key, task in table.groupby(["seed", "task"])})
        probed = ratios[ratios.index.get_level_values(1) > 0]
        rows.append(
            {
                "data set": name,
                "seeds": table["seed"].nunique(),
                "choices": len(ratios),
                "utility ÷ the oracle's, mean": ratios.mean(),
                "median": ratios.median(),
                "least": ratios.min(),
                "mean without the first tasks": probed.mean(),
                "as the oracle, %": 100 * (ratios == 1).mean(),
            }
        )
    return pd.DataFrame(rows).set_index("data set") if rows else pd.DataFrame()


def small_presets() -> pd.DataFrame:
    """What the presets are, a row a data set."""
    columns = ("classes", "per_class", "image_size", "tasks", "model", "epochs", "batch_size", "lr", "stream_size",
               "episodic_size")  # fmt: skip
    rows = {name: asdict(LOADERS[name][0].preset()) for name in SETS}
    return (
        pd.DataFrame(rows)
        .T.loc[:, list(columns)]
        .replace({"image_size": {0: "as it is"}})
        .replace(0, "all")
        .rename_axis("data set")
    )


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
    parts += [oracle_table().round(3).to_markdown(), _PRESETS, small_presets().to_markdown(), _TUNING]
    parts += [f"**{name}**\n\n{table.to_markdown()}" for name in SETS if len(table := presets_table(name))]
    if len(bic := presets_table("bic")):
        parts += [_BIC, bic.to_markdown()]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_INTRODUCTION = """# Five data sets

Written by `python -m benchmarks.generality report`; the method stands at the head of `benchmarks/generality.py`.
Accuracy in percent on the test sets, mean ± standard deviation over the seeds 10, 11 and 12, which were not looked at
before the presets stood."""
_ORACLE = f"""## Choices against an oracle's

{(oracle.__doc__ or "").partition(chr(10) * 2)[2].strip()}

Measured by `python -m benchmarks.oracle DATASET SEED [TASKS]`."""
_PRESETS = """## The presets, and how they were set

The test samples were looked at before: an earlier version of this page, on seeds 0 to 2, had shown that swapping
brought nothing with 15 epochs (12 on Tiny-ImageNet); the image sets were then given 60, after a trial on the test sets
with seed 5, and on ImageNet it still brought nothing. What has changed since was chosen on validation samples, with
seeds that are not reported above:

- ImageNet: at a learning rate of 0.1 the network ends at chance, whatever the memory. At 0.03 it learns; swapping needs
  120 epochs to pay. Images of 32 pixels instead of 64 pay for the longer training.
- CIFAR-100 and Tiny-ImageNet: half of the 60 epochs are enough for swapping to pay, in half the time.
- Sensors: with 20 epochs instead of 10 swapping brings more than twice as much.
- UrbanSound8K is as it was."""
_TUNING = """Candidates, by `python -m benchmarks.presets DATASET SEED`; accuracy on a fifth of the training samples,
which is held out, with the small episodic memory:"""
_BIC = """## How much BiC's distillation weight falls under swapping

`BiC.swap_factor`, by `python -m benchmarks.presets bic SEED`: CIFAR-100, the preset's episodic memory, full swapping,
accuracy on a fifth of the training samples, which is held out."""
