import ast
import inspect
import json
from pathlib import Path

import pytest

from mirolib import RunSettings, run_experiment
from mirolib.workbench.launch import declared_parameters

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebooks_can_be_checked(path):
    cells = code_cells(path)
    assert all(cell["execution_count"] for cell in cells), "nbval never compares a cell without a count"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "not run top to bottom"
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    checked = [c for c, t in zip(cells, tags, strict=True) if c["outputs"] and "nbval-ignore-output" not in t]
    assert checked, "no cell whose output is compared"
    failed = [t for c, t in zip(cells, tags, strict=True) if any(o["output_type"] == "error" for o in c["outputs"])]
    assert all("raises-exception" in t for t in failed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_the_house_rules(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len(notebook["cells"]) <= 30
    first = "".join(notebook["cells"][0]["source"])
    assert first.startswith("# ") and "?" in first, "title, then the question"
    for cell in code_cells(path):
        tree = ast.parse("".join(line for line in cell["source"] if not line.startswith("%")))
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
    assert "widgets" not in notebook["metadata"] and path.stat().st_size < 400_000
    assert "/tmp/" not in path.read_text() and "/home/" not in path.read_text()


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem[:2] in ("11", "12", "13", "14", "16")])
def test_studies_check_how_often_and_what_they_compare(path):
    asked = {name for name, kind in declared_parameters(path.stem).items() if kind == "list" or name == "seeds"}
    calls = [
        node for cell in code_cells(path) for node in ast.walk(ast.parse("".join(cell["source"]))) if is_check(node)
    ]
    assert {keyword.arg for call in calls for keyword in call.keywords} - {"least"} == asked


def is_check(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "check_study"


def test_the_parameters_cell_of_10_run_is_generated_from_the_run_settings():
    path = NOTEBOOKS[0].parent / "10_run.ipynb"
    (cell,) = (cell for cell in code_cells(path) if cell["metadata"].get("tags") == ["parameters"])
    lines = "".join(cell["source"]).split("\n")
    settings = RunSettings.cell().split("\n")
    assert lines[: len(settings)] == settings, "take the cell from RunSettings.cell()"
    options = inspect.signature(run_experiment).parameters
    for line in lines[len(settings) :]:
        assignment = ast.parse(line).body[0]
        assert "  # " in line and isinstance(assignment, ast.AnnAssign)
        default = ast.literal_eval(assignment.value)
        assert (options[assignment.target.id].default or "") == (default or "")
    assert len(lines) == len(settings) + 5
