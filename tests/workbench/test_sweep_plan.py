import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mirolib import InputError
from mirolib.data import dataset_spec
from mirolib.workbench.sweep_plan import SweepPlan, make_plan, read_entries


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "sweep.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_combination_with_every_seed():
    plan = make_plan("10_run", {"episodic_size": [20, 40], "swap_ratio": [0, 1.0]}, 3, {"controller": "fixed"})
    assert len(plan.members) == 12
    assert plan.varied == ("episodic_size", "swap_ratio", "seed")
    first = {"controller": "fixed", "episodic_size": 20, "swap_ratio": 0.0, "seed": 0}
    assert next(iter(plan.members.values())) == first
    assert {parameters["seed"] for parameters in plan.members.values()} == {0, 1, 2}


def test_the_same_point_has_the_same_run_whatever_the_rest_of_the_grid():
    small = make_plan("10_run", {"epochs": [1]}, [0], name="mine")
    large = make_plan("10_run", {"epochs": ["2", "1"]}, range(2), name="mine")
    assert next(iter(small.members.items())) in large.members.items() and len(large.members) == 4
    assert make_plan("10_run", {"epochs": [1]}).name != make_plan("10_run", {"epochs": [2]}).name


def test_a_run_of_epochs_of_the_task_has_another_name_when_its_preset_changes(monkeypatch):
    def names(**shared):
        plan = make_plan("10_run", {"episodic_size": [5]}, parameters=shared | {"controller": "fixed"}, name="s")
        return list(plan.members)

    before = names(), names(epoch_of="buffers"), names(epoch_of="task")
    assert len(set(map(str, before))) == 2 and before[0] == before[2]
    spec = dataset_spec("digits")
    other = replace(spec, presets={"small": replace(spec.preset(), epochs=8)})
    monkeypatch.setattr("mirolib.workbench.sweep_plan.dataset_spec", lambda name: other)
    after = names(), names(epoch_of="buffers"), names(epoch_of="task", epochs=9)
    assert after[0] != before[0] and after[1:] == before[1:]


def test_own_data_are_named_and_a_run_of_changed_data_is_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "yours"):
        np.savez(f"{name}.npz", x_train=np.zeros((4, 2)), y_train=[0, 1, 0, 1])
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    grid = {"dataset": ["mine.npz", "yours.npz", "digits", "photos?size=16"]}
    plan = make_plan("10_run", grid, parameters={"controller": "fixed"}, name="s")
    photos = {"dataset": "photos", "data": f"{tmp_path}/photos?size=16,name=photos"}
    wanted = [{"dataset": n, "data": f"{tmp_path}/{n}.npz"} for n in ("mine", "yours")] + [
        {"dataset": "digits"},
        photos,
    ]
    assert [{"controller": "fixed", **one} for one in wanted] == list(plan.members.values())
    assert list(make_plan("10_run", grid, parameters={"controller": "fixed"}, name="s").members) == list(plan.members)
    np.savez("mine.npz", x_train=np.ones((6, 2)), y_train=[0, 1] * 3)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(b"one more")
    again = make_plan("10_run", grid, parameters={"controller": "fixed"}, name="s")
    assert [a == b for a, b in zip(plan.members, again.members, strict=True)] == [False, True, True, False]
    with pytest.raises(InputError, match="no data set 'ours.npz'; choose one of .* or give the path of your own"):
        make_plan("10_run", {"dataset": ["ours.npz"]})


def test_numbers_of_numpy_are_plain_numbers():
    plan = make_plan("10_run", {"epochs": np.arange(1, 3), "lr": [np.float64(0.5)]})
    assert json.loads(plan.to_json())["members"][0]["parameters"] == {"epochs": 1, "lr": 0.5}


