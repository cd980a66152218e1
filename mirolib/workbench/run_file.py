"""Files of a run as they are read back: plain ones of bounded size, compared with their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mirolib.base.files import read_bounded

RUN_FORMAT = 1
SUMS = "SHA256SUMS"
"""Checksums of an ended run's files, as `sha256sum --check` reads them."""

MODEL = "model.safetensors"
"""What a finished run has learnt; it may be deleted to save space."""

_UNDER_WAY = ("running", "died")  # what has not ended has no checksums yet, or those of which it was about to say so


def read_run(file: Path) -> dict[str, Any]:
    """A `run.json`.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no JSON, of another format, or not what the checksums of the run, which has ended, say.
    """
    content = read_bounded(file)
    run = json.loads(content, parse_int=_bounded)
    json.dumps(run, ensure_ascii=False).encode()  # half a character would stop whoever prints or writes it
    if run["format"] != RUN_FORMAT:
        raise ValueError(f"it is of format {run['format']!r} and this version of mirolib reads {RUN_FORMAT}")
    if run["status"] not in _UNDER_WAY:
        _check(file, content)
    return run


def doubt(file: Path, run: dict[str, Any]) -> str:
    """Why what a `run.json` says can't be vouched for, in a sentence; empty if it can.

    Raises:
        OSError: If the checksums can't be read.
        ValueError: If they are no plain file, or too large.
    """
    folder, its = file.parent, f"{run['notebook']}/{run['run_id']}"
    if its != f"{folder.parent.name}/{folder.name}":
        return f"it is run {its}: the folder was copied or renamed; give it that name again, or delete the copy"
    if run["status"] in _UNDER_WAY:
        return ""
    if not (sums := folder / SUMS).exists():
        return f"{SUMS} is gone, without which nothing tells whether it was changed; put it back"
    names = [line[66:] for line in read_bounded(sums).decode("utf-8", "replace").splitlines()]
    gone = [name for name in names if name != MODEL and not (folder / name).exists()]
    return f"{gone[0]:.99} is gone, which {SUMS} names; put it back" if gone else ""


def _bounded(digits: str) -> int:
    if abs(number := int(digits)) >= 1 << 63:  # what a column holds
        raise ValueError(f"it has a number of {len(digits)} digits")
    return number


def checked_bytes(file: Path, most_bytes: int = 64 << 20) -> bytes:
    """The content of a file of a run, compared with the run's list of checksums where it has ended.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not what the list says, no plain file, or too large.
    """
    content = read_bounded(file, most_bytes)
    _check(file, content)
    return content


def _check(file: Path, content: bytes) -> None:
    if (sums := file.parent / SUMS).exists():
        line = f"{hashlib.sha256(content).hexdigest()}  {file.name}"
        if line not in read_bounded(sums).decode("utf-8", "replace").split("\n"):
            raise ValueError(f"{file.name} is not what {SUMS} says; it was damaged or changed by hand")
