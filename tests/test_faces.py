"""What `import mirolib` takes and gives: names that are imported when they are first used."""

import subprocess
import sys

import pytest

import mirolib
from mirolib import workbench


def test_the_library_completes_to_its_public_names_and_each_is_there():
    assert {name for name in dir(mirolib) if not name.startswith("_")} == set(mirolib.__all__)
    assert all(getattr(mirolib, name) is not None for name in mirolib.__all__)
    with pytest.raises(AttributeError, match="mirolib has no lunch; it has .*launch"):
        mirolib.lunch  # noqa: B018


def test_a_function_is_not_hidden_by_its_module():
    code = "import mirolib.workbench.sweep, mirolib.workbench.launch; from mirolib.workbench import launch, sweep"
    subprocess.run([sys.executable, "-c", f"{code}; assert callable(sweep) and callable(launch)"], check=True)
    assert callable(workbench.sweep) and mirolib.sweep is workbench.sweep


@pytest.mark.parametrize("what", [["-c", "import mirolib"], ["-m", "mirolib", "--help"], ["-m", "mirolib", "runs"]])
def test_help_and_lists_do_without_pytorch(tmp_path, what):
    options = ["--results", str(tmp_path)] if what[-1] == "runs" else []
    command = [sys.executable, "-X", "importtime", *what, *options]
    imported = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "mirolib" in imported and not {"torch", "plotly", "papermill"} & set(imported.replace("|", " ").split())
