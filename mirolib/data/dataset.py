"""What a data set is: its samples behind one small interface, beside its facts in a `DatasetSpec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from mirolib.base.display import facts
from mirolib.base.errors import InputError
from mirolib.data.arrays import checked, described
from mirolib.data.spec import DatasetSpec as DatasetSpec, Preset as Preset


@dataclass(frozen=True, repr=False)
class Samples:
    """Labelled samples, read on demand: a view of `rows` of a larger array.

    Attributes:
        data: Raw samples, `(n_all, *sample_shape)`, or what gives encoded ones when it is indexed like `ImageFiles`.
        labels: Class of each sample of this view, `(n,) int64`.
        rows: Row of `data` of each sample of this view, `(n,) int64`.
    """

    data: Any
    labels: np.ndarray
    rows: np.ndarray

    @property
    def mean_bytes(self) -> int:
        """Mean length in bytes of encoded samples."""
        return int(self.data.size_bytes[self.rows].mean())

    def __repr__(self) -> str:
        return f"Samples({len(self)} of {len(np.unique(self.labels))} classes)"

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, positions: np.ndarray | slice) -> np.ndarray:
        """Copies the samples at `positions` of this view, `(k, *sample_shape)`."""
        return self.data[self.rows[positions]]

    def select(self, positions: np.ndarray, labels: np.ndarray) -> Samples:
        """A view of some of these samples under new labels."""
        return Samples(self.data, labels, self.rows[positions])

    def chunks(self, size: int) -> Iterator[slice]:
        """Slices of at most `size` positions that cover this view in order."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True, repr=False)
class Dataset:
    """Train and test samples with their spec; labels run from 0 to `len(class_names) - 1`."""

    spec: DatasetSpec
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    fingerprint: str = field(repr=False)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.spec.sample_shape))
        return (
            f"Dataset({self.spec.name}: {len(self.train)} training and {len(self.test)} test samples, "
            f"{len(self.class_names)} classes, {shape} {self.spec.sample_dtype})"
        )

    def _repr_html_(self) -> str:
        spec = self.spec
        of_class = np.bincount(self.train.labels, minlength=len(self.class_names))
        values = {
            "training samples": f"{len(self.train):,}, {of_class.min():,} to {of_class.max():,} a class",
            "test samples": f"{len(self.test):,}",
            "classes": len(self.class_names),
            "a sample": f"{'x'.join(map(str, spec.sample_shape))} {spec.sample_dtype}",
            "presets": ", ".join(spec.presets),
        }
        told = {"source": spec.source, "licence": spec.licence, "to cite": spec.citation}
        return facts(f"Data set {spec.name}", values | {name: text for name, text in told.items() if text})

    @classmethod
    def from_arrays(
        cls,
        train_samples: np.ndarray,
        train_labels: np.ndarray,
        test_samples: np.ndarray,
        test_labels: np.ndarray,
        *,
        spec: DatasetSpec | None = None,
        class_names: Sequence[str] = (),
        layout: str = "",
    ) -> Dataset:
        """A data set of the user's own arrays.

        Args:
            train_samples: `(n, *sample_shape)`, any numeric type. Kept as uint8 where they are uint8 (not copied: leave
                them as they are), as float32 otherwise.
            train_labels: `(n,)` integers; any values, one a class.
            test_samples: `(m, *sample_shape)`.
            test_labels: `(m,)` integers, all of which occur in `train_labels`.
            spec: Facts of the data set; by default derived from the training samples: mean and standard deviation of
                each channel, column or sensor, and a preset `small` with a model by layout.
            class_names: Name of each class in the order of the sorted label values; by default the values.
            layout: What a sample is: `table` (columns), `images` (`(h, w)` or `(channels, h, w)`), `windows`
                (`(time, sensors)`) or `channels-first` (`(sensors, time)`, such as waveforms); by default what shape
                and type tell.

        Raises:
            InputError: If the arrays do not fit together, hold NaN or infinite values, labels are no integers, or the
                layout can't be told.
        """
        train_samples, train_labels = checked(train_samples, train_labels, "training")
        test_samples, test_labels = checked(test_samples, test_labels, "test")
        values = np.unique(train_labels)
        for which, some, others in (("test", test_labels, values), ("training", values, test_labels)):
            if len(alone := np.setdiff1d(some, others)):
                raise InputError(f"Labels {alone[:5].tolist()} occur in {which} alone; add samples or leave them out.")
        names = tuple(str(name) for name in (class_names if len(class_names) else values.tolist()))
        if len(names) != len(values):
            raise InputError(f"There are {len(values)} classes but {len(names)} class names; give one name a class.")
        train_samples, test_samples, spec = described(train_samples, test_samples, len(values), spec, layout)
        digest = xxhash.xxh3_128()
        for part in (train_samples, train_labels, test_samples, test_labels):
            digest.update(np.ascontiguousarray(part).data)
        train, test = (
            Samples(samples, np.searchsorted(values, labels), np.arange(len(labels)))
            for samples, labels in ((train_samples, train_labels), (test_samples, test_labels))
        )
        return cls(spec, train, test, names, digest.hexdigest())

    def subset(self, per_class: int = 0, test_per_class: int = 0, classes: int = 0) -> Dataset:
        """A class-balanced part of this data set, the same every time.

        Args:
            per_class: Most training samples of a class, evenly spread over those there are; 0 for all.
            test_per_class: Most test samples of a class; 0 for all.
            classes: The first so many classes; 0 for all.
        """
        if not (per_class or test_per_class or classes):
            return self
        classes = min(classes or len(self.class_names), len(self.class_names))
        train, test = (
            part.select(rows := _spread(part.labels, most, classes), part.labels[rows])
            for part, most in ((self.train, per_class), (self.test, test_per_class))
        )
        # another one than the whole set's, so that a store of one is never taken for the other's
        fingerprint = f"{self.fingerprint}/{per_class}/{test_per_class}/{classes}"
        return Dataset(self.spec, train, test, self.class_names[:classes], fingerprint)


def _spread(labels: np.ndarray, most: int, classes: int) -> np.ndarray:
    """Positions of at most `most` samples (0 for all) of each of the first classes, evenly spread, in rising order."""
    found = []
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        count = min(most or len(places), len(places))
        # spread, since neighbours in a file are often of one person, place or time
        found.append(places[np.linspace(0, len(places) - 1, count).round().astype(int)] if count else places)
    return np.sort(np.concatenate(found))