@pytest.mark.parametrize(
    "seeds", [np.int64(11), set(range(11)), (n for n in range(11)), np.arange(11), dict.fromkeys(range(11)).keys()]
)
def test_seeds_may_be_any_number_or_iterable(seeds):
    assert make_plan("10_run", {}, seeds, name="mine") == make_plan("10_run", {}, 11, name="mine")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"grid": {"sead": [1]}}, "no parameter 'sead'; it takes dataset"),
        ({"grid": {"epochs": [1, "many"]}}, "epochs is 'many'; give a value of type"),
        ({"grid": {"epochs": [1, 0]}}, "epochs is 0; choose a value above 0"),
        ({"grid": {"swap_ratio": [0.5, 1.5]}}, "swap_ratio is 1.5; choose a value from 0"),
        ({"grid": {"dataset": ["digits", "mnist"]}}, "no data set 'mnist'; choose one of digits"),
        ({"grid": {"preset": ["huge"]}}, "no preset 'huge'"),
        ({"grid": {"energy": ["sun"]}}, "no energy source 'sun'"),
        ({"grid": {"model": ["gpt"]}}, "model is 'gpt'"),
        ({"grid": {"dataset": "digits"}}, "gives 'digits' for dataset; give a list"),
        ({"grid": {"epochs": []}}, "at least one value"),
        ({"grid": {"epochs": [1, 1]}}, "lists a value twice"),
        ({"grid": {"epochs": range(200), "batch_size": range(100)}}, "more than 10,000 runs, the most a sweep takes"),
        ({"grid": {"epochs": [1]}, "parameters": {"epochs": 2}}, "epochs stands in the grid and in the parameters"),
        ({"grid": {"seed": itertools.count()}}, "more than 10,000 runs"),
        ({"grid": {"epochs": {1: 2}}}, "gives {1: 2} for epochs; give a list"),
        ({"grid": {"epochs": np.array(1)}}, "gives 1 for epochs; give a list"),
        ({"grid": {"epochs": iter([])}}, "at least one value"),
        ({"grid": [1, 2]}, r"grid is \[1, 2\]; give values by parameter"),
        ({"parameters": [1]}, r"parameters is \[1\]; give values by parameter"),
        ({"parameters": "a=b"}, "parameters is 'a=b'; give values by parameter"),
        ({"name": 5}, "5 can't name a run"),
        ({"notebook": None}, "no notebook None; choose one of 00_quickstart"),
        ({"seeds": 1.5}, "gives 1.5 for seeds"),
        ({"grid": {"run_id": ["a"]}}, "sets run_id itself"),
        ({"grid": {"seed": [1]}, "seeds": 2}, "keep one of them"),
        ({"grid": {}, "seeds": 0}, r"gives range\(0, 0\) for seeds; give a list"),
        ({"grid": {}, "seeds": True}, "gives True for seeds"),
        ({"grid": {}, "name": "../out"}, "can't name a run"),
        ({"grid": {}, "name": "x" * 120}, "can't name a run"),
        ({"grid": {}, "notebook": "11_magic"}, "no notebook '11_magic'"),
    ],
)
def test_a_grid_that_can_not_be_run_is_refused_before_anything_starts(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        make_plan(**({"notebook": "10_run"} | arguments))


def test_a_plan_is_read_back(tmp_path):
    plan = make_plan("10_run", {"epochs": [1, 2]}, 2, name="mine")
    assert SweepPlan.read(written(tmp_path, plan.to_json())) == plan


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 0}', '{"format": 1, "members": [{"run_id": "../x", "parameters": {}}]}', "[" * 99999],
)
def test_a_damaged_plan_says_so(tmp_path, text):
    with pytest.raises(InputError, match=r"is damaged .* finished runs are kept"):
        SweepPlan.read(written(tmp_path, text))


def test_a_sweep_from_yaml(tmp_path):
    text = "notebook: 10_run\nname: mine\ngrid: {lr: [1e-2, 0.1]}\nparameters: {epochs: 1}\nseeds: [3, 5]\n"
    plan = make_plan(**read_entries(written(tmp_path, text)))
    assert plan == make_plan("10_run", {"lr": [0.01, 0.1]}, [3, 5], {"epochs": 1}, "mine")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no notebook"),
        ("- 1", "names no notebook"),
        ("notebook: 10_run\ngird: {}", "unknown entry 'gird'; it takes notebook"),
        ("grid: {}", "names no notebook"),
        ("notebook: 10_run\ngrid: [1]", r"grid is \[1\]; give values by parameter, such as {epochs"),
        ("notebook: 10_run\nname: 2024", "2024 can't name a run; use a text"),
        ("notebook: 10_run\nseeds: 1.5", "gives 1.5 for seeds; give a list"),
        ("notebook: 10_run\ngrid:\n  seed: [0]\n  seed: [1]", "sweep.yml .* 'seed' stands twice, again in line 4"),
        ("notebook: 10_run\nnotebook: 13_swap_ratio", "'notebook' stands twice"),
        ("notebook: 10_run\ngrid: {epochs: [1]}\n'grid': {}", "'grid' stands twice"),
        ("notebook: 10_run\ngrid: {epochs: 1}", "gives 1 for epochs; give a list"),
        ("notebook: 10_run\ngrid: {dataset: [2024-01-01]}", "give a value of type str"),
        ("notebook: 13_swap_ratio\ngrid: {episodic_sizes: [[2024-01-01]]}", "give a list of 1 or more"),
        ("notebook: {", "can't be read as YAML"),
        ("notebook: !!python/object/apply:os.system [ls]", "can't be read as YAML"),
        ("notebook: 10_run\ngrid: {epochs: &a [*a]}", "Parameter epochs is"),
        ("seeds: " + "9" * 5000, "can't be read as YAML"),
        ("[" * 5000, "can't be read as YAML"),
        (b"\xff\xfe\x00", "can't be read as YAML"),
    ],
)
def test_a_yaml_that_is_no_sweep_is_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        make_plan(**read_entries(written(tmp_path, text)))


def test_a_yaml_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="can't be read as YAML: .*No such file"):
        read_entries(tmp_path / "none.yml")


@pytest.mark.parametrize("text", ["010", "1:30", "1:30.5", "-017"])
def test_numbers_that_yaml_reads_as_others_are_refused(tmp_path, text):
    file = tmp_path / "sweep.yml"
    file.write_text(f"notebook: 10_run\ngrid:\n  epochs: [{text}]\n")
    with pytest.raises(InputError, match=f"{text} in line 3 is no plain number"):
        read_entries(file)
    file.write_text("notebook: 10_run\ngrid:\n  lr: [0, 0.5, 1e-3, 10]\n")
    assert read_entries(file)["grid"]["lr"][:2] == [0, 0.5]
