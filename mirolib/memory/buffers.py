"""The buffers in RAM: the stream buffer of the task at hand and the class-balanced episodic memory.

Both keep raw samples in one contiguous array, allocated once per size; a batch is one vectorised gather.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from mirolib.data.stream import ORDINAL_MASK, labels_of, make_ids, rank_in_class
from mirolib.memory.available_memory import check_available, explain_memory_errors

CHUNK = 256  # samples moved at a time, so that moving needs no second buffer
OBJECT_BYTES, POINTER_BYTES = sys.getsizeof(b""), 8  # what Python adds to bytes in an array of objects
_DRAWS = 8  # rounds of rejection before what is left is listed: listing takes time with the size of the class


def in_chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array in pieces of `CHUNK` entries, the last one shorter."""
    return (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))


def balanced_quotas(capacity: int, available: np.ndarray) -> np.ndarray:
    """Splits a capacity among classes as evenly as what each has available, `(classes,) int64`, allows (max-min fair).

    Returns:
        Places of each class, `(classes,) int64`: no more than available, in sum no more than the capacity, and
        no class has two places fewer than another that could not have been given one of them. Single places
        left over go to the earlier classes.
    """
    quotas = np.zeros_like(available)
    left = min(capacity, int(available.sum()))
    while left:  # each turn fills a class or ends, so that there are no more turns than classes
        open_ = np.flatnonzero(quotas < available)
        share, extra = divmod(left, len(open_))
        if share == 0:
            quotas[open_[:extra]] += 1
            break
        step = min(share, int((available - quotas)[open_].min()))
        quotas[open_] += step
        left -= step * len(open_)
    return quotas


def balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order `(n,) int64` of samples of which every prefix is class-balanced."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(rank_in_class(labels[shuffled]), kind="stable")]


