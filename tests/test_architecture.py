"""The tree of the library: layers, circles, and how long files and functions may get."""

import importlib
import sys
from pathlib import Path
from pkgutil import resolve_name

import house
import pytest

import mirolib
from mirolib.base.moved import place_now


def test_imports_run_down_only_and_in_no_circle():
    arrows = house.graph()
    assert not house.climbing(arrows)
    assert not house.circle(arrows)
    assert not house.circle(house.graph("benchmarks"))


def test_a_circle_and_a_climb_would_be_seen():
    assert house.circle({"mirolib.a.x": {"mirolib.a.y"}, "mirolib.a.y": {"mirolib.a.x"}})
    assert house.climbing({"mirolib.base.files": {"mirolib.data.stream"}}) == [
        "mirolib.base.files imports mirolib.data.stream"
    ]
    assert house.climbing({"mirolib.data.stream": {"mirolib.data.__init__"}})


def test_every_bar_is_kept():
    missed = {
        name: found
        for name, found in house.bars().items()
        if (found[0] < found[1] if name.endswith("(at least)") else found[0] > found[1])
    }
    assert not missed


def test_the_page_shows_the_tree_as_it_is():
    page, tree = (house.ROOT / "docs" / "architecture.md").read_text(), house.report().partition("```")[2]
    assert all(line in page for line in tree.splitlines()), "paste what tests/support/house.py prints"


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("mirolib.models", "mirolib.learning.models"),
        ("mirolib.learner", "mirolib.learning"),
        ("mirolib.datasets", "mirolib.data"),
        ("mirolib.datasets.files", "mirolib.data.files"),
        ("mirolib.datasets.base", "mirolib.data.dataset"),
        ("mirolib.comparison_plots", "mirolib.viz.compare"),
        ("mirolib.energy.boards", place_now("mirolib.energy.boards")),
        ("mirolib.launcher", "mirolib.workbench.launch"),
    ],
)
def test_import_paths_of_0_1_lead_to_the_same_module(old, now):
    for name in [name for name in sys.modules if name == old or name.startswith(f"{old}.")]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match=f"{old} is {now} now"):
        assert importlib.import_module(old) is importlib.import_module(now)


@pytest.mark.filterwarnings("ignore:mirolib:DeprecationWarning")
def test_every_name_that_the_pages_and_notebooks_of_0_1_use_is_still_there():
    names = (Path(house.__file__).parent / "names_of_0_1.txt").read_text().split()
    assert len(names) > 80
    assert all(resolve_name(name) for name in names)  # such as mirolib.energy:doctor


def test_a_path_that_never_was_stays_unknown():
    with pytest.raises(ModuleNotFoundError, match=r"mirolib\.nonsense"):
        importlib.import_module("mirolib.nonsense")
    assert mirolib.plots is importlib.import_module("mirolib.viz.figures")
