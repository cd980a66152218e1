"""Small line charts as SVG text.

They take their text colour from the page, so that they read on light and dark ones; they need no code in the browser
and leave little in a saved notebook, where a plotly `FigureWidget` leaves five megabytes.
"""

import html
import math
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 460, 175  # of the drawing; the page scales it to its cell
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34  # room for tick labels and titles
_MOST_POINTS = 300  # of a line: more can't be told apart on 400 pixels, and all are sent at each drawing
_Place = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Line:
    """A line of a chart: `(n,)` values over rising positions, NaN leaving a gap; without a name it has no legend.

    In a `step` a value holds until the next, `dash` is lengths of dashes and gaps as SVG writes them, the width is in
    pixels, and with `markers` each point gets a dot.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    step: bool = False
    dash: str = ""
    width: float = 2.0
    markers: bool = False


@dataclass(frozen=True)
class Band:
    """A stretch of the horizontal axis shaded in a CSS colour; those of one name share an entry in the legend."""

    name: str
    start: float
    end: float
    colour: str


@dataclass(frozen=True)
class Axis:
    """An axis from `least` to `most` or beyond; its title has the unit, its ticks are whole numbers if `whole`."""

    title: str
    least: float = 0.0
    most: float = 0.0
    whole: bool = False


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line], bands: Sequence[Band] = ()) -> str:
    """HTML of a chart with title and legend; axes grow with the lines, long lines are thinned out, bands lie behind."""
    across, columns = _scale(x, [line.x for line in lines], _LEFT, WIDTH - _RIGHT)
    up, rows = _scale(y, [line.y for line in lines], HEIGHT - _BOTTOM, _TOP)  # pixels are counted from above
    parts = []
    for band in bands:
        start, end = np.clip(across(np.array([band.start, band.end])), _LEFT, WIDTH - _RIGHT)
        parts.append(
            f'<rect x="{start:.1f}" y="{_TOP}" width="{max(end - start, 0):.1f}" height="{HEIGHT - _BOTTOM - _TOP}" '
            f'fill="{band.colour}" opacity="0.3"><title>{html.escape(band.name)}</title></rect>'
        )
    for value, place in zip(rows, up(rows), strict=True):
        parts.append(f'<path class="grid" d="M{_LEFT} {place:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{place + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value, place in zip(columns, across(columns), strict=True):
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - _BOTTOM + 15}" text-anchor="middle">{number(value)}</text>')
    middle, centre = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x.title)}</text>')
    turned = f'transform="translate(12 {centre}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{html.escape(y.title)}</text>')
    parts += [_draw(line, across, up) for line in lines]  # last, over bands and grid
    label = html.escape(title, quote=True)
    return (
        f'<figure class="miro-chart"><figcaption>{label}</figcaption>{_legend(lines, bands)}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


def as_images(page: str) -> str:
    """HTML with its charts as images, which pages that trust no drawing show too; their texts are grey on any page."""
    style = "<style>text{fill:#888;font:11px sans-serif}.grid{stroke:#888;opacity:.3}</style>"

    def image(found: re.Match[str]) -> str:
        head, body = '<svg xmlns="http://www.w3.org/2000/svg"', found[3].replace("currentColor", "#888")
        drawn = b64encode(f"{head}{found[1]}>{style}{body}</svg>".encode()).decode()
        return f'<img width="100%" alt="{found[2]}" src="data:image/svg+xml;base64,{drawn}"/>'

    return re.sub(r'<svg([^>]* aria-label="([^"]*)")>(.*?)</svg>', image, page, flags=re.DOTALL)


def _scale(axis: Axis, values: Sequence[np.ndarray], start: float, end: float) -> tuple[_Place, np.ndarray]:
    """From values to pixels, over the axis's own range and all finite values; and where its ticks are."""
    found = np.concatenate([np.array([axis.least, axis.most]), *values])
    found = found[np.isfinite(found)]
    low, high = float(found.min()), float(found.max())
    if high <= low:  # nothing yet, or all the same
        high = low + 1.0
    least = (high - low) / 4  # four at most: labels don't touch
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    step = max(1.0, step) if axis.whole else step
    # 1e-9: a tick at the very end is one in spite of rounding
    ticks = step * np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return lambda some: start + (np.asarray(some) - low) / (high - low) * (end - start), ticks


def number(value: float) -> str:
    """A number to about three figures, such as `12`, `1.5k` or `0.25`."""
    for least, factor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.4g}"


def _draw(line: Line, across: _Place, up: _Place) -> str:
    keep = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), _MOST_POINTS)).round().astype(int))
    (on, to), path, dots, pen = ("H", "V") if line.step else ("L", " "), "", "", False
    for px, py in zip(across(line.x[keep]).tolist(), up(line.y[keep]).tolist(), strict=True):
        if math.isfinite(py):
            path += f"{on}{px:.1f}{to}{py:.1f}" if pen else f"M{px:.1f} {py:.1f}"
            dots += f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{line.colour}"/>' if line.markers else ""
        pen = math.isfinite(py)  # lifted over a gap
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    return f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="{line.width}"{dash}/>{dots}'


def _legend(lines: Sequence[Line], bands: Sequence[Band]) -> str:
    named = {line.name: f'<i style="border-top:3px {"dashed" if line.dash else "solid"} {line.colour}"></i>'
             for line in lines if line.name}  # fmt: skip
    named |= {band.name: f'<i class="band" style="background:{band.colour}"></i>' for band in bands}
    return '<div class="legend">' + "".join(f"<span>{s}{html.escape(n)}</span>" for n, s in named.items()) + "</div>"