class SampleArray:
    """Samples, labels and ids in arrays of fixed capacity; the first `len` slots are taken."""

    def __init__(self, capacity: int, sample_shape: tuple[int, ...], sample_dtype: str) -> None:
        """Allocates the arrays; an `InputError` if the process may not take as much."""
        self._slot_bytes = int(np.prod(sample_shape)) * np.dtype(sample_dtype).itemsize + 16
        check_available(capacity * self._slot_bytes, f"A buffer of {capacity} samples")
        with explain_memory_errors(f"A buffer of {capacity} samples"):
            # empty, not zeros: the system backs them with memory only as slots are filled
            self._samples = np.empty((capacity, *sample_shape), dtype=sample_dtype)
            self._labels = np.empty(capacity, dtype=np.int64)
            self._ids = np.empty(capacity, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return len(self._ids)

    @property
    def labels(self) -> np.ndarray:
        """Labels of the taken slots, `(len,) int64` (a copy)."""
        return self._labels[: self._count].copy()

    @property
    def ids(self) -> np.ndarray:
        """Ids of the taken slots, `(len,) int64` (a copy)."""
        return self._ids[: self._count].copy()

    @property
    def allocated_bytes(self) -> int:
        """Bytes of samples, labels and ids at full capacity; encoded samples count by their own lengths."""
        arrays = self._samples.nbytes + self._labels.nbytes + self._ids.nbytes
        if not self._samples.dtype.hasobject:
            return arrays
        return arrays + sum(OBJECT_BYTES + len(sample) for sample in self._samples[: self._count])

    def gather(self, slots: np.ndarray, out_samples: np.ndarray, out_labels: np.ndarray) -> None:
        """Copies the samples and labels of some slots into arrays of the caller."""
        # "clip": with "raise", NumPy fills a copy first and then copies that into `out`
        np.take(self._samples, slots, axis=0, out=out_samples, mode="clip")
        np.take(self._labels, slots, out=out_labels, mode="clip")

    def ids_at(self, slots: np.ndarray) -> np.ndarray:
        """Ids of some taken slots."""
        return self._ids[slots]

    def copy_of(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples and ids of some taken slots."""
        return self._samples[slots], self._ids[slots]

    def __deepcopy__(self, memo: dict[int, object]) -> SampleArray:
        other = SampleArray(self.capacity, self._samples.shape[1:], str(self._samples.dtype))
        for slots in in_chunks(np.arange(self._count)):  # the free slots are left alone: no memory backs them yet
            other.append(*self.copy_of(slots))
        return other

    def append(self, samples: np.ndarray, ids: np.ndarray) -> None:
        """Fills the next free slots; there must be enough of them."""
        end = self._count + len(ids)
        assert end <= self.capacity, "more samples than slots"
        self._count = end
        self.write(np.arange(end - len(ids), end), samples, ids)

    def write(self, slots: np.ndarray, samples: np.ndarray, ids: np.ndarray) -> None:
        """Replaces what is in some taken slots."""
        self._samples[slots] = samples
        self._ids[slots] = ids
        self._labels[slots] = labels_of(ids)

    def discard(self, slots: np.ndarray) -> None:
        """Frees some taken slots, moving samples from the end into the holes."""
        count = self._count - len(slots)
        dropped = np.zeros(self._count, dtype=bool)
        dropped[slots] = True
        holes = np.flatnonzero(dropped[:count])
        movers = count + np.flatnonzero(~dropped[count:])
        for to, source in zip(in_chunks(holes), in_chunks(movers), strict=True):
            self.write(to, self._samples[source], self._ids[source])
        if self._samples.dtype.hasobject:
            self._samples[count : self._count] = None  # lets go of the bytes
        self._count = count

    def reset(self, capacity: int) -> None:
        """Empties the array and changes the number of slots."""
        self.discard(np.arange(self._count))
        self.resize(capacity)

    def resize(self, capacity: int) -> None:
        """Changes the number of slots, no less than the samples, in place; an `InputError` if memory is short."""
        assert self._count <= capacity, "more samples than slots"
        check_available((capacity - self.capacity) * self._slot_bytes, f"A buffer of {capacity} samples")
        # No view of these arrays leaves this class, so a moved allocation can dangle nowhere.
        with explain_memory_errors(f"A buffer of {capacity} samples"):
            self._samples.resize((capacity, *self._samples.shape[1:]), refcheck=False)
            self._labels.resize(capacity, refcheck=False)
            self._ids.resize(capacity, refcheck=False)


class StreamBuffer:
    """Samples of the task at hand: a class-balanced prefix of a random order of all of them.

    Because it is a prefix, a smaller buffer holds a subset of what a larger one holds.
    """

    def __init__(self, array: SampleArray) -> None:
        self.array = array
        self.order = np.empty(0, dtype=np.int64)  # all ids of the task in that order; `missing` says which are to come

    def __len__(self) -> int:
        return len(self.array)

    def clear(self) -> None:
        """Empties the buffer."""
        self.array.discard(np.arange(len(self.array)))
        self.order = self.order[:0]

    def begin(self, ids: np.ndarray, rng: np.random.Generator) -> None:
        """Empties the buffer for a task whose training samples have these ids."""
        self.clear()
        self.order = ids[balanced_order(labels_of(ids), rng)]

    def missing(self) -> np.ndarray:
        """Ids that the buffer has room for and does not hold yet, in order."""
        return self.order[len(self.array) : self.array.capacity]

    def drop(self, ids: np.ndarray) -> None:
        """Takes samples that are not held yet out of the order; the later ones of their classes move up."""
        for id_ in ids:
            same = np.flatnonzero(labels_of(self.order) == labels_of(id_))
            same = same[np.flatnonzero(self.order[same] == id_)[0] :]
            order = self.order.copy()
            order[same[:-1]] = order[same[1:]]
            self.order = np.delete(order, same[-1])

    def resize(self, capacity: int) -> None:
        """Changes the capacity; what no longer fits is dropped from the end of the order."""
        self.array.discard(np.arange(min(capacity, len(self.array)), len(self.array)))
        self.array.resize(capacity)


class EpisodicMemory:
    """Samples of old classes: class-balanced, never over capacity, no sample twice."""

    def __init__(self, array: SampleArray) -> None:
        self.array = array
        self.damaged = np.zeros(0, dtype=np.int64)  # ids of stored samples that can't be read and are not drawn again
        self.classes = np.zeros(0, dtype=np.int64)  # the old ones, all of which have samples on storage
        self.old = np.zeros(0, dtype=np.int64)  # how many samples of each class are: the first ones on storage
        self.bounds: list[np.ndarray] = []  # of each class, where tasks begin, if all are to be drawn from alike
        self._starts = np.zeros(1, dtype=np.int64)
        self._held = np.zeros(0, dtype=bool)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def index_bytes(self) -> int:
        """Bytes of the marks that say which stored samples are held."""
        return self._held.nbytes + self._starts.nbytes

    def extend(self, stored: np.ndarray, old: np.ndarray | None = None) -> None:
        """Learns how many samples of each label are in storage, to which ids run, and `old`, all by default.

        Both are `(labels,) int64`.
        """
        # what was found damaged may lie beyond what a budget has left on storage since
        ids = np.concatenate([self.array.ids, self.damaged])
        ends = stored.copy()
        np.maximum.at(ends, labels_of(ids), (ids & ORDINAL_MASK) + 1)
        self.old = stored.copy() if old is None else old
        self._starts = np.concatenate([[0], np.cumsum(ends)])
        self._held = np.zeros(self._starts[-1], dtype=bool)
        self._held[self._places(ids)] = True

    def mark_damaged(self, ids: np.ndarray) -> None:
        """Marks stored samples that can't be read: they are never drawn again."""
        self.damaged = np.concatenate([self.damaged, ids])
        self._held[self._places(ids)] = True

    def _places(self, ids: np.ndarray) -> np.ndarray:
        """Where the marks of some samples lie among those of all that are stored."""
        return self._starts[labels_of(ids)] + (ids & ORDINAL_MASK)

    def class_counts(self, num_labels: int) -> np.ndarray:
        """Number of samples of each label, `(num_labels,) int64`."""
        return np.bincount(self.array.labels, minlength=num_labels)[:num_labels]

    def rebalance(self, capacity: int, quotas: np.ndarray, rng: np.random.Generator) -> None:
        """Changes the capacity, and drops random samples of each label down to its quota, `(labels,) int64`."""
        labels = self.array.labels
        order = rng.permutation(len(labels))
        surplus = order[rank_in_class(labels[order]) >= quotas[labels[order]]]
        self._held[self._places(self.array.ids_at(surplus))] = False
        self.array.discard(surplus)
        self.array.resize(capacity)

    def reserve(self, ids: np.ndarray) -> None:
        """Marks samples as held, those being fetched included, so that none is fetched twice."""
        places = self._places(ids)
        assert not self._held[places].any(), "a sample twice"
        self._held[places] = True

    def absent(self, ids: np.ndarray) -> np.ndarray:
        """Those of some stored samples that are old and neither held nor under way nor damaged, `(k,) int64`."""
        return ids[((ids & ORDINAL_MASK) < self.old[labels_of(ids)]) & ~self._held[self._places(ids)]]

    def exchange(self, slots: np.ndarray, samples: np.ndarray, ids: np.ndarray) -> None:
        """Puts reserved samples into slots."""
        self._held[self._places(self.array.ids_at(slots))] = False
        self.array.write(slots, samples, ids)

    def draw_absent(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws distinct samples from storage that are not held, one for each of `(n,) int64` labels, uniformly.

        They are `(n,) int64` ids, -1 where storage has no further sample of the class.
        """
        drawn = np.full(len(labels), -1, dtype=np.int64)
        stored = self.old
        open_ = np.flatnonzero(stored[labels] > 0)
        low, high = self._ranges(labels, rng)
        for _ in range(_DRAWS if len(open_) else 0):
            ids = make_ids(labels[open_], rng.integers(low[open_], high[open_]))
            places = self._places(ids)
            fresh = np.zeros(len(open_), dtype=bool)
            fresh[np.unique(places, return_index=True)[1]] = True  # of equal draws, the first
            fresh &= ~self._held[places]
            drawn[open_[fresh]] = ids[fresh]
            self._held[places[fresh]] = True  # for the next rounds only: who draws may still not take it in
            open_ = open_[~fresh]
            if not len(open_):
                break
        for label in np.unique(labels[open_]).tolist():  # nearly all of the class is held: list what is left
            wanted = open_[labels[open_] == label]
            start = self._starts[label]
            chosen = rng.permutation(np.flatnonzero(~self._held[start : start + stored[label]]))[: len(wanted)]
            drawn[wanted[: len(chosen)]] = make_ids(np.full(len(chosen), label), chosen)
        self._held[self._places(drawn[drawn >= 0])] = False
        return drawn

    def _ranges(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """First ordinals, and those behind the last, among which to draw for each label: all, or those of a task."""
        if not self.bounds:
            return np.zeros_like(labels), self.old[labels]
        tasks = rng.integers(0, [max(1, len(self.bounds[label]) - 1) for label in labels])
        both = zip(labels, tasks, strict=True)
        ends = [self.bounds[label].take([task, task + 1], mode="clip") for label, task in both]
        low, high = np.array(ends, dtype=np.int64).reshape(-1, 2).T
        return low, high
