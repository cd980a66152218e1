"""Many runs looked at together: chosen, averaged over seeds, accuracy against cost; and what lies in a run's folder."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.data import LOADERS
from mirolib.energy.source import NO_JOULES
from mirolib.experiment.settings import RunSettings
from mirolib.workbench.run import results_folder

logger = logging.getLogger(__name__)

SETTINGS = tuple(field.name for field in fields(RunSettings) if field.name != "data")
"""Parameters by which runs differ."""

MEASURES = (
    "final_accuracy", "average_incremental_accuracy", "forgetting", "learning_work", "learning_energy_j", "train_s",
    "swapped", "stall_s", "overall_accuracy", "task_aware_accuracy", "backward_transfer", "forward_transfer",
)  # fmt: skip
"""What is averaged over seeds."""


class MixedEnergyWarning(UserWarning):
    """Joules that were got in different ways stand side by side."""


def select(runs: pd.DataFrame, conditions: Mapping[str, object]) -> pd.DataFrame:
    """The rows of `load_runs` whose columns all have the value, or one of the values, asked for.

    Texts stand for numbers too; an `InputError` names a column that is unknown.
    """
    chosen = pd.Series(True, index=runs.index)
    for name, wanted in conditions.items():
        if name not in runs:
            raise InputError(f"No run has a value {name!r}; choose from {', '.join(map(str, runs.columns))}.")
        texts = {_text(value) for value in (wanted if isinstance(wanted, list | tuple | set) else [wanted])}
        chosen &= runs[name].map(_text).isin(texts)
    return runs[chosen]


def _text(value: object) -> str:
    """One text for values that mean the same: `3`, `3.0` and `"3"`."""
    if isinstance(value, bool):
        return str(value)
    try:
        return repr(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return str(value)


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of one experiment each, with their cost.

    Returns:
        Their rows; settings are plain values, measures numbers. `cost` is in joules and `cost_kind` says how they were
        got and what they cover, or it is in sample visits and `cost_kind` is `work`, where there are no joules. Users'
        own data of one name and several contents have the beginning of their fingerprint in `dataset`.
    """
    table = runs.reindex(columns=list(dict.fromkeys(["run_id", "status", *runs.columns, *SETTINGS, *MEASURES])))
    for name in ("energy_kind", "energy_scope"):
        table[name] = table[name].map(str) if name in table else "none"
    for name in SETTINGS:
        table[name] = table[name].map(lambda value: value if isinstance(value, str | int | float) else str(value))
    for name in MEASURES:
        table[name] = pd.to_numeric(table[name], errors="coerce").replace([np.inf, -np.inf], np.nan)
    table = table[(table["status"] == "finished") & table["final_accuracy"].notna()].copy()
    if {"data", "dataset_fingerprint"} <= {*table}:
        for name, own in table[~table["dataset"].isin([*LOADERS])].groupby("dataset"):
            contents, alike = own["dataset_fingerprint"], own[["dataset_fingerprint", "data", "seed"]].drop_duplicates()
            # arrays that are drawn anew for each seed, and so lie nowhere, are one setting, as their user says
            placed = any(isinstance(place, str) and place for place in alike["data"])
            if contents.nunique() > 1 and (placed or alike["seed"].duplicated().any()):
                table.loc[table["dataset"] == name, "dataset"] = [f"{name} ({content:.6})" for content in contents]
    # joules only where all of a run was measured; work says the same on every machine
    joules = ~table["energy_kind"].isin(NO_JOULES) & table["learning_energy_j"].notna()
    table["cost"] = table["learning_energy_j"].where(joules, table["learning_work"])
    table["cost_kind"] = (table["energy_kind"] + ": " + table["energy_scope"]).where(joules, "work")
    return table


def varied(runs: pd.DataFrame) -> list[str]:
    """The settings in which comparable runs differ, apart from the seed and from how energy is read."""
    shown = [name for name in SETTINGS if name not in ("seed", "energy") and name in runs]
    return [name for name in shown if runs[name].map(_text).nunique() > 1]


def labels(runs: pd.DataFrame) -> list[str]:
    """A name for each row of `load_runs`, by as few of the settings in which they differ as tell them apart.

    The seed is the last of these; runs that are alike in all have their ids.
    """
    names: list[str] = []
    groups = 1
    for name in [*varied(runs), "seed"]:
        texts = runs[[*names, name]].map(_text)
        if len(texts.drop_duplicates()) > groups:  # it tells more of them apart
            names, groups = [*names, name], len(texts.drop_duplicates())
    found = [_name_of(row) if names else "" for row in runs[names].to_dict("records")]
    return [
        text if found.count(text) == 1 else f"{text} {run}".strip()
        for text, run in zip(found, runs["run_id"], strict=True)
    ]


