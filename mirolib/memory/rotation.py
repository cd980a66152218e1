"""An epoch of the task: what each step trains on where a few slots of RAM pass all of a task's samples through.

The stream buffer is a queue. The samples of the task are fetched in one random order after another; a step takes the
slots that have waited longest, and those of which the sample is exchanged queue up again when the next one is in them.
At a swap ratio of 1 no sample is seen a second time before all have been seen; below it, some slots queue up as they
are. The episodic memory is a pack of cards: each slot is replayed once before any is replayed again, across passes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import numpy as np

from mirolib.base.errors import InputError
from mirolib.base.state import Ids
from mirolib.memory.buffers import EpisodicMemory, StreamBuffer
from mirolib.memory.replace_damaged import append_sound
from mirolib.memory.storage import Storage

RATIOS = ("sqrt", "classes")
"""Replayed samples for each new one, by name: the root of old ÷ new classes, or old ÷ new classes."""


def replays(name: str, ratio: float | str, old: int = 1, new: int = 1) -> float:
    """Replayed samples for each new one, of a number from 0 up, or of a name from `RATIOS` and old and new classes.

    There is an `InputError` if the parameter, called `name`, is neither.
    """
    if isinstance(ratio, str) and ratio in RATIOS:
        return math.sqrt(old / new) if ratio == "sqrt" else old / new
    if isinstance(ratio, Real) and not isinstance(ratio, bool) and 0 <= ratio < math.inf:
        return float(ratio) if old else 0.0
    raise InputError(f"{name} is {ratio!r}; give a number from 0 up, or one of {', '.join(RATIOS)}.")


LAG = 2
"""Steps between asking storage for a sample and taking it in, unless told otherwise."""


def least_slots(batch_size: int, swap_ratio: float, lag: int = LAG) -> int:
    """Slots that a stream buffer needs which holds a part of its task: a batch, and what is under way meanwhile."""
    return batch_size + lag * math.ceil(swap_ratio * batch_size)


def most_new(stream_size: int, swap_ratio: float, lag: int = LAG, *, batch_size: int = 0) -> int:
    """New samples that a step may take of so many slots; 0 where they are too few for any.

    There is an `InputError` if they are too few for a `batch_size`.
    """
    if (least := least_slots(batch_size, swap_ratio, lag)) > stream_size:
        raise InputError(
            f"stream_size is {stream_size}, but {least} slots are needed for batches of {batch_size} while others are "
            "fetched; enlarge it, or lower batch_size."
        )
    return sum(least_slots(new, swap_ratio, lag) <= stream_size for new in range(1, stream_size + 1))


@dataclass
class Position:
    """How far the passes have come, for a checkpoint."""

    queue: Ids  # slots of the stream buffer in the order in which they are trained on
    fetched: int  # samples of the task that were fetched so far, pass after pass
    pack: Ids  # slots of the episodic memory that are to be replayed before any is again


class Rotation:
    """The slots that each step of a pass trains on."""

    def __init__(self, stream: StreamBuffer, episodic: EpisodicMemory, seed: int, storage: Storage, block: int) -> None:
        """Nothing trained yet; `seed` is that of all orders, `block` how many neighbours on storage come together."""
        self._stream, self._episodic, self._seed, self._storage, self._block = stream, episodic, seed, storage, block
        self._shuffled: tuple[np.ndarray | None, int, np.ndarray] = (None, 0, stream.order)
        self.begin()

    def begin(self) -> None:
        """Begins with what the buffers hold: after a task has arrived, and after they changed size."""
        stream, held = self._stream, len(self._stream)
        if self._block > 1 and held < len(stream.order):  # in the order itself, which checkpoints keep
            stream.order = np.append(stream.order[:held], self._in_blocks(stream.order[held:], 0))
        self.position = Position(np.arange(held), held, np.zeros(0, dtype=np.int64))

    def resize(self, capacity: int) -> None:
        """Changes the number of slots and goes on with the pass: what waits comes first, then what it has not fetched.

        There is an `InputError` if the process may not take as much.
        """
        stream, now = self._stream, self.position
        waiting, turn = stream.array.ids_at(now.queue), self._turn(now.fetched // len(stream.order))
        at = now.fetched % len(turn)
        ahead = np.concatenate([waiting, turn[at:], turn[:at]])
        stream.order = ahead[np.sort(np.unique(ahead, return_index=True)[1])]
        kept = now.queue[np.sort(np.unique(waiting, return_index=True)[1])[:capacity]]
        stream.array.discard(np.setdiff1d(np.arange(len(stream)), kept))
        stream.array.resize(capacity)
        append_sound(self._storage, stream, stream.missing())
        ids = stream.array.ids
        places = dict(zip(ids.tolist(), range(len(ids)), strict=True))  # a sample may have moved into a hole
        queue = [places[id_] for id_ in stream.order[:capacity].tolist() if id_ in places]
        self.position = Position(np.array(queue, dtype=np.int64), min(capacity, len(stream.order)), now.pack[:0])

    @property
    def whole(self) -> bool:
        """Whether the stream buffer holds all of the task."""
        return len(self._stream) >= len(self._stream.order)

    def steps(self, batch_size: int, replays: float, begin: float, end: float, most: int) -> Iterator[tuple[int, int]]:
        """New and replayed samples of each step from `begin` to `end`, in passes, at most so many new ones."""
        samples = len(self._stream.order)
        # the parts of a pass add up to it
        new, old = (round(end * many) - round(begin * many) for many in (samples, replays * samples))
        old = old if len(self._episodic) else 0
        if new + old < min(2, batch_size, samples):
            raise InputError(f"{end - begin:g} of an epoch is {new} of {samples} samples; raise epochs.")
        count = max(1, min(-(-(new + old) // batch_size), (new + old) // min(2, batch_size)))
        while True:
            ends = np.linspace(0, new + old, count + 1).round().astype(int)
            sizes = np.diff(np.stack([ends * new // max(1, new + old), ends], axis=1), axis=0) @ [[1, -1], [0, 1]]
            if sizes[:, 0].max() <= most:
                return iter((int(a), int(b)) for a, b in sizes)
            count = max(count + 1, -(-new // most))  # few slots make small steps

    def new(self, count: int) -> np.ndarray:
        """The slots of the stream buffer that have waited longest, `(count,) int64`."""
        now = self.position
        slots, now.queue = now.queue[:count], now.queue[count:]
        return slots

    def wait(self, slots: np.ndarray) -> None:
        """Lets slots queue up again."""
        self.position.queue = np.concatenate([self.position.queue, slots])

    def replayed(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Slots of the episodic memory, `(count,) int64`."""
        now = self.position
        while len(now.pack) < count:
            now.pack = np.concatenate([now.pack, rng.permutation(len(self._episodic))])
        slots, now.pack = now.pack[:count], now.pack[count:]
        return slots

    def _in_blocks(self, ids: np.ndarray, turn: int) -> np.ndarray:
        """Ids in an order of their own for each turn; neighbours on storage stay together in blocks."""
        rng = np.random.default_rng([self._seed, int(ids[0]) >> 32, turn])
        if self._block == 1:
            return rng.permutation(ids)
        ids = ids[np.argsort(self._storage.rows(ids))]
        blocks = np.split(ids, np.arange(rng.integers(self._block), len(ids), self._block))
        return np.concatenate([blocks[k] for k in rng.permutation(len(blocks))])

    def _turn(self, turn: int) -> np.ndarray:
        """The ids of the task in the order in which a pass fetches them."""
        order = self._stream.order
        if self._shuffled[0] is not order or self._shuffled[1] != turn:  # asked for at each step, and as long as a task
            self._shuffled = (order, turn, self._in_blocks(order, turn) if turn else order)
        return self._shuffled[2]

    def draw(self, slots: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What comes into slots: the next ids of the task, `(n,) int64`, one random order after another."""
        found, count = [self._stream.order[:0]], len(slots)
        while count:
            turn, at = divmod(self.position.fetched, len(self._stream.order))
            found.append(self._turn(turn)[at : at + count])
            self.position.fetched += len(found[-1])
            count -= len(found[-1])
        return np.concatenate(found)

    def reserve(self, ids: np.ndarray) -> None:
        """Nothing: a sample may be in two slots for a while, at the turn of a pass."""

    def take_in(self, slots: np.ndarray, ids: np.ndarray, samples: np.ndarray, sound: np.ndarray) -> None:
        """Puts fetched samples into slots, which queue up again; one that is damaged leaves its slot as it is."""
        self._stream.array.write(slots[sound], samples, ids[sound])
        self.wait(slots)
