"""What a data set is: its samples behind one small interface, beside its facts in a `DatasetSpec`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash

from mirolib.base.display import facts
from mirolib.data.arrays import checked, checked_groups, described, held_out, numbered
from mirolib.data.spec import DatasetSpec as DatasetSpec, Preset as Preset

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Samples:
    """Labelled samples, read on demand: a view of `rows` of a larger array."""

    data: Any  # raw samples, `(n_all, *sample_shape)`, or what gives encoded ones when it is indexed like `ImageFiles`
    labels: np.ndarray  # class of each sample of this view, `(n,) int64`
    rows: np.ndarray  # row of `data` of each sample of this view, `(n,) int64`
    # who or what each sample is of (a person, a place, a session), `(n,)` of any values; None where unknown
    groups: np.ndarray | None = None

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

    def select(self, positions: np.ndarray, labels: np.ndarray | None = None) -> Samples:
        """A view of some of these samples, under new labels if there are any."""
        groups = None if self.groups is None else self.groups[positions]
        labels = self.labels[positions] if labels is None else labels
        return Samples(self.data, labels, self.rows[positions], groups)

    def spread(self, most: int, classes: int) -> Samples:
        """A view of at most `most` samples (0 for all) of each of the first classes, evenly spread."""
        found = []
        for label in range(classes):
            places = np.flatnonzero(self.labels == label)
            count = min(most or len(places), len(places))
            # spread, since neighbours in a file are often of one person, place or time
            found.append(places[np.linspace(0, len(places) - 1, count).round().astype(int)] if count else places)
        return self.select(np.sort(np.concatenate(found)))

    def chunks(self, size: int) -> Iterator[slice]:
        """Slices of at most `size` positions that cover this view in order."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True, repr=False)
class Dataset:
    """Train and test samples with their spec; labels run from 0 to `len(class_names) - 1`.

    Where it has a validation part of its own, none of its training samples are held out for validation.
    """

    spec: DatasetSpec
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    fingerprint: str = field(repr=False)
    validation: Samples | None = None

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
            **({"validation samples": f"{len(self.validation):,}"} if self.validation else {}),
            "classes": len(self.class_names),
            "a sample": f"{'x'.join(map(str, spec.sample_shape))} {spec.sample_dtype}",
            "presets": ", ".join(spec.presets),
        }
        told = {"source": spec.source, "licence": spec.licence, "to cite": spec.citation}
        return facts(f"Data set {spec.name}", values | {name: text for name, text in told.items() if text})

    @classmethod
    def from_arrays(
        cls, train_samples: Any, train_labels: Any, test_samples: Any = None, test_labels: Any = None, *,
        validation: tuple[Any, Any] | None = None, groups: Any = None, test_groups: Any = None,
        spec: DatasetSpec | None = None, name: str = "arrays", class_names: Sequence[str] = (), layout: str = "",
        test_share: float = 0.2, test_within: bool = False,
    ) -> Dataset:  # fmt: skip
        """A data set of the user's own arrays, tensors or lists.

        Args:
            train_samples: `(n, *sample_shape)` numbers; uint8 is not copied (leave it as it is), others become float32.
            train_labels: `(n,)` integers or texts; any values, one a class.
            test_samples: `(m, *sample_shape)`; without any, a share of the training samples is held out, which is said.
            test_labels: `(m,)`, all of which occur in `train_labels`.
            validation: Samples and labels that configurations are judged on; else each run holds out training samples.
            groups: `(n,)` values: what each training sample is of, such as a person; no test held out parts a group.
            test_groups: `(m,)`, likewise of the test samples.
            spec: Facts of the data set; by default mean, std and a preset `small` derived from the training samples.
            name: What results call it, where there is no spec.
            class_names: Name of each class in the order of the sorted label values; by default the values.
            layout: `table`, `images` (`(h, w)`, `(channels, h, w)`), `channels-last` (`(h, w, channels)`), `windows`
                (`(time, sensors)`) or `channels-first` (`(sensors, time)`); by default what shape and type tell.
            test_share: Share of each class that is held out where there are no test samples, in (0, 1).
            test_within: Whether the last ones of each group are then held out, for a stream by domains.

        Raises:
            InputError: If the arrays do not fit together, hold what is no number, or their layout can't be told.
        """
        tests = {} if test_samples is None else {"test": (test_samples, test_labels)}
        given = {"training": (train_samples, train_labels)} | tests | ({"validation": validation} if validation else {})
        columns = tuple(map(str, getattr(train_samples, "columns", ())))
        parts = {which: checked(x, y, which, columns) for which, (x, y) in given.items()}
        names, labels = numbered({which: labels for which, (_, labels) in parts.items()}, class_names)
        of = list(map(checked_groups, (groups, test_groups, None), parts, labels))
        held = np.zeros_like(labels[0], bool) if tests else held_out(labels[0], names, of[0], test_share, test_within)
        data, spec = described([samples for samples, _ in parts.values()], ~held, len(names), spec, name, layout)
        digest = xxhash.xxh3_128(held.tobytes() if held.any() else b"")
        views: list[Samples] = []
        for samples, (_, own), numbers, whose in zip(data, parts.values(), labels, of[: len(parts)], strict=True):
            digest.update(samples.data)
            digest.update(own.tobytes())
            views.append(Samples(samples, numbers, np.arange(len(numbers)), whose))
        if held.any():  # both parts are views of the same array, whose size may forbid a copy
            logger.warning("%s has no test part: %d of its %d samples are held out.", spec.name, held.sum(), len(held))
            views[:1] = [views[0].select(rows) for rows in map(np.flatnonzero, (~held, held))]
        spec = replace(spec, columns=columns or spec.columns)
        return cls(spec, views[0], views[1], names, digest.hexdigest(), *views[2:])

    @classmethod
    def from_parts(cls, parts: Mapping[str, tuple[Any, Any]], **options: Any) -> Dataset:
        """As `from_arrays`, of samples and labels by the name of their part: `train`, `test`, `validation`.

        As ImageNet has it, a validation part is for the test where there is no other.
        """
        judged = [parts[part] for part in ("test", "validation") if part in parts] + [(None, None)]
        validation = judged[1] if len(judged) > 2 else None
        return cls.from_arrays(*parts["train"], *judged[0], validation=validation, **options)

    def subset(self, per_class: int = 0, test_per_class: int = 0, classes: int = 0) -> Dataset:
        """Of the first so many classes so many training and test samples at most, evenly spread; 0 stands for all."""
        if not (per_class or test_per_class or classes):
            return self
        classes = min(classes or len(self.class_names), len(self.class_names))
        train, test = self.train.spread(per_class, classes), self.test.spread(test_per_class, classes)
        judged = self.validation and self.validation.spread(0, classes)
        # another one than the whole set's, so that a store of one is never taken for the other's
        fingerprint = f"{self.fingerprint}/{per_class}/{test_per_class}/{classes}"
        return Dataset(self.spec, train, test, self.class_names[:classes], fingerprint, judged)
