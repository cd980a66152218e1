import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from samples import make_dataset

import mirolib.controller
import mirolib.data
import mirolib.learning.bic
import mirolib.learning.models
from mirolib import RunSettings, TaskRecord, load_runs, run_experiment

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
)
RUNNABLE = [
    Path("README.md"),
    Path("docs/energy.md"),
    Path("docs/all_of_miro.md"),
    *(page for page in PAGES if page.parent.name == "howto"),
]
REGISTRIES = (
    mirolib.data.LOADERS, mirolib.learning.models.MODELS, mirolib.learning.methods.METHODS,
    mirolib.controller.SELECTORS,
)  # fmt: skip


@pytest.mark.parametrize("page", RUNNABLE, ids=str)
def test_the_code_of_a_page_runs_as_it_stands(page, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRO_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MIRO_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    before = [dict(registry) for registry in REGISTRIES]
    space: dict[str, object] = {"__name__": "page"}
    try:
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"{page}, block {number}", "exec"), space)
    finally:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(entries)
    assert capsys.readouterr().out
    if page.parent.name == "howto" and page.name != "power_source.md":
        kept = load_runs(tmp_path / "results")
        ends = list(kept["final_accuracy"]) if len(kept) else []
        ends += [value.average_accuracy for value in space.values() if isinstance(value, TaskRecord)]
        ends += [value for name, value in space.items() if name == "accuracy"]
        assert ends and min(ends) > 0.75, (page, ends)


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        assert file.resolve().is_relative_to(ROOT), f"{page}: {target} leads out of the repository"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}: {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in PAGES:
        if page.parts[0] == "docs" and page.name != "README.md":
            assert f"({page.relative_to('docs')})" in index, page


def documented(section):
    """Names in the first column of the tables under a heading of docs/run_format.md."""
    text = (ROOT / "docs" / "run_format.md").read_text()
    (part,) = re.findall(rf"^## `{re.escape(section)}`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    cells = [row.split("|")[1] for row in re.findall(r"^\|.*$", part, re.MULTILINE)]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that leaves every file."""
    folder = tmp_path_factory.mktemp("run")
    power = pd.DataFrame({"time_s": np.arange(0, 60, 0.01), "power_w": 5.0})
    power.to_csv(folder / "power.csv", index=False)
    settings = RunSettings(tasks=3, epochs=2, energy=str(folder / "power.csv"), device="cpu")
    return run_experiment(settings, dataset=make_dataset(), results=folder, progress=False).path


@pytest.mark.parametrize("name", ["tasks", "swaps", "energy", "trace", "events", "trials"])
def test_columns_are_documented(run, name):
    columns = [re.sub(r"^accuracy_\d+$", "accuracy_<j>", column) for column in pd.read_csv(run / f"{name}.csv")]
    assert documented(f"{name}.csv") == list(dict.fromkeys(columns))


def test_run_json_is_documented(run):
    content = json.loads((run / "run.json").read_text())
    assert documented("run.json") == list(content)
    text = (ROOT / "docs" / "run_format.md").read_text()
    windows = {window for window in pd.read_csv(run / "energy.csv")["window"]}
    for key in content["summary"]:
        window, _, rest = key.partition("_")
        assert f"`{f'<window>_{rest}' if window in windows else key}`" in text, key
    for key in [*content["environment"], *content["energy"]]:
        assert f"`{key}`" in text, key


def test_every_file_of_a_run_is_documented(run):
    text = (ROOT / "docs" / "run_format.md").read_text()
    for file in run.iterdir():
        assert f"`{file.name}" in text, file.name
