"""What a figure of the paper is beside ours: the paper's panels, ours, and the sentence our results bear out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mirolib.base.errors import InputError
from mirolib.paper.studies import State
from mirolib.viz.figures import OKABE_ITO, figure

_ACCURACY = "average test accuracy, %"
_LOG = {"type": "log", "tickformat": "~s", "tickvals": [m * 10**k for k in range(-3, 10) for m in (1, 2, 5)]}


@dataclass(frozen=True)
class Line:
    """Points of one name; lines of the same name have the same colour in all panels.

    Attributes:
        name: What it shows.
        x: Horizontal values, numbers or names.
        y: Vertical values.
        mode: plotly's mode, such as `markers`.
    """

    name: str
    x: Sequence[object] | pd.Series | pd.Index
    y: Sequence[float] | pd.Series
    mode: str = "lines+markers"


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: Whose results these are, on what data.
        x_title: Title of the horizontal axis, with its unit.
        lines: What is drawn.
        y_title: Title of the vertical axis, with its unit.
        log: Whether the horizontal axis is logarithmic.
    """

    title: str
    x_title: str
    lines: tuple[Line, ...]
    y_title: str = _ACCURACY
    log: bool = False


def beside(title: str, panels: Sequence[Panel]) -> go.Figure:
    """Panels side by side, two in a row.

    Args:
        title: What they compare.
        panels: One or more.
    """
    columns, rows = min(2, len(panels)), -(-len(panels) // 2)
    plot = make_subplots(rows, columns, subplot_titles=[panel.title for panel in panels],
                         horizontal_spacing=0.12, vertical_spacing=0.34 / rows)  # fmt: skip
    names = dict.fromkeys(line.name for panel in panels for line in panel.lines)
    colours = {name: OKABE_ITO[number % len(OKABE_ITO)] for number, name in enumerate(names)}
    shown = set()
    for number, panel in enumerate(panels):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        for line in panel.lines:
            plot.add_scatter(x=list(line.x), y=list(line.y), name=line.name, legendgroup=line.name, mode=line.mode,
                             showlegend=line.name not in shown, marker={"color": colours[line.name], "size": 8},
                             **place)  # fmt: skip
            shown.add(line.name)
        plot.update_xaxes(title_text=panel.x_title, **(_LOG if panel.log else {}), **place)
        plot.update_yaxes(title_text=panel.y_title, **place)
    plot.update_layout(template=figure("").layout.template, title=title, width=900 if columns == 2 else 640,
                       height=60 + 360 * rows, margin={"t": 90})  # fmt: skip
    return plot


class PaperFigure(ABC):
    """One of the paper's figures or claims.

    Attributes:
        key: Its name in `mirolib.paper.plan`.
        title: What it compares.
        claim: What the paper says, with its numbers and how they are known.
        tables: The table that is read of each study, with the columns needed.
    """

    key: str
    title: str
    claim: str
    tables: tuple[str, tuple[str, ...]]

    def ready(self, found: Sequence[State]) -> list[State]:
        """Finished studies of this figure whose table can be read."""
        return [state for state in found if self.key in state.study.figures and not self.problem(state)]

    def problem(self, state: State) -> str:
        """Why a study can't be shown, in a sentence; empty where it can."""
        if state.path is None:
            return state.note or state.status
        try:
            self.says(self.read(state))
        except InputError as error:
            return str(error)
        except (LookupError, ValueError, TypeError) as error:
            return f"The table in {state.path} can't be compared ({error!r}); run the study anew."
        return ""

    def read(self, state: State) -> pd.DataFrame:
        """The study's table.

        Raises:
            InputError: If it can't be read.
        """
        return state.table(*self.tables)

    def draw(self, found: Sequence[State]) -> go.Figure:
        """The paper's panels beside ours; the paper's alone where no study is finished."""
        ours = [panel for state in self.ready(found) for panel in self.ours(state, self.read(state))]
        panels = [*self.paper(), *ours] or [Panel("not run, and the paper's numbers are not known", "", ())]
        return beside(self.title, panels)

    def report(self, found: Sequence[State]) -> str:
        """What the paper says and what our results say, as Markdown; what is missing, with the command that runs it."""
        sentences = [f"**The paper**: {self.claim}"]
        for state in (state for state in found if self.key in state.study.figures):
            problem, whose = self.problem(state), f"**Ours, {state.study.dataset or 'generated images'}**"
            if problem:
                sentences.append(f"{whose}: nothing to show ({escape(problem, quote=False)}); to run it:")
                sentences.append(f"    {state.study.command(state.next_run_id)}")
            else:
                sentences.append(f"{whose}: {escape(self.says(self.read(state)), quote=False)}")
        return "\n\n".join(sentences)

    def paper(self) -> list[Panel]:
        """The paper's panels; none where its numbers are not known."""
        return []

    @abstractmethod
    def ours(self, state: State, table: pd.DataFrame) -> list[Panel]:
        """Our panels of one study."""

    @abstractmethod
    def says(self, table: pd.DataFrame) -> str:
        """What the study's table says, in a sentence with its own numbers."""


def who(state: State) -> str:
    """Title of a panel of ours."""
    return f"ours, {state.study.dataset or 'generated images'} ({state.study.preset})"


def cost_of(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """What learning cost: joules where every run has them, all of one kind; else work."""
    if table["learning_energy_j"].notna().all() and table["energy_kind"].nunique() == 1:
        return table["learning_energy_j"], f"energy, J ({table['energy_kind'].iloc[0]})"
    return table["learning_work"], "work, sample visits"


def yes(value: object) -> str:
    """A truth value in a word."""
    return "yes" if value else "no"
