"""Kill test: `python -m benchmarks.kill [TIMES] [SEED]` (200 by default, some minutes).

A run on digits that looks at held-out samples, trains, swaps, adapts to a memory budget that falls and rises, saves a
checkpoint after each epoch and writes its tables is killed (SIGKILL) and resumed until it ends; its tables are then
compared with those of the same run that nobody disturbed, times and energies left out. The instants are chosen by
phase: one of the operations below, one of the calls that the undisturbed run makes of it, and either its beginning or a
random moment within the next few milliseconds. One run in four is killed a second time, while or after it is resumed,
and one in four is resumed by two processes at once, of which one must be refused.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from mirolib import InputError, RecordedRun, RunSettings, load_dataset
from mirolib.controller import MiroController
from mirolib.experiment.checkpoint import Checkpoints
from mirolib.experiment.loop import Loop
from mirolib.learning.learner import Learner
from mirolib.memory.buffers import EpisodicMemory
from mirolib.memory.storage import Storage
from mirolib.memory.tiered import TieredMemory
from mirolib.workbench.folder import RunFolder

OPERATIONS: tuple[tuple[Any, str], ...] = (
    (Storage, "put"), (Storage, "read_sound"), (TieredMemory, "receive"), (MiroController, "look"),
    (MiroController, "choose"), (MiroController, "adapt"), (MiroController, "observe"), (TieredMemory, "resize"),
    (Learner, "step"), (TieredMemory, "swap"), (EpisodicMemory, "exchange"), (TieredMemory, "retain"),
    (Learner, "right"), (Checkpoints, "save"), (RunFolder, "write_table"), (RunFolder, "end"), (os, "fsync"),
    (os, "fdatasync"), (os, "pwrite"), (os, "replace"), (Path, "unlink"), (Path, "rmdir"), (Loop, "state"),
    (Loop, "restore"),
)  # fmt: skip
SETTINGS = RunSettings(tasks=3, epochs=3, energy="none", memory_budget="0: 300 samples, 4: 150 samples, 6: none")
_TABLES = ("tasks", "swaps", "trials", "events")
_TIMES = ("stall_s", "stall_share", "duration_s", "train_s")
_MOMENT_S = 0.01
_REFUSED = 3


def watch(told: Callable[[str], object]) -> None:
    """Has `told` called with the name of an operation at each of its calls; for a process that ends soon."""
    for owner, name in OPERATIONS:
        operation = getattr(owner, name)

        def watched(*args: Any, operation: Any = operation, name: str = name, **options: Any) -> Any:
            told(name)
            return operation(*args, **options)

        setattr(owner, name, watched)


def go(results: Path, run_id: str) -> None:
    """The run, begun or resumed, to its end."""
    run = RecordedRun(SETTINGS, results=results, run_id=run_id, checkpoint_minutes=0, resume=True)
    controller = run.experiment.controller
    assert isinstance(controller, MiroController)
    # How long a busy machine waits for its disk is not reproducible, so that congestion must not count.
    governor = controller.swap_governor
    governor.policy = replace(governor.policy, least_wait_s=float("inf"))
    for _ in run.steps(progress=False):
        pass


def forked(work: Callable[[], object]) -> int:
    """Does something in a forked process; its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def in_a_child(work: Callable[[], object]) -> int:
    """Does something in a forked process; what `waitpid` says of its end."""
    return os.waitpid(forked(work), 0)[1]


def raced(results: Path, run_id: str) -> bool:
    """Two processes resume a run at once; whether one was refused and the other came to the end."""

    def work() -> None:
        try:
            go(results, run_id)
        except InputError as error:  # an error of any other kind fails the benchmark
            assert any(why in str(error) for why in ("is still running", "has finished")), error
            os._exit(_REFUSED)

    children = [forked(work) for _ in range(2)]
    return sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0, _REFUSED]


