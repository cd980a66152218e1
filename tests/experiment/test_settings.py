from dataclasses import fields, replace
from pathlib import Path
from typing import Optional, Union

import pytest

from mirolib import Experiment, FixedController, InputError, MemoryConfig, RunSettings
from mirolib.experiment.settings import CONTROLLERS, FIXED
from mirolib.learning.methods import METHODS


def test_settings_fill_in_the_preset(tmp_path):
    experiment = Experiment.build(RunSettings(controller="fixed", epochs=2, seed=3), tmp_path)
    filled = experiment.settings
    assert (filled.preset, filled.tasks, filled.model, filled.epochs) == ("small", 5, "cnn", 2)
    assert filled.swap_ratio == 1.0 and filled.device in ("cpu", "cuda")
    experiment.memory.close()
    single = Experiment.build(RunSettings(controller="fixed", memory="single-level"), tmp_path / "single")
    assert single.settings.swap_ratio == 0.0 and not single.memory.hierarchical
    single.memory.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "mnist"}, "no data set 'mnist'"),
        ({"preset": "vast"}, "no preset 'vast'"),
        ({"method": "magic"}, "method is 'magic'; choose one of er, er-ace, bic"),
        ({"memory": "endless"}, "choose one of tiered, single-level"),
        ({"controller": "oracle"}, "choose one of miro, fixed, tuned, carm, share, everything, whole-budget"),
        ({"profiler": "guess"}, "choose one of probe, trial, oracle"),
        ({"selector": "best"}, "choose one of gain-per-joule"),
        ({"objective": "speed"}, "objective 'speed' can't be read; write one of: knee, or knee=0.2 points"),
        ({"objective": "accuracy=high"}, "can't be read; write one of: .*; accuracy=0.9, or accuracy=90 %"),
        ({"objective": "accuracy=1.5"}, "'accuracy=1.5' is out of range; write accuracy=0.9"),
        ({"objective": "energy_budget=50"}, "can't be read; write energy_budget=50 kJ"),
        ({"objective": "rate=0.2 points"}, "can't be read; write rate=0.2 points/kJ"),
        ({"objective": "energy_budget=50 kJ", "energy": "none"}, "is in joules, and there is no energy sensor"),
        (
            {"energy_budget": 9.0},
            "selector within-budget of the miro-2023 controller; with miro, state it as objective",
        ),
        ({"energy_budget": 9.0, "controller": "miro-2023"}, "energy_budget is for selector within-budget"),
        ({"energy_budget": 9.0, "selector": "within-budget"}, "of the miro-2023 controller"),
        ({"controller": "miro-2023", "selector": "within-budget"}, "needs energy_budget"),
        ({"epoch_of": "buffers"}, "miro controller goes by epochs of the task; leave epoch_of out"),
        ({"controller": "tuned", "epoch_of": "buffers"}, "tuned controller goes by epochs of the task"),
        ({"controller": "carm", "epoch_of": "task"}, "carm controller goes by epochs of the buffers"),
        ({"controller": "share", "epoch_of": "task"}, "share controller goes by epochs of the buffers"),
        ({"controller": "miro-2023", "epoch_of": "task"}, "miro-2023 controller goes by epochs of the buffers"),
        ({"validation_share": 0.0}, "miro controller looks at validation samples; set validation_share above 0"),
        ({"validation_share": 0.0, "controller": "tuned"}, "tuned controller looks at validation samples"),
        ({"cutline": 0.0}, "cutline is 0.0"),
        ({"points": -1.0}, "points is -1.0"),
        ({"memory_budget": "plenty"}, "memory budget 'plenty' can't be read"),
        ({"controller": "miro", "stream_size": 50}, "are for the fixed controller"),
        ({"loss": "l2"}, "loss is 'l2'; choose one of bce, bce-sum, ce"),
        ({"model": "gpt"}, "model is 'gpt'"),
        ({"tasks": 11}, "11 tasks cannot share 10 classes"),
        ({"seed": -1}, "seed is -1"),
        ({"epochs": 0}, "epochs is 0"),
        (
            {"controller": "miro-2023", "epochs": 1.5},
            "epochs is 1.5; an epoch of the buffers is not parted: give a whole number",
        ),
        ({"epochs": "3"}, "give a value of type int"),
        ({"seed": "a"}, "give a value of type int"),
        ({"controller": "fixed", "episodic_size": True}, "give a value of type int"),
        ({"swap_ratio": "0.5"}, "give a value of type float"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"dataset": None}, "give a value of type str"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"controller": "fixed", "swap_ratio": 2.0}, "swap_ratio is 2.0"),
        ({"controller": "fixed", "stream_size": 0}, "stream_size is 0"),
        ({"controller": "fixed", "stream_size": 5000}, "no task has more than"),
        ({"controller": "fixed", "episodic_size": 5000}, "only 1260 training samples"),
        ({"controller": "fixed", "stream_size": "64MB"}, "no task has more than"),
        ({"controller": "fixed", "stream_size": "much"}, "The size 'much' can't be read; write an amount"),
        ({"controller": "fixed", "episodic_size": "60 B"}, "60 B does not hold one sample, which takes 80 bytes"),
        ({"controller": "fixed", "episodic_size": 1.5}, r"give a value of type int \| str \| None"),
        ({"memory": "single-level", "swap_ratio": 0.5}, "single-level memory can't swap"),
        ({"energy": "nowhere.csv"}, "no power trace"),
        ({"device": "tpu:9"}, "choose one of auto, cpu, cuda, mps"),
    ],
)
def test_bad_settings_are_refused_and_leave_no_store(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        Experiment.build(RunSettings(**options), tmp_path / "store")
    assert not (tmp_path / "store" / "data.bin").exists()


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_controller_s_name_says_what_its_epochs_pass_over(tmp_path, name):
    experiment = Experiment.build(RunSettings(controller=name, energy="none"), tmp_path)
    experiment.memory.close()
    filled = experiment.settings
    assert filled.epoch_of == CONTROLLERS[name] and (filled.replay_ratio is None) == (filled.epoch_of == "buffers")
    assert filled.epochs > 0 and (filled.stream_size is not None) == (name in FIXED)


def test_a_part_that_is_replaced_takes_part(tmp_path):
    built = Experiment.build(RunSettings(epochs=1, tasks=2, energy="none", controller="fixed"), tmp_path)
    ours = FixedController(MemoryConfig(30, 7, 0.0))
    records = list(replace(built, controller=ours).run(progress=False))
    assert [record.config.episodic_size for record in records] == [7, 7]


def test_sizes_in_bytes_become_samples_of_the_data_set(tmp_path):
    settings = RunSettings(controller="fixed", stream_size="8 kB", episodic_size="30 samples", epochs=1)
    experiment = Experiment.build(settings, tmp_path / "store")
    assert (experiment.settings.stream_size, experiment.settings.episodic_size) == (100, 30)
    assert experiment.memory.allocated_bytes == 8000 + 30 * 80
    experiment.memory.close()


def test_settings_come_from_the_names_of_a_parameters_cell():
    names = {}
    exec(RunSettings.cell(), {"Optional": Optional, "Union": Union}, names)
    assert RunSettings.from_cell(names | {"run_id": "other", "pd": object()}) == RunSettings()
    assert RunSettings.from_cell(names | {"epochs": 3}).epochs == 3
    del names["epochs"], names["lr"]
    with pytest.raises(InputError, match=r"does not set epochs, lr; take it from RunSettings.cell\(\)"):
        RunSettings.from_cell(names)


def test_every_parameter_says_what_it_means_where_people_look():
    for one in fields(RunSettings):
        assert one.metadata["means"] in RunSettings.__doc__
        assert f"{one.name}: " in RunSettings.cell() and one.metadata["means"] in RunSettings.cell()
    page = (Path(__file__).parents[2] / "docs" / "parameters.md").read_text()
    assert RunSettings.cell() in page, "copy what `python -m mirolib parameters` prints"


def test_a_name_that_was_registered_is_a_choice(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", METHODS["er"])
    assert RunSettings(method="mine").method == "mine"
