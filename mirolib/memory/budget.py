"""Amounts of memory: where a budget comes from (a number, a schedule, a live control, the system), sizes in bytes."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

from mirolib.base.errors import InputError
from mirolib.data.stream import TaskStream
from mirolib.memory.available_memory import available_bytes
from mirolib.memory.store_file import HEADER, ROW, Fingerprint

_UNITS = {"b": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


class SlotBytes(int):
    """Bytes of slots alone, as a budget in samples counts them; any other holds all that RAM holds of the tiers."""


class MemoryBudget(ABC):
    """Most bytes of RAM that the tiers may take, which may change while a run goes on.

    Attributes:
        sizes: What is known beforehand of what it will be, in bytes.
    """

    sizes: tuple[int, ...] = ()

    @abstractmethod
    def read(self, epochs_done: float, used_bytes: int) -> int | None:
        """Bytes, None for no limit, so many epochs (or parts) after the run began; full buffers take `used_bytes`."""

    def is_short(self) -> bool:
        """Whether memory is so short that the next epoch is too late."""
        return False


class BudgetSchedule(MemoryBudget):
    """A budget that changes at given epochs; with one entry, a fixed one."""

    def __init__(self, steps: Mapping[int, int | None]) -> None:
        """A schedule of bytes (None for no limit) from so many epochs done on; no limit before the first.

        There is an `InputError` if an epoch is negative or a budget not positive.
        """
        for epoch, size_bytes in steps.items():
            if epoch < 0 or (size_bytes is not None and size_bytes <= 0):
                raise InputError(
                    f"The memory budget is {size_bytes} bytes from epoch {epoch} on; give a positive number of bytes, "
                    "or None for no limit, from epoch 0 or later."
                )
        self._steps = dict(sorted(steps.items()))
        self.sizes = tuple(size for size in self._steps.values() if size is not None)

    def read(self, epochs_done: float, used_bytes: int) -> int | None:
        """The last entry that has begun."""
        begun = [size_bytes for epoch, size_bytes in self._steps.items() if epoch <= epochs_done]
        return begun[-1] if begun else None


class LiveBudget(MemoryBudget):
    """A budget, `size_bytes` or None for no limit, that a person or a program sets while a run goes on."""

    def __init__(self, size_bytes: int | None = None) -> None:
        self.size_bytes = size_bytes

    def read(self, epochs_done: float, used_bytes: int) -> int | None:
        """What it is set to."""
        return self.size_bytes


class SystemBudget(MemoryBudget):
    """What the system can spare: available memory, or what the control group leaves, whichever is less."""

    def __init__(self, share: float = 0.5, reserve_bytes: int = 256 << 20, least_bytes: int = 1 << 20) -> None:
        """A share in (0, 1] of the memory that is free or taken by the buffers; an `InputError` if it is none.

        The reserve must stay available: below half of it, memory is short. The budget never falls below `least_bytes`:
        a run goes on with small buffers rather than end.
        """
        if not 0 < share <= 1 or reserve_bytes < 0:
            raise InputError(
                f"A share of {share} with {reserve_bytes} bytes in reserve can't be; use 0 to 1, and 0 up."
            )
        self._share, self._reserve, self._least = share, reserve_bytes, least_bytes

    def read(self, epochs_done: float, used_bytes: int) -> int | None:
        """The share of what is available beyond the reserve, the buffers' own memory counted as available."""
        room = int(self._share * (available_bytes() - self._reserve + used_bytes))
        return max(room, used_bytes // 2, self._least)  # buffers shrink step by step

    def is_short(self) -> bool:
        """Whether less than half of the reserve is left."""
        return available_bytes() < self._reserve / 2


def parse_budget(text: str, slot_bytes: int) -> MemoryBudget:
    """A budget from a text; samples take `slot_bytes` of RAM.

    The text is empty for no limit; `system`; an amount such as `2000 samples` (or `2000`), `64 MiB` or `500000 bytes`;
    or a schedule of amounts (`none` for no limit) by epochs done, such as `0: 64 MiB, 100: 32 MiB`; an `InputError`
    else.
    """
    what, more = f"The memory budget {text!r}", ", 'system', or a schedule by epochs such as '0: 64 MiB, 100: 32 MiB'"
    text = text.strip()
    if text == "system":
        return SystemBudget()
    steps: dict[int, int | None] = {}
    for entry in filter(None, (text if ":" in text or not text else f"0: {text}").split(",")):
        epoch, _, amount = (part.strip() for part in entry.partition(":"))
        amount = amount if re.fullmatch(r"[0-9]{1,9}", epoch) else ""  # which is none
        size = None if amount == "none" else _bytes(amount, slot_bytes, what, more)
        if int(epoch) in steps:
            raise InputError(f"{what} names epoch {int(epoch)} twice; keep one amount for it.")
        steps[int(epoch)] = SlotBytes(size) if size is not None and re.search("sample|[0-9.]$", amount) else size
    return BudgetSchedule(steps)


def parse_amount(text: str, sample_bytes: int) -> int | None:
    """Bytes from `2 GB`, `500 MiB` or `20000 samples` of `sample_bytes` each; None of nothing; an `InputError` else."""
    if text.strip() in ("", "none"):
        return None
    return _bytes(text, sample_bytes, f"The amount {text!r}")


def store_budget(text: str, stream: TaskStream) -> int | None:
    """Most bytes that a stream's samples may take on storage, of an amount (see `parse_amount`); None for no limit.

    There is an `InputError` if the text is none, or the budget does not hold what is never evicted.
    """
    record = HEADER.itemsize + Fingerprint.of(stream).sample_bytes + ROW.itemsize
    budget = parse_amount(text, record)
    if budget is not None and stream.returns:
        raise InputError("store_budget is for classes that come once, and here they return; leave it out.")
    held_out = len(stream.dataset.train) - stream.most_samples()[1]
    least = record * (held_out + stream.num_classes)
    if budget is not None and budget < least:
        raise InputError(
            f"store_budget is {text!r} but the {held_out} validation samples and one training sample of each class "
            f"take {least} bytes; give more, or lower validation_share."
        )
    return budget


def parse_size(size: int | str | None, slot_bytes: int) -> int | None:
    """A buffer's size in samples: numbers and None as they are, or an amount such as `64 MB` or `2000 samples`.

    A sample takes `slot_bytes` of RAM, on average where samples are encoded. There is an `InputError` if a text is no
    amount, or less than one sample.
    """
    if not isinstance(size, str):
        return size
    size_bytes = _bytes(size, slot_bytes, f"The size {size!r}")
    if size_bytes < slot_bytes:
        raise InputError(f"A buffer of {size} does not hold one sample, which takes {slot_bytes:,} bytes; enlarge it.")
    return size_bytes // slot_bytes


def _bytes(text: str, sample_bytes: int, what: str, more: str = "") -> int:
    """The bytes in an amount, which is of samples without a unit; an `InputError` on none, or less than one byte."""
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z]*)", text.strip())
    units = _UNITS | {"": sample_bytes, "samples": sample_bytes, "sample": sample_bytes}
    size_bytes = float(found[1]) * units.get(found[2].lower(), 0) if found else 0.0
    if not 1 <= size_bytes < math.inf:  # so many digits are infinite
        raise InputError(f"{what} can't be read; write an amount such as '2 GB', '64 MiB' or '2000 samples'{more}.")
    return int(size_bytes)