def over_seeds(runs: pd.DataFrame, by: Sequence[str] | None = None) -> pd.DataFrame:
    """Means and spread over the runs of each setting; joules of different kinds are never averaged together.

    Rows of `load_runs` that did not finish are left out. A setting is made up of columns, by default of those settings
    that differ.

    Returns:
        A row a setting: the columns `by`, `dataset`, `cost_kind`, `setting` (a name for it), `n`, the number of its
        seeds, `repeats`, runs left out since a later one has their settings and seed, and for each measure and `cost`
        its mean, with its standard deviation as `<name>_sd` (NaN where `n` is 1). Several runs of one seed, of settings
        that `by` puts together, are averaged first: they are no further sample of what seeds do.

    Raises:
        InputError: If a column is unknown.
    """
    table = comparable(runs)
    by = varied(table) if by is None else list(by)
    if unknown := [name for name in by if name not in table]:
        raise InputError(f"No run has a value {unknown[0]!r}; choose from {', '.join(SETTINGS)}.")
    keys, measures = list(dict.fromkeys([*by, "dataset", "cost_kind"])), [*MEASURES, "cost"]
    if "started" in table:  # the latest last, however they come
        table = table.sort_values("started", kind="stable")
    texts = {name: table[name].map(_text) for name in dict.fromkeys([*SETTINGS, *keys])}
    alike = pd.DataFrame({name: text for name, text in texts.items() if name != "energy" or name in by})
    repeated = alike.duplicated(keep="last")
    of_setting = [texts[key] for key in keys]
    groups = table[~repeated].groupby([*of_setting, texts["seed"]], sort=False)
    seeds = groups[keys].first().join(groups[measures].mean()).reset_index(drop=True)
    groups = seeds.groupby([seeds[key].map(_text) for key in keys], sort=False)
    rows = groups[keys].first()
    rows["repeats"] = repeated.groupby(of_setting, sort=False).sum().reindex(rows.index).to_numpy()
    mean, spread = groups[measures].mean(), groups[measures].std().add_suffix("_sd")
    rows = rows.reset_index(drop=True)
    rows["setting"] = [_name_of(row) for row in rows[by].to_dict("records")]
    rows["n"] = groups.size().to_numpy()
    interleaved = [column for name in measures for column in (name, f"{name}_sd")]
    return rows.join(pd.concat([mean, spread], axis=1)[interleaved].reset_index(drop=True))


def _name_of(setting: Mapping[str, Any]) -> str:
    """A setting in one short line, for legends and reports, without what it leaves open."""
    said = {k: f"{v:g}" if isinstance(v, float) else v for k, v in setting.items() if pd.notna(v)}
    return ", ".join(f"{name.removesuffix('_size')}={value}" for name, value in said.items()) or "all"


def pareto(cost: pd.Series, value: pd.Series) -> pd.Series:
    """Which points no other beats: none is as cheap and better, nor as good and cheaper."""
    c, v = cost.to_numpy(float), value.to_numpy(float)
    # each against each; a few thousand runs take a few million comparisons
    as_good = (c <= c[:, None]) & (v >= v[:, None])
    beaten = as_good & ((c < c[:, None]) | (v > v[:, None]))
    return pd.Series(~beaten.any(axis=1) & ~np.isnan(c) & ~np.isnan(v), index=cost.index)


def warn_of_mixed_energy(table: pd.DataFrame) -> str:
    """Warns where joules of different kinds meet in column `cost_kind`; the sentence, empty if there is none to say."""
    kinds = sorted(set(table["cost_kind"]))
    if len(kinds) < 2:
        return ""
    sentence = f"What the runs cost was got in different ways ({'; '.join(kinds)}): compare it within each, not across."
    warnings.warn(sentence, MixedEnergyWarning, stacklevel=3)
    return sentence


def unreadable_runs(runs: pd.DataFrame, results: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """What lies in a results folder and is no run that its `load_runs` could read: `path` and `problem`, a row each."""
    folder = results_folder(results)
    # names with a dot are the system's, an editor's or Jupyter's
    files = [path for path in folder.glob("[!.]*") if path.is_file() and path.name != "README.md"]
    runs_of = [path for path in folder.glob("[!.]*/[!.]*") if path.parent.name != "sweeps"]
    files += [path for path in runs_of if not (path / "run.json").is_file()]
    rows = [(str(path), "no run.json" if path.is_dir() else "a stray file") for path in sorted(files)]
    rows += [(r["path"], r["error"]) for r in runs.to_dict("records") if r["status"] in ("unreadable", "unvouched")]
    return pd.DataFrame(rows, columns=["path", "problem"])


unread = unreadable_runs  # its name in version 0.1
