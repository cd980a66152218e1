# ruff: noqa: NPY002
import random
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pandas as pd
import plotly.io as pio
import pytest
import torch
from pages import EVIL, Tags
from samples import make_dataset

import mirolib
from mirolib import InputError, MemoryConfig, RunSettings, TaskStream, plots, run_experiment
from mirolib.base.display import facts, grid, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3,072.0 GiB")],
)
def test_sizes_for_people(size, text):
    assert size_text(size) == text


def test_tables_escape_every_text():
    for page in (facts(EVIL, {EVIL: EVIL}), grid(EVIL, [{EVIL: EVIL}]), grid(EVIL, [])):
        seen = Tags(page)
        assert "script" not in seen.seen and EVIL in seen.text


def test_data_set_and_stream_say_what_they_hold():
    dataset = replace(make_dataset(classes=6, per_class=20), class_names=(EVIL, *"abcde"))
    dataset = replace(dataset, spec=replace(dataset.spec, name=EVIL, licence="free", source=""))
    stream = TaskStream(dataset, 3, seed=4)
    assert repr(stream) == f"TaskStream({EVIL}: 6 classes in 3 tasks, seed 4)"
    for page, expected in (
        (dataset._repr_html_(), ["120, 20 to 20 a class", "licence", "free"]),
        (stream._repr_html_(), ["train", "36"]),
    ):
        seen = Tags(page)
        assert set(expected) <= set(seen.text) and "script" not in seen.seen
    assert "source" not in Tags(dataset._repr_html_()).text, "an empty fact is no fact"


def test_memory_says_samples_and_bytes_of_each_tier(make_memory, stream):
    memory = make_memory(stream, MemoryConfig(20, 6, 0.5))
    memory.receive(stream[0])
    memory.retain(stream[0])
    assert repr(memory) == (
        "TieredMemory(stream buffer 0 of 20 samples (0 bytes of 640 bytes); episodic memory 6 of 6 samples "
        "(192 bytes of 192 bytes); storage 36 samples (576 bytes); swap ratio 0.5)"
    )
    assert {"6 of 6", "576 bytes", "0 bytes of 640 bytes"} <= set(Tags(memory._repr_html_()).text)
    assert {"20 samples", "6 samples", "0.5"} <= set(Tags(memory.config._repr_html_()).text)


def test_a_run_says_how_it_ended(tmp_path):
    settings = RunSettings(epochs=1, controller="fixed", energy="none")
    result = run_experiment(settings, results=tmp_path, progress=False)
    text, page = repr(result), Tags(result._repr_html_()).text
    final = f"{result.summary['final_accuracy']:.1%}"
    assert f"final accuracy: {final}" in text and final in page and "no sensor" in page and str(result.path) in page
    parameters = {name: result.row[name] for name in ("dataset", "preset", "controller", "method", "tasks")}
    begun = replace(result, row=parameters, tables={"tasks": pd.DataFrame()})
    assert "tasks: 0 of 5" in repr(begun) and "accuracy" not in repr(begun)


@pytest.fixture
def undisturbed():
    """Puts back what `setup` changes for the whole process."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.get_num_threads()
    default = pio.templates.default
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    torch.set_num_threads(states[3])
    plots.set_theme("auto")
    pio.templates.default = default


def test_setup_says_what_there_is_and_prepares_the_notebook(undisturbed):
    draws = []
    for _ in range(2):
        done = mirolib.setup(theme="dark", seed=3, threads=1)
        draws.append((random.random(), np.random.random(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    assert torch.get_num_threads() == 1
    assert plots.figure("").layout.template.layout.font.color == "#CCCCCC" and pio.templates.default == "miro"
    expected = {f"torch {version('torch')}", "dark theme", "threads: 1"}
    for text in (str(done), " ".join(Tags(done._repr_html_()).text)):
        assert all(fact in text for fact in expected)


def test_setup_leaves_alone_what_it_is_not_told(undisturbed):
    before = random.getstate(), torch.get_num_threads()
    assert "seed: not set" in str(mirolib.setup()) and (random.getstate(), torch.get_num_threads()) == before
    assert plots.figure("").layout.template.layout.font.color == "#888888"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"theme": "neon"}, "choose one of auto, light, dark"),
        ({"seed": -1}, "from 0 to"),
        ({"threads": 0}, "1 or more"),
    ],
)
def test_setup_refuses_what_cannot_be(undisturbed, options, sentence):
    with pytest.raises(InputError, match=sentence):
        mirolib.setup(**options)
