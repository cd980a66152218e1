"""The dashboard in a real JupyterLab, as a person meets it: seen, and worked with the keyboard alone.

Its pictures in light and dark go to the folder that MIRO_SCREENSHOTS names, as docs/dashboard_light.png did.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from playwright import sync_api as playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# where CI is set, a browser that is missing is a failure: what is always skipped guards nothing
pytestmark = pytest.mark.skipif(not (CHROMIUM or os.environ.get("CI")), reason="apt-get install chromium")

CELLS = (
    "from mirolib import RunSettings\n"
    "from mirolib.widgets import Dashboard\n"
    "settings = RunSettings(epochs=1, controller='miro-2023', selector='highest-accuracy', energy='none')\n"
    "dashboard = Dashboard(settings, results='results')\n"
    "dashboard",
    "result = dashboard.run()\nprint(result.tasks['task'].tolist())",
)
LEAST_CONTRAST = 4.5  # of text, as WCAG 2 asks for
PATIENCE_MS = 240_000  # as a test on a busy machine may need it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a notebook that shows a dashboard and then trains in a cell."""
    path = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path / "dashboard.ipynb")
    return path


@pytest.fixture(scope="module")
def address(folder):
    """A JupyterLab of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    page_config = folder / "JUPYTER_CONFIG_DIR" / "labconfig" / "page_config.json"
    page_config.parent.mkdir(parents=True)
    page_config.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--no-browser", "--allow-root",
               "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
               f"--notebook-dir={folder}"]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(address):
    """A 13-inch screen with the notebook, all cells run."""
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(f"{address}/lab/tree/dashboard.ipynb")
        page.wait_for_function(
            "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        yield page
        browser.close()


def says(page, *texts):
    """Waits until the dashboard shows some texts; all that it then says."""
    board = "document.querySelector('.miro-dashboard')"
    try:
        page.wait_for_function(f"texts => {board} && texts.every(text => {board}.innerText.includes(text))", arg=texts)
    except playwright.TimeoutError:
        pytest.fail(f"{texts} did not appear in:\n{page.inner_text('.jp-Notebook')}")
    return page.inner_text(".miro-dashboard")


def press(page, what, *keys):
    """Presses keys on the element that the keyboard can reach; what can't be focused gets none."""
    element = page.locator(what)
    element.focus()
    assert element.evaluate("element => element === document.activeElement"), f"{what} can't be reached by keyboard"
    for key in keys:
        page.keyboard.press(key)


def button(page, name):
    press(page, f".miro-dashboard button:has-text('{name}')", "Enter")


def knob(name, part):
    return f".miro-knobs .widget-inline-hbox:has(label:text-is('{name}')) {part}"


def status(page):
    return page.inner_text(".miro-dashboard [role=status]")


def runs(folder):
    """Folder of the run with each status."""
    return {json.loads(path.read_text())["status"]: path.parent for path in folder.glob("results/*/*/run.json")}


def test_run_all_trains_in_the_cell(page):
    says(page, "Finished: average accuracy", "task 5, on arrival")
    assert page.inner_text(".jp-OutputArea-output >> text=[0, 1, 2, 3, 4]")
    page.wait_for_selector(".miro-dashboard button:has-text('Start'):enabled")


def test_start_pause_and_resume(page, folder):
    page.fill(".miro-form .widget-inline-hbox:has(label:text-is('epochs')) input", "200")
    page.keyboard.press("Tab")
    button(page, "Start")
    says(page, "Training: task 2 of 5")
    assert page.locator(".miro-form select:enabled").count() == 0, "settings change under way"
    button(page, "Pause")
    says(page, "Paused: task 2")
    before = status(page)
    page.wait_for_timeout(1000)
    assert status(page) == before and "Resume" in page.inner_text(".miro-dashboard")
    assert len(pd.read_csv(runs(folder)["running"] / "tasks.csv")) == 1


def test_a_budget_below_the_smallest_configuration_is_refused_and_put_back(page):
    before = page.inner_text(knob("budget, samples", ".widget-readout"))
    press(page, knob("budget, samples", ".noUi-handle"), "Home")
    says(page, "A memory budget of 1 samples does not hold the smallest configuration, 10 samples (800 bytes)")
    assert page.inner_text(knob("budget, samples", ".widget-readout")) == before
    assert "Paused" in status(page)


