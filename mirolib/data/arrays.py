"""The user's own arrays: what they are, how they are laid out, and what follows for training on them."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.spec import DatasetSpec, Preset

LAYOUTS = ("table", "images", "channels-last", "windows", "channels-first")
"""Rows; images, grey or channels first; images `(height, width, channels)`; windows `(time, sensors)`; windows
`(sensors, time)`, such as waveforms."""

_MODELS = {"table": "mlp-bn", "images": "cnn", "channels-last": "cnn", "windows": "cnn1d", "channels-first": "cnn1d"}
_CHUNK_BYTES = 1 << 24
_BATCH = 32
_STEPS = 200  # of training at a task, at least: fewer leave a network far from what it can learn
_BUFFER_BYTES = 1 << 26  # of RAM for each buffer, at most
_WARM_START = 0.3  # what trained on few samples a class learns the next ones worse than what was not trained at all
_LONG = 3  # a side so much longer than the other is taken for time


def checked(samples: Any, labels: Any, which: str, columns: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Samples as uint8 or float32, labels as int64 or texts, or an `InputError` on what is wrong with the `which` ones.

    Tensors are taken as they are, gradients aside; nothing is copied that need not be. The columns of a data frame are
    brought into the order of `columns`, if there are any.
    """
    if columns and hasattr(samples, "columns"):
        samples = samples.set_axis([str(column) for column in samples], axis=1)
        if differ := {*samples} ^ {*columns}:
            should = ", ".join(columns)[:300]
            raise InputError(f"Column {min(differ)!r} is missing or unknown; give the columns {should}.")
        samples = samples[list(columns)]
    try:
        given = (one.detach().cpu().numpy() if hasattr(one, "detach") else one for one in (samples, labels))
        samples, labels = map(np.asanyarray, given)  # which keeps a mask; asarray would lose it without a word
    except (ValueError, TypeError) as error:  # NumPy makes no array of rows of several lengths, or of every tensor
        why = "ragged; give every sample the same shape" if isinstance(error, ValueError) else f"no array ({error})"
        raise InputError(f"The {which} samples or labels are {why}.") from error
    for what, array in (("samples", samples), ("labels", labels)):
        if np.ma.is_masked(array):
            raise InputError(f"Some {which} {what} are masked; fill them in, or leave those samples out.")
    samples, labels = np.asarray(samples), np.asarray(labels)
    if samples.ndim < 2 or samples.size == 0:
        raise InputError(f"The {which} samples have shape {samples.shape}; give an array (n, ...) with n > 0.")
    if labels.shape == (len(samples), 1):  # as Keras keeps them
        labels = labels[:, 0]
    if labels.shape != (len(samples),):
        raise InputError(
            f"There are {len(samples)} {which} samples, labels {labels.shape}; give one each (not one-hot)."
        )
    if labels.dtype.kind in "US" or (labels.dtype == object and all(isinstance(label, str) for label in labels)):
        labels = labels.astype(str)
    elif np.issubdtype(labels.dtype, np.integer):
        labels = labels.astype(np.int64)
    else:
        raise InputError(f"The {which} labels are {labels.dtype}; give integers or texts, one value a class.")
    if samples.dtype == np.uint8:
        return samples, labels
    if samples.dtype.kind not in "biufm":
        raise InputError(f"The {which} samples are {samples.dtype}; give uint8 or real numbers.")
    samples = samples.astype(np.float32)
    if (bad := ~np.isfinite(samples).reshape(len(samples), -1).all(axis=1)).any():
        where = f"{bad.sum()} {which} samples hold NaN or infinite values, first at row {bad.argmax()}"
        raise InputError(f"{where}; remove or repair them.")
    return samples, labels


def checked_groups(groups: Any, which: str, labels: np.ndarray) -> np.ndarray | None:
    """Groups of the `which` samples, `(n,)`, None where there are none; an `InputError` if they are not one each."""
    if groups is None or (found := np.asarray(groups)).shape == labels.shape:
        return None if groups is None else found.astype(str) if found.dtype == object else found
    raise InputError(f"There are {len(labels)} {which} samples, groups are {found.shape}; give one each.")


