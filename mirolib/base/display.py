"""How objects look in a notebook: small tables of facts, every text escaped."""

import html
from collections.abc import Mapping, Sequence


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