def test_a_lower_budget_strikes_out_rows_and_moves_to_another(page):
    assert page.locator(".miro-dashboard tr.over").count() == 0
    page.click(knob("budget, samples", ".widget-readout"))
    page.keyboard.press("Control+A")
    page.keyboard.type("40\n")
    says(page, "Memory budget: 40 samples, 3.1 KiB. The controller heeds it at the next epoch.", "too large")
    struck = page.locator(".miro-dashboard tr.over td").nth(1)
    assert "line-through" in struck.evaluate("cell => getComputedStyle(cell).textDecorationLine")
    button(page, "Resume")
    text = says(page, "memory budget 3,200 bytes", "samples, the best that fits")
    assert "(budget of slots 3.1 KiB)" in text


def test_congestion_is_felt_and_answered(page):
    press(page, knob("I/O congestion", ".noUi-handle"), "End")
    says(page, "10 kB/s", "training waited for storage", "swap ratio 1 to 0.5")


def test_the_cap_on_the_swap_ratio_acts(page):
    press(page, knob("swap ratio cap", ".noUi-handle"), "Home")
    says(page, "at most 0 of the replayed samples may be swapped")
    button(page, "Pause")  # so that the run does not end before it is stopped
    says(page, "Paused: task")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_reads_on_both_themes_without_sideways_scrolling(page, theme, folder):
    page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    page.wait_for_function(f"document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    page.set_viewport_size({"width": 1280, "height": 1250})  # for a picture of all of it
    page.locator(".miro-dashboard").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.screenshot(path=Path(os.environ.get("MIRO_SCREENSHOTS", folder)) / f"dashboard_{theme.lower()}.png")
    board = page.locator(".miro-dashboard")
    assert board.evaluate("board => board.scrollWidth <= board.clientWidth && board.clientWidth < 1280")
    fits = "parts => parts.filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.innerText)"
    for width in (1280, 1000):  # nothing of a table or a field's text is cut, nor hidden to the right
        page.set_viewport_size({"width": width, "height": 1250})
        page.wait_for_timeout(200)
        assert page.eval_on_selector_all(".miro-dashboard .miro-scroll, .miro-dashboard .widget-label", fits) == []
    colours = page.evaluate(
        "() => [getComputedStyle(document.querySelector('.miro-dashboard svg text')).fill,"
        " getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]"
    )
    lighter, darker = sorted(map(luminance, colours), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= LEAST_CONTRAST


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_stop_keeps_the_rows(page, folder):
    button(page, "Stop")
    says(page, "Stopped in task", "finished tasks left is in")
    page.wait_for_selector(".miro-dashboard button:has-text('Start'):enabled")
    assert set(runs(folder)) == {"finished", "interrupted"}
    assert len(pd.read_csv(runs(folder)["interrupted"] / "tasks.csv")) >= 1


def test_an_error_goes_when_it_is_mended(page):
    field = ".miro-form .widget-text:has(label:text-is('epochs')) input"
    page.fill(field, "many")
    says(page, "epochs is 'many'")
    page.wait_for_selector(".miro-form .miro-wrong")
    page.fill(field, "1")
    page.wait_for_selector(".miro-form .miro-wrong", state="detached")
    assert "many" not in page.inner_text(".miro-dashboard")


def test_who_trusts_nothing_and_has_no_kernel_sees_pictures(page, address, folder):
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    shown = nbformat.read(folder / "dashboard.ipynb", 4).cells
    (board,) = (output for output in shown[0].outputs if "text/html" in output.get("data", {}))
    assert board["data"]["text/html"].count("data:image/svg+xml") == 4 and "<svg" not in board["data"]["text/html"]
    del board["data"]["application/vnd.jupyter.widget-view+json"]  # as `dashboard.picture()` shows it
    nbformat.write(nbformat.v4.new_notebook(cells=[shown[0]]), folder / "sent.ipynb")
    other = page.context.browser.new_page(viewport={"width": 1000, "height": 1100})
    other.goto(f"{address}/lab/tree/sent.ipynb")
    other.wait_for_function("document.querySelectorAll('.jp-OutputArea img').length === 4", timeout=PATIENCE_MS)
    assert other.evaluate("[...document.querySelectorAll('.jp-OutputArea img')].every(one => one.naturalWidth > 100)")
    other.screenshot(path=Path(os.environ.get("MIRO_SCREENSHOTS", folder)) / "sent.png")
    other.close()


def test_the_browser_has_nothing_to_complain_about(page):
    assert page.complaints == []
