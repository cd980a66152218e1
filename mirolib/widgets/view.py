"""The dashboard's widgets and how they lie on the page; what they do is up to `Dashboard`."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd

from mirolib.widgets.panels import PANELS, Snapshot

_STYLE = f"<style>\n{Path(__file__).with_name('dashboard.css').read_text('utf-8')}</style>"

_SPEEDS = {
    "none": math.inf, "10 MB/s": 1e7, "3 MB/s": 3e6, "1 MB/s": 1e6, "300 kB/s": 3e5, "100 kB/s": 1e5, "30 kB/s": 3e4,
    "10 kB/s": 1e4,
}  # fmt: skip
_WIDE = {"width": "auto", "min_width": "0"}  # as wide as its cell: ipywidgets' own width would overlap the next


class View:
    """Form, buttons, knobs and panels; the buttons `start`, `pause` and `stop` say what they do.

    Attributes:
        budget: The knob for the memory budget, in samples; see `budget_samples`.
        cap: The knob for the highest swap ratio.
        congestion: The knob for how fast storage may be read, in bytes a second; infinite for as fast as it can.
        widget: All of it.
    """

    def __init__(self, form: ipw.Widget) -> None:
        self.start = _button("Start", "play", "Begin a run with these settings")
        self.pause = _button("Pause", "pause", "Pause when the epoch under way is over")
        self.stop = _button("Stop", "stop", "End the run when the epoch under way is over; rows are kept")
        # a knob acts when it is let go: each value that it passes would be a change of its own
        look = {"continuous_update": False, "layout": _WIDE, "style": {"description_width": "112px"}}
        self.budget = ipw.FloatLogSlider(1000.0, min=0, max=3, step=0.01, description="budget, samples",
                                         readout_format=",.0f", **look)  # fmt: skip
        self.cap = ipw.FloatSlider(1.0, min=0, max=1, step=0.05, description="swap ratio cap", readout_format=".2f",
                                   **look)  # fmt: skip
        self.congestion = ipw.SelectionSlider(options=_SPEEDS, value=math.inf, description="I/O congestion", **look)
        self._status, self._note = ipw.HTML(), ipw.HTML()
        self._drawn: Snapshot | None = None
        self._panels = {name: ipw.HTML() for name in PANELS}
        for name in ("candidates", "log"):  # they grow, and would push the rest off the page
            self._panels[name].add_class("miro-scroll")
        knobs = ipw.GridBox([self.budget, self.cap, self.congestion]).add_class("miro-knobs")
        panels = ipw.GridBox(list(self._panels.values())).add_class("miro-panels")
        buttons = ipw.HBox([self.start, self.pause, self.stop, self._status])
        self.widget = ipw.VBox([ipw.HTML(_STYLE), form, buttons, knobs, self._note, panels]).add_class("miro-dashboard")

    def draw(self, state: Snapshot) -> None:
        """Draws what has changed since the last time."""
        before, self._drawn = self._drawn, state
        for name, (draw, parts) in PANELS.items():  # drawing takes the cores that train
            if before is None or not all(_same(getattr(state, part), getattr(before, part)) for part in parts):
                self._panels[name].value = draw(state)

    def picture(self) -> str:
        """The panels as they stand, as HTML that needs no kernel."""
        panels = "".join(
            f'<div class="{" ".join(panel._dom_classes)} widget-html-content">{panel.value}</div>'
            for panel in self._panels.values()
        )
        return f'{_STYLE}<div class="miro-dashboard"><div class="miro-panels">{panels}</div></div>'

    def say(self, sentence: str, share: float | None = None, *, error: bool = False) -> None:
        """Says how things stand, with a progress bar where the share of the run that is done, in [0, 1], is given."""
        bar = "" if share is None else f'<progress value="{share:.3f}" aria-label="share of the run done"></progress> '
        self._status.value = _said(sentence, "alert" if error else "status", bar)

    def note(self, sentence: str, *, error: bool = False) -> None:
        """Says what a knob means or why it was refused."""
        self._note.value = _said(sentence, "alert" if error else "note") if sentence else ""

    def offer_budget(self, most_samples: int, samples: int | None) -> None:
        """Fits the knob for the memory budget to the most that a run's buffers hold, and to where it stands now."""
        self.budget.max = math.log10(most_samples) + self.budget.step  # a step beyond what is of use: no budget
        self.show_budget(samples)

    def show_budget(self, samples: int | None) -> None:
        """Sets the knob to a memory budget, None for none."""
        self.budget.value = 10**self.budget.max if samples is None else float(samples)

    def budget_samples(self) -> int | None:
        """The memory budget that the knob says; None at its upper end."""
        value = float(self.budget.value)
        return None if math.log10(value) > self.budget.max - self.budget.step / 2 else round(value)


def _said(sentence: str, role: str, before: str = "") -> str:
    look = 'class="miro-error" ' if role == "alert" else ""  # the role tells it to who doesn't see the colour
    return f'<div {look}role="{role}">{before}{html.escape(sentence)}</div>'


def _same(now: Any, then: Any) -> bool:
    return bool(now.equals(then) if isinstance(now, pd.DataFrame) else now == then)  # == of tables is a table


def _button(description: str, icon: str, tooltip: str) -> ipw.Button:
    return ipw.Button(description=description, icon=icon, tooltip=tooltip, layout={"width": "92px", "flex": "0 0 auto"})
