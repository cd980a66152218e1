"""jtop, the monitor service of jetson-stats, as an energy source."""

import importlib.util
import json
import math
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from mirolib.energy.sampled import GAP_PERIODS
from mirolib.energy.sensors.boards import PI, BoardSource, is_jetson
from mirolib.energy.sensors.jetson import DRIVERS, averaging_s
from mirolib.energy.source import Availability

_PATIENCE_S = 10.0
_AVERAGING_S = 0.43  # as NVIDIA sets Xavier and Orin boards up, where the sensors themselves are out of sight
_RETRY_S = 10.0  # each try starts a process
_RESTART = "sudo systemctl restart jtop.service"
_FIXES = {
    "mismatch": "Install the service's version of jetson-stats here as well",
    **dict.fromkeys(("access", "group", "permission"), "sudo usermod -aG jtop $USER, then log out and in again"),
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

    def __init__(self, drivers: str | Path = DRIVERS, board: str = "") -> None:
        """A source; how its sensors average says the folder of the I2C drivers, and `board` names it if need be."""
        super().__init__(board)
        self.averaging_s = averaging_s(Path(drivers).glob("ina3221/*/hwmon/hwmon*")) or _AVERAGING_S
        self._starting, self._heard = threading.Lock(), threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ended, self._closed = "", False
        self._started = self._last_line = -math.inf
        self._latest: dict[str, float] = {}

    def probe(self) -> Availability:
        """Whether jtop is installed and its service says the rails of the total; waits for its first word."""
        if self.board in (None, PI) and not is_jetson():
            return Availability(False, "not a Jetson board")
        if importlib.util.find_spec("jtop") is None:
            fix = "sudo pip3 install -U jetson-stats, and the same version in this environment"
            return Availability(False, "jtop (jetson-stats) is not installed", fix)
        self._start()
        heard = self._heard.wait(_PATIENCE_S)
        if self._ended:
            own = next((fix for sign, fix in _FIXES.items() if sign in self._ended.lower()), "")
            told = self._ended.partition("Please ")[2]  # whole: it is jtop that knows
            fix = "; ".join(filter(None, [own, told and f"Please {told}"])) or _RESTART
            return Availability(False, f"jtop says: {self._ended}", fix)
        if not heard:
            return Availability(False, f"jtop has said nothing for {_PATIENCE_S:.0f} s", _RESTART)
        if not self._latest:
            fix = f"{_RESTART}; in a container, mount /run/jtop.sock of the host"
            return Availability(False, "jtop's service has found no power sensor", fix)
        self.other_rails = tuple(rail for rail in self._latest if rail not in self.total_rails)
        return self.availability(self._latest)

    def mark(self) -> float:
        """The instant; readings come on their own, and their absence is noted here."""
        now = self.clock()
        if self._ended:
            self._lose(f"jtop has ended: {self._ended}")
            if now - self._started > _RETRY_S:
                self._start()
        elif (silence := now - self._last_line) > GAP_PERIODS * self.period_s:
            self._lose(f"jtop has said nothing for {silence:.1f} s")
        return now

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """What jtop said last, in watts."""
        return {rail: self._latest[rail] for rail in rails}

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
            # As text, since -m would import all of this package first; in a session of its own, since notebooks send
            # their interrupts to a whole process group.
            code = Path(__file__).with_name("jtop_helper.py").read_text(encoding="utf-8")
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(self.period_s)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
            arguments = (self._process,)
            self._thread = threading.Thread(target=self._listen, args=arguments, name="miro-jtop", daemon=True)
            self._thread.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Takes in the helper's lines until it ends, the last of which says why."""
        ended = ""
        with process:  # its pipe is closed then, and its end waited for
            for line in process.stdout or ():
                try:
                    said = json.loads(line)
                    if ended := said.get("ended", ""):
                        break
                    self._latest, self._last_line, self.period_s = said["rails"], said["time_s"], said["interval_s"]
                    self._heard.set()
                    self.add(self._last_line, self._latest)
                except Exception as error:  # whatever jtop says, the run goes on
                    self._lose(error)
        self._ended = ended or f"its helper ended with code {process.returncode}"  # `mark` tells it
        self._heard.set()
