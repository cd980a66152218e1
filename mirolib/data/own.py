"""A user's own data by the path of a file or folder, and options behind it: `sensors.csv?label=activity,group=person`.

What a path holds is told by its content. Nothing is read before it is asked for, and nothing is executed but a function
that the user names, `file.py:function` or `module:function`, and only from what the user wrote: see `is_code`.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import runpy
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import ConfigDict, ValidationError, validate_call

from mirolib.base.errors import InputError, brief
from mirolib.data.arrays import derived_preset
from mirolib.data.audio import BANDS, FRAMES, SECONDS, facts, log_mel
from mirolib.data.dataset import Dataset, DatasetSpec
from mirolib.data.files import cached_samples, data_folder, list_folders, stamp_of
from mirolib.data.images import common_shape, picture

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)
"""The part that a file, folder or split of some name is."""

_Part = TypeVar("_Part")
_SOUNDS = (".wav", ".flac")
_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", *_SOUNDS)
_MOST = 1024  # pixels; a set of larger ones fills memory and disk
_LABELS = ("label", "class", "target", "activity")  # columns that are taken for the label where none is named
_CODE = re.compile(r"(?P<where>[^?]+\.py|[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")

logger = logging.getLogger(__name__)


def is_code(place: str) -> bool:
    """Whether a place names a function to call; one that was read from a stored run is not to be called."""
    return _CODE.fullmatch(place) is not None and not os.path.exists(place)


def is_one(place: str) -> bool:
    """Whether a place is that of one data set, not of a folder of several: a file, a function, or one with options."""
    return "?" in place or is_code(place) or os.path.isfile(place)


def find(place: str, root: Path) -> str:
    """The place of a user's own data as it is read from any folder, its options included; empty where there is none.

    It is a path, absolute, from here or from `root`, or a function; with options behind a question mark.
    """
    if is_code(place):
        where, _, function = place.rpartition(":")
        file = Path(where if where.endswith(".py") else where.replace(".", "/") + ".py").expanduser()
        # a module that is no file from here on is one that is installed
        return f"{file.absolute()}:{function}" if file.is_file() else "" if where.endswith(".py") else place
    path, mark, options = place.partition("?")
    if mark and os.path.exists(place):
        raise InputError(f"The path {place} has a question mark, with which options begin here; rename it.")
    for found in (Path(path).expanduser(), root / path):
        if path and found.exists():
            if found.is_dir() and "name=" not in options:  # so that it is told from a folder of several
                options = f"{options},name={found.absolute().name.replace(',', ' ')}".removeprefix(",")
            return f"{found.absolute()}?{options}" if options else str(found.absolute())
    return ""


def name_of(place: str) -> str:
    """What results call the data at a place, unless told otherwise: the file's or folder's name, or the function's."""
    if is_code(place):
        return place.rpartition(":")[2]
    path, _, options = place.partition("?")
    named = [option[5:] for option in options.split(",") if option.startswith("name=")]
    return named[-1] if named else Path(path).stem if Path(path).is_file() else Path(path).name


def stamp(place: str) -> str:
    """A short text that changes when a file of a place does, by sizes and times: what a sweep's runs are named by."""
    path = Path(place.rpartition(":")[0] if is_code(place) else place.partition("?")[0])
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    about = [(file, file.stat()) for file in files if file.is_file()]
    return stamp_of([(str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns) for file, stat in about])


def read(place: str, name: str = "", **options: Any) -> Dataset:
    """The data at a place that `find` gave; its options go before other ones.

    Raises:
        InputError: If nothing is known to read it, an option is unknown or can't be, or what it holds can't be used.
    """
    if is_code(place):
        return _called(place)
    path_text, _, tail = place.partition("?")
    options |= options_of(tail) | {"name": name or name_of(place)}
    path = Path(path_text)
    reader = _folder_reader(path) if path.is_dir() else _FILES.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is nothing that is known here; give a folder of class folders or of train.csv and test.csv, a "
            f"Hugging Face data set on disk, a file {', '.join(_FILES)}, or module:function."
        )
    try:
        return called_with(reader, path, options, path.name)
    except InputError:
        raise
    except Exception as error:  # NumPy, pandas and Arrow meet damage in many ways
        raise InputError(f"{path} can't be read ({brief(error)}); repair it, or make it readable.") from error


def options_of(text: str) -> dict[str, str]:
    """Options by name, of what follows the question mark in a place."""
    pairs = [option.partition("=")[::2] for option in text.split(",") if option]
    return {key.strip(): value.strip() for key, value in pairs}


