"""Data sets by name, one file each.

A new data set is a file with a `DatasetSpec` and a function `load(root)`, entered in `LOADERS`.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mirolib.base.errors import InputError
from mirolib.data import cifar100, digits, dsads, fetch, imagenet1k, own, tiny_imagenet, urbansound8k
from mirolib.data.dataset import Dataset as Dataset, DatasetSpec as DatasetSpec, Preset as Preset, Samples as Samples
from mirolib.data.digits import DIGITS as DIGITS
from mirolib.data.fetch import ARCHIVES as ARCHIVES
from mirolib.data.files import data_folder

LOADERS: dict[str, tuple[DatasetSpec, Callable[[Path], Dataset]]] = {
    "digits": (DIGITS, digits.load),
    "cifar100": (cifar100.CIFAR100, cifar100.load),
    "tiny-imagenet": (tiny_imagenet.TINY_IMAGENET, tiny_imagenet.load),
    "dsads": (dsads.DSADS, dsads.load),
    "imagenet1k": (imagenet1k.IMAGENET1K, imagenet1k.load),
    "urbansound8k": (urbansound8k.URBANSOUND8K, urbansound8k.load),
}
"""Spec and loader by name."""


def available_datasets(root: str | os.PathLike[str] | None = None) -> list[str]:
    """Names of data sets whose folders lie under a root, see `load_dataset`; what is in them is seen in loading."""
    folder = data_folder(root)
    return [name for name in LOADERS if name not in ARCHIVES or ARCHIVES[name].found(folder)]


def dataset_spec(name: str) -> DatasetSpec:
    """The facts of a data set, which need not be there; an `InputError` if none has that name."""
    if (plain := name.partition("?")[0]) in LOADERS:
        return LOADERS[plain][0]
    known = ", ".join(LOADERS)
    raise InputError(f"There is no data set {name!r}; choose one of {known}, or give the path of your own.")


def locate(name: str, root: str | os.PathLike[str] | None = None) -> tuple[str, str]:
    """What results call a user's own data, and its absolute place; the arguments as they are where there is nothing.

    A name from `LOADERS` stays as it is; else it is a path, `file.py:function` or `module:function`, in `root`, the
    folder of the data sets; or a name for what is at `root`.
    """
    root = os.fspath(root or "")
    if name.partition("?")[0] not in LOADERS:
        if own.is_one(root) and (place := own.find(root, Path())):
            return name, place
        if place := own.find(name, data_folder(root)):
            plain = own.name_of(place)
            return f"my-{plain}" if plain in LOADERS else plain, place
    return name, root


def load_dataset(
    name: str, *, root: str | os.PathLike[str] | None = None, preset: str = "", download: bool = False, **options: Any,
) -> Dataset:  # fmt: skip
    """Loads a data set by name: everything found under `root`, and of that what the preset uses; or the user's own.

    Args:
        name: One of `LOADERS`, with options such as `dsads?group=subject` or `urbansound8k?fold=3`; or what `locate`
            finds: a folder of class folders, an `.npz`, `.csv` or `.parquet`, a Hugging Face data set on disk,
            `module:function`.
        root: The folder that holds the data sets; by default what `MIRO_DATA` names, or `data` in the repository.
        preset: `small` for a part that suits two cores, `paper` for all there is; by default the first of the spec's.
        download: Whether to fetch the data set where its folder is missing, as `mirolib.data.fetch.fetch` does.
        options: How the user's own files are to be read, such as `label="activity"`; see docs/howto/dataset.md.

    Raises:
        InputError: If no data set or preset has that name, its files are missing or damaged, or can't be fetched.
    """
    name, _, tail = os.fspath(name).partition("?") if os.fspath(name).split("?")[0] in LOADERS else (name, "", "")
    if name not in LOADERS:
        called, place = locate(os.fspath(name), root)
        if not own.is_one(place):
            dataset_spec(name)  # which says that there is none
        dataset = own.read(place, called, **options)
        dataset.spec.preset(preset)
        return dataset
    if root and (own.is_one(os.fspath(root)) or not (name in ARCHIVES or data_folder(root).is_dir())):
        raise InputError(
            f"There is no folder of data sets {root}; your own data set is given in the place of {name!r}."
        )
    spec = dataset_spec(name)
    chosen = spec.preset(preset)
    if download and name in ARCHIVES:
        fetch.fetch(ARCHIVES[name], data_folder(root))
    whole = own.called_with(LOADERS[name][1], data_folder(root), options | own.options_of(tail), name)
    dataset = whole.subset(chosen.per_class, chosen.test_per_class, chosen.classes)
    if not (size := chosen.image_size):
        return dataset
    return replace(dataset, spec=replace(dataset.spec, sample_shape=(spec.sample_shape[0], size, size)))
