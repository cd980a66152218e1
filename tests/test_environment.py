import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "jupyter-client": "jupyter_client", "jupyter-core": "jupyter_core",
               "xxhash": "python-xxhash", "soundfile": "pysoundfile",
               "playwright": "playwright-python"}  # fmt: skip

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_has_the_names_and_ranges_of_pyproject():
    wanted = {"python": SpecifierSet(PROJECT["requires-python"])}
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        requirement = Requirement(text)
        wanted[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip, section = environment["dependencies"]
    assert pip == "pip" and section == {"pip": ["-e ."]}
    found = {}
    for text in conda:
        name, ranges = re.fullmatch(r"([\w-]+)(.*)", text).groups()
        found[name] = SpecifierSet(ranges)
    assert found == wanted


def test_every_third_party_import_is_declared():
    import ast
    import sys

    names = {"scikit-learn": "sklearn", "jupyter-client": "jupyter_client", "jupyter-core": "jupyter_core",
             "pillow": "PIL", "pyyaml": "yaml", "ipython": "IPython"}  # fmt: skip
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dask"]]  # imported where it is used only
    declared = {names.get(Requirement(text).name, Requirement(text).name) for text in wanted}
    imported = set()
    for path in (ROOT / "mirolib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"mirolib"} <= declared


def test_make_names_what_the_readme_promises():
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in ("run", "test", "study", "bench", "notebooks"))
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")))
def test_benchmarks_follow_the_library(name):
    import_module(f"benchmarks.{name}")
