"""A report on runs for somebody without Jupyter: a page of HTML that needs no network, or a table for a spreadsheet."""

import html
import os
import re
import warnings
from datetime import datetime, timezone
from pathlib import Path
from socket import gethostname

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mirolib.base.errors import InputError
from mirolib.base.files import write_atomic
from mirolib.viz.compare import accuracy_matrices, accuracy_over_energy, configurations, energy_of_phases
from mirolib.workbench.compare import MEASURES, comparable, labels, over_seeds, varied, warn_of_mixed_energy
from mirolib.workbench.run import PROJECT, open_run

_SIDE_BY_SIDE = 4  # runs; their panels fill the page's 1,240 pixels
_MOST_ROWS = 1000  # of a table on the page; the .csv has all
# plotly.js draws without eval, workers or anything from elsewhere
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


def write_report(
    path: str | Path, runs: pd.DataFrame, unread: pd.DataFrame | None = None, *, places: bool = False
) -> Path:
    """Writes runs to a file, and returns it: every run a row as `.csv`, or a page that compares them as `.html`.

    Runs are as from `load_runs`, `unread`, which the page names, as from `unreadable_runs`. With `places` the machine's
    name and folders stay in it, which are no concern of those a report is for. There is an `InputError` if the file's
    ending is another, its folder isn't there, or there are no runs, and a `StorageError` if it can't be written.
    """
    path = Path(path).absolute()
    if path.suffix not in (".html", ".csv"):
        raise InputError(f"{path.name} ends in neither .html nor .csv; name one of them.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}; make it, or name another for the report.")
    if not len(runs):
        raise InputError("There are no such runs; leave out a condition, or name another results folder.")
    unread = pd.DataFrame() if unread is None else unread
    if not places:
        runs, unread = _placeless(runs), _placeless(unread)
    table = runs.drop(columns=[] if places else "path", errors="ignore")
    content = _page(runs, unread) if path.suffix == ".html" else table.to_csv(index=False, lineterminator="\n")
    write_atomic(path, content)
    return path


def _placeless(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the machine's name and folders; of a path in a sentence the last part is left."""
    # known folders by name, since one with a space in it ends nowhere that a pattern could see
    folders = {Path.home(), Path.cwd(), PROJECT, *(Path(path).parent.parent for path in table.get("path", ()))}
    known = "|".join(re.escape(str(folder)) for folder in folders if folder.name)
    places = re.compile(rf"(?<![\w./<])(?:(?:{known})/(?:[^\s/]+/)*|/(?:[^\s/]+/)+)|\b{re.escape(gethostname())}\b")
    said = table.filter(["error", "problem"]).map(lambda text: places.sub("", text) if isinstance(text, str) else text)
    # the path of a run is needed to open it
    named = table.filter(["data", "energy", "medium", *["path"] * ("problem" in table)])
    return table.assign(**said, **named.map(lambda path: Path(str(path)).name))


def _page(runs: pd.DataFrame, unread: pd.DataFrame) -> str:
    finished = comparable(runs).sort_values("average_incremental_accuracy", ascending=False)
    counts = ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())
    today = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    parts = [f"<h1>Runs compared</h1><p>{html.escape(f'{len(runs)} runs: {counts}')}. Written {today}.</p>"]
    if len(finished):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # who opens the page sees no warnings: it says them itself
            points, plot = over_seeds(runs), accuracy_over_energy(runs)
            warning = warn_of_mixed_energy(points)
        parts += [f'<p class="warning">{html.escape(warning)}</p>'] if warning else []
        note = "Points: rows of the next table, with standard deviations; dotted: the best at each cost."
        numbered = points.drop(columns="setting").rename_axis("point").reset_index()
        parts += [_figure(plot, note), *_table("Settings, mean and standard deviation (sd) over n seeds", numbered)]
        best = finished.drop_duplicates(varied(finished) or ["dataset"]).head(_SIDE_BY_SIDE)
        opened = {name: open_run(path) for name, path in zip(labels(best), best["path"], strict=True)}
        shown = best.assign(run=[*opened])[["run", "run_id", "dataset", *varied(best), "seed", *MEASURES]].dropna(
            axis=1, how="all"
        )
        parts += _table("The best run of each of the most accurate settings", shown.loc[:, ~shown.columns.duplicated()])
        problems = [problem.replace(f"{run.path}{os.sep}", "") for run in opened.values() for problem in run.problems]
        parts += [f'<p class="warning">{html.escape(problem)}</p>' for problem in problems]
        parts += [_figure(draw(opened)) for draw in (configurations, accuracy_matrices, energy_of_phases)]
        events = [run.events.assign(run=name) for name, run in opened.items() if len(run.events)]
        columns = ["run", "task", "epoch", "stream_size", "episodic_size", "swap_ratio", "reason"]
        parts += _table("What the controllers decided", pd.concat(events)[columns]) if events else []
    unfinished = runs[runs["status"] != "finished"]
    parts += _table("Runs left out", unfinished.reindex(columns=["notebook", "run_id", "status", "error"]))
    parts += _table("What could not be read", unread)
    shown = finished.dropna(axis=1, how="all").drop(columns=["path", "cost", "cost_kind", "error"], errors="ignore")
    parts += _table("Every finished run", shown)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Runs compared</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _figure(plot: go.Figure, note: str = "") -> str:
    drawn = plot.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    return f"<section>{drawn}<p>{html.escape(note)}</p></section>"


def _table(title: str, table: pd.DataFrame) -> list[str]:
    """A section with a table, or nothing where it is empty."""
    if not len(table):
        return []
    head = table.head(_MOST_ROWS)
    more = f"<p>… and {len(table) - len(head)} more; the .csv has all.</p>" if len(table) > len(head) else ""
    grid = head.to_html(index=False, float_format="%.4g", na_rep="", border=0)
    return [f"<h2>{html.escape(title)}</h2><section>{grid}</section>{more}"]
