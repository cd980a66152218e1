"""The command line; `python -m mirolib --help` lists its commands."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import mirolib as miro
from mirolib.base.errors import InputError, MiroError

# what a command needs is imported by itself: PyTorch takes seconds, and help and lists do without
_COLUMNS = ["run_id", "status", "dataset", "method", "memory", "stream_size", "episodic_size", "swap_ratio"]
_RESULTS = ["final_accuracy", "average_incremental_accuracy", "forgetting", "train_visits", "train_s", "energy_kind"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mirolib", description="The Miro workbench.")
    commands = parser.add_subparsers(required=True)

    def command(name: str, work: Callable[[argparse.Namespace], bool | None], what: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=what)
        one.set_defaults(work=work)  # returns True where something is amiss, which becomes the exit status
        return one

    launching = command("launch", _launch, "run a notebook headless and print its result table")
    launching.add_argument("notebook", help="its name, such as 10_run")
    launching.add_argument("parameters", nargs="*", metavar="name=value", help="values for its parameters cell")
    many = command("sweep", _sweep, "run a notebook over a grid of parameters; the same call goes on after a stop")
    many.add_argument("file", help="YAML with notebook, grid, seeds, parameters, name; see docs/sweeps.md")
    many.add_argument("--rerun", default="", choices=["failed"], help="also run again what failed")
    many.add_argument("--workers", type=int, default=1, help="runs side by side (1 where energy is read)")
    many.add_argument("--scheduler", default="", help="address of a dask scheduler, such as tcp://127.0.0.1:8786")
    figures = command("paper", _paper, "run what the paper's figures need and has not been run, then draw them")
    figures.add_argument("preset", help="smoke: digits, minutes; small: hours; paper: the paper's")
    runs = command("runs", _runs, "list all runs, one a line, and why those failed that did")
    report = command("report", _report, "compare runs on a page of HTML that needs nothing else, or in a .csv")
    report.add_argument("file", help="what to write: a .html or a .csv")
    report.add_argument("filters", nargs="*", metavar="name=value", help="only runs with this, such as dataset=digits")
    report.add_argument("--sweep", default="", help="only the runs of this sweep")
    report.add_argument("--places", action="store_true", help="leave folders and the machine's name in it")
    exporting = command("export", _export, "write what a run has learnt as ONNX")
    exporting.add_argument("run", help="its id, or its folder")
    exporting.add_argument("--to", help="what to write (default: model.onnx in the run's folder)")
    for one in (launching, many, figures, runs, report, exporting):
        one.add_argument("--results", help="folder of all results (default: the repository's, or MIRO_RESULTS)")
    check = command("verify", _verify, "check every record of a store")
    check.add_argument("store", help="its folder")
    check.add_argument("--repair", action="store_true", help="drop what is damaged; a run writes it anew")
    card = command("wear", _wear, "what media have been written, as a share of their rated endurance")
    card.add_argument("medium", nargs="?", help="name of a medium to show, describe or forget")
    card.add_argument("--capacity", help="its capacity, such as '64 GB'")
    card.add_argument("--cycles", type=int, help="its program/erase cycles: QLC and eMMC about 1,000, TLC 3,000")
    card.add_argument("--forget", action="store_true", help="strike it off the ledger")
    command("parameters", lambda _: _say(miro.RunSettings.cell()), "print the parameters cell of notebook 10_run")
    command("doctor", _doctor, "what this machine can measure, and how to let it measure more")
    return parser


def _say(*lines: str) -> None:
    sys.stdout.write(_printable("\n".join(lines)) + "\n")


def _printable(text: str) -> str:
    """A text that may hold what others wrote, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _printable(super().format(record))


def _results(options: argparse.Namespace) -> str | None:
    # or a slip in its name would look as if nothing had been run
    if options.results is not None and not os.path.isdir(options.results):
        raise InputError(f"There is no results folder {options.results!r}; name one that is there, or leave it out.")
    return options.results


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{text!r} is no parameter; write name=value.")
        if name in pairs:
            raise InputError(f"{name} is given twice, {pairs[name]!r} and {value!r}; keep one of them.")
        pairs[name] = value
    return pairs


def _launch(options: argparse.Namespace) -> None:
    import pandas as pd

    from mirolib.workbench.launch import check_parameters

    results = [] if options.results is None else [f"results={options.results}"]
    # checked first, or a parameter named progress would be taken for launch's own
    done = miro.launch(options.notebook, **check_parameters(options.notebook, _pairs([*options.parameters, *results])))
    tables = [file for file in ("table.csv", "tasks.csv") if (done.notebook.parent / file).exists()]
    table = pd.read_csv(done.notebook.parent / tables[0]) if tables else done.run.to_frame().T
    with pd.option_context("display.width", 160, "display.max_columns", 30, "display.precision", 3):
        text = table.filter(regex="^(?!accuracy_)").to_string(index=False)  # a column a task: too many for a terminal
    _say(text, "", f"run:      {done.notebook.parent}", f"notebook: {done.notebook}")


