"""Writes docs/first_observation.md and its picture from the last finished `make study`: `make docs`."""

import sys
from pathlib import Path

import pandas as pd
from plotly.subplots import make_subplots

from mirolib import load_runs, plots

HERE = Path(__file__).parent
TEXT = """# The first observation, on digits

Regenerate with `make study docs` (about eight minutes on two cores). Data: scikit-learn's 1,797 digits, five tasks of
two classes, small CNN, stream buffer 250, {epochs} epochs a task, batch 16, mean of {seeds} seeds ± standard
deviation. Numbers are average test accuracy in percent after the last task; the test set was used for nothing else
(the learning rate was chosen on validation samples). Energy: none measured; tiered and single-level runs of a size
train on the same number of samples up to 0.1 %. A swap ratio of 0 is the single-level memory.

![accuracy over memory size and over swap ratio](first_observation.png)

## Single-level episodic memory against tiered memory (swap ratio 1), by episodic size

{sizes}

The paper's Fig. 2c (CIFAR-100, read off the figure): 1K 23 against 43, 5K 47 against 64, 30K 67 against 70. Same
shape: the smaller the memory, the more storage below it gives; the gap closes as the memory grows.

## Accuracy over swap ratio

{ratios}

Of what full swapping adds, a ratio of 0.2 gets {knee}. The paper's Fig. 6 (CIFAR-100, ER): 34 at 0, 48 at 0.05, 51.5
at 0.1, 54.5 at 0.2, 55.5 at 1: 95 % of the gain at 0.2. Why less here: what counts is how many samples a place in
RAM gets to hold, about ratio x epochs, and the paper trains 70 epochs a task. With 70 epochs (20 samples in RAM, mean
of {long_seeds} seeds; the second half of `make study`) the ratios 0, 0.2 and 1 reach {long}: {long_knee} of the gain
at 0.2.
"""


def cells(rows: pd.core.groupby.SeriesGroupBy) -> pd.Series:
    """Mean ± standard deviation in percent."""
    return (100 * rows.mean()).map("{:.1f}".format) + " ± " + (100 * rows.std()).map("{:.1f}".format)


def main() -> None:
    """Writes both files."""
    runs = load_runs(notebook="13_swap_ratio")
    runs = runs[(runs["status"] == "finished") & (runs["seeds"] >= 3)] if len(runs) else runs
    if not len(runs) or set(runs["epochs"]) < {20, 70}:
        sys.exit("no finished study of three seeds or more; run make study first")
    last, long = (runs[runs["epochs"] == epochs].iloc[-1] for epochs in (20, 70))
    table, long_table = (pd.read_csv(Path(run["path"]) / "runs.csv") for run in (last, long))
    long_mean = long_table.groupby("swap_ratio")["final_accuracy"].mean()
    ends = table[table["swap_ratio"].isin([0, 1])]
    sizes = ends.groupby(["episodic_size", "memory"])["final_accuracy"]
    swept = table.groupby("episodic_size").filter(lambda rows: rows["swap_ratio"].nunique() > 2)
    ratios = swept.groupby(["episodic_size", "swap_ratio"])["final_accuracy"]
    mean = ratios.mean().unstack()
    gained = (mean[0.2] - mean[0.0]) / (mean[1.0] - mean[0.0])
    text = TEXT.format(
        epochs=last["epochs"],
        seeds=last["seeds"],
        sizes=cells(sizes).unstack()[["single-level", "tiered"]].to_markdown(),
        ratios=cells(ratios).unstack().to_markdown(),
        long_seeds=long["seeds"],
        long=" / ".join(f"{100 * long_mean[ratio]:.1f}" for ratio in (0, 0.2, 1)),
        long_knee=f"{(long_mean[0.2] - long_mean[0]) / (long_mean[1] - long_mean[0]):.0%}",
        knee=", ".join(f"{share:.0%} at {size} samples" for size, share in gained.items()),
    )
    (HERE / "first_observation.md").write_text(text)
    picture(ends, swept)


def picture(ends: pd.DataFrame, swept: pd.DataFrame) -> None:
    """Both questions side by side, as a PNG that reads on light and dark pages."""
    left = plots.accuracy_against(ends, "episodic_size", "", "memory", log=True)
    right = plots.accuracy_against(swept, "swap_ratio", "", "episodic_size")
    both = make_subplots(1, 2, subplot_titles=["in RAM alone, or with storage below it", "how much to swap"])
    for column, plot in ((1, left), (2, right)):
        for trace in plot.data:
            trace.name = trace.name if column == 1 else f"{trace.name} samples in RAM"
            both.add_trace(trace, row=1, col=column)
    both.update_xaxes(left.layout.xaxis, row=1, col=1)
    both.update_xaxes(title="episodic memory, samples", row=1, col=1)
    both.update_xaxes(title="swap ratio", row=1, col=2)
    both.update_yaxes(title="accuracy after five tasks, %", row=1, col=1)
    both.update_layout(template=left.layout.template, width=1000, height=380, margin={"t": 40})
    for trace, color in zip(both.data, plots.OKABE_ITO, strict=False):
        trace.line.color = color
    both.write_image(HERE / "first_observation.png", scale=1.5)


if __name__ == "__main__":
    main()
