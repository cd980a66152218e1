"""The command line; `python -m mirolib --help` lists its commands."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import nullcontext
from typing import Any

import pandas as pd

from mirolib.budgets import parse_amount
from mirolib.comparison import select, unread
from mirolib.energy import doctor
from mirolib.errors import InputError, MiroError
from mirolib.fleet import connection
from mirolib.launcher import check_parameters, launch
from mirolib.paper import fill
from mirolib.paper.plan import PLAN
from mirolib.report import write_report
from mirolib.store_check import StoreReport, repair, verify
from mirolib.stream import ORDINAL_MASK
from mirolib.sweeps import load_sweep, sweep_file
from mirolib.wear import describe, wear
from mirolib.workbench import load_runs

_COLUMNS = ["run_id", "status", "dataset", "method", "memory", "stream_size", "episodic_size", "swap_ratio"]
_RESULTS = ["final_accuracy", "average_incremental_accuracy", "forgetting", "train_visits", "train_s", "energy_kind"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mirolib", description="Miro workbench: run notebooks, list runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("launch", help="run a notebook headless and print its result table")
    one.add_argument("notebook", help="its name, such as 10_run")
    one.add_argument("parameters", nargs="*", metavar="name=value", help="values for its parameters cell")
    one.add_argument("--results", help="folder of all results (default: results in the repository, or MIRO_RESULTS)")
    many = commands.add_parser(
        "sweep", help="run a notebook over a grid of parameters; the same call goes on after a stop"
    )
    many.add_argument("file", help="YAML with notebook, grid, seeds, parameters, name; see docs/sweeps.md")
    many.add_argument("--rerun", default="", choices=["failed"], help="also run again what failed")
    many.add_argument("--workers", type=int, default=1, help="runs side by side (1 where energy is read)")
    many.add_argument("--scheduler", default="", help="address of a dask scheduler, such as tcp://127.0.0.1:8786")
    many.add_argument("--results", help="folder of all results")
    runs = commands.add_parser("runs", help="list all runs, one a line, and why those failed that did")
    runs.add_argument("--results", help="folder of all results")
    report = commands.add_parser("report", help="compare runs on a page of HTML that needs nothing else, or in a .csv")
    report.add_argument("file", help="what to write: a .html or a .csv")
    report.add_argument("filters", nargs="*", metavar="name=value", help="only runs with this, such as dataset=digits")
    report.add_argument("--sweep", default="", help="only the runs of this sweep")
    report.add_argument("--results", help="folder of all results")
    figures = commands.add_parser(
        "paper", help="run what the paper's figures need and has not been run, then draw them"
    )
    figures.add_argument(
        "preset", choices=PLAN, help="smoke: digits, minutes; small: hours; paper: the paper's settings"
    )
    figures.add_argument("--results", help="folder of all results")
    check = commands.add_parser("verify", help="check every record of a store")
    check.add_argument("store", help="its folder")
    check.add_argument("--repair", action="store_true", help="drop what is damaged; a run writes it anew")
    card = commands.add_parser("wear", help="what media have been written, as a share of their rated endurance")
    card.add_argument("medium", nargs="?", help="name of a medium to describe")
    card.add_argument("--capacity", help="its capacity, such as '64 GB'")
    card.add_argument(
        "--cycles", type=int, help="its program/erase cycles: about 1,000 for QLC and eMMC, 3,000 for TLC"
    )
    commands.add_parser("doctor", help="what this machine can measure, and how to let it measure more")
    return parser


def _pairs(texts: list[str]) -> dict[str, str]:
    """Names and values."""
    for text in texts:
        if "=" not in text:
            raise InputError(f"{text!r} is no parameter; write name=value.")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _launch(notebook: str, pairs: list[str], results: str | None) -> str:
    """Runs the notebook; the result table and where to look further."""
    parameters: dict[str, Any] = dict(_pairs(pairs))
    if results is not None:
        parameters["results"] = results
    done = launch(notebook, **check_parameters(notebook, parameters))
    tables = [file for file in ("table.csv", "tasks.csv") if (done.notebook.parent / file).exists()]
    table = pd.read_csv(done.notebook.parent / tables[0]) if tables else done.run.to_frame().T
    hidden = [name for name in table if str(name).startswith("accuracy_")]
    with pd.option_context("display.width", 160, "display.max_columns", 30, "display.precision", 3):
        text = table.drop(columns=hidden).to_string(index=False)
    return f"{text}\n\nrun:      {done.notebook.parent}\nnotebook: {done.notebook}\n"


def _paper(preset: str, results: str | None) -> str:
    """Runs what is missing and the notebook of the figures; how far each study has got."""
    found = fill(preset, results)
    where = {"results": results} if results else {}
    done = launch("20_paper_figures", progress=False, preset=preset, **where)
    lines = [f"{state.status:12}{state.study.name}{f': {state.note}' if state.note else ''}" for state in found]
    return "\n".join([*lines, "", f"notebook: {done.notebook}", ""])


def _runs(results: str | None) -> str:
    """The table of all runs."""
    runs = load_runs(results)
    if not len(runs):
        return "no runs yet\n"
    text = runs.reindex(columns=["notebook", *_COLUMNS, *_RESULTS]).to_string(index=False)
    return "\n".join([text, *_reasons(runs)]) + "\n"


def _reasons(runs: pd.DataFrame) -> list[str]:
    """Why runs did not finish, a line each."""
    unfinished = runs[runs["error"].notna()]
    columns = unfinished["run_id"], unfinished["status"], unfinished["error"]
    return [f"{run} {status}: {' '.join(str(error).split())}" for run, status, error in zip(*columns, strict=True)]


def _sweep(options: argparse.Namespace) -> int:
    """Runs the sweep and says how its runs ended; the exit status."""
    with connection(options.scheduler) if options.scheduler else nullcontext() as client:
        done = sweep_file(
            options.file, results=options.results, workers=options.workers, client=client, rerun=options.rerun
        )
    text = done.table.drop(columns="error").dropna(axis=1, how="all").to_string(index=False)
    sys.stdout.write("\n".join([text, *_reasons(done.runs), str(done)]) + "\n")
    return int(len(done.failed) > 0)


def _compare(options: argparse.Namespace) -> str:
    """Writes the report and says where it is."""
    runs = load_runs(options.results)
    if options.sweep:
        runs = load_sweep(options.sweep, options.results).runs
    path = write_report(options.file, select(runs, _pairs(options.filters)), unread(runs, options.results))
    return f"{path}\n"


def _report(report: StoreReport) -> str:
    """What was found in a store."""
    lines = [report.classes.to_string(index=False) if len(report.classes) else "no records"]
    lines += [f"damaged: record {id_ & ORDINAL_MASK} of label {id_ >> 32} ({part})" for part, id_ in report.damaged]
    lines += [f"damaged: {problem}" for problem in report.problems]
    return "\n".join([*lines, "", "sound" if report.sound else "NOT SOUND"]) + "\n"


def _wear(medium: str | None, capacity: str | None, cycles: int | None) -> str:
    """The table of all media, one of them described before."""
    if medium is not None:
        describe(medium, parse_amount(capacity or "", 0), cycles)
    table = wear()
    return (table.to_string(index=False) if len(table) else "nothing booked yet; run with medium=NAME") + "\n"


def _doctor() -> str:
    """Every energy source with what was found and what to do."""
    lines = []
    for name, row in doctor().iterrows():
        lines.append(f"{'yes' if row['available'] else 'no ':4}{name}: {row['found']} ({row['kind']}, {row['scope']})")
        lines += [f"      fix: {row['fix']}"] if row["fix"] else []
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # papermill's own log repeats every cell
    logging.getLogger("papermill").setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    try:
        if options.command == "launch":
            sys.stdout.write(_launch(options.notebook, options.parameters, options.results))
        elif options.command == "paper":
            sys.stdout.write(_paper(options.preset, options.results))
        elif options.command == "verify":
            if options.repair:
                repair(options.store)
            report = verify(options.store)
            sys.stdout.write(_report(report))
            return 0 if report.sound else 1
        elif options.command == "wear":
            sys.stdout.write(_wear(options.medium, options.capacity, options.cycles))
        elif options.command == "sweep":
            return _sweep(options)
        elif options.command == "runs":
            sys.stdout.write(_runs(options.results))
        elif options.command == "report":
            sys.stdout.write(_compare(options))
        else:
            sys.stdout.write(_doctor())
    except MiroError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is finished is kept\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
