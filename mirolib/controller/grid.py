"""The candidates: pairs of buffer sizes, derived from what has been seen and from the memory budget."""

from collections.abc import Sequence

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.stream import Task, TaskStream
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory

STREAM_STEPS, EPISODIC_STEPS = 4, 5
_SMALLEST_SHARE = 8  # the smallest stream buffer holds this fraction of the task
_PER_CLASS = 2  # samples of each class that the smallest buffers hold


def candidate_grid(
    task: Task, memory: TieredMemory, budget_bytes: int | None = None, *, swap_ratio: float = 1.0,
    pairs: Sequence[tuple[int, int]] = (), replays: bool = True, limit: int = STREAM_STEPS * EPISODIC_STEPS,
) -> list[MemoryConfig]:  # fmt: skip
    """The configurations to be profiled for a task, log-spaced in both sizes (paper: Fig. 8).

    Stream sizes run from an eighth of the task's samples to all of them, episodic sizes from two samples of each old
    class (one, under a small budget) to all that is stored; under a budget, for each stream size, to what the budget
    leaves. Where there is nothing to replay, as in the first task, the episodic memory is as small as can be. That of
    a single-level memory is as large as can be, and gets half of the budget at least: what it does not keep is lost.

    The memory has received the task. A user's own `pairs` of stream and episodic size take the place of all this, cut
    to what there is, but for those that exceed the budget; more than `limit` are thinned out evenly over their total
    size, by which candidates come. There is an `InputError` if the budget holds none, or the limit is below 1.
    """
    if limit < 1:
        raise InputError(f"The grid's limit is {limit}; choose 1 candidate or more.")
    samples = None if budget_bytes is None else budget_bytes // memory.slot_bytes
    own = {(min(stream, len(task.train)), min(episodic, memory.stored)) for stream, episodic in pairs}
    wanted = sorted(own or _derived(task, memory, samples, replays), key=lambda pair: (sum(pair), pair))
    fitting = [pair for pair in wanted if samples is None or sum(pair) <= samples]
    if not fitting:
        raise InputError(
            f"The memory budget leaves {budget_bytes:,} bytes for slots, {samples} samples, but the smallest "
            f"configuration needs {sum(wanted[0])} ({wanted[0][0]} in the stream buffer, {wanted[0][1]} in the "
            "episodic memory); raise the budget, or give smaller sizes."
        )
    kept = np.unique(np.linspace(0, len(fitting) - 1, min(limit, len(fitting))).round().astype(int))
    return [MemoryConfig(fitting[index][0], fitting[index][1], swap_ratio) for index in kept]


def least_samples(stream: TaskStream) -> int:
    """The least memory budget, in samples, under which every task of a stream has a candidate: one of each class."""
    seen = [set().union(*stream.task_classes[:index]) for index in range(len(stream))]
    return max(len(classes) + max(1, len(old)) for classes, old in zip(stream.task_classes, seen, strict=True))


def _derived(task: Task, memory: TieredMemory, samples: int | None, replays: bool) -> set[tuple[int, int]]:
    """Log-spaced pairs within the budget; the smallest one alone where none fits."""
    new, old = len(task.train), memory.stored - len(task.train)
    room = float("inf") if samples is None else samples
    for per_class in (_PER_CLASS, 1):  # a small budget: one sample of each class will do
        least_episodic = min(old, per_class * len(memory.episodic_memory.classes)) if old and replays else 1
        least_stream = min(new, per_class * len(task.classes))
        if least_stream + least_episodic <= room:
            break
    least_stream = int(max(least_stream, min(new // _SMALLEST_SHARE, room - least_episodic)))
    found: set[tuple[int, int]] = set()
    if not memory.hierarchical:  # what is not retained now is lost for ever: half of the budget is for that
        least_episodic = int(max(least_episodic, min(old + new, room // 2)))
        least_stream = int(min(least_stream, max(1, room - least_episodic)))
    for stream in _spaced(least_stream, min(new, room - least_episodic), STREAM_STEPS):
        if not memory.hierarchical:
            found.add((stream, int(min(old + new, room - stream))))
        elif old and replays:
            found |= {(stream, size) for size in _spaced(least_episodic, min(old, room - stream), EPISODIC_STEPS)}
        else:
            found.add((stream, least_episodic))
    return found or {(least_stream, least_episodic)}


def _spaced(least: int, most: float, steps: int) -> list[int]:
    """Whole numbers from `least` to `most` in equal ratios; none if `most` is less."""
    if most < least:
        return []
    return sorted(set(np.geomspace(least, most, steps).round().astype(int).tolist()))