def called_with(reader: Callable[..., Dataset], path: Path, options: Mapping[str, Any], name: str) -> Dataset:
    """What a reader makes of a path and options, which are brought to their types: an `InputError` if they can't be."""
    try:
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(reader)(path, **options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = ", ".join(key for key in reader.__annotations__ if key not in ("path", "root", "name", "return"))
        what = f"The option {first['loc'][0]} of {name} can't be used ({first['msg']})"
        raise InputError(f"{what}; it takes {known or 'none'}, with commas between them.") from error


def _folder_reader(path: Path) -> Callable[..., Dataset]:
    """What reads a folder."""
    if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
        return _hugging_face
    has_parts = any(child.is_dir() and child.name.lower() in PARTS for child in path.iterdir())
    return _tables if _part_files(path) and not has_parts else read_class_folders


def _called(place: str) -> Dataset:
    """What the user's own function returns."""
    where, _, function = place.rpartition(":")
    neighbours = [str(Path(where).parent)] if where.endswith(".py") else []
    sys.path[:0] = neighbours  # which a program of Python may import, too
    try:
        module: Any = SimpleNamespace(**runpy.run_path(where)) if neighbours else import_module(where)
        made = getattr(module, function)()
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        line = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {brief(error)}, in line {line.lineno} of {line.filename}"
        raise InputError(f"The data set {place} can't be made: {what}.") from error
    finally:
        del sys.path[: len(neighbours)]
    if not isinstance(made, Dataset):
        raise InputError(f"{place} returned {type(made).__name__}; let it return a mirolib Dataset.")
    return made


def parts_of(found: Mapping[str, _Part]) -> dict[str, _Part]:
    """What is found under the names of parts, by their order."""
    parts = {PARTS[name.lower()]: one for name, one in found.items() if name.lower() in PARTS}
    return {part: parts[part] for part in ("train", "test", "validation") if part in parts}


def files_of(folder: Path) -> list[tuple[str, Path]]:
    """Class and path of each image or sound in class folders, in order, those in folders within them too.

    Hidden files and folders, and those of systems such as `__MACOSX`, are none. There must be a class, and none empty.
    """
    found: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    for name in list_folders(folder):
        before = len(found)
        for place, folders, files in os.walk(folder / name):
            folders[:] = sorted(one for one in folders if not one.startswith((".", "__")))
            kept = sorted(file for file in files if file[0] != "." and file.lower().endswith(_KINDS))
            found += [(name, Path(place, file)) for file in kept]
            others.update(os.path.splitext(file)[1].lower() for file in {*files} - {*kept} if file[0] != ".")
        if len(found) == before:
            kinds = ", ".join(_KINDS)
            raise InputError(f"The class folder {folder / name} holds no file {kinds}; add some or remove it.")
    if left := {suffix: count for suffix, count in others.items() if suffix not in (".db", ".ini", ".txt")}:
        logger.warning("%s: files of other kinds are left out: %s", folder, left)
    if not found:
        raise InputError(f"There is no class folder in {folder}; put each class's files into one: {folder}/cat/1.png.")
    return found


def read_class_folders(
    path: Path, *, name: str, size: int = 0, broken: Literal["refuse", "skip"] = "refuse", seconds: float = 0.0,
    test_share: float = 0.2,
) -> Dataset:  # fmt: skip
    """A data set of class folders, or of `train`, `test` and `validation` with those, decoded once into the cache.

    Images are brought to `size` pixels a side, or to their `common_shape`; sounds are cut or padded to `seconds`, by
    default 4. What can't be decoded is refused, or left out and counted: `broken`. There is an `InputError` if a file
    can't be decoded, a class folder is empty, or images and sounds are mixed.
    """
    parts = parts_of({child.name: child for child in sorted(path.iterdir()) if child.is_dir()})
    parts = parts if "train" in parts else {"train": path}
    found = [(part, label, file) for part, folder in parts.items() for label, file in files_of(folder)]
    which, labels = (np.array([one[column] for one in found]) for column in (0, 1))
    files = [file for *_, file in found]
    kinds = {file.suffix.lower() in _SOUNDS for file in files}
    if len(kinds) > 1:
        raise InputError(f"{name} has images and sounds; keep them in data sets of their own.")
    if not 0 <= size <= _MOST or (size and kinds == {True}) or (seconds and kinds == {False}):
        raise InputError(f"{name}: size is for images, up to {_MOST} pixels, and seconds are for sounds; leave it out.")
    stats = [(str(file), os.stat(file) if os.path.exists(file) else None) for file in files]  # a link may be broken
    about = [(file, stat and (stat.st_size, stat.st_mtime_ns)) for file, stat in stats]
    if kinds == {True}:
        seconds = seconds or SECONDS
        shape, read = (1, BANDS, FRAMES), partial(log_mel, seconds=seconds)
    else:
        shape = common_shape(files, size, broken == "skip")
        read = partial(picture, shape=shape)
    own = f"{name}-{stamp_of(*parts.values())}"  # two folders of one name take turns else
    spec = DatasetSpec(own, shape, "uint8", {"small": derived_preset("cnn", 1, 1, 1)}, 255.0)
    stamp = stamp_of(about, shape, facts(seconds))
    samples, kept = cached_samples(data_folder(), spec, stamp, files, read, broken == "skip")
    ends = np.cumsum([np.sum(which[kept] == part) for part in parts])[:-1]
    pieces = zip(np.split(samples, ends), np.split(labels[kept], ends), strict=True)  # slices of the map, not copies
    made = Dataset.from_parts(dict(zip(parts, pieces, strict=True)), name=name, layout="images", test_share=test_share)
    return replace(made, spec=replace(made.spec, seconds=seconds))


def _arrays(path: Path, *, name: str, layout: str = "", test_share: float = 0.2, test_within: bool = False) -> Dataset:
    """An `.npz` of `x_train`, `y_train`, and what it has of `x_test`, `y_test`, `x_val`, `y_val`, `groups[_test]`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # objects would be executed
            found = {key.lower(): arrays[key] for key in arrays.files}
    except Exception as error:
        raise InputError(f"{path} is damaged or holds objects ({error}); save plain arrays by np.savez.") from error
    if missing := [key for key in ("x_train", "y_train") if key not in found]:
        has = ", ".join(sorted(found)) or "nothing"
        raise InputError(f"{path} holds {has} but no {missing[0]}; name the arrays x_train, y_train, x_test, y_test.")
    keys = {"train": "train", "test": "test", "validation": "val"}
    parts = {part: (found[f"x_{key}"], found.get(f"y_{key}")) for part, key in keys.items() if f"x_{key}" in found}
    return Dataset.from_parts(
        parts, groups=found.get("groups"), test_groups=found.get("groups_test"), name=name, layout=layout,
        class_names=[str(text) for text in found.get("class_names", ())], test_share=test_share,
        test_within=test_within,
    )  # fmt: skip


def _part_files(folder: Path) -> dict[str, Path]:
    """The tables in a folder by their part, such as `train.csv`."""
    return parts_of({file.stem: file for file in folder.iterdir() if file.suffix.lower() in (".csv", ".parquet")})


def _tables(
    path: Path, *, name: str, label: str = "", group: str = "", split: str = "split", drop: str = "",
    decimal: str = ".", layout: str = "table", test_share: float = 0.2, test_within: bool = False,
) -> Dataset:  # fmt: skip
    """Rows of one table, or of `train`, `test` and `validation` in a folder; `drop` has a + between columns."""
    whole = _whole(path, split, decimal)
    columns, dropped = [str(column) for column in whole], [column for column in drop.split("+") if column]
    likely = [label] if label else [column for column in columns if column.lower() in _LABELS]
    if len(likely) != 1:
        what = f"{', '.join(likely)} may all be" if likely else "no column says label, so name"
        raise InputError(f"{path}: {what} the label; say which by ?label=, among {', '.join(columns)[:300]}.")
    (label,) = likely
    if unknown := [column for column in (label, group, *dropped) if column and column not in columns]:
        raise InputError(f"{path} has no column {unknown[0]!r}; choose among {', '.join(columns)[:300]}.")
    features = whole.drop(columns={label, *dropped, *({group, split} & {*columns})})
    for column, values in features.items():
        wrong = ~np.isfinite(pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan))
        if wrong.any() or not pd.api.types.is_numeric_dtype(values):
            what = f"{wrong.sum()} rows of column {column!r} hold no number, such as {values[wrong].iloc[:1].tolist()}"
            raise InputError(f"{path}: {what}; mend them (?decimal=, for decimal commas), or ?drop={column}.")
    if none := int(whole[label].isna().sum()):
        raise InputError(f"{path}: {none} rows have no {label}; fill them in or remove the rows.")
    labels = whole[label] if pd.api.types.is_integer_dtype(whole[label]) else whole[label].astype(str)
    said = whole[split].astype(str).str.lower() if split in columns else pd.Series("train", whole.index)
    if (wrong := ~said.isin(PARTS)).any():
        raise InputError(f"{path}: column {split} says {said[wrong].iloc[0]!r}; let it say train, test or validation.")
    part = said.map(PARTS).to_numpy()
    parts = {one: (features[part == one], labels.to_numpy()[part == one]) for one in ("train", *np.unique(part))}
    judged = [one for one in ("test", "validation") if one in parts]
    groups, test_groups = (whole[group].to_numpy()[part == one] if group and one else None
                           for one in ("train", next(iter(judged), "")))  # fmt: skip
    return Dataset.from_parts(parts, groups=groups, test_groups=test_groups, name=name, layout=layout,
                              test_share=test_share, test_within=test_within)  # fmt: skip


def _whole(path: Path, split: str, decimal: str) -> pd.DataFrame:
    """All rows of a table, or of those of a folder with their part in the column `split`."""
    files = {"train": path} if path.is_file() else _part_files(path)
    if "train" not in files:
        raise InputError(f"{path} has {', '.join(files)} but no table train; add it.")
    frames = {part: _frame(file, decimal) for part, file in files.items()}
    known = {*frames["train"]}
    for part, frame in frames.items():
        if alone := {*frame} ^ known:
            raise InputError(f"{path}: column {min(alone)!r} is in train or {part} alone; make them agree.")
        if path.is_dir():
            frame[split] = part
    # training comes first, whose order of columns holds; an index that pandas wrote along tells sorted classes apart
    return pd.concat(frames.values(), ignore_index=True).drop(columns="Unnamed: 0", errors="ignore")


def _frame(file: Path, decimal: str) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file).rename(columns=str)
    except ImportError as error:
        raise InputError(f"{file} needs pyarrow: pip install 'mirolib[parquet]'.") from error
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return pd.read_csv(io.StringIO(text), sep=max(",;\t", key=text.partition("\n")[0].count), decimal=decimal)


def _hugging_face(
    path: Path, *, name: str, label: str = "", size: int = 0, layout: str = "", test_share: float = 0.2
) -> Dataset:
    """A folder that `save_to_disk` of the package `datasets` wrote: a column of labels and one of images or arrays."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise InputError(f"{path} needs the package datasets: pip install 'mirolib[huggingface]'.") from error
    content = datasets.load_from_disk(str(path))
    parts = parts_of(content if isinstance(content, datasets.DatasetDict) else {"train": content})
    if "train" not in parts:
        raise InputError(f"{path} has no split train; save one, such as DatasetDict(train=..., test=...).")
    features = parts["train"].features
    classes = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = label or next(iter([*classes, *(key for key in features if key.lower() in _LABELS)]), "")
    inputs = [key for key in features if key != label]
    if label not in features or not inputs:
        raise InputError(f"{path} has no column {label or 'of labels'}; say which by ?label=, among {list(features)}.")
    arrays = {key: part.with_format("numpy") for key, part in parts.items()}
    if pictures := [key for key in inputs if isinstance(features[key], datasets.Image)]:
        column = datasets.Image(decode=False)
        cells = {key: part.cast_column(pictures[0], column)[pictures[0]] for key, part in parts.items()}
        encoded = {key: [one["bytes"] or Path(one["path"]) for one in part] for key, part in cells.items()}
        shape, where = common_shape(itertools.chain(*encoded.values()), size), f"An image of {path}"
        found = {key: np.stack([picture(one, shape, where) for one in part]) for key, part in encoded.items()}
        layout = "images"
    elif len(inputs) == 1:
        found = {key: np.asarray(part[inputs[0]]) for key, part in arrays.items()}
    else:
        found = {key: np.stack([part[one] for one in inputs], axis=1) for key, part in arrays.items()}
    taken = {key: (found[key], np.asarray(part[label])) for key, part in arrays.items()}
    if label in classes and min(labels.min() for _, labels in taken.values()) < 0:
        raise InputError(f"{path} has rows without a label (-1); leave them out.")
    names = [features[label].names[value] for value in np.unique(taken["train"][1])] if label in classes else []
    return Dataset.from_parts(taken, name=name, layout=layout, class_names=names, test_share=test_share)


_FILES: dict[str, Callable[..., Dataset]] = {".npz": _arrays, ".csv": _tables, ".parquet": _tables}
