"""The terminal: which look a verdict was, and what became of the calibration error."""

from __future__ import annotations

import pytest
from rich.console import Console

from limbeck.cli import behaviour, render


def shown(calibration):
    out = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    behaviour.show(out, {"slices": [], "flips": None, "agreement": None, "calibration": calibration})
    return out.export_text()


def test_the_increase_stands_beside_both_errors():
    one = {"ece": 0.05, "high": 0.08, "samples": 100, "bins": []}
    both = {"candidate": one, "baseline": one | {"ece": 0.02}}
    assert "calibration error 0.0500 (bound 0.0800), baseline 0.0200 (bound 0.0800); +0.0300 against it, at most +0.0610" in shown(
        both | {"increase": {"value": 0.03, "high": 0.061}}
    )
    assert "against it" not in shown(both) and "against it" not in shown(both | {"increase": None})


@pytest.mark.parametrize(
    ("look", "said"), [(None, "look 2 at this test split"), ({"note": ""}, "look 2 at this test split"), ({"note": "look 2 of 3 planned"}, "look 2 of 3 planned")]
)
def test_a_look_says_what_it_means(look, said):
    assert render._look({"test_looks": 2, "look": look}) == said
