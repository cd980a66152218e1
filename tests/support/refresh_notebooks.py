"""Runs every notebook top to bottom and saves its outputs, tidied for git: `make notebooks`.

Pictures beside the plotly figures need the extra `png` and a Chrome or Chromium.
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"/[\w./-]+")
_KEPT = {"tags"}
_READERS = {"20_paper_figures"}  # they run nothing of their own and show what MIRO_RESULTS, or the repository, holds


def shrink(picture: str) -> str:
    """A PNG in 64 colours, a fifth of its size: plots have few."""
    small = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA").quantize(64).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drops what is of this run only: timings, widget state, temporary paths, noise of the picture maker."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in _KEPT}
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            output
            for output in cell.outputs
            if output.get("name") != "stderr"
            and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        ]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = shrink(output.data["image/png"])
            if output.output_type == "error":
                output.traceback = [_TEMPORARY.sub("…", line) for line in output.traceback]
                output.evalue = _TEMPORARY.sub("…", output.evalue)


def main(names: list[str]) -> None:
    """Refreshes the notebooks named, or all."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype+png"
    chosen = os.environ.get("MIRO_RESULTS", "")
    for path in [NOTEBOOKS / f"{name}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as results:
            os.environ["MIRO_RESULTS"] = chosen if path.stem in _READERS else results
            NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
        tidy(notebook)
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
