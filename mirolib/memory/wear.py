"""The flash-write ledger: what a run writes, how much more the medium gets to see, and what that takes off its life.

Flash is worn by being erased. A medium's rated endurance is about its capacity times the program/erase cycles of its
cells: some 1,000 for QLC and for the eMMC of cheap boards, 3,000 for TLC (ratings in tables of manufacturers, such as
those quoted in "Write endurance" of Wikipedia's *Flash memory*; a data sheet's "TBW" is the better number where there
is one). Writes are seen at three places: what the library hands over, what the process sends to block devices
(`write_bytes` of /proc/self/io, see proc(5)) and what the device is told to write by all processes (sectors of
/sys/dev/block/*/stat, see Documentation/block/stat.rst of Linux). What the card's controller makes of it can't be seen.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from mirolib.base.errors import InputError, StorageError
from mirolib.base.files import locked, read_bounded, write_atomic

DEFAULT_CYCLES = 1000  # the least of the ratings above: a card whose kind nobody told is better thought too old
_LONGEST_NAME = 128
_MOST = 10**18  # of bytes, an exabyte; what is beyond would not fit into the table's 64-bit columns
_NEW = {"capacity_bytes": None, "cycles": DEFAULT_CYCLES, "written_bytes": 0, "runs": 0}
_SECTOR = 512  # the kernel counts in these, whatever the sectors of the device (Documentation/block/stat.rst)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Writes:
    """Bytes written since a run began."""

    store_bytes: int = 0  # records handed to the store
    checkpoint_bytes: int = 0  # checkpoints
    result_bytes: int = 0  # `run.json` and tables
    # what the process sent to block devices, its other files included; None where the system does not tell. It is late:
    # what still waits in the page cache does not count
    process_bytes: int | None = None
    # what all processes sent to the device that holds the run; None where there is none
    device_bytes: int | None = None

    @property
    def payload_bytes(self) -> int:
        """What the library wrote."""
        return self.store_bytes + self.checkpoint_bytes + self.result_bytes

    @property
    def worn_bytes(self) -> int:
        """What counts against the medium: the payload or, where it is seen to be more, what the process sent."""
        return max(self.payload_bytes, self.process_bytes or 0)

    def row(self) -> dict[str, object]:
        """The bytes, and the write amplification as far as it can be seen."""
        payload = self.payload_bytes or float("nan")
        return asdict(self) | {
            "payload_bytes": self.payload_bytes,
            "amplification": float("nan") if self.process_bytes is None else self.process_bytes / payload,
        }


class WriteMeter:
    """Counts what a run writes."""

    def __init__(self, folder: Path) -> None:
        """Counts from now on, for the medium that `folder` lies on."""
        self._folder = folder
        self._checkpoint_bytes = self._result_bytes = 0
        self._start = _process_bytes(), _device_bytes(folder)
        self._charged = 0

    def add(self, *, checkpoint_bytes: int = 0, result_bytes: int = 0) -> None:
        """Counts a file."""
        self._checkpoint_bytes += checkpoint_bytes
        self._result_bytes += result_bytes

    def read(self, store_bytes: int) -> Writes:
        """What was written so far; `store_bytes` are those that the store has counted itself."""
        now = _process_bytes(), _device_bytes(self._folder)
        sent = (None if then is None or at is None else at - then for then, at in zip(self._start, now, strict=True))
        return Writes(store_bytes, self._checkpoint_bytes, self._result_bytes, *sent)

    def charge(self, medium: str, written: Writes) -> None:
        """Books what `read` told, less what was booked before, to a medium, if named; only warns where it can't."""
        if not medium:
            return
        try:
            capacity_bytes = shutil.disk_usage(self._folder).total
            charge(medium, written.worn_bytes - self._charged, capacity_bytes, begun=not self._charged)
            self._charged = written.worn_bytes
        except (OSError, StorageError) as error:
            logger.warning("The wear of %s was not booked: %s", medium, error)


def ledger_path() -> Path:
    """The ledger of this user: `$MIRO_STATE/wear.json`, or `mirolib/wear.json` in `$XDG_STATE_HOME`.

    It lies apart from the results, so that deleting them does not make a card young again.
    """
    if own := os.environ.get("MIRO_STATE"):
        return Path(own) / "wear.json"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mirolib" / "wear.json"


