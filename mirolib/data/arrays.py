"""The user's own arrays: what they are, how they are laid out, and what follows for training on them."""

from __future__ import annotations

import math
import warnings

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


def checked(samples: np.ndarray, labels: np.ndarray, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples as uint8 or float32 and labels as int64, or an `InputError` on what is wrong with the `which` ones."""
    try:
        samples, labels = np.asarray(samples), np.asarray(labels)
    except ValueError as error:  # NumPy makes no array of rows of several lengths
        raise InputError(f"The {which} samples or labels are ragged; give every sample the same shape.") from error
    if samples.ndim < 2 or samples.size == 0:
        raise InputError(f"The {which} samples have shape {samples.shape}; give an array (n, ...) with n > 0.")
    if labels.shape != (len(samples),):
        raise InputError(f"There are {len(samples)} {which} samples but labels of shape {labels.shape}; give one each.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"The {which} labels are {labels.dtype}; convert them to integers, one value a class.")
    if samples.dtype != np.uint8:
        if not (np.issubdtype(samples.dtype, np.number) or samples.dtype == bool) or np.iscomplexobj(samples):
            raise InputError(f"The {which} samples are {samples.dtype}; give uint8 or real numbers.")
        samples = samples.astype(np.float32)
        if (bad := ~np.isfinite(samples).reshape(len(samples), -1).all(axis=1)).any():
            raise InputError(
                f"{int(bad.sum())} {which} samples hold NaN or infinite values, first at row "
                f"{int(bad.argmax())}; remove or repair them."
            )
    return samples, labels.astype(np.int64)


def described(
    train: np.ndarray, test: np.ndarray, num_classes: int, spec: DatasetSpec | None, layout: str
) -> tuple[np.ndarray, np.ndarray, DatasetSpec]:
    """Training and test samples in the shape that models take, and their spec, which is derived where none is given.

    Raises:
        InputError: If the layout can't be told, or they and the spec don't agree.
    """
    origin = "the spec says" if spec else "those for training are"
    if spec is None or layout:
        layout = layout or recognised(train)
        train, test = arranged(train, layout), arranged(test, layout)
    elif spec.sample_shape == (1, *train.shape[1:]):
        train, test = train[:, None], test[:, None]
    train, test = np.ascontiguousarray(train), np.ascontiguousarray(test)
    spec = spec or derived_spec(train, num_classes, layout)
    for which, part in (("training", train), ("test", test)):
        if (part.shape[1:], str(part.dtype)) != (spec.sample_shape, spec.sample_dtype):
            raise InputError(
                f"The {which} samples are {part.shape[1:]} {part.dtype}, where {origin} {spec.sample_shape} "
                f"{spec.sample_dtype}; make them agree."
            )
    return train, test, spec


def recognised(samples: np.ndarray) -> str:
    """The layout of samples `(n, ...)`, where their shape and type tell it.

    Raises:
        InputError: If they don't.
    """
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

    Raises:
        InputError: If there is no such layout, or the samples can't have it.
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


def statistics(samples: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `(channels,) float64` along an axis of the samples, read in chunks.

    What varies by less than a millionth of its mean is taken for constant, whose standard deviation is given as 1.
    """
    # pairwise, as Chan, Golub and LeVeque 1983 combine them: sums of squares would lose what is far from zero
    axis %= samples.ndim - 1
    count, mean, square = 0, np.zeros(samples.shape[1 + axis]), np.zeros(samples.shape[1 + axis])
    rows = max(1, _CHUNK_BYTES // (8 * math.prod(samples.shape[1:])))
    for start in range(0, len(samples), rows):
        part = np.moveaxis(samples[start : start + rows].astype(np.float64), 1 + axis, 0).reshape(len(mean), -1)
        n, middle = part.shape[1], part.mean(axis=1)
        square += ((part - middle[:, None]) ** 2).sum(axis=1) + (middle - mean) ** 2 * count * n / (count + n)
        count, mean = count + n, mean + (middle - mean) * n / (count + n)
    std = np.sqrt(square / count)
    return mean, np.where(std <= 1e-6 * np.abs(mean), 1.0, std)


def derived_spec(samples: np.ndarray, num_classes: int, layout: str) -> DatasetSpec:
    """A spec from arranged training samples alone: statistics, a model by layout, epochs and sizes by their number."""
    axis = -1 if _MODELS[layout] == "cnn1d" else 0
    scale = 255.0 if samples.dtype == np.uint8 else 1.0
    mean, std = (values / scale for values in statistics(samples, axis))
    tasks = max(1, min(5, num_classes // 2))  # of two classes at least, where there are as many
    share, fits = math.ceil(len(samples) / tasks), max(num_classes, _BUFFER_BYTES // samples[0].nbytes)
    # as many visits as if each epoch replayed every old sample, which the default mix does not
    old, epochs = np.arange(tasks), min(60, max(5, _STEPS * _BATCH / share))
    epochs = math.ceil(epochs * (1 + old.mean()) / (1 + np.sqrt(old).mean()))
    preset = Preset(
        _MODELS[layout], tasks, epochs, batch_size=_BATCH, lr=0.05,
        stream_size=min(share, fits), episodic_size=min(len(samples), fits), swap_ratio=1.0, warm_start=_WARM_START,
    )  # fmt: skip
    return DatasetSpec("arrays", samples.shape[1:], str(samples.dtype), {"small": preset}, scale, tuple(mean.tolist()),
                       tuple(std.tolist()), axis, layout=layout)  # fmt: skip
