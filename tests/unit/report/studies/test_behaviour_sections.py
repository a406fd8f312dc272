"""Answers, forgotten samples, found slices and layers in the report: what stands there is what was measured, and nothing breaks the page."""

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "studies"))
from known_behaviour import LAYERS, figures

from limbeck.report.calibration import calibration
from limbeck.report.markup import rendered
from limbeck.report.story import Calibration, Reliability
from limbeck.report.studies import TELL


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, Any]:
    return figures(tmp_path_factory.getbasetemp() / "behaviour")


def page(name: str, data: Any) -> str:
    markup = rendered(TELL[name][1](data))
    ElementTree.fromstring(f"<main>{markup.replace('&nbsp;', ' ')}</main>")  # every element closes
    assert "None" not in markup and "nan" not in markup.lower().replace("nanosecond", "")
    return markup


def text(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", markup))


def test_answers_of_classes(told):
    data = told["classes"]["answers"]
    shown = page("answers", data)
    assert f"{100 * data['agreement']['share']:.2f} %" in shown and f"at least {100 * data['agreement']['low']:.2f} %" in shown
    assert f"sample {data['worst'][0]['id']}" in shown and "cow &amp; calf" in shown and "b&lt;e&gt;e" in shown
    assert "How sure the" not in shown  # the section on calibration draws it


def test_confidence_is_drawn_where_the_rows_do_not_hold_it(told):
    shown = page("answers", told["blind"]["answers"])
    assert shown.count("<svg") == 2 and 'role="img"' in shown and "800 right" in shown and "0 wrong" in shown


def test_answers_that_are_numbers(told):
    data = told["numbers"]["answers"]
    shown = page("answers", data)
    assert shown.count("<svg") == 2 and "300 differences" in shown and f"sample {data['worst'][0]['id']}" in shown and "Cosine" in shown


def test_forgotten(told):
    data = told["classes"]["forgotten"]
    shown = text(page("forgotten", data))
    assert f"loses {data['lost']}" in shown and "cow &amp; calf" in shown and "yes, p =" in shown and "McNemar" in shown
    assert f"The {len(data['worst'])} lost samples" in shown


def test_a_found_slice_stands_in_words(told):
    data = told["classes"]["found_slices"]
    best = data["found"][0]
    shown = text(page("found_slices", data))
    assert "label = cow &amp; calf" in shown and f"{best['harmed']} of {best['samples']} held-out samples went from right to wrong" in shown
    assert f"at most {100 * min(best['retention_high'], 1):.1f} %" in shown


def test_nothing_found_and_nothing_lost_are_said(told):
    assert "Nothing was found" in page("found_slices", told["same"]["found_slices"])
    assert "loses 0" in page("forgotten", told["same"]["forgotten"]) and "No answer moved" in page("answers", told["same"]["answers"])


def test_a_drop_of_numbers_is_told_in_their_unit(told):
    assert "by label" not in page("found_slices", told["numbers"]["found_slices"])


def test_layers_in_order_and_all_against_all():
    shown = page("layers", LAYERS)
    assert "body.a&lt;b&gt; moved most, to 0.410; it is more like stem (0.620)" in shown
    assert shown.count("<svg") == 2 and shown.index("stem") < shown.index("head") and "none answers" in shown
    assert "--heat:54%" in shown and "--heat:0%" in shown  # 0.98 and -0.02


def test_no_layer_answers():
    assert "No layer moved. The mean is" in page("layers", LAYERS | {"moved_most": None})
    rows = [layer | {"baseline": None, "by": None, "cka": None} for layer in LAYERS["layers"]]
    shown = page("layers", LAYERS | {"layers": rows, "moved_most": None, "mean": None})
    assert "<svg" not in shown and "moved most" not in shown


def test_confidence_stands_beside_reliability_on_one_scale():
    bins = ((0.6, 0.5, 30), (0.95, 0.9, 70))
    right, wrong = [0] * 20, [0] * 20
    right[12], right[19], wrong[12] = 15, 64, 15
    known = Reliability(name="baseline", ece=0.05, high=None, bins=bins, histogram=(tuple(right), tuple(wrong)))
    flat = Reliability(name="final", ece=0.05, high=None, bins=bins, histogram=(tuple(right[::-1]), tuple(wrong)))
    shown = rendered(calibration(Calibration(models=(known, flat))))
    assert shown.count("How sure the baseline is") >= 1 and "79 right, of which 64 at 90 % or more; 15 wrong, of which 0 at 90 % or more" in shown
    assert shown.count(">64<") == 2 and shown.count("bar control") == 2
    older = rendered(calibration(Calibration(models=(Reliability(name="final", ece=0.05, high=None, bins=bins),))))
    assert "How sure" not in older and "Reliability of the final" in older
