"""The meter: energy and work by activity."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import State, dumped, loaded
from mirolib.energy.doctor import choose
from mirolib.energy.ledger import Reading, Work
from mirolib.energy.sampled import SETTLING
from mirolib.energy.source import KINDS, NOT_MEASURED, EnergySource

logger = logging.getLogger(__name__)

# The error that random instants leave falls with the square root of a window's length, so that its beginning is sampled
# four times as fast: two seconds are then off by one percent where power swings by a third at 8 to 10 Hz; at 20 Hz
# throughout it would be 2.7 %.
_SHORTEST_SLOT, _FULL_SLOT_AFTER_S = 0.25, 24.0


def sampling_instants(start_s: float, period_s: float, rng: random.Random) -> Iterator[float]:
    """When to read a sensor: at a random instant of every slot, the first of which begins at `start_s`.

    Slots are a quarter of `period_s` long at first and grow in proportion to time, to all of it from 24 s on.
    """
    # A fixed rhythm would beat with that of training: a wave of 100 ms that is read every 100 ms is off by a third.
    slot = start_s
    while True:
        length = period_s * min(1.0, max(_SHORTEST_SLOT, (slot - start_s) / _FULL_SLOT_AFTER_S))
        yield slot + rng.random() * length
        slot += length


class _Sampler(AbstractContextManager[None]):
    """Marks a source in a thread of its own for as long as anyone is inside."""

    def __init__(self, source: EnergySource) -> None:
        self.cpu_s = 0.0
        self.edge_s = 0.0  # when windows last changed; the planned instants begin anew there
        self._source, self._users, self._lock = source, 0, threading.Lock()
        self._stop, self._thread = threading.Lock(), threading.Thread()  # of the thread under way, if there is one
        self._rng = random.Random()  # its draws decide when a sensor is read and nothing else

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1 and self._source.period_s is not None:
                self._stop = threading.Lock()
                self._stop.acquire()
                self._thread = threading.Thread(target=self._sample, args=(self._stop,), name="miro-meter", daemon=True)
                self._thread.start()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._thread.is_alive():
                self._stop.release()
                self._thread.join()

    def _sample(self, stop: threading.Lock) -> None:
        """Marks the source at the planned instants until the lock `stop` is let go of; what is overdue is left out."""
        period, edge, instants = self._source.period_s or 0.0, float("nan"), iter([0.0])
        spent = time.thread_time()
        while True:
            if edge != self.edge_s:
                edge = self.edge_s
                instants = sampling_instants(time.monotonic(), period, self._rng)
            late = time.monotonic() - next(instants)
            if late > period:
                continue
            # Waiting for a lock takes half the time of waiting for an event.
            if stop.acquire(timeout=max(0.0, -late)):
                return
            self._source.mark()
            before, spent = spent, time.thread_time()
            self.cpu_s += spent - before


class _Edge(NamedTuple):
    """An instant at which windows change, and the work done until then."""

    instant_s: float
    work: Work


@dataclass(eq=False)
class Window:
    """An activity that is metered; `EnergyMeter.window` makes it."""

    name: str
    task: int  # task it belongs to; -1 for none
    thread: int = field(default_factory=threading.get_ident)  # that has opened it
    reading: Reading = None  # type: ignore[assignment]  # of all of it, once it is closed, which who asks has done


class EnergyMeter:
    """Books energy and work to activities: `with meter.window("train", task=3): ...`.

    Attributes:
        source: The energy source.
        readings: The ledger.
        idle_power_w: Power of the machine at rest; NaN where it was not measured.
        settle: Whether this thread sleeps before a window and behind it where the source averages over some time.
        shift_s: What `restore` added to the instants of an earlier part of the run.

    Windows may nest, and those of several threads may overlap. One sensor can't be split between activities that run
    together: the ledger `readings` holds disjoint intervals, each booked to the set of windows open, so that its rows
    add up. The reading of one window as a whole is `window.reading`.
    """

    def __init__(self, source: EnergySource, *, settle: bool = False) -> None:
        """A meter over one source, which it keeps.

        To `settle` takes five averaging times at both ends of a window: its joules then hold none of its neighbours'.
        There is an `InputError` if the source is not available, or no energy source.
        """
        if not isinstance(source, EnergySource):
            raise InputError(f"{source!r} is no energy source; give an object such as mirolib.energy.choose() returns.")
        if not (hasattr(source, "name") and hasattr(source, "scope") and getattr(source, "kind", None) in KINDS):
            what = type(source).__name__
            raise InputError(f"{what} must have a name, a scope, and as kind one of {', '.join(KINDS)}.")
        if not (found := source.probe()).available:
            raise InputError(f"Energy source {source.name} can't be used: {found.reason}. {found.fix}".rstrip())
        self.source, self.settle, self._sampler = source, settle, _Sampler(source)
        self._rested_s = float("-inf")
        self.readings: list[Reading] = []
        self.idle_power_w = float("nan")
        self.shift_s = self.metered_s = self._edges_cpu_s = 0.0
        self.watch()
        self._lock = threading.RLock()
        self._open_windows: Sequence[Window] = ()  # replaced, never changed: other threads look at it
        self._edge = _Edge(0.0, Work())

    @classmethod
    def auto(cls) -> EnergyMeter:
        """A meter over the best that this machine offers; see `mirolib.energy.choose`."""
        return cls(choose())

    def __repr__(self) -> str:
        source = self.source
        return f"EnergyMeter({source.name}: {source.kind}, {source.scope}; {len(self.readings)} rows)"

    def watch(
        self,
        count_work: Callable[[], Work] = lambda: Work(cpu_s=time.process_time()),
        synchronise: Callable[[], None] = lambda: None,
    ) -> None:
        """Sets what counts the work done so far, by default this process's processor time.

        At every edge of a window `synchronise` waits until what an accelerator was given is done.
        """
        self._count_work, self._synchronise = count_work, synchronise

    @contextmanager
    def window(self, name: str, task: int = -1) -> Iterator[Window]:
        """Meters what happens inside as an activity, such as `train`, of the task with that index; -1 for none.

        It is booked also when it ends by an error. The window has its `reading` afterwards.
        """
        window = Window(name, task)
        with self._sampler:
            with self._lock:
                start = self._turn([*self._open_windows, window])
            try:
                yield window
            finally:
                with self._lock:
                    rest = [other for other in self._open_windows if other is not window]
                    try:
                        edge = self._turn(rest)
                    finally:
                        self._open_windows = rest  # also where a user interrupts the wait for the device
                window.reading = self._reading((name,), task, start, edge)

    @contextmanager
    def interlude(self, name: str) -> Iterator[None]:
        """Books what happens inside, such as a pause, to that alone: this thread's open windows are closed meanwhile.

        The ledger leaves it out of those windows; the reading of such a window as a whole does not.
        """
        open_here = [window for window in self._open_windows if window.thread == threading.get_ident()]
        with self._lock:
            self._turn([window for window in self._open_windows if window not in open_here])
        try:
            with self.window(name, _task(open_here)):
                yield
        finally:
            with self._lock:
                self._turn([*self._open_windows, *open_here])

    def state(self) -> State:
        """The ledger so far and when it was taken, for a checkpoint."""
        return {
            "readings": dumped(list[Reading], self.readings),
            "idle_power_w": self.idle_power_w,
            "instant_s": self.source.mark(),
            "wall_clock_s": time.time(),
        }

    def restore(self, state: State) -> None:
        """Puts the ledger of an earlier part of the run before this one, and the gap between them as a row.

        The gap is what the wall clock says, 0 if it was set back; its energy is not known. Work that was lost and done
        again is in it.
        """
        now, gap_s = self.source.mark(), max(0.0, time.time() - state["wall_clock_s"])
        # The monotonic clock begins anew with each start of the machine; only the wall clock tells how long it was off.
        self.shift_s = now - gap_s - state["instant_s"]
        earlier = [replace(row, start_s=row.start_s + self.shift_s) for row in loaded(list[Reading], state["readings"])]
        source = self.source
        gap = Reading(("gap",), -1, now - gap_s, gap_s, NOT_MEASURED, Work(), source.kind, source.scope, source.name)
        self.readings = [*earlier, gap, *self.readings]
        self.idle_power_w = float(state["idle_power_w"])

    def measure_idle(self, duration_s: float = 5.0) -> Reading:
        """Measures the machine at rest, from where energy above idle counts; this thread sleeps meanwhile."""
        if not self.settle:  # or it would be done twice
            time.sleep(SETTLING * self.source.averaging_s)  # what the sensor still shows is not rest
        with self.window("idle") as window:  # closed also when a user interrupts the wait
            time.sleep(duration_s)
        power = self.idle_power_w = window.reading.measurement.energy_j / window.reading.duration_s
        self.readings[-1] = replace(self.readings[-1], idle_power_w=power)
        return replace(window.reading, idle_power_w=power)

    def sampling(self) -> AbstractContextManager[None]:
        """Keeps the source sampled, windows or not, so that the trace has no holes between them."""
        return self._sampler

    def trace(self) -> pd.DataFrame:
        """Power over time as the source has read it; see `EnergySource.trace`."""
        return self.source.trace()

    def describe(self) -> dict[str, object]:
        """What to keep with a run: source, kind, scope, board and rails, idle power, and what metering cost."""
        share = self.cpu_s / self.metered_s if self.metered_s else 0.0
        own = {"source": self.source.name, "kind": self.source.kind, "scope": self.source.scope}
        return own | self.source.describe() | {"idle_power_w": self.idle_power_w, "metering_cpu_share": share}

    @property
    def cpu_s(self) -> float:
        """Processor seconds that metering took."""
        return self._edges_cpu_s + self._sampler.cpu_s

    @property
    def under_way(self) -> tuple[str, float]:
        """The activities going on, in one word that is empty for none, and since when; any thread may ask."""
        return "+".join(window.name for window in self._open_windows), self._edge.instant_s

    def _turn(self, windows: Sequence[Window]) -> _Edge:
        """An edge: books the interval since the last one; from here on these windows are open."""
        try:
            self._synchronise()
        except Exception as error:  # a device that has failed must not take the ledger along
            logger.warning("The device could not be waited for: %s", error)
        before = time.thread_time()
        if windows and not self._open_windows:
            self._rest()
        start, edge = self._edge, _Edge(self.source.mark(), self._count_work())
        if self._open_windows and not windows:
            self._rest(edge.instant_s)
        if self._open_windows and edge.instant_s > start.instant_s:
            names = tuple(window.name for window in self._open_windows)
            self.readings.append(self._reading(names, _task(self._open_windows), start, edge))
            self.metered_s += edge.instant_s - start.instant_s
        self._open_windows, self._edge, self._sampler.edge_s = windows, edge, edge.instant_s
        self._edges_cpu_s += time.thread_time() - before
        return edge

    def _rest(self, since_s: float | None = None) -> None:
        """Lets an averaging sensor forget, if that is wanted, what went on before an instant, or unless it just has."""
        wait_s = SETTLING * self.source.averaging_s if self.settle else 0.0
        if wait_s and (since_s is not None or self.source.clock() - self._rested_s > wait_s / 50):
            since_s = self.source.mark() if since_s is None else since_s
            time.sleep(wait_s)
            self._rested_s = self.source.mark()
            self.source.rested(since_s, self._rested_s)

    def _reading(self, activities: tuple[str, ...], task: int, start: _Edge, end: _Edge) -> Reading:
        source, duration_s = self.source, end.instant_s - start.instant_s
        return Reading(
            activities, task, start.instant_s, duration_s, source.measure(start.instant_s, end.instant_s),
            end.work - start.work, source.kind, source.scope, source.name, self.idle_power_w,
        )  # fmt: skip


def _task(windows: Sequence[Window]) -> int:
    """The task that the innermost window with one belongs to; -1 for none."""
    return next((window.task for window in reversed(windows) if window.task >= 0), -1)
