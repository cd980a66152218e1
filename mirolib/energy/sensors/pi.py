"""The power chip of a Raspberry Pi 5, as its firmware shows it."""

import re
import subprocess
from collections.abc import Mapping, Sequence

from mirolib.energy.sensors.boards import PI, BoardSource
from mirolib.energy.source import Availability, LostReading

_FIXES = {FileNotFoundError: "sudo apt install raspi-utils", subprocess.CalledProcessError: "Join the group video."}


class PiSource(BoardSource):
    """The rails of a Raspberry Pi 5 of which `vcgencmd pmic_read_adc` tells volts and amperes, once a second.

    Not known: how exact they are, and whether readings are means. Each starts a process. Not run on a Pi yet.
    Source: Raspberry Pi documentation, vcgencmd.
    """

    name, period_s = "pi-pmic", 1.0

    def probe(self) -> Availability:
        """Whether this is such a board and its rails can be read."""
        return super().probe() if self.board is PI else Availability(False, "not a Raspberry Pi 5")

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Watts of every rail that has both."""
        try:
            command = ["vcgencmd", "pmic_read_adc"]
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise LostReading(f"vcgencmd does not tell the rails: {error}", _FIXES.get(type(error), "")) from error
        said = {(rail, unit): float(value) for rail, unit, value in re.findall(r"(\w+)_([AV]) .*=([-.\d]+)", text)}
        return {rail: said[rail, "A"] * said[rail, "V"] for rail, unit in said if unit == "A" and (rail, "V") in said}
