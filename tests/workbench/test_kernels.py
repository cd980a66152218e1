"""Kernels of launched notebooks: of this interpreter, and forked from a warm one, from which nothing of a run leaks."""

import asyncio
import json
import logging
import sys

import pytest
from kernels import kernels
from traitlets.config import Config

from mirolib import RunError, launch, load_runs, sweep
from mirolib.workbench import kernels as module
from mirolib.workbench.kernels import Kernel, warm

LEAVE = "import os, torch, mirolib, builtins; torch.manual_seed(5); torch.set_num_threads(3); os.environ['LEFT'] = 'x'"
LEAVE += "; mirolib.left = builtins.left = left = 1; mirolib.SETTINGS = (); torch.nn.Linear = None"
LOOK = "import os, torch, mirolib; print([torch.initial_seed() == 5, torch.get_num_threads() == 3, 'LEFT' in os.environ"
LOOK += ", hasattr(mirolib, 'left'), 'left' in dir(__builtins__), 'left' in globals(), not mirolib.SETTINGS"
LOOK += ", torch.nn.Linear is None])"


async def said(folder, address, code):
    """What code prints in a kernel of its own, and whether that was forked."""
    kernel = Kernel(config=Config(Kernel={"transport": "ipc", "ip": str(folder / "k"), "warm": address}))
    await kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    await client.wait_for_ready(120)
    texts = []
    hook = lambda message: texts.append(message["content"].get("text") or message["content"].get("ename"))  # noqa: E731
    await client._async_execute_interactive(code, output_hook=hook, timeout=120)
    forked = type(kernel.provisioner.process).__name__ == "_Forked"
    client.stop_channels()
    await kernel.shutdown_kernel()
    return "".join(filter(None, texts)).strip(), forked


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
def test_nothing_of_a_run_leaks_into_the_next(tmp_path):
    with warm(tmp_path, tmp_path) as address:
        assert asyncio.run(said(tmp_path, address, LEAVE)) == ("", True)
        assert asyncio.run(said(tmp_path, address, LOOK)) == (str([False] * 8), True)
    assert asyncio.run(said(tmp_path, address, "print(1)")) == ("1", False), (
        "a warm process that is gone is done without"
    )
    assert not kernels()


def test_the_kernels_that_a_user_has_installed_play_no_part(tmp_path, monkeypatch):
    broken = tmp_path / "kernels" / "python3"
    broken.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "gone", "language": "python"}
    (broken / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    small = {"epochs": 1, "tasks": 2, "controller": "fixed", "energy": "none"}
    assert launch("10_run", results=str(tmp_path / "out"), progress=False, **small).run["status"] == "finished"


def test_a_kernel_that_can_not_start_says_why_and_the_sweep_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_COMMAND", [sys.executable, "-m", "nowhere", "-f", "{connection_file}"])
    sentence = r"its kernel did not start \(.*No module named nowhere\)"
    with pytest.raises(RunError, match=sentence):
        launch("10_run", results=str(tmp_path), progress=False)
    with caplog.at_level(logging.WARNING):
        done = sweep("10_run", grid={"epochs": [1]}, results=tmp_path, progress=False)
    assert done.runs["status"].tolist() == ["failed"] and len(load_runs(tmp_path)) == 2
