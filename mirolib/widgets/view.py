"""The dashboard's widgets and how they lie on the page; what they do is up to `Dashboard`."""

from __future__ import annotations

import html
import math

import ipywidgets as ipw
import pandas as pd

from mirolib.widgets.panels import PANELS, Snapshot

_STYLE = """<style>
.miro-dashboard { color: var(--jp-content-font-color1, inherit); max-width: 1200px; }
.miro-dashboard .widget-html-content { line-height: 1.35; font-size: 13px; color: inherit; }
.miro-dashboard .widget-html { height: auto; }
.miro-dashboard .miro-form { grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); grid-gap: 2px 8px; }
.miro-dashboard .miro-knobs { grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); grid-gap: 2px 8px; }
.miro-dashboard .miro-panels { display: grid; grid-gap: 6px 16px; }
.miro-dashboard .miro-panels { grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
.miro-dashboard .miro-scroll { max-height: 260px; overflow: auto; }
.miro-dashboard figure { margin: 0; }
.miro-dashboard figcaption, .miro-dashboard caption { font-weight: 600; text-align: left; }
.miro-dashboard svg { width: 100%; display: block; }
.miro-dashboard svg text { fill: currentColor; font-size: 11px; opacity: 0.85; }
.miro-dashboard svg .grid { stroke: currentColor; opacity: 0.18; }
.miro-dashboard .legend { min-height: 18px; font-size: 11px; display: flex; flex-wrap: wrap; gap: 0 10px; }
.miro-dashboard .legend i { display: inline-block; width: 16px; margin-right: 4px; vertical-align: middle; }
.miro-dashboard .legend i.band { height: 10px; width: 10px; opacity: 0.5; }
.miro-dashboard .miro-bar { display: grid; grid-template-columns: 125px 1fr; gap: 0 8px; align-items: center; }
.miro-dashboard .miro-bar em { grid-column: 2; font-style: normal; font-size: 12px; }
.miro-dashboard .track { display: block; height: 12px; border: 1px solid currentColor; border-radius: 3px; }
.miro-dashboard .track span { display: block; height: 100%; }
.miro-dashboard table { border-collapse: collapse; table-layout: auto; width: 100%; font-size: 11.5px; }
.miro-dashboard th, .miro-dashboard td { text-align: right; padding: 1px 3px; white-space: nowrap; }
.miro-dashboard td:first-child { text-align: left; }
.miro-dashboard tr.chosen { font-weight: 700; background: rgba(0, 158, 115, 0.25); }
.miro-dashboard tr.over td + td { text-decoration: line-through; opacity: 0.6; }
.miro-dashboard ul { margin: 0; padding-left: 18px; }
.miro-dashboard progress { width: 160px; vertical-align: middle; }
.miro-dashboard .miro-error { border-left: 4px solid #D55E00; padding-left: 8px; }
.miro-dashboard .miro-empty { opacity: 0.75; }
</style>"""

_SPEEDS = {
    "none": math.inf,
    "10 MB/s": 1e7,
    "3 MB/s": 3e6,
    "1 MB/s": 1e6,
    "300 kB/s": 3e5,
    "100 kB/s": 1e5,
    "30 kB/s": 3e4,
    "10 kB/s": 1e4,
}
_WIDE = {"width": "auto", "min_width": "0"}
_LABEL = {"description_width": "112px"}


