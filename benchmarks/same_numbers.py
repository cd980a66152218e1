"""`python -m benchmarks.same_numbers OLD`: whether this checkout computes what another one does, bit for bit.

Notebooks 00, 10, 12, 13, the calm and the budget run of 15, and ten seeded runs over methods, controllers and data sets
are run in both, in processes of their own, on this machine; of every task, accuracies, training losses, sizes and
sample visits of every window are compared. The time of `import mirolib` is measured in turns. CIFAR-100 and Daily
and Sports Activities are read from the archives in MIRO_SHARED_DATA; without it those runs are on digits.

`git worktree add OLD <commit>` makes the other checkout. What differs is run up to three times: a swap ratio follows
the disk, which a busy machine slows at times.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parents[1]
NOTEBOOKS = ("00_quickstart", "10_run", "12_best_over_time", "13_swap_ratio", "15_adaptation")
UNSTEADY = "throttled = miro.run_experiment"  # from here on, notebook 15 follows the machine

PAPER = {"controller": "miro-2023"}
FIXED = {"controller": "fixed", "stream_size": 100, "episodic_size": 40, "swap_ratio": 0.5}
RUNS = {
    "miro": {},
    "miro, memory budget": {"memory_budget": "300 samples", "objective": "energy_budget=20000 visits"},
    "miro-2023": PAPER,
    "trials, within-budget": PAPER | {"profiler": "trial", "selector": "within-budget", "energy_budget": 30_000},
    "bic, cheapest-within": PAPER | {"method": "bic", "selector": "cheapest-within", "points": 5.0},
    "ce, budget schedule": PAPER | {"loss": "ce", "memory_budget": "0: 300 samples, 5: 80 samples, 9: 300 samples"},
    "fixed, single-level": FIXED | {"memory": "single-level", "swap_ratio": 0.0},
    "fixed, fine-tuning": FIXED | {"method": "finetuning"},
    "whole-budget, store budget": {
        "controller": "whole-budget", "memory_budget": "200 samples", "store_budget": "1000 samples"
    },
    "random, mlp": {"controller": "random", "model": "mlp"},
    "miro-2023, cifar100": PAPER | {"dataset": "cifar100", "tasks": 4, "epochs": 2, "model": "small-cnn"},
    "fixed, bic, dsads": FIXED | {"dataset": "dsads", "tasks": 3, "epochs": 2, "method": "bic"},
}  # fmt: skip

# Tells a file of every task's record, wherever it is made: in a notebook as in a script, in either version.
HOOK = """
import json, warnings
warnings.simplefilter("ignore")
import mirolib
def _noted(self, *args, _make=mirolib.TaskRecord.__init__, **names):
    _make(self, *args, **names)
    with open({out!r}, "a") as file:
        readings = [(r.window, r.work.visits, r.work.forward_visits) for r in self.readings]
        epochs = [(repr(e.config), e.loss) for e in self.epochs]
        print(json.dumps([self.task, list(self.accuracies), epochs, sorted(readings)]), file=file)
mirolib.TaskRecord.__init__ = _noted
"""
ONE_RUN = """
mirolib.run_experiment(mirolib.RunSettings(**{settings!r}), notebook="same", results={results!r}, progress=False)
"""


def _notebook(checkout: Path, name: str) -> str:
    """The code of a notebook, as a script."""
    cells = json.loads((checkout / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(itertools.takewhile(lambda source: not source.startswith(UNSTEADY), code))


def _records(checkout: Path, code: str, data: str) -> list[list]:
    """What a script trains, a row a task."""
    with tempfile.TemporaryDirectory() as work:
        out = f"{work}/records"
        environment = os.environ | {
            "PYTHONPATH": str(checkout), "MIRO_RESULTS": work, "MIRO_STATE": work, "PLOTLY_RENDERER": "json"
        }  # fmt: skip
        environment |= {"MIRO_DATA": data} if data else {}
        script = Path(work, "script.ipy")
        script.write_text(HOOK.format(out=out) + code.replace("{results}", work), encoding="utf-8")
        command = [sys.executable, "-m", "IPython", "--no-banner", str(script)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        rows = Path(out).read_text().splitlines() if Path(out).exists() else []
        if done.returncode or not rows:
            raise SystemExit(f"{checkout}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return [json.loads(row) for row in rows]


def _import_s(checkout: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mirolib"], cwd=checkout, check=True)
    return time.perf_counter() - start


def main(old: Path) -> int:
    """Compares; prints a table; 1 if anything differs."""
    shared, rows = os.environ.get("MIRO_SHARED_DATA"), []
    with tempfile.TemporaryDirectory() as data:
        if shared:
            for name in ("cifar-100-python.tar.gz", "dsads-subset.tar.xz"):
                subprocess.run(["tar", "-xf", str(Path(shared, name)), "-C", data], check=True)
        work = {name: (_notebook(old, name), _notebook(HERE, name)) for name in NOTEBOOKS}
        for seed, (name, settings) in enumerate(RUNS.items(), start=100):
            common = {"dataset": "digits", "epochs": 3, "energy": "none", "seed": seed} | settings
            if not shared:
                common["dataset"] = "digits"
            work[name] = (ONE_RUN.format(settings=common, results="{results}"),) * 2
        for name, (before, after) in work.items():
            tries, there, here = 0, [], [[0]]
            while there != here and tries < 3:  # a swap ratio follows the disk, which a busy machine slows at times
                there, here, tries = _records(old, before, data), _records(HERE, after, data), tries + 1
            row = {"what": name, "tasks": len(here), "last accuracy": here[-1][1][-1], "same": there == here}
            rows.append(row | {"tries": tries})
            sys.stderr.write(f"{name}: {'same' if there == here else 'DIFFERENT'}\n")
    seconds = pd.DataFrame([(_import_s(old), _import_s(HERE)) for _ in range(7)], columns=["old", "new"])
    ratio = (seconds["new"] / seconds["old"]).quantile([0.25, 0.5, 0.75]).round(3).tolist()
    table = pd.DataFrame(rows)
    sys.stdout.write(f"{table.to_string(index=False)}\n`import mirolib`, new over old: quartiles {ratio}\n")
    return int(not table["same"].all())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
