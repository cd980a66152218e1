"""The live dashboard: a form, buttons and knobs, and what a run looks like while it goes on."""

import html
import logging
import math
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd
from IPython.display import HTML, DisplayHandle, display

from mirolib.base.display import size_text
from mirolib.base.errors import InputError, MiroError
from mirolib.data import Dataset
from mirolib.experiment.settings import FIXED, RunSettings
from mirolib.widgets.form import SettingsForm
from mirolib.widgets.live import LiveRun, PaceSampler
from mirolib.widgets.panels import NO_PACE, PANELS, Snapshot
from mirolib.widgets.svg import as_images
from mirolib.workbench.recording import RecordedRun
from mirolib.workbench.run import Run

logger = logging.getLogger(__name__)

_STYLE = f"<style>\n{Path(__file__).with_name('dashboard.css').read_text('utf-8')}</style>"

_SPEEDS = {
    "none": math.inf, "10 MB/s": 1e7, "3 MB/s": 3e6, "1 MB/s": 1e6, "300 kB/s": 3e5, "100 kB/s": 1e5, "30 kB/s": 3e4,
    "10 kB/s": 1e4,
}  # fmt: skip
_WIDE = {"width": "auto", "min_width": "0"}  # as wide as its cell: ipywidgets' own width would overlap the next
_CELL_TRAINS = "A cell trains: buttons and knobs rest. Interrupt the kernel to stop; finished tasks are kept."
_HEEDS = dict.fromkeys(("miro", "miro-2023", "tuned"), "The controller heeds it at the next epoch.")
_HEEDS |= dict.fromkeys(FIXED, "This controller keeps its sizes all the same.")


