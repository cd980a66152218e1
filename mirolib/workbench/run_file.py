"""Files of a run as they are read back: plain ones of bounded size, compared with their checksums."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

RUN_FORMAT = 1
SUMS = "SHA256SUMS"
"""Checksums of an ended run's files, as `sha256sum --check` reads them."""

_MOST_BYTES = 64 << 20  # a table of a million rows fits


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
    if abs(number := int(digits)) >= 1 << 63:  # what a column holds
        raise ValueError(f"it has a number of {len(digits)} digits")
    return number


def _bounded_bytes(file: Path) -> bytes:
    about = file.stat()
    # a pipe would be waited for without end, and a file of holes fill the memory of a board
    if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
        raise ValueError(f"{file.name} is no file of at most {_MOST_BYTES >> 20} MiB")
    return file.read_bytes()


def checked_bytes(file: Path) -> bytes:
    """The content of a file of a run, compared with the run's list of checksums where it has ended.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not what the list says, no plain file, or too large.
    """
    content, sums = _bounded_bytes(file), file.parent / SUMS
    if sums.exists():
        line = f"{hashlib.sha256(content).hexdigest()}  {file.name}"
        if line not in _bounded_bytes(sums).decode("utf-8", "replace").split("\n"):
            raise ValueError(f"{file.name} is not what {SUMS} says; it was damaged or changed by hand")
    return content
