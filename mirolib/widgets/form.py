"""The form of a run's settings."""

import html
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import ipywidgets as ipw

from mirolib.base.errors import InputError
from mirolib.data import LOADERS, Dataset, DatasetSpec, available_datasets, dataset_spec, load_dataset
from mirolib.experiment.experiment import located
from mirolib.experiment.settings import CONTROLLERS, FIXED, MEMORIES, RunSettings, checked, default
from mirolib.learning.models import MODELS

_NUMBERS = ("tasks", "epochs", "replay_ratio", "swap_ratio", "stream_size", "episodic_size", "batch_size", "lr")
_FIELDS = {one.name: one for one in fields(RunSettings)}
_DEFAULTS = {"memory_budget": "none", "objective": "knee"}
# short enough for a column of the form
_LABELS = {"dataset": "data set", "stream_size": "stream", "episodic_size": "episodic", "memory_budget": "budget",
           "lr": "learning rate"}  # fmt: skip
_LAYOUT = {"width": "auto", "min_width": "0"}
_STYLE = {"description_width": "84px"}


class SettingsForm:
    """Fields, shown in `widget`, for what is changed most from run to run; other settings stay as they were given.

    What is wrong with them is said in `wrong`, which is empty once it is mended. `run_id` names the next run.
    """

    def __init__(self, settings: RunSettings, dataset: Dataset | None = None) -> None:
        """A form filled in from settings; it offers the user's own data set, or else those found on this machine.

        What is the user's own by path is loaded here, and is then `dataset`. There is an `InputError` if there is no
        such data set or preset.
        """
        if dataset is None and checked(settings).dataset not in LOADERS:
            settings = located(settings)
            dataset = load_dataset(settings.dataset, root=settings.data)
        self._base, self.dataset = settings, dataset
        spec = dataset.spec if dataset else dataset_spec(settings.dataset)
        spec.preset(settings.preset)  # refuses what there is not
        # one that is not on this machine too: its absence is told when it is loaded
        names = [spec.name] if dataset else list(dict.fromkeys([*available_datasets(settings.data or None), spec.name]))
        presets = list(spec.presets)
        options: dict[str, tuple[list[Any], Any]] = {
            "dataset": (names, spec.name),
            "preset": (presets, settings.preset or presets[0]),
        }
        for name in ("method", "memory", "controller", "selector"):
            options[name] = list(_FIELDS[name].metadata["choices"]), getattr(settings, name)
        kinds = _FIELDS["epoch_of"].metadata["choices"]
        options["epoch_of"] = [("preset's", ""), *zip(kinds, kinds, strict=True)], settings.epoch_of or ""
        options["model"] = [("preset's", ""), *zip(MODELS, MODELS, strict=True)], settings.model or ""
        self._choices = {one: ipw.Dropdown(options=of, value=now, **_looks(one)) for one, (of, now) in options.items()}
        given = {name: default(getattr(settings, name), "") for name in (*_NUMBERS, "seed", *_DEFAULTS)}
        self._texts = {name: ipw.Text(str(value), placeholder=_DEFAULTS.get(name, ""), **_looks(name))
                       for name, value in given.items()}  # fmt: skip
        self.run_id = ipw.Text(description="run name", placeholder="a new one", layout=_LAYOUT, style=_STYLE)
        self.wrong = ipw.HTML()
        self._show_defaults()
        self._choices["dataset"].observe(lambda _: self._show_presets(), "value")
        for name in ("dataset", "preset", "controller", "epoch_of", "memory"):
            self._choices[name].observe(lambda _: self._show_defaults(), "value")
        for box in self._fields.values():  # after those that change what a field holds or means
            box.observe(lambda _: self._check(), "value")
        grid = ipw.GridBox([*self._fields.values(), self.run_id]).add_class("miro-form")
        self.widget = ipw.VBox([grid, self.wrong])

    @property
    def _fields(self) -> dict[str, Any]:
        return self._choices | self._texts

    def _check(self) -> None:
        """Says what is wrong at the field that the sentence names."""
        sentence = ""
        try:
            self.read()
        except InputError as error:
            sentence = str(error)
        what = f"_{sentence.partition(';')[0].replace(' ', '_')}_"
        # the longest, for `memory` is in others
        named = max((name for name in self._fields if f"_{name}_" in what), key=len, default="")
        for name, box in self._fields.items():
            (box.add_class if name == named else box.remove_class)("miro-wrong")
        self.wrong.value = sentence and f'<div class="miro-error" role="alert">{html.escape(sentence)}</div>'

    @property
    def _spec(self) -> DatasetSpec:
        return self.dataset.spec if self.dataset else dataset_spec(self._choices["dataset"].value)

    @property
    def _epoch_of(self) -> str:
        controller, preset = self._choices["controller"].value, self._spec.preset(self._choices["preset"].value)
        own = preset.epoch_of if controller == "fixed" else CONTROLLERS[controller]
        return str(self._choices["epoch_of"].value or own)

    def _show_presets(self) -> None:
        self._choices["preset"].options = list(self._spec.presets)
        self._choices["preset"].index = 0  # where another data set has presets of the same names too

    def _show_defaults(self) -> None:
        """Shows what an empty field means, and shuts those that the controller has no use for."""
        preset, epoch_of = self._spec.preset(self._choices["preset"].value), self._epoch_of
        controller = self._choices["controller"].value
        for name in _NUMBERS:
            is_chosen = name in ("stream_size", "episodic_size") and controller not in FIXED
            self._texts[name].disabled = is_chosen or (name == "replay_ratio" and epoch_of == "buffers")
            self._texts[name].placeholder = "chosen" if is_chosen else str(getattr(preset, name))
        self._texts["swap_ratio"].disabled = not MEMORIES[self._choices["memory"].value]
        if controller not in FIXED:
            self._texts["swap_ratio"].placeholder = "1"
        epochs = str(preset.epochs) if epoch_of == preset.epoch_of else "as many visits"
        self._texts["epochs"].placeholder = f"at most {epochs}" if controller == "miro" else epochs
        self._texts["objective"].disabled = controller != "miro"
        self._choices["selector"].disabled = controller != "miro-2023"

    def read(self) -> RunSettings:
        """The settings as they are filled in; an `InputError` if a setting is of another type or out of range."""
        values: dict[str, Any] = {name: box.value for name, box in self._choices.items()}
        values |= {name: _value(self._texts[name].value) for name in (*_NUMBERS, "seed")}
        if values["controller"] not in FIXED:  # the fields are shut, and may hold what another controller was given
            values |= {"stream_size": None, "episodic_size": None}
        if self._epoch_of == "buffers":
            values["replay_ratio"] = None
        if not MEMORIES[values["memory"]]:
            values["swap_ratio"] = None  # nothing below it to swap with
        values |= {
            "epoch_of": values["epoch_of"] or None,
            "model": values["model"] or None,
            "seed": values["seed"] or 0,
        }
        values["memory_budget"] = self._texts["memory_budget"].value
        if values["controller"] == "miro":
            values["objective"] = self._texts["objective"].value.strip() or "knee"
        return replace(self._base, **values)

    def enable(self, enabled: bool) -> None:
        """Lets the fields be changed, or not while a run goes on."""
        for field in (*self._fields.values(), self.run_id):
            field.disabled = not enabled
        if enabled:
            self._show_defaults()


def _looks(name: str) -> dict[str, Any]:
    label = _LABELS.get(name, name.replace("_", " "))
    return {"description": label, "tooltip": _FIELDS[name].metadata["means"], "layout": _LAYOUT, "style": _STYLE}


def _value(text: str) -> float | str | None:
    """What a field holds: a number, else a text such as `64 KiB`, which the settings may refuse; None where empty."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text.strip() or None
