"""Answers, forgotten samples, found slices and layers in the terminal: a few lines each, with the figures that matter."""

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "studies"))
from known_behaviour import LAYERS, figures

from limbeck.cli.studies import SHOW, show


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, Any]:
    return figures(tmp_path_factory.getbasetemp() / "behaviour")


def lines(data: dict[str, Any]) -> str:
    out = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(out, data)
    return out.export_text()


def test_each_study_is_a_few_lines(told):
    data = told["classes"] | {"layers": LAYERS}
    for name in ("answers", "forgotten", "found_slices", "layers"):
        shown = lines({name: data[name]})
        assert name in SHOW and 1 <= len(shown.strip().splitlines()) <= 9 and "None" not in shown and "nan" not in shown


def test_what_they_say_is_what_was_measured(told):
    found = told["classes"]
    same, lost, best = found["answers"]["agreement"], found["forgotten"], found["found_slices"]["found"][0]
    assert f"the same on {same['share']:.2%} of 800 samples (at least {same['low']:.2%})" in lines({"answers": found["answers"]})
    assert f"forgotten: {lost['lost']} of 800" in (shown := lines({"forgotten": lost})) and "more than their part lost cow & calf" in shown
    assert f"{best['words']}: {best['harmed']} of {best['samples']} held-out samples flipped to wrong" in lines({"found_slices": found["found_slices"]})
    assert "body.a<b> moved most" in (shown := lines({"layers": LAYERS})) and "stem (0.620)" in shown and "the same" in shown


def test_nothing_to_tell_is_said(told):
    shown = lines(told["same"])
    assert "none loses more than the rest" in shown and "nothing of the 800 samples" in shown and "not one moved" in shown


def test_numbers(told):
    shown = lines(told["numbers"])
    assert "answers: they differ from the baseline's by +0.1" in shown and "correlation 0.99" in shown


def test_a_study_without_a_matched_layer_says_so():
    assert "none moved" in lines({"layers": LAYERS | {"moved_most": None}})
    rows = [layer | {"baseline": None, "by": None, "cka": None} for layer in LAYERS["layers"]]
    assert "none of the baseline's answers" in lines({"layers": LAYERS | {"layers": rows}})
