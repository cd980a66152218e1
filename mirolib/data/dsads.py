"""Daily and Sports Activities (UCI) from its original text files; they are parsed once into the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.files import cached_array, find_folder, list_files, read_file, stamp_of

logger = logging.getLogger(__name__)

DSADS = DatasetSpec(
    name="dsads",
    sample_shape=(1, 125, 45),
    sample_dtype="float32",
    presets={
        "small": Preset("cnn1d", tasks=6, epochs=20, batch_size=16, lr=0.1, stream_size=300, episodic_size=100,
                        swap_ratio=1.0, per_class=96, test_per_class=24),
        "paper": Preset("resnet18", tasks=10, epochs=10, batch_size=16, lr=1e-3, weight_decay=1e-4, stream_size=768,
                        episodic_size=500, swap_ratio=0.25),
    },
    source="https://archive.ics.uci.edu/dataset/256/daily+and+sports+activities, 9,120 segments of 5 s at 25 Hz from "
    "45 sensor channels",
    licence="CC BY 4.0 (UCI)",
    citation="Barshan and Altun (2010), Daily and Sports Activities, UCI, doi:10.24432/C5C59F; Altun, Barshan and "
    "Tunçel (2010), Comparative study on classifying human activities with miniature inertial and magnetic sensors, "
    "Pattern Recognition 43(10), doi:10.1016/j.patcog.2010.04.019",
)  # fmt: skip

ACTIVITIES = (
    "sitting",
    "standing",
    "lying on back",
    "lying on right side",
    "ascending stairs",
    "descending stairs",
    "standing still in an elevator",
    "moving around in an elevator",
    "walking in a parking lot",
    "walking on a flat treadmill at 4 km/h",
    "walking on an inclined treadmill at 4 km/h",
    "running on a treadmill at 8 km/h",
    "exercising on a stepper",
    "exercising on a cross trainer",
    "cycling in horizontal position",
    "cycling in vertical position",
    "rowing",
    "jumping",
    "playing basketball",
)
"""What a01 to a19 are, after the data set's description."""

_WHERE = (
    "Get https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip and unpack it to "
    "data/a01/p1/s01.txt and so on."
)
_FOLDERS = ("data", "dsads/data", "dsads", "daily+and+sports+activities/data", "daily+and+sports+activities")
_PEOPLE = range(1, 9)
_ROWS, _COLUMNS = 125, 45
_MOST_BYTES = 1 << 20
_MOST_ROW_BYTES = 2000
"""Lengths that no original file or row comes near to: 48,000 and 500 bytes."""


def load(root: Path) -> Dataset:
    """The segments found, split within each person's segments of an activity; fewer of any will do.

    Of each person's segments of an activity, in order, every fifth is for the test, from the third on: 12 of 60. Each
    of the 45 columns is standardised here, with the mean and standard deviation of all training segments found.
    Parsed segments are kept in the cache, before standardisation, under a stamp of names, sizes and times of change.

    Returns:
        Samples `(1, 125, 45) float32`, time by sensor; activities without a folder are left out.

    Raises:
        InputError: If a file holds anything but 125 rows of 45 numbers, an activity has a folder but no training or no
            test segment, or the cache can't be written.
    """
    folder = find_folder(root, _FOLDERS, _WHERE, holding="a[0-9][0-9]")
    segments = _listed(folder)
    if not segments:
        raise InputError(f"There is no segment a01/p1/s01.txt or the like in {folder}. {_WHERE}")
    labels = np.array([entry[1] for entry in segments], dtype=np.int64)
    test = np.array([entry[2] % 5 == 2 for entry in segments])
    present = [label for label in range(len(ACTIVITIES)) if (folder / f"a{label + 1:02d}").is_dir()]
    for part, rows in (("training", ~test), ("test", test)):
        missing = np.setdiff1d(present, labels[rows])
        if len(missing):
            raise InputError(
                f"{folder / f'a{missing[0] + 1:02d}'} has no {part} segment, which takes three of a person at least; "
                "add some or remove the folder."
            )
    logger.info("dsads: %d of 19 activities, %d training and %d test segments", len(present), *np.bincount(test))
    raw = cached_array(
        root,
        DSADS.name,
        stamp_of(segments),
        (len(segments), *DSADS.sample_shape),
        "float32",
        partial(_parsed, folder, [entry[0] for entry in segments]),
    )
    train_samples, test_samples = raw[~test], raw[test]
    mean = train_samples.mean(axis=(0, 1, 2), dtype=np.float64)
    std = np.maximum(train_samples.std(axis=(0, 1, 2), dtype=np.float64), 1e-6)
    for samples in (train_samples, test_samples):
        samples -= mean.astype(np.float32)
        samples /= std.astype(np.float32)
    names = [ACTIVITIES[label] for label in present]
    return Dataset.from_arrays(train_samples, labels[~test], test_samples, labels[test], spec=DSADS, class_names=names)


def _listed(folder: Path) -> list[tuple[str, int, int, int, int]]:
    """Path, label, rank among the person's segments of the activity, size and time of change of each segment."""
    return [
        (f"a{label + 1:02d}/p{person}/{name}", label, rank, size_bytes, changed)
        for label in range(len(ACTIVITIES))
        for person in _PEOPLE
        for rank, (name, size_bytes, changed) in enumerate(
            list_files(folder / f"a{label + 1:02d}" / f"p{person}", r"s[0-9]{2}\.txt")
        )
    ]


def _parsed(folder: Path, paths: list[str]) -> Iterator[np.ndarray]:
    """The segments one by one, `(1, 125, 45) float32`."""
    for path in tqdm(paths, desc="reading segments", unit="segment", disable=len(paths) < 5000):
        yield _segment(folder / path)[None]


def _segment(path: Path) -> np.ndarray:
    """The numbers of a segment, `(125, 45) float32`."""
    rows = read_file(path, _MOST_BYTES, "Unpack the archive anew.").rstrip().splitlines()
    if len(rows) != _ROWS:
        raise InputError(f"{path} has {len(rows)} lines where a segment has {_ROWS}; unpack the archive anew.")
    try:
        if all(row.count(b",") == _COLUMNS - 1 and len(row) <= _MOST_ROW_BYTES for row in rows):
            return _numbers(b",".join(rows)).reshape(_ROWS, _COLUMNS)
    except ValueError:
        pass
    for line, row in enumerate(rows, start=1):
        _check_row(row, f"{path}, line {line},")
    raise InputError(f"{path} holds something other than numbers; unpack the archive anew.")


def _numbers(text: bytes) -> np.ndarray:
    """Numbers separated by commas, as float32.

    Raises:
        ValueError: If one is no number, NaN or too large.
    """
    values = np.array(text.split(b","), dtype=np.float64)
    if b"\0" in text or not (np.abs(values) < np.finfo(np.float32).max).all():
        raise ValueError("no finite number")
    return values.astype(np.float32)


def _check_row(row: bytes, place: str) -> None:
    """Raises a sentence on what is wrong with a row, if anything is."""
    values = row.split(b",") if len(row) <= _MOST_ROW_BYTES else []
    if len(values) != _COLUMNS:
        count = len(values) or "far more"
        raise InputError(f"{place} has {count} values where there are {_COLUMNS} columns; unpack the archive anew.")
    for value in values:
        try:
            _numbers(value)
        except ValueError as error:
            raise InputError(f"{place} has {value[:40]!r}, which is no finite number; restore the file.") from error
