"""What a run used, as BibTeX."""

from __future__ import annotations

from importlib.resources import files

from mirolib.experiment.settings import RunSettings
from mirolib.workbench.run import Run


class BibTeX(str):
    """BibTeX entries, shown in a notebook as one would paste them."""

    __repr__ = str.__str__


def cite(run: Run | RunSettings) -> BibTeX:
    """BibTeX of what a run used: Miro, CarM, and the papers of its method, model and data set.

    What is the user's own, or has no paper, is left out. Each entry's key is the name used here.
    """
    chosen = run.row if isinstance(run, Run) else vars(run)
    names = ["miro", "carm", *(chosen.get(part) for part in ("method", "model", "dataset"))]
    text = files("mirolib.workbench").joinpath("references.bib").read_text(encoding="utf-8")
    entries = {entry.partition("{")[2].partition(",")[0]: entry.strip() for entry in text.split("\n\n")}
    return BibTeX("\n\n".join(entries[name] for name in names if name in entries))