class View:
    """Form, buttons, knobs and panels, all of them in `widget`.

    Of the knobs `budget` is in samples, see `budget_samples`, and `congestion`, how fast storage may be read, in bytes
    a second, infinite for as fast as it can.
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
        return f'{_STYLE}<div class="miro-dashboard"><div class="miro-panels">{as_images(panels)}</div></div>'

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


class Dashboard:
    """Shown in a notebook, its Start button trains in the background, so that its other buttons and its knobs act.

    `run` trains in the cell instead and returns the result, as papermill, nbval and Run All Cells need it; buttons and
    knobs rest meanwhile, and an interrupt of the kernel stops it. In a kernel one dashboard's run goes on at a time:
    what begins another stops it, and so does making another dashboard.
    """

    _latest: ClassVar[LiveRun | None] = None

    def __init__(
        self,
        settings: RunSettings | None = None,
        *,
        dataset: Dataset | None = None,
        notebook: str = "05_live_dashboard",
        results: str | os.PathLike[str] | None = None,
        updates_per_s: float = 4.0,
    ) -> None:
        """A dashboard on which nothing runs yet, and which is drawn anew so often while a run goes on.

        The form begins with the settings, which hold where it has no field; the data set is the user's own. Runs lie in
        a folder of the name `notebook` in that of all results, see `mirolib.workbench.run.results_folder`. There is an
        `InputError` if there is no such data set or preset, or the rate is not positive.
        """
        if not updates_per_s > 0:
            raise InputError(f"updates_per_s is {updates_per_s}; choose a value above 0, such as 4.")
        self._period_s = 1 / updates_per_s
        self._form = SettingsForm(settings or RunSettings(), dataset)
        self._view = View(self._form.widget)
        self._make = partial(RecordedRun, dataset=self._form.dataset, notebook=notebook, results=results)
        self._run: LiveRun | None = None
        self._shown: DisplayHandle | None = None
        self._budget: int | None = None
        self._settings = settings or RunSettings()  # of the latest run
        # mended, and so no longer said to be wrong
        self._form.wrong.observe(lambda change: None if change.new else self._view.say(""), "value")
        self._view.start.on_click(lambda _: self.start())
        self._view.pause.on_click(lambda _: self.pause())
        self._view.stop.on_click(lambda _: self.stop())
        self._view.budget.observe(lambda _: self._turn_budget(), "value")
        for knob in (self._view.cap, self._view.congestion):
            knob.observe(lambda _: self._turn_others(), "value")
        _stop_latest()
        self._enable(form=True, buttons=False, knobs=True)
        self._view.draw(Snapshot())
        self._view.say("Choose, then press Start. The knobs below act while a run goes on, at the next epoch.")

    @property
    def result(self) -> Run | None:
        """The latest run as far as it has come; None before its first task has finished."""
        return self._run.result if self._run else None

    def start(self, resumed: str = "") -> None:
        """Begins a run in the background, or resumes one of that id; what is wrong with it is said on the page."""
        try:
            run = self._begin(resumed or self._form.run_id.value.strip(), in_background=True, resume=bool(resumed))
            threading.Thread(target=_train, args=(run,), name="miro-training", daemon=True).start()
        except MiroError as error:
            self._view.say(str(error), error=True)

    def run(self, *, run_id: str = "") -> Run:
        """Trains in the cell, the dashboard drawn meanwhile; the run has the name `run_id`, by default a new one.

        It is returned, after an interrupt what its finished tasks left, if any had finished. There is an `InputError`
        if a setting can't be, and a `StorageError` if the disk is full or can't be written, and a `KeyboardInterrupt`
        if the kernel is interrupted before a task has finished.
        """
        run = self._begin(run_id, in_background=False)
        try:
            return run.train()
        except KeyboardInterrupt:
            if (result := run.result) is None:
                raise
            logger.warning("Interrupted after %d tasks, which are kept.", len(result.records))
            return result
        finally:
            self._drawing.join()  # or the notebook would be saved before the end is drawn

    def picture(self) -> HTML:
        """What the panels show, as a page that stays when the kernel has gone; for reports and saved notebooks."""
        return HTML(self._view.picture())

    def pause(self) -> None:
        """Pauses the run when its epoch is over, or lets it go on, after a stop from its last checkpoint."""
        if self._run and (run_id := self._run.resumable):
            self.start(run_id)
        elif self._run:
            (self._run.resume if self._run.is_held else self._run.pause)()

    def stop(self) -> None:
        """Ends the run when its epoch is over; what its finished tasks left is kept."""
        if self._run:
            self._run.stop()

    def _begin(self, run_id: str, *, in_background: bool, resume: bool = False) -> LiveRun:
        self._settings = self._settings if resume else self._form.read()
        # in the run's thread: loading data takes a while
        make = partial(self._make, self._settings, run_id=run_id, resume=resume)
        run = LiveRun(make, after=_stop_latest())
        Dashboard._latest = self._run = run
        self._turn_others()
        self._enable(form=False, buttons=in_background, knobs=in_background)
        self._view.note("" if in_background else _CELL_TRAINS)
        self._drawing = threading.Thread(target=self._pump, args=(run,), name="miro-dashboard", daemon=True)
        self._drawing.start()
        return run

    def _enable(self, *, form: bool, buttons: bool, knobs: bool) -> None:
        view = self._view
        self._form.enable(form)
        view.start.disabled = not form
        view.pause.disabled = view.stop.disabled = not buttons
        view.cap.disabled = view.congestion.disabled = not knobs
        view.budget.disabled = True  # until a run can say what it may be

    def _turn_others(self) -> None:
        if self._run:
            self._run.set_swap_ratio_cap(self._view.cap.value)
            self._run.set_congestion(self._view.congestion.value)

    def _turn_budget(self) -> None:
        run, samples = self._run, self._view.budget_samples()
        if self._view.budget.disabled or run is None or run.experiment is None or samples == self._budget:
            return
        try:
            run.set_budget(samples)
        except InputError as error:
            self._view.note(str(error), error=True)
            self._view.show_budget(self._budget)  # back where it was, since that is what holds
            return
        self._budget = samples
        size = size_text((samples or 0) * run.experiment.memory.slot_bytes)
        text = "No memory budget." if samples is None else f"Memory budget: {samples:,} samples, {size}."
        heeds = _HEEDS.get(run.experiment.settings.controller, "This controller heeds it at the next task.")
        self._view.note(f"{text} {heeds}")

    def _pump(self, run: LiveRun) -> None:
        """Draws a run until it has ended or another has taken its place."""
        sampler: PaceSampler | None = None
        try:
            ended = False
            while not ended and self._run is run:
                ended = run.ended.wait(self._period_s)
                if sampler is None and run.experiment is not None:
                    sampler = PaceSampler(run.experiment.meter, run.experiment.learner.tally)
                    memory, most = run.experiment.memory, sum(run.experiment.stream.most_samples())
                    size_bytes = run.experiment.resources.slots_budget(0)
                    self._budget = None if size_bytes is None else min(size_bytes // memory.slot_bytes, most)
                    self._view.offer_budget(most, self._budget)
                    self._view.budget.disabled = self._view.stop.disabled  # where a cell trains no knob would be heard
                self._view.draw(run.snapshot(sampler.sample() if sampler else NO_PACE))
                self._view.say(run.sentence, run.share, error=run.error is not None)
                self._view.pause.description = "Resume" if run.is_held or run.resumable else "Pause"
        except Exception as error:  # training goes on whatever becomes of the pictures
            logger.exception("The dashboard can't be drawn.")
            self._view.say(f"The dashboard can't be drawn ({error!r}); training goes on.", error=True)
            run.ended.wait()
        if self._shown:  # a saved notebook shows the end where the widget is gone, not what the cell began with
            self._shown.update(self._bundle(), raw=True)
        if self._run is run:
            self._enable(form=True, buttons=False, knobs=True)
            self._view.pause.disabled = not run.resumable

    def __repr__(self) -> str:
        return f"Dashboard({self._run.sentence if self._run else 'no run yet'})"

    def _bundle(self) -> dict[str, object]:
        return {**self._view.widget._repr_mimebundle_(), "text/plain": repr(self), "text/html": self._view.picture()}

    def _ipython_display_(self) -> None:
        self._shown = display(self._bundle(), raw=True, display_id=True)


def _train(run: LiveRun) -> None:
    try:
        run.train()
    except Exception as error:
        if not isinstance(error, MiroError):  # those the page says
            logger.exception("The run failed.")


def _stop_latest() -> LiveRun | None:
    if latest := Dashboard._latest:
        latest.stop()
    return latest