def facts(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a run, times and energies left out."""
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in _TABLES}
    return {
        name: table.drop(columns=[c for c in table if c in _TIMES or "energy" in c]) for name, table in tables.items()
    }


def killed_at(results: Path, run_id: str, operation: str, call: int, delay_s: float) -> bool:
    """Runs and is killed some time after a call of an operation begins; false where the run ended before."""
    left = Counter({operation: call})

    def told(name: str) -> None:
        left[name] -= 1
        if name == operation and not left[name]:
            if not delay_s:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def work() -> None:
        watch(told)
        go(results, run_id)

    status = in_a_child(work)
    assert os.WIFSIGNALED(status) or not status, f"the run failed by itself when killed in {operation}"
    return os.WIFSIGNALED(status)


def has_finished(results: Path, run_id: str) -> bool:
    """Whether a run says so; it may have been killed before it said anything."""
    file = results / "10_run" / run_id / "run.json"
    return file.exists() and '"status": "finished"' in file.read_text()


def counted(results: Path) -> Counter[str]:
    """Runs undisturbed; how often each operation was called."""
    file = results / "calls"

    def work() -> None:
        calls: Counter[str] = Counter()
        watch(lambda name: calls.update([name]))
        go(results, "whole")
        file.write_text("\n".join(calls.elements()))

    assert in_a_child(work) == 0, "the undisturbed run failed"
    return Counter(file.read_text().split())


def kill(times: int, seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Kills and resumes so many runs.

    Returns:
        A row a run: the operation in which it was killed first, kills, whether two resumed it at once, and whether it
        ended with the same numbers.
    """
    draw, rows = random.Random(seed), []
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports what every child would import for itself
    load_dataset(SETTINGS.dataset)
    with tempfile.TemporaryDirectory(prefix="miro-kill-") as folder:
        results = Path(folder)
        calls = counted(results)
        calls["restore"] = 1  # never called in an undisturbed run
        expected = facts(results / "10_run" / "whole")
        operations = [name for _, name in OPERATIONS]
        for number in tqdm(range(times), unit="run", disable=not progress):
            operation, run_id, kills = operations[number % len(operations)], f"run{number}", 0
            if operation == "restore":
                kills += killed_at(results, run_id, "step", draw.randint(1, calls["step"]), 0)
            for name in [operation] + ["step"] * (draw.random() < 0.25):
                delay_s = draw.choice([0.0, draw.uniform(0, _MOMENT_S)])
                if not has_finished(results, run_id):
                    kills += killed_at(results, run_id, name, draw.randint(1, calls[name]), delay_s)
            races = 0
            if not has_finished(results, run_id):
                races = int(sum(row["races"] for row in rows) < number / 4)
                done = raced(results, run_id) if races else in_a_child(partial(go, results, run_id)) == 0
                assert done, f"not resumed after a kill in {operation}"
            found = facts(results / "10_run" / run_id)
            same = all(found[name].equals(expected[name]) for name in _TABLES)
            rows.append({"operation": operation, "kills": kills, "races": races, "same": same})
            shutil.rmtree(results / "10_run" / run_id)
    return pd.DataFrame(rows)


def main() -> None:
    """Prints what came out by operation; ends with status 1 if a run came out otherwise."""
    times, seed = (int(word) for word in (*sys.argv[1:3], *("200", "0")[len(sys.argv) - 1 :]))
    start = time.monotonic()
    table = kill(times, seed)
    by_operation = table.groupby("operation", sort=False).agg(
        runs=("same", "size"), kills=("kills", "sum"), races=("races", "sum"), same_numbers=("same", "sum")
    )
    sys.stdout.write(f"{by_operation.to_string()}\n\n")
    same, kills, races = (int(table[name].sum()) for name in ("same", "kills", "races"))
    sys.stdout.write(
        f"{same} of {len(table)} runs, killed {kills} times, {races} resumed by two processes at once, ended with the "
        f"numbers of the undisturbed run; {time.monotonic() - start:.0f} s\n"
    )
    sys.exit(not table["same"].all())


if __name__ == "__main__":
    main()
