"""The forest plot and the reliability charts: what is drawn is what the figures say."""

from __future__ import annotations

import re

from told import everything

from limbeck.report.calibration import calibration, reliability
from limbeck.report.markup import rendered
from limbeck.report.slices import forest, slices
from limbeck.report.story import Calibration, Kept, Part, Reliability, Slices


def circles(markup: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', markup)]


def test_a_bar_reaches_from_the_dot_to_the_bound():
    markup = forest("f", 700, [("a", Kept(value=0.9, bound=0.8)), ("b", Kept(value=1.0, bound=0.95))], "ratio").text
    (first, y), (second, _) = circles(markup)
    baseline = float(re.search(r'<line x1="([\d.]+)"[^>]*class="limit"', markup)[1])
    bars = [(float(a), float(b)) for a, b in re.findall(rf'<line x1="([\d.]+)" y1="{y:g}" x2="([\d.]+)" y2="{y:g}" class="interval"', markup)]
    assert second == baseline > first and bars[0][1] == first and abs((baseline - first) - (first - bars[0][0])) < 0.1
    assert "<desc" in markup and "a: 90.0 %, at least 80.0 %; b: 100.0 %, at least 95.0 %." in markup


def test_a_drop_reaches_to_the_right_of_no_change():
    markup = forest("f", 340, [("a", Kept(value=0.1, bound=0.3, kind="drop"))], "drop").text
    (value, y) = circles(markup)[0]
    start, end = re.search(rf'<line x1="([\d.]+)" y1="{y:g}" x2="([\d.]+)" y2="{y:g}" class="interval"', markup).groups()
    assert float(start) == value < float(end) and "drop 0.1000, at most 0.3000" in markup


def test_the_least_kept_comes_first_and_what_proves_nothing_last():
    text = rendered(slices(everything().slices))
    rows = re.findall(r'<th scope="row">([^<]*)', text)
    assert [r[:4] for r in rows] == ["&lt;", "day", "dusk", "none"] and text.count("dusk") == 1  # a drop has no place on an axis of ratios
    empty = rendered(slices(Slices(parts=(Part(name="none", samples=0, note="no sample"),), confidence=0.95)))
    assert "<svg" not in empty and "no sample" in empty


def test_a_calibrated_bin_lies_on_the_line():
    markup = reliability("r", Reliability(name="final", ece=0.1, high=None, bins=((0.6, 0.6, 10), (0.9, 0.7, 10))), 0.6).text
    on, below = circles(markup)
    x1, y1, x2, y2 = map(float, re.search(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="p90"', markup).groups())
    line = lambda x: y1 + (y2 - y1) * (x - x1) / (x2 - x1)  # noqa: E731
    assert abs(on[1] - line(on[0])) < 0.1 and below[1] > line(below[0]) + 20
    assert "says 90.0 %, right 70.0 % of 10" in markup


def test_the_increase_of_the_error_is_told_with_its_bound():
    models = (Reliability(name="baseline", ece=0.02, high=0.03, bins=((0.5, 0.5, 30),)), Reliability(name="final", ece=0.05, high=0.07, bins=((0.9, 0.8, 30),)))
    told = rendered(calibration(Calibration(models=models, increase=0.03, increase_high=0.061)))
    assert "error is 0.0300 larger than the baseline" in told and "at most 0.0610 larger" in told
    assert "0.0300 smaller" in rendered(calibration(Calibration(models=models, increase=-0.03, increase_high=0.01)))
    assert "larger" not in rendered(calibration(Calibration(models=models)))
