"""What becomes of inputs at the edge: a table, the bad ones marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Node, el

SOURCES = {"samples": "samples of the task", "random inputs": "random inputs", "timed inputs": "the inputs that were timed"}


def edges(found: Mapping[str, Any]) -> list[Node]:
    """Those that went wrong first."""
    red, cases = found["red"], found["cases"]
    lead = "No input was found at which the artifact does worse than it should." if not red else _wrong(red, found)
    usual = found["ordinary"]["distance"]
    note = f"Made from {SOURCES[found['source']]}; each model ran in a process apart, and in a new one after a crash. "
    if usual is not None:
        note += f"On {found['ordinary']['samples']} ordinary inputs the outputs of both models differ by {figures.plain(usual)} of the largest. "
        note += "“Differs” is ten times as far, or another answer. "
    note += "“Refused” is an error message; it is bad where the baseline answers. Infinities may give outputs that aren't finite."
    rows = [_row(case) for case in sorted(cases, key=lambda c: not c["red"])]
    head = ("input", "artifact", "baseline", "distance", "× ordinary", "what it is")
    return [
        el("p", {"class": "error"} if red else None, lead),
        el("p", {"class": "note"}, note),
        table("Inputs at the edge of what the model takes", head, rows, kind="figures wordy"),
    ]


def _wrong(red: int, found: Mapping[str, Any]) -> str:
    names = ", ".join(f"{c['name']} ({c['word']})" for c in found["cases"] if c["red"])
    return f"{red} of {len(found['cases'])} inputs at the edge go wrong: {names}."


def _row(case: Mapping[str, Any]) -> tuple[Node, ...]:
    word = el("strong", {"class": "error"}, case["word"]) if case["red"] else case["word"]
    times = figures.times(case["times_ordinary"]) if case["times_ordinary"] is not None else figures.NONE
    what = case["what"] + (f". {case['note']}" if case["note"] else "")
    return (case["name"], word, case["baseline"] or figures.NONE, figures.plain(case["distance"]), times, what)
