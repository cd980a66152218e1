"""What befalls folders of runs, in any order: `python tests/faults/test_run_histories.py [STEPS]` (20,000 by default).

Runs are started, stopped, killed, resumed, raced for, copied, moved, linked to, edited and deleted, by themselves and
by their user. Whatever the order: no number is shown that no run produced, no file is touched that the library did not
write, no living run is harmed, and every refusal is a sentence.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

sys.path.append(str(Path(__file__).parents[1] / "support"))
from samples import make_dataset

from mirolib import MiroError, RecordedRun, RunSettings, load_runs, run_experiment
from mirolib.workbench.compare import over_seeds, unreadable_runs
from mirolib.workbench.run import load_run, open_run

BASE = RunSettings(
    tasks=2, epochs=1, controller="fixed", model="linear", stream_size=20, episodic_size=6, batch_size=6,
    energy="none", validation_share=0.0,
)  # fmt: skip
ASKED = [replace(BASE, seed=seed, lr=lr) for seed in (0, 1) for lr in (0.05, 0.5)]
NUMBERS = ("final_accuracy", "average_incremental_accuracy", "learning_work", "swapped")
NAMES = [("10_run", name) for name in ("a", "b", "c", "d")] + [("study", "a")]
THEIRS = (
    ".env",
    "notes.csv",
    ".ipynb_checkpoints/notebook.ipynb",
    "store/README",
    "checkpoint/README",
    "notebook.ipynb",
)
FOLDERS, PARTS = st.integers(0, 5), st.integers(0, 100)


@cache
def data():
    return make_dataset(classes=4, per_class=15)


@cache
def truth():
    """What each run comes to when nobody disturbs it: the numbers, and those of its tasks."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for asked in ASKED:
            run = run_experiment(asked, dataset=data(), results=folder, progress=False)
            found[asked.seed, asked.lr] = tuple(run.summary[n] for n in NUMBERS), run.tasks["average_accuracy"].tolist()
    assert len({numbers for numbers, _ in found.values()}) == len(ASKED), "or one could not be told from another"
    return found


def recorded(results, where, asked, resume):
    notebook, run_id = where
    return RecordedRun(ASKED[asked], dataset=data(), notebook=notebook, run_id=run_id, results=results, resume=resume,
                       checkpoint_minutes=0)  # fmt: skip


some = precondition(lambda self: self.runs())


def killed_at(write: int) -> None:
    """Has this process killed at one of its next writes."""
    synced, left = os.fsync, [write]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        synced(descriptor)

    os.fsync = fsync


