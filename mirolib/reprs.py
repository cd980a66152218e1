"""How objects look in a notebook: small tables of facts, every text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirolib.recording import RunResult


def size_text(size_bytes: float) -> str:
    """A size for people, such as `12.5 KiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:,.0f} bytes" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"


def facts(title: str, values: Mapping[str, object]) -> str:
    """HTML of named values under a title."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<table><caption><b>{html.escape(title)}</b></caption><tbody>{rows}</tbody></table>"


def grid(title: str, rows: Sequence[Mapping[str, object]]) -> str:
    """HTML of rows that have the same columns, under a title."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in (rows[0] if rows else ()))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    title = html.escape(title)
    return f"<table><caption><b>{title}</b></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def run_facts(result: RunResult) -> dict[str, object]:
    """What a run was and how it ended, by name."""
    summary, settings = result.summary, result.settings
    values: dict[str, object] = {
        "data set": f"{settings.dataset} ({settings.preset})",
        "controller": settings.controller,
        "method": settings.method,
        "tasks": f"{len(result.records)} of {settings.tasks}",
    }
    if summary:
        joules, kind = float(str(summary["learning_energy_j"])), summary["energy_kind"]
        unknown = "no sensor" if kind == "none" else f"not known ({kind})"
        values |= {
            "final accuracy": f"{summary['final_accuracy']:.1%}",
            "forgetting": f"{summary['forgetting']:.1%}",
            "work of learning": f"{summary['learning_work']:,.0f} sample visits",
            "energy of learning": unknown
            if math.isnan(joules)
            else f"{joules:,.4g} J ({kind}, {summary['energy_scope']})",
        }
    return values | {"folder": result.path}
