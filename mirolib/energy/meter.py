"""The meter: energy and work by window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from mirolib.energy.rapl import RaplSource
from mirolib.energy.source import EnergySource, Kind, Measurement, NullSource
from mirolib.errors import InputError


@dataclass(frozen=True)
class Work:
    """Work done since the start of a run; subtract two to see what lies between.

    Attributes:
        visits: Samples that went through a training step.
        forward_visits: Samples that went through a forward pass alone.
        cpu_s: Processor seconds of this process, all threads.
        bytes_read: Bytes read from the storage tier.
        bytes_written: Bytes written to the storage tier.
    """

    visits: int = 0
    forward_visits: int = 0
    cpu_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0

    def __sub__(self, earlier: Work) -> Work:
        """Work since `earlier`."""
        return Work(
            self.visits - earlier.visits,
            self.forward_visits - earlier.forward_visits,
            self.cpu_s - earlier.cpu_s,
            self.bytes_read - earlier.bytes_read,
            self.bytes_written - earlier.bytes_written,
        )


@dataclass(frozen=True)
class Reading:
    """One row of the ledger: a window with its energy, how that was got, and its work.

    Attributes:
        window: Name of the activity.
        task: Task it belongs to; -1 for none.
        start_s: Seconds of the monotonic clock.
        duration_s: Length of the window.
        measurement: Its energy.
        work: Its work.
        kind: How the energy was got.
        scope: What part of the machine it covers.
        source: Name of the source.
    """

    window: str
    task: int
    start_s: float
    duration_s: float
    measurement: Measurement
    work: Work
    kind: Kind
    scope: str
    source: str

    def row(self) -> dict[str, object]:
        """The reading as one flat row."""
        return {
            "window": self.window,
            "task": self.task,
            "start_s": self.start_s,
            "duration_s": self.duration_s,
            **asdict(self.measurement),
            **asdict(self.work),
            "kind": self.kind,
            "scope": self.scope,
            "source": self.source,
        }


def total_energy_j(readings: Iterable[Reading]) -> float:
    """Energy of several readings in joules; NaN if there is none or a part of it was not seen."""
    values = [reading.measurement for reading in readings]
    return sum(v.energy_j if v.coverage == 1 else float("nan") for v in values) if values else float("nan")


class EnergyMeter:
    """Books energy and work to windows: `with meter.window("train", task=3): ...`."""

    def __init__(self, source: EnergySource) -> None:
        """A meter over one source, which it keeps.

        Raises:
            InputError: If the source is not available; the sentence says why and how to fix it.
        """
        found = source.probe()
        if not found.available:
            raise InputError(f"Energy source {source.name} can't be used: {found.reason}. {found.fix}".rstrip())
        self.source = source
        self.readings: list[Reading] = []
        self._count_work: Callable[[], Work] = Work
        self._lock = threading.Lock()

    @classmethod
    def auto(cls) -> EnergyMeter:
        """A meter over the first source that is available: RAPL, else none."""
        rapl = RaplSource()
        return cls(rapl if rapl.probe().available else NullSource())

    def watch(self, count_work: Callable[[], Work]) -> None:
        """Sets where the meter reads the work done so far."""
        self._count_work = count_work

    @contextmanager
    def window(self, name: str, task: int = -1) -> Iterator[None]:
        """Books what happens inside to `name`; also when it ends by an error.

        Args:
            name: The activity, such as `train`.
            task: Index of the task it belongs to.
        """
        with self._kept_fresh():
            work = self._count_work()
            start = self._mark()
            try:
                yield
            finally:
                end = self._mark()
                self.readings.append(
                    Reading(
                        name,
                        task,
                        start,
                        end - start,
                        self.source.measure(start, end),
                        self._count_work() - work,
                        self.source.kind,
                        self.source.scope,
                        self.source.name,
                    )
                )

    def _mark(self) -> float:
        with self._lock:
            return self.source.mark()

    @contextmanager
    def _kept_fresh(self) -> Iterator[None]:
        """Marks the source every `refresh_s` from a thread while a window is open."""
        if self.source.refresh_s is None:
            yield
            return
        stop = threading.Event()
        refresh_s = self.source.refresh_s

        def refresh() -> None:
            while not stop.wait(refresh_s):
                self._mark()

        thread = threading.Thread(target=refresh, name="miro-meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
