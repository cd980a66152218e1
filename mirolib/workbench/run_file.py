"""What a file of a run says: read with its checksum, and refused where it is no run of this format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

RUN_FORMAT = 1
SUMS = "SHA256SUMS"
"""Checksums of an ended run's files, as `sha256sum --check` reads them."""

_MOST_DIGITS = 25


def read_run(file: Path) -> dict[str, Any]:
    """A `run.json`.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no JSON, or of another format.
    """
    run = json.loads(checked_bytes(file), parse_int=_bounded)
    json.dumps(run, ensure_ascii=False).encode()  # half a character would stop whoever prints or writes it
    if run["format"] != RUN_FORMAT:
        raise ValueError(f"it is of format {run['format']!r} and this version of mirolib reads {RUN_FORMAT}")
    return run


def _bounded(digits: str) -> int:
    """An integer of JSON that a table can hold."""
    if abs(number := int(digits) if len(digits) < _MOST_DIGITS else 1 << 63) >= 1 << 63:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return number


def checked_bytes(file: Path) -> bytes:
    """The content of a file of a run, compared with the run's list of checksums where it has ended.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not what the list says.
    """
    content, sums = file.read_bytes(), file.parent / SUMS
    if sums.exists():
        line = f"{hashlib.sha256(content).hexdigest()}  {file.name}"
        if line not in sums.read_text("utf-8", "replace").split("\n"):
            raise ValueError(f"{file.name} is not what {SUMS} says; it was damaged or changed by hand")
    return content
