"""What a data set is: its facts in one `DatasetSpec`, its samples behind one small interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from mirolib.base.display import facts
from mirolib.base.errors import InputError


@dataclass(frozen=True)
class Preset:
    """How to train on a data set: one row of settings (paper: Table 2 and its evaluation section).

    Attributes:
        model: A name from `mirolib.learning.models.MODELS`.
        tasks: Number of tasks the classes are split into.
        epochs: Passes over stream buffer and episodic memory at each task.
        batch_size: Samples in a training step.
        lr: Learning rate of SGD at the start of each task.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty of SGD.
        milestones: Epochs at which the learning rate is multiplied by `gamma`.
        gamma: Factor of the learning rate at each milestone.
        stream_size: Capacity of the stream buffer in samples.
        episodic_size: Capacity of the episodic memory in samples.
        swap_ratio: Share of the replayed samples exchanged with storage, in [0, 1].
        per_class: Training samples of each class that are used, evenly spread over those found; 0 for all.
        test_per_class: Test samples of each class that are used; 0 for all.
        classes: Classes that are used, the first ones; 0 for all.
        image_size: Height and width that encoded images are cut to; 0 for what the spec says.
    """

    model: str
    tasks: int
    epochs: int
    batch_size: int
    lr: float
    stream_size: int
    episodic_size: int
    swap_ratio: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 1.0
    per_class: int = 0
    test_per_class: int = 0
    classes: int = 0
    image_size: int = 0


@dataclass(frozen=True)
class DatasetSpec:
    """Everything the rest of the library needs to know of a data set.

    Attributes:
        name: The name `load_dataset` knows it by.
        sample_shape: Shape of one sample, `(channels, height, width)` for images.
        sample_dtype: What samples are kept as: `uint8`, `float32`, or `jpeg` for encoded images of any size, which are
            decoded and cut to `sample_shape` at use.
        scale: The raw value that stands for 1.0, so that `raw / scale` has `mean` and `std`.
        mean: Mean of each channel after scaling (one value for all channels is enough).
        std: Standard deviation of each channel after scaling.
        crop_padding: Zero padding in pixels of the random crop; 0 for none.
        flip: Whether training images are mirrored at random.
        presets: Training settings by name; the first is the default.
        source: Where the data come from.
        licence: Terms of use as their source states them.
        citation: What to cite.
    """

    name: str
    sample_shape: tuple[int, ...]
    sample_dtype: str
    presets: Mapping[str, Preset]
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop_padding: int = 0
    flip: bool = False
    source: str = ""
    licence: str = ""
    citation: str = ""

    @property
    def encoded(self) -> bool:
        """Whether a sample is kept as encoded bytes of its own length: an element of an object array."""
        return self.sample_dtype == "jpeg"

    def preset(self, name: str = "") -> Preset:
        """The settings called `name`, or the first ones for an empty name.

        Raises:
            InputError: If this data set has no preset of that name.
        """
        if not name:
            return next(iter(self.presets.values()))
        if name not in self.presets:
            raise InputError(f"{self.name} has no preset {name!r}; choose one of {', '.join(self.presets)}.")
        return self.presets[name]


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
    ) -> Dataset:
        """A data set of the user's own arrays.

        Args:
            train_samples: `(n, *sample_shape)`, any numeric type; greyscale images `(n, h, w)` get a channel
                axis. Kept as uint8 where they are uint8 (not copied: leave them as they are), as float32 otherwise.
            train_labels: `(n,)` integers; any values, one a class.
            test_samples: `(m, *sample_shape)`.
            test_labels: `(m,)` integers, all of which occur in `train_labels`.
            spec: Facts of the data set; by default derived from the training samples (mean, standard
                deviation, and a preset `small` with a small model).
            class_names: Name of each class in the order of the sorted label values; by default the values.

        Raises:
            InputError: If the arrays do not fit together, hold NaN or infinite values, or labels are no integers.
        """
        train_samples, train_labels = _checked(train_samples, train_labels, "training")
        test_samples, test_labels = _checked(test_samples, test_labels, "test")
        values, train_classes = np.unique(train_labels, return_inverse=True)
        for which, some, others in (("test", test_labels, values), ("training", values, test_labels)):
            if len(alone := np.setdiff1d(some, others)):
                raise InputError(f"Labels {alone[:5].tolist()} occur in {which} alone; add samples or leave them out.")
        names = tuple(str(name) for name in (class_names if len(class_names) else values.tolist()))
        if len(names) != len(values):
            raise InputError(f"There are {len(values)} classes but {len(names)} class names; give one name a class.")
        origin = "the spec says" if spec else "those for training are"
        spec = spec or _derived_spec(train_samples, len(values))
        for which, part in (("training", train_samples), ("test", test_samples)):
            if (part.shape[1:], str(part.dtype)) != (spec.sample_shape, spec.sample_dtype):
                raise InputError(
                    f"The {which} samples are {part.shape[1:]} {part.dtype}, where {origin} {spec.sample_shape} "
                    f"{spec.sample_dtype}; make them agree."
                )
        digest = xxhash.xxh3_128()
        for part in (train_samples, train_labels, test_samples, test_labels):
            digest.update(np.ascontiguousarray(part).data)
        test_classes = np.searchsorted(values, test_labels)
        train, test = (
            Samples(samples, classes.astype(np.int64), np.arange(len(classes)))
            for samples, classes in ((train_samples, train_classes), (test_samples, test_classes))
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


def _checked(samples: np.ndarray, labels: np.ndarray, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples as uint8 or float32 with a channel axis, labels as int64, or a sentence on what is wrong."""
    try:
        samples, labels = np.asarray(samples), np.asarray(labels)
    except ValueError as error:  # NumPy makes no array of rows of several lengths
        raise InputError(f"The {which} samples or labels are ragged; give every sample the same shape.") from error
    if samples.ndim < 2 or len(samples) == 0:
        raise InputError(f"The {which} samples have shape {samples.shape}; give an array (n, ...) with n > 0.")
    if labels.shape != (len(samples),):
        raise InputError(f"There are {len(samples)} {which} samples but labels of shape {labels.shape}; give one each.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"The {which} labels are {labels.dtype}; convert them to integers, one value a class.")
    if samples.dtype != np.uint8:
        if not (np.issubdtype(samples.dtype, np.number) or samples.dtype == bool) or np.iscomplexobj(samples):
            raise InputError(f"The {which} samples are {samples.dtype}; give uint8 or real numbers.")
        samples = samples.astype(np.float32)
        bad = ~np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
        if bad.any():
            raise InputError(
                f"{int(bad.sum())} {which} samples hold NaN or infinite values, first at row "
                f"{int(bad.argmax())}; remove or repair them."
            )
    # with channels first, an image may be 1, 3 or 4 pixels wide
    if samples.ndim == 4 and samples.shape[3] in (1, 3, 4) and samples.shape[1] not in (1, 3, 4):
        raise InputError(
            f"The {which} images have shape {samples.shape[1:]}, channels last; give channels first, "
            "as samples.transpose(0, 3, 1, 2) does."
        )
    if samples.ndim == 3:
        samples = samples[:, None]
    return np.ascontiguousarray(samples), labels.astype(np.int64)


def _derived_spec(samples: np.ndarray, num_classes: int) -> DatasetSpec:
    """A spec from training samples alone: statistics by channel, a small model by shape."""
    scale = 255.0 if samples.dtype == np.uint8 else 1.0
    axes = tuple(axis for axis in range(samples.ndim) if axis != 1) if samples.ndim == 4 else None
    mean = np.atleast_1d(samples.mean(axis=axes, dtype=np.float64)) / scale
    std = np.atleast_1d(samples.std(axis=axes, dtype=np.float64)) / scale
    std = np.maximum(std, 1e-6)  # samples that are all alike are divided by it
    tasks = max(1, min(5, num_classes // 2))  # of two classes at least, where there are as many
    model = "small-cnn" if samples.ndim == 4 else "mlp"
    # the paper's sizes for CIFAR-100 at most, and one sample of each class in memory at least
    stream, episodic = min(5000, max(1, len(samples) // tasks)), max(num_classes, min(2000, len(samples) // 10))
    preset = Preset(
        model, tasks, epochs=10, batch_size=32, lr=0.1, stream_size=stream, episodic_size=episodic, swap_ratio=0.2
    )
    statistics = scale, tuple(mean.tolist()), tuple(std.tolist())
    return DatasetSpec("arrays", samples.shape[1:], str(samples.dtype), {"small": preset}, *statistics)