def numbered(labels: Mapping[str, np.ndarray], names: Sequence[str]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The classes' names, by default their values, in order, and each part's labels as positions, `(n,) int64`.

    No part may have classes that that of training lacks, and a test part lacks none.
    """
    values = np.unique(labels["training"])
    for which, some in labels.items():
        if some.dtype.kind != values.dtype.kind:
            raise InputError(f"Some labels are texts and some integers, in training and {which}; make them alike.")
        missing = np.setdiff1d(values, some if which == "test" else values)
        for where, alone in ((which, np.setdiff1d(some, values)), ("training", missing)):
            if len(alone):
                raise InputError(f"Labels {alone[:5].tolist()} occur in {where} alone; add samples or leave them out.")
    found = tuple(str(name) for name in (names if len(names) else values.tolist()))
    if len(found) != len(values):
        raise InputError(f"There are {len(values)} classes but {len(found)} class names; give one name a class.")
    return found, [np.searchsorted(values, some) for some in labels.values()]


def held_out(
    labels: np.ndarray, names: Sequence[str], groups: np.ndarray | None, share: float, within: bool = False
) -> np.ndarray:
    """Which samples `(n,) bool` are held out for a test: a share of each class, or whole groups until there are enough.

    Of groups, those `within` are held out: the last ones of each class in each.

    It is the same whatever the seed of a run is; a class needs samples, or groups, in both parts.
    """
    if not 0 < share < 1:
        raise InputError(f"test_share is {share}; choose a share between 0 and 1.")
    held, rng, counts = np.zeros(len(labels), bool), np.random.default_rng(0), np.bincount(labels)
    if within and groups is not None:
        for group, label in itertools.product(np.unique(groups), range(len(counts))):
            rows = np.flatnonzero((groups == group) & (labels == label))
            held[rows[max(1, len(rows) - max(1, round(share * len(rows)))) :]] = True
    elif groups is None:
        for label, count in enumerate(counts.tolist()):
            most = min(max(1, round(share * count)), count - 1)
            held[rng.permutation(np.flatnonzero(labels == label))[:most]] = True
    else:
        for group in rng.permutation(np.unique(groups)):
            those = groups == group
            leaves_all = len(np.unique(labels[~held & ~those])) == len(counts)
            adds_class = not np.isin(labels[those], labels[held]).all()
            if leaves_all and (adds_class or (held.sum() + those.sum() / 2) < share * len(labels)):
                held |= those
    if (without := np.bincount(labels[held], minlength=len(counts)) == 0).any():
        few = f"few {'samples' if groups is None else 'groups'}"
        raise InputError(f"Class {names[without.argmax()]} has too {few} to hold one out; add some, or a test part.")
    return held


def described(
    parts: Sequence[np.ndarray], trained: np.ndarray, classes: int, spec: DatasetSpec | None, name: str, layout: str
) -> tuple[list[np.ndarray], DatasetSpec]:
    """Samples in the shape that models take, and their spec.

    The spec is by default from those of the first part which train, alone: statistics, a model by layout, epochs and
    sizes.
    """
    origin, shape = "the spec says" if spec else "those for training are", parts[0].shape[1:]
    if spec is None or layout:
        layout = layout or recognised(parts[0])
        parts = [arranged(part, layout) for part in parts]
    elif spec.sample_shape == (1, *shape):
        parts = [part[:, None] for part in parts]
    elif len(shape) == 3 and shape != spec.sample_shape == (shape[2], *shape[:2]):
        parts = [arranged(part, "channels-last") for part in parts]
    parts = [np.ascontiguousarray(part) for part in parts]
    if spec is None:
        rows, shape, kind = np.flatnonzero(trained), parts[0].shape[1:], str(parts[0].dtype)
        axis, scale = -1 if _MODELS[layout] == "cnn1d" else 0, 255.0 if kind == "uint8" else 1.0
        mean, std = (tuple((values / scale).tolist()) for values in statistics(parts[0], axis, rows))
        preset = derived_preset(_MODELS[layout], len(rows), classes, parts[0][0].nbytes)
        spec = DatasetSpec(name, shape, kind, {"small": preset}, scale, mean, std, axis, layout=layout)
    for part in parts:
        if (part.shape[1:], str(part.dtype)) != (spec.sample_shape, spec.sample_dtype):
            wanted = f"{origin} {spec.sample_shape} {spec.sample_dtype}"
            raise InputError(f"Samples are {part.shape[1:]} {part.dtype}, where {wanted}; make them agree.")
    return parts, spec


def recognised(samples: np.ndarray) -> str:
    """The layout of samples `(n, ...)`; an `InputError` where their shape and type don't tell it."""
    shape = samples.shape[1:]
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):  # else it may be a few pixels wide
        return "channels-last"
    if len(shape) != 2:
        return "table" if len(shape) == 1 else "images"
    first, second = shape
    if samples.dtype == np.uint8 and min(shape) > 1:
        return "images"
    if second == 1 or first >= _LONG * second:
        layout, what = "windows", f"{first} steps of {second} sensors"
    elif first == 1 or second >= _LONG * first:
        layout, what = "channels-first", f"{second} steps of {first} sensors"
    else:
        raise InputError(f"Samples {shape} may be images or windows; say which by layout: {', '.join(LAYOUTS)}.")
    warnings.warn(f"Samples {shape} are taken for {what}; say so by layout={layout!r}, or another.", stacklevel=5)
    return layout