def _sweep(options: argparse.Namespace) -> bool:
    from mirolib.workbench.fleet import connection

    where = {"results": options.results, "workers": options.workers, "rerun": options.rerun}
    with connection(options.scheduler) if options.scheduler else nullcontext() as client:
        done = miro.sweep_file(options.file, client=client, **where)
    text = done.table.drop(columns="error").dropna(axis=1, how="all").to_string(index=False)
    _say(text, *_reasons(done.runs), str(done))
    return len(done.failed) > 0


def _paper(options: argparse.Namespace) -> bool:
    found = miro.paper.fill(options.preset, options.results)
    done = miro.launch("20_paper_figures", progress=False, preset=options.preset, results=options.results or "")
    lines = [f"{state.status:12}{state.study.name}{f': {state.note}' if state.note else ''}" for state in found]
    _say(*lines, "", f"notebook: {done.notebook}")
    return not {state.status for state in found} <= {"finished", "running", "no data set"}


def _runs(options: argparse.Namespace) -> None:
    runs = miro.load_runs(_results(options))
    table = runs.reindex(columns=["notebook", *_COLUMNS, *_RESULTS]).to_string(index=False)
    _say(*[table, *_reasons(runs)] if len(runs) else ["no runs yet"])


def _reasons(runs: Any) -> list[str]:
    """Why runs did not finish, a line each."""
    unfinished = runs[runs["error"].notna()].itertuples()
    return [" ".join(f"{run.run_id} {run.status}: {run.error}".split()) for run in unfinished]


def _report(options: argparse.Namespace) -> None:
    results = _results(options)
    runs = miro.load_sweep(options.sweep, results).runs if options.sweep else miro.load_runs(results)
    chosen, unread = miro.select(runs, _pairs(options.filters)), miro.unreadable_runs(runs, results)
    _say(str(miro.write_report(options.file, chosen, unread, places=options.places)))


def _export(options: argparse.Namespace) -> None:
    from mirolib.workbench.run import run_folder

    folder = run_folder(options.run, _results(options))
    _say(str(miro.load_model(folder).export(options.to or folder / "model.onnx")))


def _verify(options: argparse.Namespace) -> bool:
    from mirolib.data.stream import ORDINAL_MASK
    from mirolib.memory.store_check import repair, verify

    if options.repair:
        repair(options.store)
    report = verify(options.store)
    lines = [report.classes.to_string(index=False) if len(report.classes) else "no records"]
    lines += [f"damaged: record {id_ & ORDINAL_MASK} of label {id_ >> 32} ({part})" for part, id_ in report.damaged]
    lines += [f"damaged: {problem}" for problem in report.problems]
    _say(*lines, "", "sound" if report.sound else "NOT SOUND")
    return not report.sound


def _wear(options: argparse.Namespace) -> None:
    from mirolib.memory.budget import parse_amount
    from mirolib.memory.wear import describe, forget, wear

    capacity_bytes = parse_amount(options.capacity or "", 0)
    described = capacity_bytes is not None or options.cycles is not None
    if options.medium is None and (described or options.forget):
        raise InputError("--capacity, --cycles and --forget are about one medium; name it before them.")
    if options.forget and described:
        raise InputError("A medium is described or forgotten; leave out --forget, or --capacity and --cycles.")
    if options.forget:
        forget(options.medium)
    if described:
        describe(options.medium, capacity_bytes, options.cycles)
    table = wear(None if options.forget else options.medium)
    _say(table.to_string(index=False) if len(table) else "nothing booked yet; run with medium=NAME")


def _doctor(options: argparse.Namespace) -> None:
    for name, row in miro.doctor().iterrows():
        fix = [f"      fix: {row['fix']}"] if row["fix"] else []
        _say(f"{'yes' if row['available'] else 'no ':4}{name}: {row['found']} ({row['kind']}, {row['scope']})", *fix)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # papermill's own log repeats every cell, ONNX's its rewriting, and after Ctrl-C asyncio's the tasks that it ended
    for name in ("papermill", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    options = _parser().parse_args(arguments)
    try:
        return int(bool(options.work(options)))
    except MiroError as error:
        sys.stderr.write(_printable(f"{error}\n"))
        return 1
    except KeyboardInterrupt as error:
        sys.stderr.write(_printable(f"{str(error) or 'Interrupted; what is finished is kept.'}\n"))
        return 130
    except BrokenPipeError:  # who reads has seen enough, as head has; or Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
