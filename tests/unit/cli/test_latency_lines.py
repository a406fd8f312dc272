"""Percentiles in the terminal: between which bounds they lie, and what else is in them."""

from typing import Any

from rich.console import Console

from limbeck.cli.judged import _latency
from limbeck.cli.render import _latencies

FINAL = {"latency_ms": {"p50": 1.05, "p90": 1.09, "p99": None}, "latency_interval_ms": {"p50": [1.03, 1.07], "p90": [1.08, None], "p99": None}, "latency_note": None}


def shown(**models: Any) -> str:
    out = Console(width=200, record=True, quiet=False, force_terminal=False)
    with out.capture() as capture:
        _latencies(out, {"baseline": FINAL, "control": None, "final": FINAL} | models)
    return capture.get()


def test_a_run_shows_the_bounds_of_its_final_model():
    assert "p50 1.050 (1.030 to 1.070), p90 1.090 (1.080 to ?)" in shown() and "p99" not in shown()


def test_a_run_of_before_shows_none():
    assert shown(final={"latency_ms": {"p50": 1.0}}) == "" and shown(final={"latency_ms": None, "latency_interval_ms": None}) == ""


def test_what_disturbed_it_is_said_once():
    disturbed = FINAL | {"latency_note": "it stood still for 900 ms"}
    assert shown(baseline=disturbed, final=disturbed).count("it stood still") == 1
    assert "baseline, final: it stood still for 900 ms" in shown(baseline=disturbed, final=disturbed)


def test_compare_shows_the_bounds_of_both():
    rows = _latency([FINAL | {"ratios": None}, FINAL | {"ratios": {"speedup_p50": {"value": 1.0, "low": 0.9, "high": 1.1}}}], wide=True)
    assert rows[0][1] == ["1.050 [1.030, 1.070]"] * 2 and rows[1][1] == ["1.090 [1.080, –]"] * 2
    assert [row[0] for row in rows] == ["p50 ms", "p90 ms"]
