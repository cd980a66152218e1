import numpy as np
import pytest
from watching import DATASET

from mirolib import RunSettings
from mirolib.widgets import Dashboard


@pytest.mark.parametrize("controller", ["miro", "miro-2023", "fixed", "carm"])
def test_the_form_gives_back_the_settings_it_was_given(controller):
    sizes = {"stream_size": 60, "episodic_size": "20 KiB"} if controller in ("fixed", "carm") else {}
    sizes |= {"objective": "rate=0.2 points/kJ"} if controller == "miro" else {}
    by_task = controller in ("miro", "fixed")
    sizes |= {"epoch_of": "task", "replay_ratio": 1.5} if by_task else {"epoch_of": "buffers"}
    settings = RunSettings(
        method="bic", controller=controller, tasks=2, epochs=4, seed=7, memory_budget="1 MiB", lr=0.02, points=1.0,
        preset="small", **sizes,
    )  # fmt: skip
    dashboard = Dashboard(settings)
    assert dashboard._form.read() == settings
    dashboard._form.enable(False)  # as while a run goes on, which another takes the place of
    assert dashboard._form.read() == settings
    dashboard._form._choices["memory"].value = "single-level"
    assert dashboard._form.read().memory == "single-level"


def test_the_form_follows_data_set_and_controller(tmp_path):
    form = Dashboard(RunSettings())._form
    texts, choices = form._texts, form._choices
    epochs = str(form._spec.preset().epochs)
    shut = lambda: (texts["stream_size"].disabled, choices["selector"].disabled, texts["objective"].disabled)  # noqa: E731
    assert shut() == (True, True, False) and texts["epochs"].placeholder == f"at most {epochs}"
    assert not texts["replay_ratio"].disabled, "an epoch is of the task"
    assert not texts["batch_size"].disabled and texts["batch_size"].placeholder.isdigit()
    texts["objective"].value = ""
    assert form.read().objective == texts["objective"].placeholder == "knee"
    texts["objective"].value = "no objective"
    choices["controller"].value = "miro-2023"
    assert shut() == (True, False, True) and texts["epochs"].placeholder == "as many visits"
    assert form.read().objective == "knee", "what a shut field holds was read"
    choices["controller"].value = "carm"
    assert shut() == (False, True, True)
    choices["controller"].value = "fixed"
    assert shut() == (False, True, True) and texts["epochs"].placeholder == epochs
    assert not texts["replay_ratio"].disabled
    texts["epochs"].value, texts["replay_ratio"].value = "1.5", "classes"
    assert form.read().epochs == 1.5 and form.read().replay_ratio == "classes"
    choices["epoch_of"].value = "buffers"
    assert texts["epochs"].placeholder == "as many visits"
    assert texts["replay_ratio"].disabled and form.read().replay_ratio is None
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((8, 3)), y_train=["a", "b"] * 4)
    by_path = Dashboard(RunSettings(str(tmp_path / "mine.npz"), controller="fixed"))._form
    assert by_path._choices["dataset"].options == ("mine",) and by_path.read().data == f"{tmp_path}/mine.npz"
    assert by_path._texts["epochs"].placeholder == str(by_path.dataset.spec.preset().epochs)
    own = Dashboard(dataset=DATASET)._form
    assert own._choices["dataset"].options == ("arrays",) and own.read().dataset == "arrays"
