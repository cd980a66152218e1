"""The paper's figures beside ours: its numbers, the studies that reproduce each, and what of those has been run.

`make paper PRESET=smoke|small|paper` launches the studies that are missing (`studies`, `fill`) and then the notebook
`20_paper_figures`, which reads results alone and draws `FIGURES`. A new figure is a `PaperFigure` entered there and an
entry in `plan.yaml`.
"""

import logging
import os
from collections.abc import Sequence

import pandas as pd

from mirolib.base.errors import MiroError
from mirolib.paper.figures import FIGURES, Panel, PaperFigure, beside, line as Line, paper_numbers
from mirolib.paper.plan import State, Study, states, studies
from mirolib.workbench.launch import launch

logger = logging.getLogger(__name__)


def overview(found: Sequence[State]) -> pd.DataFrame:
    """A row a figure and study: `figure`, `data_set`, `notebook`, `status`, `note` and the `command` that fills it."""
    rows = []
    for state in found:
        for key in state.study.figures:
            problem = FIGURES[key].shown(state)[2] if state.path else state.note
            status = "unusable" if state.path and problem else state.status
            command = state.study.command(state.path.name if state.path and usable(state) else state.next_run_id)
            rows.append([key, state.study.dataset or "generated", state.study.notebook, status, problem, command])
    return pd.DataFrame(rows, columns=["figure", "data_set", "notebook", "status", "note", "command"])


def usable(state: State) -> bool:
    """Whether a study is finished and all its figures can be drawn from it."""
    return not any(FIGURES[key].shown(state)[2] for key in state.study.figures)


def fill(preset: str, results: str | os.PathLike[str] | None = None) -> list[State]:
    """Runs the studies of a preset that are not finished, or left a table that can't be read, one after another.

    One that fails doesn't stop the others; what is returned says how far each got. For `preset` see `studies`, for
    `results` see `mirolib.workbench.run.results_folder`. There is an `InputError` if there is no such preset.
    """
    before, where = states(preset, results), os.fspath(results or "")
    for number, state in enumerate(before, 1):
        study, is_left = state.study, usable(state) or state.status in ("running", "no data set")
        logger.info("%d of %d: %s (%s)", number, len(before), study.name, state.note or state.status)
        if is_left:
            continue
        try:
            launch(study.notebook, progress=False, results=where, run_id=state.next_run_id, **study.parameters)
        except MiroError as error:  # a night's studies are not lost to the first of them
            logger.warning("%s", error)
    return states(preset, results)
