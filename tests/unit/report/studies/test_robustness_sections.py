"""What the report draws of corruption, of inputs outside and at the edge is what the figures say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from robustness_figures import ALONE, EDGES, OUTSIDE, SHIFT

from limbeck.report.markup import rendered
from limbeck.report.scales import Scale
from limbeck.report.studies import TELL
from limbeck.report.studies.outside import hills
from limbeck.report.studies.shift import curves


def told(name: str, found: dict[str, Any]) -> str:
    return rendered(TELL[name][1](found))


def text_of(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup))


@pytest.mark.parametrize(("name", "found", "pictures"), [("shift", SHIFT, 2), ("shift", ALONE, 1), ("outside", OUTSIDE, 2), ("edges", EDGES, 0)])
def test_a_picture_has_a_title_and_a_text_and_shows_no_markup_of_others(name: str, found: dict[str, Any], pictures: int):
    markup = told(name, found)
    assert markup.count("<svg viewBox") - markup.count('class="swatch"') == markup.count("<desc") == markup.count('role="img"') == pictures
    assert "<caption" in markup and "<script" not in markup and "None" not in text_of(markup)
    assert not re.search(r"<(b|i)>", markup)
    assert len(set(re.findall(r'aria-labelledby="([^"]+)"', markup))) == pictures


def test_a_curve_goes_through_the_metric_at_each_strength():
    up = Scale(0.5, 1.0, 176.0, 12.0)
    markup = curves("c", SHIFT["kinds"][0], SHIFT["clean"], up).text
    lines = {kind: [tuple(map(float, p.split(","))) for p in points.split()] for points, kind in re.findall(r'<polyline points="([^"]+)" class="([^"]+)"', markup)}
    assert set(lines) == {"series", "series base series-2"} and all(len(points) == 6 for points in lines.values())
    for (_, y), value in zip(lines["series"], [0.88, *(0.88 - 0.06 * s for s in range(1, 6))], strict=True):
        assert abs(y - up(value)) < 0.1
    uprights = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="\1" y2="([\d.]+)" class="axis"', markup)
    assert len(uprights) == 10 and any(abs(float(a) - up(0.82 - 0.05)) < 0.1 and abs(float(b) - up(0.82 + 0.04)) < 0.1 for _, a, b in uprights)
    assert "baseline: 0.9000 at 0, 0.8500 at 1" in markup


def test_what_is_kept_and_the_worst_kind_are_said():
    text = text_of(told("shift", SHIFT))
    assert "keeps 85.0 %, at least 81.0 %" in text and "Least is kept under fog" in text and "jpeg: left out" in text
    assert "by their shape and range alone" in text and "by their shape" not in text_of(told("shift", SHIFT | {"derived": False}))
    assert text.count("odd &lt;i&gt;") == 5
    alone = text_of(told("shift", ALONE))
    assert "isn't known: there is no baseline" in alone.replace("&#x27;", "'") and "baseline → " not in alone
    kinds = [kind | {"retention": kind["retention"] and kind["retention"] | {"kind": "drop"}} for kind in SHIFT["kinds"]]
    drop = text_of(told("shift", SHIFT | {"overall": {"value": 0.2, "low": 0.3, "kind": "drop", "units": 9}, "kinds": kinds}))
    assert "the candidate is worse: drop 0.2000, at most 0.3000" in drop and "Most is lost under" in drop and "kept drop" not in drop and "keeps drop" not in drop


def test_a_hill_is_as_high_as_its_fullest_bin():
    markup = hills("h", OUTSIDE["sets"][0], OUTSIDE["inside"], ["baseline", "candidate"]).text
    paths = re.findall(r'<path d="([^"]+)" class="(hill[^"]*)"', markup)
    assert [kind for _, kind in paths] == ["hill control", "hill"] * 2
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", paths[1][0])]
    base = max(ys)
    assert base - min(ys) == pytest.approx(44, abs=0.1) and base - ys[1] == 0 and base - ys[3] == pytest.approx(44 * 3 / 5, abs=0.1)
    assert "mean 90.0 % inside, 50.0 % outside, AUROC 0.9000" in markup


def test_who_is_surer_is_said():
    assert "candidate is surer than the baseline of inputs that belong to no class: other" in text_of(told("outside", OUTSIDE))
    calm = OUTSIDE | {"sets": OUTSIDE["sets"][1:]}
    assert "On none of the sets" in text_of(told("outside", calm))
    one = {"inside": {"candidate": OUTSIDE["inside"]["candidate"]}, "sets": [s | {"baseline": None, "auroc_change": None, "surer": None} for s in OUTSIDE["sets"]]}
    alone = text_of(told("outside", OUTSIDE | one))
    assert "no baseline" in alone and "candidate: sure" in alone and "baseline: sure" not in alone


def test_what_goes_wrong_is_red_and_first():
    markup = told("edges", EDGES)
    assert re.findall(r'<th scope="row">([^<]*)', markup) == ["10 × range", "all zero", "+ infinity"]
    assert markup.count('<strong class="error">') == 1 and '<strong class="error">crashed</strong>' in markup and '<p class="error">1 of 3' in markup
    well = told("edges", EDGES | {"red": 0, "cases": EDGES["cases"][:1]})
    assert 'class="error"' not in well and "No input was found" in well
