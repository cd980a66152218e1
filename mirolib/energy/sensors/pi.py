"""The power chip of a Raspberry Pi 5, as its firmware shows it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from mirolib.energy.sensors.boards import PI, BoardSource
from mirolib.energy.source import Availability, LostReading

_FIXES = {
    FileNotFoundError: "sudo apt install raspi-utils",
    subprocess.CalledProcessError: "sudo usermod -aG video $USER, then log out and in again",
}
_LINE = re.compile(r"(\w+)_[AV] (?:current|volt)\(\d+\)=([-.\d]+)[AV]")


class PiSource(BoardSource):
    """The twelve rails of a Raspberry Pi 5 that `vcgencmd pmic_read_adc` tells volts and amperes of, once a second.

    Not known: how exact they are, and whether a reading is a mean over some time. Not on them: what the power chip
    loses, and what is fed with 5 V. This has not been run on a Pi. Each reading starts a process, so windows of ten
    seconds and more are the ones to trust.
    Source: Raspberry Pi documentation, vcgencmd.
    """

    name, period_s = "pi-pmic", 1.0

    def probe(self) -> Availability:
        """Whether this is such a board and its rails can be read."""
        if self.board is not PI:
            return Availability(False, "not a Raspberry Pi 5")
        try:
            return self.availability(self.read(PI.total_rails))
        except (OSError, ValueError) as error:
            return Availability(False, str(error), getattr(error, "fix", ""))

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Watts of every rail that has both."""
        try:
            command = ["vcgencmd", "pmic_read_adc"]
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise LostReading(f"vcgencmd does not tell the rails: {error}", _FIXES.get(type(error), "")) from error
        found: dict[str, list[float]] = {}
        for rail, value in _LINE.findall(text):
            found.setdefault(rail, []).append(float(value))
        return {rail: amperes * volts for rail, (amperes, volts) in ((r, v) for r, v in found.items() if len(v) == 2)}
