"""The memory configuration: what a controller chooses."""

from dataclasses import dataclass
from numbers import Integral, Real

from mirolib.base.display import facts
from mirolib.base.errors import InputError


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes and swap ratio: what a controller chooses (paper: Table 2).

    Attributes:
        stream_size: Capacity of the stream buffer in samples.
        episodic_size: Capacity of the episodic memory in samples.
        swap_ratio: Share of the replayed samples exchanged with storage, in [0, 1].
    """

    stream_size: int
    episodic_size: int
    swap_ratio: float = 0.0

    def __post_init__(self) -> None:
        for name in ("stream_size", "episodic_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number of samples, 1 or more.")
        if not isinstance(self.swap_ratio, Real) or not 0 <= self.swap_ratio <= 1:
            raise InputError(
                f"swap_ratio is {self.swap_ratio!r}; choose a value from 0 (off) to 1 (every replayed sample)."
            )

    def _repr_html_(self) -> str:
        values = {
            "stream buffer": f"{self.stream_size:,} samples",
            "episodic memory": f"{self.episodic_size:,} samples",
            "swap ratio": f"{self.swap_ratio:g}",
        }
        return facts("Memory configuration", values)
