"""What takes the place of samples that storage can't give back sound.

A run without damage never comes here, and what comes here draws from generators of its own, made from the id that was
lost: the run's other draws stay what they would have been.
"""

import numpy as np

from mirolib.base.errors import StorageError
from mirolib.data.stream import ORDINAL_BITS, ORDINAL_MASK, labels_of
from mirolib.memory.buffers import CHUNK, EpisodicMemory, StreamBuffer, in_chunks
from mirolib.memory.storage import Storage


def read_all(storage: Storage, ids: np.ndarray, part: str = "train") -> np.ndarray:
    """Samples `(n, *sample_shape)` by `(n,) int64` ids; for one that is damaged, the next sound one of its class.

    There is a `StorageError` if a class has no sound sample left.
    """
    samples, sound = storage.read_sound(ids, part)
    complete = samples if sound.all() else _spread(samples, sound)
    for place in np.flatnonzero(~sound):
        complete[place] = _next_sound(storage, int(ids[place]), part)
    return complete


def _spread(samples: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Sound samples in their places among all that were asked for; the others are left open."""
    spread = np.empty((len(sound), *samples.shape[1:]), dtype=samples.dtype)
    spread[sound] = samples
    return spread


def _next_sound(storage: Storage, id_: int, part: str) -> np.ndarray:
    """The sound sample of the class that follows in its order, from the beginning again behind the last."""
    label, ordinal = id_ >> ORDINAL_BITS, id_ & ORDINAL_MASK
    count = storage.count(label, part)
    for step in range(1, count + 1):
        samples, sound = storage.read_sound(np.array([label << ORDINAL_BITS | (ordinal + step) % count]), part)
        if sound[0]:
            return samples[0]
    raise no_sample_left(storage, label, part)


def no_sample_left(storage: Storage, label: int, part: str = "train") -> StorageError:
    """The error where damage has taken a whole class."""
    return StorageError(
        f"The store {storage.path} has no sound {part} sample of label {label} left; "
        "delete the folder and run again from the data set."
    )


def replaced(
    storage: Storage, memory: EpisodicMemory, ids: np.ndarray, samples: np.ndarray, sound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Puts other samples of their classes, drawn at random, in the place of those that could not be read.

    Of `(n,) int64` ids reserved in the memory, `(k, *sample_shape)` samples are the `(n,) bool` sound ones; what is
    damaged is never drawn again. Returned are `(m, *sample_shape)` samples and `(n,) int64` ids, of which `m` are not
    -1: there is no other of the class.
    """
    if sound.all():
        return samples, ids
    ids, together = ids.copy(), _spread(samples, sound)
    for place in np.flatnonzero(~sound):
        ids[place] = _another(storage, memory, ids[place], together[place : place + 1])
    return together[ids >= 0], ids


def _another(storage: Storage, memory: EpisodicMemory, id_: np.int64, out: np.ndarray) -> int:
    """Puts a sound sample of the class that the memory does not hold into `out`; its id, -1 where there is none."""
    rng = np.random.default_rng([int(id_) >> ORDINAL_BITS, int(id_) & ORDINAL_MASK])
    ids = np.array([id_])
    label = labels_of(ids)
    while ids[0] >= 0:
        memory.mark_damaged(ids)
        ids = memory.draw_absent(label, rng)
        samples, sound = storage.read_sound(ids[ids >= 0])
        if sound.any():
            memory.reserve(ids)
            out[:] = samples
            break
    return int(ids[0])


def fill_stream(storage: Storage, buffer: StreamBuffer) -> None:
    """Fills the room in a stream buffer from storage; the next sample of the class replaces one that is damaged."""
    while len(missing := buffer.missing()[:CHUNK]):
        samples, sound = storage.read_sound(missing)
        if sound.all():
            buffer.array.append(samples, missing)
        else:
            buffer.drop(missing[~sound])


def append_sound(storage: Storage, buffer: StreamBuffer, ids: np.ndarray) -> None:
    """Fills free slots of a stream buffer with samples of storage, but those that are damaged."""
    for chunk in in_chunks(ids):
        samples, sound = storage.read_sound(chunk)
        buffer.array.append(samples, chunk[sound])


def fill_episodic(storage: Storage, memory: EpisodicMemory, ids: np.ndarray) -> None:
    """Adds samples of storage to an episodic memory that has room for them."""
    memory.reserve(ids)  # all of them first, so that no replacement is drawn that comes anyway
    for chunk in in_chunks(ids):
        samples, kept = replaced(storage, memory, chunk, *storage.read_sound(chunk))
        memory.array.append(samples, kept[kept >= 0])
