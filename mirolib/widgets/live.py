"""A run that can be watched, paused, stopped and steered while it goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np

from mirolib.base.errors import InputError, MiroError
from mirolib.energy import EnergyMeter, Work
from mirolib.experiment.experiment import Experiment, check_budget
from mirolib.experiment.injectors import During, Throttle
from mirolib.learning.inputs import Tally
from mirolib.memory.budget import LiveBudget, SlotBytes
from mirolib.memory.storage import Storage
from mirolib.widgets.panels import NO_PACE, Pace, Snapshot
from mirolib.workbench.recording import RecordedRun
from mirolib.workbench.run import Run

_MOST_LOOKS = 1200  # five minutes at 4 Hz; then every other is dropped
_WINDOW_S, _WINDOW_PERIODS = 1.0, 6  # power is the mean of so long, and of so many readings of a slow sensor


class LiveRun:
    """A run whose loop asks, after each epoch, whether to go on; it knows nothing of widgets.

    One thread calls `train`; any other may call the rest. Its `state` is `preparing`, `training`, `paused`, or how it
    ended: `finished`, `stopped` or `failed` of `error`; `ended` is set once its folder is complete.
    """

    def __init__(self, make: Callable[..., RecordedRun], after: LiveRun | None = None) -> None:
        """A run that `make(disturb=…)` will make, under the knob for congestion, once the run `after` has ended."""
        self._make, self._after, self.state = make, after, "preparing"
        self.error: Exception | None = None
        self._recorded: RecordedRun | None = None
        self._swap_ratio_cap = 1.0
        self._rate_bytes_s: float | None = None
        self._throttle: Throttle | None = None
        # events, not flags: threads sleep on them
        self.ended, self._may_run, self._is_stopped = threading.Event(), threading.Event(), threading.Event()
        self._may_run.set()

    def train(self) -> Run:
        """Trains in this thread until the run is done or stopped; an interrupt keeps the rows of the finished tasks.

        There is an `InputError` if a setting can't be; the run is then marked failed; a `StorageError` if the disk is
        full or can't be written.
        """
        try:
            if self._after is not None:  # two runs at once would share the cores and each other's joules
                self._after.ended.wait()
            self._after = None  # or each run would keep all those before it in RAM
            self._recorded = recorded = self._make(disturb=self._throttled)
            self.set_swap_ratio_cap(self._swap_ratio_cap)  # the knob may have been turned while it was made
            experiment, self.state = recorded.experiment, "training"
            with closing(recorded.steps(progress=False)) as steps:  # a stop writes the folder's end now
                for _ in steps:
                    is_done = len(experiment.loop.records) == len(experiment.stream)
                    if not (self._may_go_on(experiment) or is_done):
                        break
            self.state = "finished" if is_done else "stopped"
            return recorded.result
        except BaseException as error:
            self.state, self.error = ("failed", error) if isinstance(error, Exception) else ("stopped", None)
            raise
        finally:
            self.ended.set()

    def _throttled(self, storage: Storage) -> During:
        self._throttle = Throttle(storage, self._rate_bytes_s)
        return During(0, sys.maxsize, self._throttle)  # for the whole run: its rate is what changes

    def _may_go_on(self, experiment: Experiment) -> bool:
        if self.is_held:
            self.state = "paused"
            # a window of its own, or the wait would count as training
            with experiment.meter.interlude("pause"):
                self._may_run.wait()
            self.state = "training"
        return not self._is_stopped.is_set()

    @property
    def experiment(self) -> Experiment | None:
        """The parts of the run; None while it is being prepared."""
        return self._recorded.experiment if self._recorded else None

    @property
    def result(self) -> Run | None:
        """The run as far as it has come; None before its first task has finished."""
        return self._recorded.result if self._recorded and self._recorded.experiment.loop.records else None

    @property
    def resumable(self) -> str:
        """The id of a run that was stopped and may go on; empty of any other."""
        return self._recorded.folder.run_id if self._recorded and self.state == "stopped" else ""

    @property
    def is_held(self) -> bool:
        """Whether the run is paused, or will be when its epoch is over."""
        return not self._may_run.is_set()

    @property
    def share(self) -> float:
        """Share of it that is done, in [0, 1]."""
        return self.experiment.loop.share if self.experiment else 0.0

    @property
    def sentence(self) -> str:
        """How the run stands, for people."""
        problem = str(self.error or "") if isinstance(self.error, MiroError | None) else repr(self.error)
        if (recorded := self._recorded) is None:
            return problem or "Loading the data set and making the parts of the run."
        tasks, epochs = len(recorded.experiment.stream), recorded.experiment.learner.epochs
        records, (task, done) = recorded.experiment.loop.records, recorded.experiment.loop.standing
        here = f"task {min(task + 1, tasks)} of {tasks}, {done:.3g} of {epochs:.3g} epochs done"
        kept = f"what the {len(records)} finished tasks left is in {recorded.folder.path}"
        if self.state == "finished":
            return f"Finished: average accuracy {records[-1].average_accuracy:.1%} over {tasks} tasks; {kept}."
        if self.state in ("failed", "stopped"):
            return f"{problem or f'Stopped in {here}'}; {kept}.".replace(".;", ";")
        if self._is_stopped.is_set():
            return f"Stopping when this epoch is over: {here}."
        held = "Paused" if self.state == "paused" else "Pausing when this epoch is over"
        return f"{held if self.is_held else 'Training'}: {here}."

    def pause(self) -> None:
        """Makes the run wait when the epoch under way is over."""
        self._may_run.clear()

    def resume(self) -> None:
        """Lets a paused run go on."""
        self._may_run.set()

    def stop(self) -> None:
        """Ends the run when the epoch under way is over; what the finished tasks left is kept."""
        self._is_stopped.set()
        self._may_run.set()  # in this order, or a paused run would begin another epoch

    def set_swap_ratio_cap(self, cap: float) -> None:
        """Sets the highest swap ratio that is allowed, in [0, 1]."""
        self._swap_ratio_cap = cap
        if self.experiment:
            self.experiment.resources.swap_ratio_cap = cap

    def set_congestion(self, rate_bytes_s: float | None) -> None:
        """Lets only so many bytes a second be read from storage; None for as many as it can."""
        self._rate_bytes_s = rate_bytes_s
        if self._throttle:
            self._throttle.set_rate(rate_bytes_s)

    def set_budget(self, samples: int | None) -> None:
        """Sets the memory budget in samples of RAM, None for no limit; it takes the place of that of the settings.

        Raises:
            InputError: If the run is still being prepared, or the smallest configuration of a task does not fit.
        """
        if self.experiment is None:
            raise InputError("The run is still being prepared; set the memory budget once it trains.")
        slot_bytes = self.experiment.memory.slot_bytes
        if samples is not None:
            check_budget(samples, self.experiment.settings.controller, self.experiment.stream, slot_bytes)
        self.experiment.resources.budget = LiveBudget(None if samples is None else SlotBytes(samples * slot_bytes))

    def snapshot(self, pace: Pace = NO_PACE) -> Snapshot:
        """The state of the run now, beside the pace that a `PaceSampler` has seen."""
        if self.experiment is None:
            return Snapshot(pace=pace)
        memory, loop = self.experiment.memory, self.experiment.loop
        return Snapshot(
            tasks=tuple(loop.records),
            epochs=tuple(loop.epochs),
            events=loop.events,
            trials=self.experiment.controller.trials,
            config=memory.config,
            fill=(len(memory.stream_buffer), len(memory.episodic_memory)),
            slot_bytes=memory.slot_bytes,
            stored=memory.stored,
            memory_bytes=memory.memory_bytes,
            budget_bytes=self.experiment.resources.slots_budget(loop.epochs_done),
            pace=pace,
        )


class PaceSampler:
    """Looks at a meter and a learner's tally now and then; one thread alone may use it."""

    def __init__(self, meter: EnergyMeter, tally: Tally) -> None:
        """A sampler whose time begins now."""
        self._meter, self._tally, self._start = meter, tally, time.monotonic()
        self._looks: list[tuple[float, float, float]] = []

    def sample(self) -> Pace:
        """Takes down how things stand, and returns all so far."""
        now, start, tally, source = time.monotonic(), self._start, self._tally, self._meter.source
        work = Work(tally.visits, tally.forward_visits).visit_equivalents
        window_s = max(_WINDOW_S, _WINDOW_PERIODS * (source.period_s or 0.0))
        power_w = source.measure(now - window_s, now).energy_j / window_s
        self._looks.append((now - start, work, power_w))
        if len(self._looks) > _MOST_LOOKS:
            del self._looks[::2]  # the whole run stays on the chart, at half the resolution
        phases = [(row.window, row.start_s, row.start_s + row.duration_s) for row in self._meter.readings]
        name, since = self._meter.under_way
        phases += [(name, since, now)] if name else []
        phases = [(name, max(0.0, begin - start), end - start) for name, begin, end in phases]
        time_s, works, powers_w = np.array(self._looks).T
        return Pace(time_s, works, powers_w, source.kind, phases)
