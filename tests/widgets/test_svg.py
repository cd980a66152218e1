import re
from base64 import b64decode
from xml.etree import ElementTree

import numpy as np
import pytest
from pages import EVIL, Tags

from mirolib.widgets.svg import Axis, Band, Line, as_images, chart, number


def test_a_chart_draws_every_value_where_its_scale_says():
    line = Line("a", np.array([0.0, 5.0, 10.0]), np.array([0.0, 50.0, 100.0]), "#0072B2", markers=True)
    page = chart("Title", Axis("x"), Axis("y, %", 0, 100), [line])
    dots = [tuple(map(float, dot)) for dot in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y0 > y2
    assert {"0", "50", "100", "x", "y, %", "Title", "a"} <= set(Tags(page).text)


def test_charts_survive_whatever_numbers_there_are():
    nothing, gap = np.zeros(0), np.array([np.nan, 1.0, np.nan, np.inf, 2.0])
    lines = [Line("", nothing, nothing, "red"), Line("b", np.arange(5.0), gap, "red", step=True, markers=True)]
    for some in ([], lines[:1], lines):
        page = chart("t", Axis("x"), Axis("y"), some, [Band("phase", -5.0, 900.0, "red")])
        assert "nan" not in page and "inf" not in page
        Tags(page)
    assert chart("t", Axis("x"), Axis("y"), lines).count("<circle") == 2, "gaps have no dots"


def test_long_lines_are_thinned_and_texts_escaped():
    long = np.arange(100_000.0)
    page = chart(EVIL, Axis(EVIL), Axis(EVIL), [Line(EVIL, long, long, "red")], [Band(EVIL, 0, 1, "red")])
    assert len(page) < 10_000 and "script" not in Tags(page).seen


def test_a_chart_as_an_image_is_a_drawing_of_its_own():
    one = Line(EVIL, np.arange(3.0), np.arange(3.0), "currentColor")
    page = as_images(f"<p>{chart(EVIL, Axis('x'), Axis('y'), [one])}{chart('b', Axis('x'), Axis('y'), [])}</p>")
    drawings = [ElementTree.fromstring(b64decode(text)) for text in re.findall(r'svg\+xml;base64,([^"]*)"', page)]
    assert [root.tag for root in drawings] == ["{http://www.w3.org/2000/svg}svg"] * 2
    assert "<svg" not in page and "currentColor" not in ElementTree.tostring(drawings[0], "unicode")
    assert "script" not in Tags(page).seen


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1500, "1500"), (25_000, "25k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_short_numbers(value, text):
    assert number(value) == text
