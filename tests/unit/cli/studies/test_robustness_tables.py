"""What the terminal prints of corruption, of inputs outside and at the edge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "report" / "studies"))
from robustness_figures import ALONE, EDGES, OUTSIDE, SHIFT

from limbeck.cli.render import plain
from limbeck.cli.studies import show


def printed(name: str, found: dict[str, Any]) -> str:
    out = Console(width=200, highlight=False, record=True)
    show(out, plain({name: found}))
    return out.export_text()


def test_shift():
    text = printed("shift", SHIFT)
    assert "kept under corruption: 0.850 ≥ 0.810; least under fog<b>: 0.750 ≥ 0.700" in text
    assert "0.950 ≥ 0.920   0.850 → 0.820" in text and "40 samples a strength, 400 different ones" in text and "jpeg left out" in text
    alone = printed("shift", ALONE)
    assert "not known: there is no baseline" in alone and "→" not in alone and "0.800" in alone
    drop = printed("shift", SHIFT | {"overall": {"value": 0.2, "low": 0.3, "kind": "drop"}})
    assert "kept under corruption: drop 0.200 ≤ 0.300" in drop


def test_outside():
    text = printed("outside", OUTSIDE)
    assert "other<b>" in text and "50.0%   0.900 [0.800, 1.000]" in text and "candidate (+20.0%)" in text and "neither (-1.0%)" in text
    one = {"inside": {"candidate": OUTSIDE["inside"]["candidate"]}, "sets": [s | {"baseline": None, "surer": None} for s in OUTSIDE["sets"]]}
    assert "surer" not in printed("outside", OUTSIDE | one) and "70.0%" in printed("outside", OUTSIDE | one)


def test_edges():
    text = printed("edges", EDGES)
    assert "10 × range   crashed    ok" in text and "model<b>.onnx: SIGFPE" in text
    assert "1 of 3 go wrong: 10 × range (crashed); as they should be: all zero, + infinity (not finite)" in text
    brief = Console(width=200, highlight=False, record=True)
    show(brief, plain({"edges": EDGES}), brief=True)
    assert "10 × range (crashed)" in brief.export_text(), "the line alone names what goes wrong"
    well = printed("edges", EDGES | {"cases": EDGES["cases"][:1], "red": 0})
    assert "go wrong" not in well and "all 1 as they should be: all zero" in well
    none = printed("edges", EDGES | {"cases": EDGES["cases"][1:2]})
    assert "1 of 1 go wrong: 10 × range (crashed)" in none and "as they should be" not in none