def arranged(samples: np.ndarray, layout: str) -> np.ndarray:
    """Samples in the shape that models take: `(n, columns)`, `(n, channels, height, width)`, `(n, 1, time, sensors)`.

    An `InputError` says if they can't have the layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    if layout == "table":
        return samples.reshape(len(samples), -1)
    if samples.ndim == 3:
        return (samples.transpose(0, 2, 1) if layout == "channels-first" else samples)[:, None]
    if samples.ndim == 4 and layout == "channels-last":
        return samples.transpose(0, 3, 1, 2)
    if samples.ndim != 4 or (layout != "images" and samples.shape[1] != 1):
        raise InputError(f"Samples {samples.shape[1:]} are no {layout}; give (n, a, b), or choose another layout.")
    return samples.transpose(0, 1, 3, 2) if layout == "channels-first" else samples


def statistics(samples: np.ndarray, axis: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `(channels,) float64` along an axis of some rows of the samples, read in chunks.

    What varies by less than a millionth of its mean is taken for constant, whose standard deviation is given as 1.
    """
    # pairwise, as Chan, Golub and LeVeque 1983 combine them: sums of squares would lose what is far from zero
    axis %= samples.ndim - 1
    count, mean, square = 0, np.zeros(samples.shape[1 + axis]), np.zeros(samples.shape[1 + axis])
    most = max(1, _CHUNK_BYTES // (8 * math.prod(samples.shape[1:])))
    for start in range(0, len(rows), most):
        chunk = samples[rows[start : start + most]].astype(np.float64)
        part = np.moveaxis(chunk, 1 + axis, 0).reshape(len(mean), -1)
        n, middle = part.shape[1], part.mean(axis=1)
        square += ((part - middle[:, None]) ** 2).sum(axis=1) + (middle - mean) ** 2 * count * n / (count + n)
        count, mean = count + n, mean + (middle - mean) * n / (count + n)
    std = np.sqrt(square / count)
    return mean, np.where(std <= 1e-6 * np.abs(mean), 1.0, std)


def derived_preset(model: str, samples: int, num_classes: int, sample_bytes: int) -> Preset:
    """A preset for so many training samples: tasks of two classes at least, epochs and buffers by their number."""
    tasks = max(1, min(5, num_classes // 2))
    share, fits = math.ceil(samples / tasks), max(num_classes, _BUFFER_BYTES // sample_bytes)
    # as many visits as if each epoch replayed every old sample, which the default mix does not
    old, epochs = np.arange(tasks), min(60, max(5, _STEPS * _BATCH / share))
    epochs = math.ceil(epochs * (1 + old.mean()) / (1 + np.sqrt(old).mean()))
    return Preset(
        model, tasks, epochs, batch_size=_BATCH, lr=0.05, stream_size=min(share, fits),
        episodic_size=min(samples, fits), swap_ratio=1.0, warm_start=_WARM_START,
    )  # fmt: skip
