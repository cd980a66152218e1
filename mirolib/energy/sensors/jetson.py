"""The power sensors of Jetson boards, as Linux shows them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mirolib.energy.sensors.boards import PI, BoardSource, Channel, file_text, is_jetson
from mirolib.energy.source import Availability, LostReading

DRIVERS = "/sys/bus/i2c/drivers"


def _channels(root: Path) -> Iterator[tuple[str, Path, str, Channel]]:
    """Every channel there may be: its bus and address, the file with its label, the label without a file, itself."""
    for folder in sorted(root.glob("ina3221*/*/iio:device*")):
        for n in range(3):
            yield folder.parts[-2], folder / f"rail_name_{n}", "", Channel((folder / f"in_power{n}_input",), 1e-3)
    for folder in sorted(root.glob("ina3221*/*/hwmon/hwmon*")):
        for n in range(1, 4):  # those over 3 are sums over channels and shunt voltages, no rails
            files = folder / f"in{n}_input", folder / f"curr{n}_input"
            yield folder.parts[-3], folder / f"in{n}_label", "", Channel(files, 1e-6)
    for folder in sorted(root.glob("ina238*/*/hwmon/hwmon*")):
        yield folder.parts[-3], folder / "label", "VIN", Channel((folder / "power1_input",), 1e-6)


def averaging_s(folders: Iterable[Path]) -> float:
    """What the slowest of some sensors averages over, in seconds; 0 where the driver does not say."""
    # milliseconds: samples times the time to convert voltage and current of each channel, says the kernel's page
    texts = [file_text(folder / "update_interval") for folder in folders]
    return max((int(text) / 1000 for text in texts if text.isdecimal()), default=0.0)


class JetsonSource(BoardSource):
    """The INA3221 and INA238 power sensors of a Jetson board.

    JetPack 4 shows them as IIO devices in milliwatts, JetPack 5 to 7 as hwmon in millivolts and milliamperes (INA238 in
    microwatts). Only the rails of the board's total are added, since others lie inside them. The numbers in the paths
    change when a driver is loaded anew; after a failed reading the sensors are looked up again.
    Source: Linux kernel documentation, hwmon/ina3221 and hwmon/ina238; NVIDIA Jetson Linux developer guides.
    """

    name = "jetson-ina"

    def __init__(self, root: str | Path = DRIVERS, board: str = "") -> None:
        """Looks for sensors in the folder of the I2C drivers; `board` names the board where no file does."""
        super().__init__(board)
        self._root = Path(root)
        self._discover()

    def _discover(self) -> None:
        """Finds the rails that give a reading, and what is wrong with the others."""
        channels, failed, watts = dict[str, Channel](), dict[str, Exception](), dict[str, float]()
        self._denied = set[str]()
        own = self.board.sensors if self.board else ()
        # the module's own first: a carrier's sensor, often on a lower bus, may bear the name of a module's rail
        for address, label_file, default, channel in sorted(_channels(self._root), key=lambda one: one[0] not in own):
            rail = str(label_file)
            try:
                rail = label_file.read_text().strip() if label_file.exists() else default
                if not rail and channel.files[0].exists():
                    raise OSError(f"the chip at {address} has no labels, so its rails are not known")
                if not rail or rail == "NC":  # a channel that is not connected
                    continue
                if rail in channels:  # two sensors of one name are told apart by their addresses
                    rail = f"{rail} ({address})"
                watts[rail] = channel.power_w()
                channels[rail] = channel
            except (OSError, ValueError) as error:
                failed[rail] = error
                if isinstance(error, PermissionError):
                    self._denied.add(f"{label_file.parent}/*")
        self._found, self._failed, self._watts = channels, failed, watts
        self.other_rails = tuple(rail for rail in channels if rail not in self.total_rails)
        self._averages(averaging_s(channels[rail].files[0].parent for rail in self.total_rails if rail in channels))
        self._rediscover = False

    def probe(self) -> Availability:
        """Whether the board is known and the rails of its total can be read."""
        self._discover()
        if self._denied and not (self._found and set(self.total_rails) <= set(self._found)):
            fix = f"sudo chmod a+r {' '.join(sorted(self._denied))} (at every start), or run as root."
            return Availability(False, "the power sensors can't be read by this user: permission denied", fix)
        if self._found:
            return self.availability(self._watts)
        if self._failed:
            found = f"all {len(self._failed)} channels of the power sensors fail: {next(iter(self._failed.values()))}"
            fix = "Restart the board; dmesg says what its driver ran into. Labels come from its device tree."
            return Availability(False, found, fix)
        if self.board in (None, PI) and not is_jetson():
            return Availability(False, "no INA power sensor: not a Jetson board")
        fix = "In a container, mount /sys; else load the driver ina3221. The Nano of 2 GB has no such sensor."
        return Availability(False, f"this Jetson shows no INA power sensor in {self._root}", fix)

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Power of some rails now, in watts, negative ones as they are; see `SampledSource.read`."""
        if self._rediscover:
            self._discover()
        found, self._rediscover = self._found, bool(rails)  # unless all are read
        missing = [f"{rail} ({self._failed.get(rail, 'not found')})" for rail in rails if rail not in found]
        if missing or not rails:
            raise LostReading(f"no power sensor says {', '.join(missing) or 'what this board draws in total'}")
        watts = {rail: found[rail].power_w() for rail in rails}
        self._rediscover = False
        return watts

    def describe(self) -> dict[str, object]:
        """Board, rails with their files, rates, and how each sensor averages."""
        folders, names = {channel.files[0].parent for channel in self._found.values()}, ("samples", "update_interval")
        sensors = {str(f): {n: text for n in names if (text := file_text(f / n))} for f in sorted(folders)}
        rails = {rail: [str(file) for file in channel.files] for rail, channel in self._found.items()}
        return super().describe() | {"rails": rails, "sensors": sensors}
