"""What the report draws of a device's studies is what the figures say."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from device_figures import COLD_START, COUNTED, MEMORY, MODELLED, THROUGHPUT

from limbeck.report.markup import rendered
from limbeck.report.studies import TELL
from limbeck.report.studies.cold_start import bars
from limbeck.report.studies.energy import millijoules, ranges
from limbeck.report.studies.memory import course
from limbeck.report.studies.throughput import lines

ALL = [("cold_start", COLD_START), ("throughput", THROUGHPUT), ("memory", MEMORY), ("energy", MODELLED), ("energy", COUNTED)]


def told(name: str, found: dict[str, Any]) -> str:
    return rendered(TELL[name][1](found))


def text_of(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup))


def alone(found: dict[str, Any]) -> dict[str, Any]:
    """The same without a baseline."""
    if "points" in found:
        points = [{k: v for k, v in p.items() if k != "baseline"} | {"ratio": None} for p in found["points"] if p["candidate"]]
        return found | {"points": points, "fixed_batch": {"candidate": None}, "left_out": []}
    return found | {"models": {"candidate": found["models"]["candidate"]}}


@pytest.mark.parametrize(("name", "found"), ALL)
def test_a_picture_has_a_title_and_a_text_and_shows_no_markup_of_others(name: str, found: dict[str, Any]):
    markup = told(name, found)
    assert markup.count("<svg viewBox") - markup.count('class="swatch"') == markup.count("<desc") == markup.count('role="img"') == 2  # narrow and wide
    assert "<caption" in markup and "<script" not in markup
    assert not re.search(r"<(here|for|wide|counter)>", markup)


@pytest.mark.parametrize(("name", "found"), ALL)
def test_one_model_alone_is_told_too(name: str, found: dict[str, Any]):
    markup = told(name, alone(found))
    assert "candidate" in markup and "baseline" not in markup


def test_a_starts_parts_lie_end_to_end():
    markup = bars("b", 700, COLD_START["models"]).text
    boxes = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="26" width="([\d.]+)"', markup)]
    assert len(boxes) == 4 and all(abs(a + w - b) < 0.05 for (a, w), (b, _) in pairwise(boxes))
    assert abs(boxes[0][1] / sum(w for _, w in boxes) - 0.7) < 0.01
    assert markup.count('class="median"') == 2  # the interval of the one that has one
    text = text_of(told("cold_start", COLD_START))
    assert "too few starts" in text and "390 ms to 410 ms" in text and "2 starts waited" in text and "that isn&#x27;t permitted &lt;here&gt;" in text


def test_each_number_of_threads_and_model_is_a_line_through_its_points():
    markup = lines("t", 700, THROUGHPUT["points"]).text
    assert markup.count("<circle") == 5 and markup.count("<polyline") == 1  # a line takes two points: only the baseline's with one thread
    assert "baseline, 1 thread: batch 1 1,000, batch 2 1,500; baseline, 2 threads: batch 1 1,800; candidate, 1 thread: batch 1 2,000" in markup
    up = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', markup)]
    assert up[0] > up[1] > up[3] > up[4]  # 1,000, 1,500, 2,000, 3,600
    text = text_of(told("throughput", THROUGHPUT))
    assert "The candidate takes 1 at once" in text and "Not measured, there was no time left &lt;for&gt; it: batch 64 with 2 threads." in text and "2.00×, 1.50× to 2.50×" in text
    late, large = ({"threads": n, "batch": b, "why": why} for n, b, why in ((2, 64, "no time"), (2, 32, "no batch of 32 here.")))
    many = text_of(told("throughput", THROUGHPUT | {"left_out": [late | {"threads": 1, "batch": 32}, late | {"threads": 1}, late, large]}))
    assert "Not measured, no time: batch 32, 64 with 1 thread; batch 64 with 2 threads. Not measured, no batch of 32 here: batch 32 with 2 threads." in many, "a reason once"


def test_the_course_of_memory_peaks_where_the_figures_do():
    markup = course("m", 700, {"candidate": [10, 100, 20]}).text
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]*)"', markup)[1].split()]
    assert min(points, key=lambda p: p[1]) == points[1] and points[0][0] < points[1][0] < points[2][0]
    text = text_of(told("memory", MEMORY))
    assert "no plan: torch plans none ahead" in text and "1.20 MB" in text and "Conv &lt;wide&gt;, step 2 of 3" in text
    assert all(f"({how})" in text for how in ("computed", "planned", "measured"))


def test_modelled_energy_is_called_so_wherever_it_is_shown():
    text = text_of(told("energy", MODELLED))
    assert text.count("odelled") >= 4 and "not measured: there is no &lt;counter&gt;" in text and "Einsum" in text and "keeps no limit" in text
    counted = text_of(told("energy", COUNTED))
    assert "odelled" not in counted and "12.3 W" in counted and "other processes" in counted.lower() and "-100 µJ to 1.2 mJ" in counted


def test_a_bar_of_energy_reaches_from_end_to_end():
    markup = ranges("e", 700, MODELLED["models"], "x").text
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', markup)]
    ends = [(float(a), float(b)) for a, b in re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="interval"', markup)]
    assert len(dots) == len(ends) == 2 and all(a < x < b for x, (a, b) in zip(dots, ends, strict=True)) and dots[0] > dots[1]


@pytest.mark.parametrize(("value", "shown"), [(1500, "1.5 J"), (2.5, "2.5 mJ"), (0.004, "4 µJ"), (5e-7, "0.5 nJ"), (0.0, "0 nJ"), (None, "–")])
def test_energy_is_shown_in_the_unit_that_fits(value: float | None, shown: str):
    assert millijoules(value) == shown