class View:
    """Form, buttons, knobs and panels.

    Attributes:
        start: The button that begins a run.
        pause: The button that pauses a run and lets it go on.
        stop: The button that ends a run.
        budget: The knob for the memory budget, in samples; see `budget_samples`.
        cap: The knob for the highest swap ratio.
        congestion: The knob for how fast storage may be read; see `rate_bytes_s`.
        widget: All of it.
    """

    def __init__(self, form: ipw.Widget) -> None:
        """The widgets of a dashboard on which nothing runs.

        Args:
            form: The form of the run's settings.
        """
        self.start = _button("Start", "play", "Begin a run with these settings")
        self.pause = _button("Pause", "pause", "Pause when the epoch under way is over")
        self.stop = _button("Stop", "stop", "End the run when the epoch under way is over; rows are kept")
        self.budget = ipw.FloatLogSlider(
            1000.0, min=0, max=3, step=0.01, description="budget, samples", readout_format=",.0f",
            continuous_update=False, layout=_WIDE, style=_LABEL,
        )  # fmt: skip
        self.cap = ipw.FloatSlider(
            1.0, min=0, max=1, step=0.05, description="swap ratio cap", readout_format=".2f",
            continuous_update=False, layout=_WIDE, style=_LABEL,
        )  # fmt: skip
        self.congestion = ipw.SelectionSlider(
            options=_SPEEDS, value=math.inf, description="I/O congestion", continuous_update=False, layout=_WIDE,
            style=_LABEL,
        )  # fmt: skip
        self._status, self._note = ipw.HTML(), ipw.HTML()
        self._drawn: Snapshot | None = None
        self._panels = {name: ipw.HTML() for name in PANELS}
        for name in ("candidates", "log"):
            self._panels[name].add_class("miro-scroll")
        knobs = ipw.GridBox([self.budget, self.cap, self.congestion]).add_class("miro-knobs")
        panels = ipw.GridBox(list(self._panels.values())).add_class("miro-panels")
        buttons = ipw.HBox([self.start, self.pause, self.stop, self._status])
        parts = [ipw.HTML(_STYLE), form, buttons, knobs, self._note, panels]
        self.widget = ipw.VBox(parts).add_class("miro-dashboard")

    def draw(self, state: Snapshot) -> None:
        """Draws what has changed since the last time."""
        before, self._drawn = self._drawn, state
        for name, panel in PANELS.items():
            if before is None or not all(_same(getattr(state, part), getattr(before, part)) for part in panel.inputs):
                self._panels[name].value = panel.draw(state)

    def picture(self) -> str:
        """The panels as they stand, as HTML that needs no kernel."""
        panels = "".join(
            f'<div class="{" ".join(panel._dom_classes)} widget-html-content">{panel.value}</div>'
            for panel in self._panels.values()
        )
        return f'{_STYLE}<div class="miro-dashboard"><div class="miro-panels">{panels}</div></div>'

    def say(self, sentence: str, share: float | None = None, *, error: bool = False) -> None:
        """Says how things stand.

        Args:
            sentence: In one sentence.
            share: Share of the run that is done, in [0, 1], for a progress bar.
            error: Whether something went wrong.
        """
        bar = "" if share is None else f'<progress value="{share:.3f}" aria-label="share of the run done"></progress> '
        kind = 'class="miro-error" role="alert"' if error else 'role="status"'
        self._status.value = f"<div {kind}>{bar}{html.escape(sentence)}</div>"

    def note(self, sentence: str, *, error: bool = False) -> None:
        """Says what a knob means or why it was refused."""
        kind = 'class="miro-error" role="alert"' if error else 'role="note"'
        self._note.value = f"<div {kind}>{html.escape(sentence)}</div>" if sentence else ""

    def offer_budget(self, most_samples: int, samples: int | None) -> None:
        """Fits the knob for the memory budget to a run.

        Args:
            most_samples: What the buffers hold at most; the knob's upper end means no budget.
            samples: Where it stands at first; None for no budget.
        """
        self.budget.max = math.log10(most_samples) + self.budget.step
        self.show_budget(samples)

    def show_budget(self, samples: int | None) -> None:
        """Sets the knob to a memory budget, None for none."""
        self.budget.value = 10**self.budget.max if samples is None else float(samples)

    def rate_bytes_s(self) -> float | None:
        """How fast storage may be read, as its knob says; None for as fast as it can."""
        return None if math.isinf(self.congestion.value) else self.congestion.value

    def budget_samples(self) -> int | None:
        """The memory budget that the knob says; None at its upper end."""
        value = float(self.budget.value)
        return None if math.log10(value) > self.budget.max - self.budget.step / 2 else round(value)


def _same(now: object, then: object) -> bool:
    """Whether a part of the state is as it was; a table counts as the same only if it is the same object."""
    return now is then or (not isinstance(now, pd.DataFrame) and now == then)


def _button(description: str, icon: str, tooltip: str) -> ipw.Button:
    return ipw.Button(description=description, icon=icon, tooltip=tooltip, layout={"width": "92px", "flex": "0 0 auto"})
