"""Which studies fill which of the paper's figures, by preset.

Sizes are in samples. `smoke` takes the notebooks' own smoke sizes; `small` scales the paper's sweeps to the data sets'
presets `small`; `paper` takes the sizes on the figures' axes as far as the data allow (a tenth of the training samples
is held out, so that no stream buffer holds a whole CIFAR-100 task of 5,000).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash


@dataclass(frozen=True)
class Study:
    """A notebook and the parameters with which it fills a figure or two.

    Attributes:
        name: A short name for the run.
        figures: What it fills; keys of `mirolib.paper.FIGURES`.
        notebook: The notebook that is launched.
        dataset: The data set it needs; empty where it makes its own.
        parameters: Values for the notebook's parameters cell.
        preset: The preset it belongs to.
    """

    name: str
    figures: tuple[str, ...]
    notebook: str
    dataset: str
    parameters: Mapping[str, Any]
    preset: str = ""

    @property
    def run_id(self) -> str:
        """The run's name; other parameters give another, so that an old plan's run is not taken for this one's."""
        text = json.dumps([self.notebook, dict(self.parameters)], sort_keys=True)
        digest = xxhash.xxh3_64_hexdigest(text.encode())[:8]
        return f"paper-{self.preset}-{self.name}-{digest}"

    def command(self, run_id: str) -> str:
        """The command that runs it under a name."""
        values = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in self.parameters.items()]
        words = ["python", "-m", "mirolib", "launch", self.notebook, *values, f"run_id={run_id}"]
        return shlex.join(words)


def _swapping(dataset: str, method: str, figures: tuple[str, ...], parameters: dict[str, Any]) -> Study:
    chosen = {"dataset": dataset, "method": method, **parameters}
    return Study(f"swapping-{method}-{dataset}", figures, "13_swap_ratio", dataset, chosen)


def _allocation(dataset: str, parameters: dict[str, Any]) -> Study:
    chosen = {"dataset": dataset, **parameters}
    return Study(f"allocation-{dataset}", ("5",), "11_buffer_allocation", dataset, chosen)


def _generality(dataset: str, parameters: dict[str, Any]) -> Study:
    chosen = {"datasets": [dataset], **parameters}
    return Study(f"generality-{dataset}", ("generality",), "16_generality", dataset, chosen)


_SETS = ("cifar100", "tiny-imagenet", "dsads", "urbansound8k", "imagenet1k")
_PAPER = {"data_preset": "paper"}

PLAN: dict[str, list[Study]] = {
    "smoke": [
        _swapping("digits", "er", ("2c", "6"), {"episodic_sizes": [20, 50, 100, 400],
                                                "swap_ratios": [0.0, 0.05, 0.2, 1.0]}),
        _swapping("digits", "bic", ("6",), {"episodic_sizes": [20], "swap_ratios": [0.0, 0.05, 0.2, 1.0]}),
        _allocation("digits", {}),
        Study("over-time-digits", ("best-over-time",), "12_best_over_time", "digits", {}),
        Study("baselines-digits", ("end-to-end",), "14_miro_vs_baselines", "digits", {}),
        _generality("digits", {}),
        Study("scalability", ("scalability",), "17_scalability", "", {}),
        Study("adaptation-digits", ("adaptation",), "15_adaptation", "digits", {}),
    ],
    "small": [
        _swapping("cifar100", "er", ("2c", "6"), {"seeds": 3, "epochs": 60, "episodic_sizes": [25, 50, 100, 400],
                                             "swap_ratios": [0.0, 0.05, 0.2, 1.0], "ratio_sizes": [25]}),
        _swapping("cifar100", "bic", ("6",), {"seeds": 3, "epochs": 60, "episodic_sizes": [25],
                                           "swap_ratios": [0.0, 0.05, 0.2, 1.0], "ratio_sizes": [25]}),
        _swapping("tiny-imagenet", "er", ("2c", "6"), {"seeds": 3, "epochs": 60, "episodic_sizes": [25, 100],
                                                  "swap_ratios": [0.0, 0.05, 0.2, 1.0], "ratio_sizes": [25]}),
        _allocation("cifar100", {"epochs": 60, "budgets": [150, 450, 900, 1800]}),
        _allocation("tiny-imagenet", {"epochs": 60, "budgets": [120, 360, 720, 1440]}),
        Study("over-time-cifar100", ("best-over-time",), "12_best_over_time", "cifar100",
         {"dataset": "cifar100", "epochs": 20}),
        Study("baselines-cifar100", ("end-to-end",), "14_miro_vs_baselines", "cifar100",
         {"dataset": "cifar100", "seeds": 3, "fixed": [[112, 37], [225, 150], [450, 150], [450, 750]]}),
        *(_generality(name, {"seeds": 3, "epochs": None}) for name in _SETS),
        Study("scalability", ("scalability",), "17_scalability", "", {"per_class": 200}),
        Study("adaptation-cifar100", ("adaptation",), "15_adaptation", "cifar100",
         {"dataset": "cifar100", "epochs": 15, "memory": "1200 samples",
          "budget": "0: 1200 samples, 35: 300 samples, 65: 1200 samples", "first": 30, "last": 60,
          "rate_bytes_s": 500000.0}),
    ],
    "paper": [
        *(_swapping("cifar100", method, figures, _PAPER | {
            "epochs": 70, "episodic_sizes": sizes, "swap_ratios": [0.0, 0.01, 0.05, 0.1, 0.2, 1.0],
            "ratio_sizes": [2000]})
          for method, figures, sizes in (
              ("er", ("2c", "6"), [1000, 2000, 3000, 5000, 10000, 20000, 30000]), ("bic", ("6",), [2000]))),
        _swapping("tiny-imagenet", "er", ("6",), _PAPER | {
            "epochs": 70, "episodic_sizes": [2000], "swap_ratios": [0.0, 0.05, 0.2, 1.0], "ratio_sizes": [2000]}),
        _allocation("cifar100", _PAPER | {"epochs": 70, "budgets": [1500, 3000, 6000, 12000, 24000]}),
        _allocation("tiny-imagenet", _PAPER | {"epochs": 70, "budgets": [3000, 6000, 12000, 24000]}),
        Study("over-time-cifar100", ("best-over-time",), "12_best_over_time", "cifar100",
         _PAPER | {"dataset": "cifar100", "epochs": 70}),
        Study("baselines-cifar100", ("end-to-end",), "14_miro_vs_baselines", "cifar100",
         _PAPER | {"dataset": "cifar100", "seeds": 3,
                   "fixed": [[1000, 500], [2000, 2000], [4500, 2000], [4500, 5000], [4500, 20000]]}),
        *(_generality(name, _PAPER | {"epochs": None}) for name in _SETS),
        Study("scalability-imagenet1k", ("scalability",), "10_run", "imagenet1k",
         {"dataset": "imagenet1k", "preset": "paper", "controller": "fixed"}),
        Study("adaptation-cifar100", ("adaptation",), "15_adaptation", "cifar100",
         _PAPER | {"dataset": "cifar100", "epochs": 70, "memory": "10000 samples",
                   "budget": "0: 10000 samples, 245: 2500 samples, 385: 10000 samples", "first": 210, "last": 350,
                   "rate_bytes_s": 5000000.0}),
    ],
}  # fmt: skip
"""Entries by preset."""