class Histories(RuleBasedStateMachine):
    """Any history of a folder of results."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.results = Path(tempfile.mkdtemp(prefix="miro-histories-"))
        self.linked = self.results.with_name(f"{self.results.name}-link")
        self.linked.symlink_to(self.results, target_is_directory=True)
        self.living: dict[tuple[str, str], tuple] = {}
        self.asked: dict[tuple[str, str], int] = {}
        self.dropped = 0

    def teardown(self) -> None:
        for where in list(self.living):
            self.end_of(where)
        self.linked.unlink()
        shutil.rmtree(self.results)

    # what is there

    def runs(self) -> list[Path]:
        return sorted(path for path in self.results.glob("*/*") if path.is_dir())

    def at_rest(self, number: int) -> Path | None:
        """A folder whose run does not live, under whatever name."""
        alive = {os.path.realpath(self.results / "/".join(where)) for where in self.living}
        resting = [path for path in self.runs() if os.path.realpath(path) not in alive]
        return resting[number % len(resting)] if resting else None

    def file_in(self, number: int, part: int) -> Path | None:
        """One of the library's files in a folder at rest."""
        folder = self.at_rest(number)
        files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder else []
        files = [file for file in files if not file.read_bytes().startswith(b"theirs")]
        return files[part % len(files)] if files else None

    def theirs(self) -> dict[Path, bytes]:
        files = (file for file in self.results.rglob("*") if file.is_file() and not file.is_symlink())
        return {file: content for file in files if (content := file.read_bytes()).startswith(b"theirs")}

    @contextmanager
    def careful(self):
        """What the library does leaves the user's files alone, and says what it refuses in a sentence."""
        before = self.theirs()
        try:
            yield
        except MiroError as error:
            said = str(error)
            assert said.endswith((".", ")")) and "\n" not in said and "Traceback" not in said, said
        assert self.theirs() == before

    def end_of(self, where) -> None:
        with self.careful():
            run, steps = self.living.pop(where)
            list(steps)
            summary = run.result.summary
            # a stored sample that was spoilt is replaced by another, and counted
            assert summary["damaged"] or tuple(summary[name] for name in NUMBERS) == truth()[self.key(run)][0]

    @staticmethod
    def key(run) -> tuple:
        return run.experiment.settings.seed, run.experiment.settings.lr

    # what is done

    @rule(where=st.sampled_from(NAMES), asked=st.integers(0, 3), steps=st.integers(0, 5), how=st.integers(0, 3))
    def start(self, where, asked, steps, how):
        self.go(where, asked, False, steps, how)

    @some
    @rule(number=FOLDERS, asked=st.integers(0, 7), steps=st.integers(0, 5), how=st.integers(0, 3))
    def resume(self, number, asked, steps, how):
        if folder := self.at_rest(number):
            where = folder.parent.name, folder.name
            self.go(where, asked if asked in range(4) else self.asked.get(where, 0), True, steps, how)

    def go(self, where, asked, resume, steps, how) -> None:
        """Goes so many steps, and then to the end, to an error, to Ctrl-C, or stays where it is."""
        if where in self.living:
            return
        with self.careful():
            run = recorded(self.results, where, asked, resume)
            self.asked[where] = asked
            going = run.steps(progress=False)
            self.living[where] = run, going
            for _ in range(steps):
                next(going, None)
            if how == 0:
                self.end_of(where)
            elif how == 1:
                del self.living[where]
                going.close()
            elif how == 2:
                del self.living[where]
                with suppress(ZeroDivisionError, StopIteration):
                    going.throw(ZeroDivisionError("it broke"))

    @precondition(lambda self: self.living)
    @rule(number=FOLDERS, steps=st.integers(1, 3))
    def advance(self, number, steps):
        where = sorted(self.living)[number % len(self.living)]
        with self.careful():
            for _ in range(steps):
                next(self.living[where][1], None)
            if self.living[where][0].folder.status == "finished":
                self.end_of(where)

    @precondition(lambda self: self.living)
    @rule(number=FOLDERS, resume=st.booleans(), asked=st.integers(0, 3), linked=st.booleans())
    def rival(self, number, resume, asked, linked):
        """A second one wants a living run: it is refused, and has written nothing."""
        where = sorted(self.living)[number % len(self.living)]
        if self.living[where][0].folder.status != "running":
            return
        before = {file: file.read_bytes() for file in self.results.rglob("*") if file.is_file()}
        with pytest.raises(MiroError, match="is still running, here or in another process; stop it first"):
            recorded(self.linked if linked else self.results, where, asked, resume)
        assert before == {file: file.read_bytes() for file in self.results.rglob("*") if file.is_file()}

    @rule(number=FOLDERS, where=st.sampled_from(NAMES), new=st.booleans(), write=st.integers(0, 60))
    def kill(self, number, where, new, write):
        """A process begins or resumes a run and is killed while it writes."""
        folder = None if new else self.at_rest(number)
        where = (folder.parent.name, folder.name) if folder else where
        if where in self.living:
            return
        asked = self.asked.setdefault(where, number % len(ASKED))
        with self.careful():
            if not (child := os.fork()):
                with suppress(BaseException):
                    killed_at(write)
                    list(recorded(self.results, where, asked, folder is not None).steps(progress=False))
                os._exit(0)
            os.waitpid(child, 0)

    @some
    @rule(number=FOLDERS, linked=st.booleans())
    def race(self, number, linked):
        """Two processes resume one run at once."""
        if not (folder := self.at_rest(number)):
            return
        where = folder.parent.name, folder.name
        asked = self.asked.get(where, 0)
        with self.careful():
            if not (child := os.fork()):
                status = 1
                try:
                    list(recorded(self.linked if linked else self.results, where, asked, True).steps(progress=False))
                    status = 0
                except MiroError:
                    status = 0
                finally:
                    os._exit(status)
            try:
                list(recorded(self.results, where, asked, True).steps(progress=False))
            finally:
                assert os.waitpid(child, 0)[1] == 0

    # what the user does

    @some
    @rule(number=FOLDERS, where=st.sampled_from(NAMES), how=st.sampled_from(["copy", "move", "link"]))
    def elsewhere(self, number, where, how):
        source, target = self.at_rest(number), self.results / "/".join(where)
        if source and not os.path.lexists(target):
            target.parent.mkdir(exist_ok=True)
            if how == "copy":
                shutil.copytree(source, target)
            elif how == "move":
                source.rename(target)
            else:
                target.symlink_to(os.path.realpath(source), target_is_directory=True)

    @some
    @rule(number=FOLDERS, name=st.sampled_from(THEIRS))
    def drop(self, number, name):
        """The user leaves a file in a run's folder, alive or not."""
        if runs := self.runs():
            file = runs[number % len(runs)] / name
            with suppress(FileExistsError):
                file.parent.mkdir(exist_ok=True)
                self.dropped += 1
                file.write_text(f"theirs {self.dropped}")

    @some
    @rule(number=FOLDERS, part=PARTS, sums=st.booleans())
    def edit(self, number, part, sums):
        """A digit of a file becomes another; the checksums may go as well."""
        if file := self.file_in(number, part):
            content = bytearray(file.read_bytes())
            digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
            if digits:
                at = digits[part * 31 % len(digits)]
                content[at] = ord("0") + (content[at] - ord("0") + 1) % 10
                file.write_bytes(bytes(content))
            if sums:
                (file.parent / "SHA256SUMS").unlink(missing_ok=True)

    @some
    @rule(number=FOLDERS, field=st.sampled_from(["status", "run_id", "seed", "final_accuracy"]), sums=st.booleans())
    def rewrite(self, number, field, sums):
        """A `run.json` says something else."""
        folder = self.at_rest(number)
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            run = json.loads((folder / "run.json").read_bytes())
            if field == "status":
                run["status"] = "finished"
            elif field == "run_id":
                run["run_id"] = folder.name
            elif field == "seed":
                run["parameters"]["seed"] = run["asked"]["seed"] = 1 - run["asked"]["seed"]
            else:
                run["summary"]["final_accuracy"] = 0.987
            (folder / "run.json").write_text(json.dumps(run))
            if sums:
                (folder / "SHA256SUMS").unlink(missing_ok=True)

    @some
    @rule(number=FOLDERS, other=FOLDERS, name=st.sampled_from(["checkpoint", "store"]))
    def transplant(self, number, other, name):
        """What a run needs to go on is replaced by another's, and it goes on."""
        here, there = self.at_rest(number), self.at_rest(other)
        if here and (there / name).is_dir() and os.path.realpath(here) != os.path.realpath(there):
            (here / name).mkdir(exist_ok=True)
            for file in (*(here / name).glob("*.*"), *(there / name).glob("*.*")):
                if file.parent == here / name:
                    file.unlink()
                else:
                    shutil.copy(file, here / name)
            where = here.parent.name, here.name
            self.go(where, self.asked.get(where, 0), True, 0, 0)

    @some
    @rule(number=FOLDERS, part=PARTS, whole=st.booleans())
    def delete(self, number, part, whole):
        if whole and part < 50 and (folder := self.at_rest(number)):
            (folder.unlink if folder.is_symlink() else lambda: shutil.rmtree(folder))()
        elif file := self.file_in(number, part):
            file.unlink()

    # what is seen

    def looked_at(self, results: Path) -> list[dict]:
        with self.careful():
            rows = [load_run(file) for file in sorted(results.glob("*/*/run.json"))]
            finished = [row for row in rows if row["status"] == "finished"]
            for row in finished:
                assert tuple(row[name] for name in NUMBERS) == truth()[row["seed"], row["lr"]][0]
            assert len({(row["notebook"], row["run_id"]) for row in finished}) == len(finished)
            status = {(row["notebook"], row["run_id"]): row["status"] for row in rows}
            for where, (run, _) in self.living.items():
                assert status[where] in ("running", run.folder.status)
            assert all(row["error"] for row in rows if row["status"] not in ("finished", "running"))
        return finished

    @invariant()
    def no_number_is_shown_that_no_run_produced(self):
        Histories.steps += 1
        self.looked_at(self.linked if Histories.steps % 2 else self.results)

    @some
    @rule()
    def compare(self):
        """Tables and comparisons hold no more."""
        finished = self.looked_at(self.results)
        with self.careful():
            runs = load_runs(self.results)
            unreadable_runs(runs, self.results)
            if finished:
                assert over_seeds(runs, ["dataset"])["n"].sum() <= len(ASKED)
            for row in finished:
                run = open_run(row["path"])
                problems = [problem for problem in run.problems if "tasks.csv" in problem]
                accuracies = truth()[row["seed"], row["lr"]][1]
                assert problems or run.tasks["average_accuracy"].tolist() == pytest.approx(accuracies)


def explore(steps: int, derandomize: bool) -> None:
    """Lives through so many steps."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    truth()
    Histories.steps, examples = 0, 5 + steps // 36
    while Histories.steps < steps:
        # which digit is edited hangs on a clock, so that a history that begins alike may go on otherwise
        with suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(Histories, settings=settings(
                max_examples=examples, stateful_step_count=40, deadline=None, derandomize=derandomize, database=None,
                suppress_health_check=list(HealthCheck), print_blob=False,
                phases=[Phase.generate],  # shrinking a history takes many minutes, and it can be read as it is
            ))  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are killed in forks")
def test_no_history_of_runs_shows_a_wrong_number_or_hurts_anyone(caplog):
    caplog.set_level("ERROR")
    explore(2000, derandomize=True)


if __name__ == "__main__":
    explore(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, derandomize=False)
    sys.stdout.write(f"{Histories.steps} steps, and nothing amiss\n")