def charge(medium: str, written_bytes: int, capacity_bytes: int, *, begun: bool = False) -> None:
    """Adds to what a medium has been written, safe beside other processes; `begun` where a run has just begun to write.

    The capacity counts where none is known yet. There is a `StorageError` if the ledger can't be written, or is
    damaged.
    """
    with _ledger() as media:
        found = media.setdefault(medium, dict(_NEW))
        found["capacity_bytes"] = found["capacity_bytes"] or capacity_bytes or None  # some file systems say 0
        found["written_bytes"] += written_bytes
        found["runs"] += begun
        found["last"] = datetime.now(timezone.utc).isoformat(timespec="seconds")


def describe(medium: str, capacity_bytes: int | None, cycles: int | None) -> None:
    """Tells the ledger what a medium is; None leaves what is known, or is taken for granted.

    There is an `InputError` if it can't be a medium's name, or capacity or cycles are not positive, and a
    `StorageError` if the ledger can't be written, or is damaged.
    """
    medium_name(medium)
    told = (("capacity_bytes", capacity_bytes), ("cycles", cycles))
    given = {name: value for name, value in told if value is not None}
    for name, value in given.items():
        if not 0 < value <= _MOST:
            raise InputError(f"{name} of {medium} is {value}; give a number above 0, up to {_MOST:,}.")
    with _ledger() as media:
        media.setdefault(medium, dict(_NEW)).update(given)


def forget(medium: str) -> None:
    """Strikes a medium off the ledger; an `InputError` if it is not there."""
    wear(medium)  # which says if it is not there
    with _ledger() as media:
        media.pop(medium, None)


def wear(medium: str | None = None) -> pd.DataFrame:
    """What each medium has been written, or only this one.

    Returns:
        A row a medium: `medium`, `capacity_bytes`, `cycles`, `written_bytes`, `runs`, `last`, and `worn`, the share
        in [0, 1] of its rated endurance that is used up (NaN where its capacity is unknown).

    Raises:
        InputError: If there is no such medium.
        StorageError: If the ledger is damaged.
    """
    media = _read(ledger_path())
    if medium is not None and medium not in media:
        known = ", ".join(media) or "none"
        raise InputError(f"The wear ledger has no medium {medium!r:.200} (it has: {known}); name one, or describe it.")
    rows = [{"medium": name} | about for name, about in media.items() if medium in (None, name)]
    table = pd.DataFrame(rows, columns=["medium", "capacity_bytes", "cycles", "written_bytes", "runs", "last"])
    table["capacity_bytes"] = table["capacity_bytes"].astype("Int64")
    rated = table["capacity_bytes"].astype(float) * table["cycles"].astype(float)
    return table.assign(worn=table["written_bytes"].astype(float) / rated.where(rated > 0))


def medium_name(name: str) -> str:
    """A name for a medium that fits into a line of a table; an `InputError` if it is empty, too long or unprintable."""
    text = name if isinstance(name, str) else ""
    if not 0 < len(text) <= _LONGEST_NAME or text != text.strip() or not text.isprintable():
        raise InputError(f"{name!r:.200} can't name a medium; use up to {_LONGEST_NAME} letters and digits.")
    return name


@contextmanager
def _ledger() -> Iterator[dict[str, dict]]:
    """The ledger's media, written back in the end."""
    path = ledger_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # not on the ledger itself: each write puts a new file in its place, which nobody would hold
        with locked(path.with_suffix(".lock")):
            media = _read(path)
            yield media
            write_atomic(path, json.dumps({"format": 1, "media": media}, indent=1) + "\n")
    except OSError as error:
        raise StorageError(
            f"The wear ledger {path} can't be written: {error.strerror}; make its folder writable, or let MIRO_STATE "
            "name another."
        ) from error


def _read(path: Path) -> dict[str, dict]:
    try:
        content = json.loads(read_bounded(path))
        numbers = [about[name] or 0 for about in content["media"].values() for name in _NEW]
        if content["format"] != 1 or not all(0 <= number <= _MOST for number in numbers):
            raise ValueError("another format, or a number out of range")
        return content["media"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"The wear ledger {path} is unreadable ({error}); repair or delete it.") from error


def _process_bytes() -> int | None:
    """Bytes that this process has sent to block devices, less those that were deleted before they got there."""
    try:
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(lines["write_bytes"]) - int(lines["cancelled_write_bytes"])
    except (OSError, ValueError, KeyError):
        return None


def _device_bytes(folder: Path) -> int | None:
    """Bytes written to the block device of a folder since the system started."""
    device = folder.stat().st_dev
    try:
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(fields[6]) * _SECTOR
    except (OSError, ValueError, IndexError):
        return None
