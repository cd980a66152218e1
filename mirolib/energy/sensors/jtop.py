"""jtop, the monitor service of jetson-stats, as an energy source."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mirolib.energy.sampled import GAP_PERIODS
from mirolib.energy.sensors.boards import BoardSource, is_jetson
from mirolib.energy.source import Availability, LostReading

_PATIENCE_S = 10.0
_RETRY_S = 10.0  # each try starts a process
# Run by its path: with -m all of this package would be imported first.
_RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_RESTART = "sudo systemctl restart jtop.service"
_JOIN_GROUP = "sudo usermod -aG jtop $USER, then log out and in again"
_FIXES = {
    "not active": _RESTART,
    "silent": _RESTART,
    "mismatch": f"Install the service's version of jetson-stats here as well, then {_RESTART}",
    **dict.fromkeys(("access", "group", "permission"), _JOIN_GROUP),
}


class JtopSource(BoardSource):
    """What jtop says of a Jetson board, twice a second.

    Importing jtop changes how this process starts others, so it runs in a helper process, which ends with `close`. Its
    total is not used: on boards without an input rail it counts some rails twice. The helper is started again if the
    service goes away, every ten seconds until it is back.
    Source: jetson-stats documentation, jtop.power.
    """

    name = "jtop"
    period_s = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._starting, self._heard = threading.Lock(), threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ended, self._closed = "", False
        self._started = self._last_line = -math.inf
        self._latest: dict[str, float] = {}

    def probe(self) -> Availability:
        """Whether jtop is installed and its service says the rails of the total; waits for its first word."""
        if not is_jetson():
            return Availability(False, "not a Jetson board")
        if importlib.util.find_spec("jtop") is None:
            fix = "sudo pip3 install -U jetson-stats, and the same version in this environment"
            return Availability(False, "jtop (jetson-stats) is not installed", fix)
        self._start()
        heard = self._heard.wait(_PATIENCE_S)
        if self._ended:
            fix = next((fix for sign, fix in _FIXES.items() if sign in self._ended.lower()), "")
            return Availability(False, f"jtop says: {self._ended}", fix)
        if not heard:
            return Availability(False, f"jtop has said nothing for {_PATIENCE_S:.0f} s", _FIXES["silent"])
        if not self._latest:
            fix = f"{_RESTART}; in a container, mount /run/jtop.sock of the host"
            return Availability(False, "jtop's service has found no power sensor", fix)
        return self.availability(self._latest)

    def mark(self) -> float:
        """The instant; readings come on their own, and their absence is noted here."""
        now = self.clock()
        if self._process is None:
            self._start()
        elif self._ended:
            self._lose(LostReading(f"jtop has ended: {self._ended}"))
            if now - self._started > _RETRY_S:
                self._start()
        elif (silence := now - self._last_line) > GAP_PERIODS * self.period_s:
            self._lose(LostReading(f"jtop has said nothing for {silence:.1f} s"))
        return now

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """What jtop said last, in watts; a LostReading if it lacks a rail or is older than three intervals."""
        if self.clock() - self._last_line > GAP_PERIODS * self.period_s:
            raise LostReading("jtop has said nothing lately")
        if missing := [rail for rail in rails if rail not in self._latest]:
            raise LostReading(f"jtop does not say {', '.join(missing)}")
        return {rail: self._latest[rail] for rail in rails}

    def describe(self) -> dict[str, object]:
        """Board, rails and rates."""
        return super().describe() | {"other_rails": [rail for rail in self._latest if rail not in self.total_rails]}

    def close(self) -> None:
        """Ends the helper."""
        with self._starting:
            self._closed = True  # no retry may start another one from here on
            process, thread = self._process, self._thread
        if process is None or thread is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # it may hang in a call of the service
            process.kill()
        thread.join()

    def _start(self) -> None:
        """Starts the helper unless it runs."""
        with self._starting:
            if self._closed or (self._process is not None and not self._ended):
                return
            self._heard.clear()
            self._ended = ""
            self._started = self._last_line = self.clock()
            errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would fill up unread)
            helper = str(Path(__file__).with_name("jtop_helper.py"))
            # In a session of its own, since notebooks send their interrupts to a whole process group.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _RUN, helper, str(self.period_s)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
            arguments = (self._process, self._process.stdout, errors)
            self._thread = threading.Thread(target=self._listen, args=arguments, name="miro-jtop", daemon=True)
            self._thread.start()

    def _listen(self, process: subprocess.Popen[str], lines: IO[str], errors: IO[str]) -> None:
        """Takes in the helper's lines until it ends, then what it says about that."""
        with lines, errors:
            for line in lines:
                try:
                    self._take_line(json.loads(line))
                except (ValueError, KeyError, TypeError, LostReading) as error:
                    self._lose(error)
                self._heard.set()
            code = process.wait()
            errors.seek(0)
            said = [line for line in errors.read().splitlines() if line.strip()]
        ended = said[-1].split(" Please")[0].strip(" .") if said else f"its helper ended with code {code}"
        if not self._closed:
            self._lose(LostReading(f"jtop has ended: {ended}"))
        self._ended = ended
        self._heard.set()

    def _take_line(self, said: Mapping[str, object]) -> None:
        rails, instant, interval = said["rails"], said["time_s"], said["interval_s"]
        if not (isinstance(rails, dict) and isinstance(instant, float) and isinstance(interval, (int, float))):
            raise LostReading("jtop says something else than rails")
        self._latest, self._last_line, self.period_s = rails, instant, float(interval)
        if not rails:
            raise LostReading("jtop's service has found no power sensor")
        self.add(instant, rails)
