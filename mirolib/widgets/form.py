"""The form of a run's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import ipywidgets as ipw

from mirolib.base.errors import InputError
from mirolib.data import Dataset, DatasetSpec, available_datasets, dataset_spec
from mirolib.experiment.settings import MEMORIES, RunSettings

_NUMBERS = ("tasks", "epochs", "stream_size", "episodic_size")
_FIELDS = {one.name: one for one in fields(RunSettings)}
# short enough for a column of the form
_LABELS = {"dataset": "data set", "stream_size": "stream", "episodic_size": "episodic", "memory_budget": "budget"}
_LAYOUT = {"width": "auto", "min_width": "0"}
_STYLE = {"description_width": "84px"}


class SettingsForm:
    """Fields for what is changed most from run to run; the other settings stay as they were given.

    Attributes:
        widget: What is shown.
    """

    def __init__(self, settings: RunSettings, dataset: Dataset | None = None) -> None:
        """A form filled in from settings.

        Args:
            settings: What the fields begin with, and what holds for settings without a field.
            dataset: The user's own data set; without, those found on this machine are offered.

        Raises:
            InputError: If there is no such data set or preset.
        """
        self._base, self._dataset = settings, dataset
        self._spec_of(settings.dataset).preset(settings.preset)  # refuses what there is not
        names = [dataset.spec.name] if dataset else available_datasets(settings.data or None)
        if not dataset and settings.dataset not in names:
            names.append(settings.dataset)  # its absence is told when it is loaded
        dataset_name = dataset.spec.name if dataset else settings.dataset
        self._choices = {"dataset": _choice("dataset", names, dataset_name), "preset": _choice("preset", [""], "")}
        for name in ("method", "memory", "controller", "selector"):
            self._choices[name] = _choice(name, list(_FIELDS[name].metadata["choices"]), getattr(settings, name))
        self._texts = {name: _text(name, getattr(settings, name), "") for name in (*_NUMBERS, "seed")}
        self._texts["memory_budget"] = _text("memory_budget", settings.memory_budget, "none")
        self._show_presets(settings.preset)
        self._show_defaults()
        self._choices["dataset"].observe(lambda _: self._show_presets(""), "value")
        for name in ("dataset", "preset", "controller"):
            self._choices[name].observe(lambda _: self._show_defaults(), "value")
        self.widget = ipw.GridBox([*self._choices.values(), *self._texts.values()]).add_class("miro-form")

    def _spec_of(self, name: str) -> DatasetSpec:
        return self._dataset.spec if self._dataset else dataset_spec(name)

    @property
    def _spec(self) -> DatasetSpec:
        return self._spec_of(self._choices["dataset"].value)

    def _show_presets(self, chosen: str) -> None:
        """Offers the presets of the data set chosen."""
        names = list(self._spec.presets)
        self._choices["preset"].options = names
        self._choices["preset"].value = chosen if chosen in names else names[0]

    def _show_defaults(self) -> None:
        """Shows what an empty field means; sizes are for the fixed controller alone, the selector for Miro."""
        preset = self._spec.preset(self._choices["preset"].value)
        controller = self._choices["controller"].value
        for name in _NUMBERS:
            self._texts[name].placeholder = str(getattr(preset, name))
        for name in ("stream_size", "episodic_size"):
            self._texts[name].disabled = controller != "fixed"
            if controller != "fixed":
                self._texts[name].placeholder = "chosen"
        self._choices["selector"].disabled = controller != "miro"

    def read(self) -> RunSettings:
        """The settings as they are filled in.

        Raises:
            InputError: If a field is no number or a setting is out of range.
        """
        fixed = self._choices["controller"].value == "fixed"
        chosen: dict[str, Any] = {name: box.value for name, box in self._choices.items()}
        single = not MEMORIES[chosen["memory"]]
        return replace(
            self._base,
            **chosen,
            tasks=_number("tasks", self._texts["tasks"].value),
            epochs=_number("epochs", self._texts["epochs"].value),
            stream_size=_size(self._texts["stream_size"].value) if fixed else None,
            episodic_size=_size(self._texts["episodic_size"].value) if fixed else None,
            swap_ratio=None if single else self._base.swap_ratio,
            seed=_number("seed", self._texts["seed"].value) or 0,
            memory_budget=self._texts["memory_budget"].value,
        )

    def enable(self, enabled: bool) -> None:
        """Lets the fields be changed, or not while a run goes on."""
        for field in (*self._choices.values(), *self._texts.values()):
            field.disabled = not enabled
        if enabled:
            self._show_defaults()


def _choice(name: str, options: Sequence[str], value: str) -> ipw.Dropdown:
    return ipw.Dropdown(options=options, value=value, **_looks(name))


def _text(name: str, value: object, placeholder: str) -> ipw.Text:
    return ipw.Text("" if value is None else str(value), placeholder=placeholder, **_looks(name))


def _looks(name: str) -> dict[str, Any]:
    """What a parameter is called and, when the pointer rests on it, what it means."""
    label = _LABELS.get(name, name.replace("_", " "))
    return {"description": label, "tooltip": _FIELDS[name].metadata["means"], "layout": _LAYOUT, "style": _STYLE}


def _size(text: str) -> int | str | None:
    """The size in a field, in samples or as an amount such as `64 KiB`; None where it is empty."""
    text = text.strip()
    return int(text) if text.isdecimal() else text or None


def _number(name: str, text: str) -> int | None:
    """The whole number in a field; None where it is empty."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{name} is {text!r}; write a whole number, or nothing for the default.") from error
