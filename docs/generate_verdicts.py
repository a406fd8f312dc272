"""The tables of how often a gate is wrong, from the record of `benchmarks/verdicts.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent.parent / "benchmarks" / "records" / "verdicts.json"
NOT_RUN = "Not run yet: `python benchmarks/verdicts.py`."
PROMISED = 0.065  # 5 % and three standard errors of 2,000 sets
Rows = Sequence[Mapping[str, Any]]


def record() -> dict[str, Any] | None:
    """The record; None where it hasn't been run."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else None


def accuracy(told: Mapping[str, Any] | None) -> str:
    """One look, few that differ, three looks, three tries, slices: the mean and the highest rate of each, by samples."""
    if told is None:
        return NOT_RUN
    answers, samples = told["answers"], (360, 872, 10_000)
    head = ["| truth exactly at the limit passes in | " + " | ".join(f"n = {n:,}" for n in samples) + " |", "| --- | " + "--- | " * len(samples)]
    one, few = answers["one_look"], answers["few_differ"]
    lines: list[tuple[str, Callable[[int], Rows], str]] = [
        ("retention, one look", lambda n: _of(one, n, kind="ratio"), "passed"),
        ("drop, one look", lambda n: _of(one, n, kind="drop"), "passed"),
        ("retention, 0.5 to 5 samples expected to differ (summed exactly)", lambda n: _of(few, n, kind="ratio"), "passed"),
        ("drop, 0.5 to 5 samples expected to differ (summed exactly)", lambda n: _of(few, n, kind="drop"), "passed"),
        ("any of 3 looks at growing data, `looks = 3`", lambda n: _of(answers["looks"], n), "planned"),
        ("the same, each look for itself", lambda n: _of(answers["looks"], n), "alone"),
        ("any of 3 tries of a stage, as limbeck shares the error", lambda n: _of(answers["tries"], n), "shared"),
        ("the same, unshared", lambda n: _of(answers["tries"], n), "alone"),
        ("any of 2 looks with 3 tries each, `looks = 2`", lambda n: _of(answers["tries"], n), "combined"),
    ]
    body = [f"| {what} | " + " | ".join(_mean_and_most([r[key] for r in rows(n)]) for n in samples) + " |" for what, rows, key in lines]
    covered = [r["covered"] for r in one if r["differing"] >= 5]
    where = (
        f"The mean over settings, and the highest of them in brackets, of {told['sets']:,} simulated sets each. Settings: accuracy of the baseline 60 to 100 %, "
        f"retention 0.9 to 0.995, none to 2 % won. Two-sided 95 % intervals held the truth in {min(covered):.1%} to {max(covered):.1%}, where 5 or more were expected to differ."
    )
    return "\n".join([*head, *body, "", f"{where} {_about(told)}"])


def slices(told: Mapping[str, Any] | None) -> str:
    """Eight slices by Holm's procedure."""
    if told is None:
        return NOT_RUN
    rows = ["| 8 slices of | 1 stands at its limit | 3 do | all do |", "| --- | --- | --- | --- |"]
    found = told["answers"]["slices"]
    for size in dict.fromkeys(r["size"] for r in found):
        rows.append(f"| {size} samples | " + " | ".join(f"{r['passed']:.1%}" for r in found if r["size"] == size) + " |")
    return "\n".join([*rows, "", "The rate at which any slice that stands at its limit passes."])


def bootstrap(told: Mapping[str, Any] | None) -> str:
    """BCa as published and as limbeck widens it."""
    found = [*told["answers"].get("bootstrap", ()), *told["answers"].get("bootstrap_of_more", ())] if told else []
    if not found:
        return NOT_RUN
    rows = ["| metric and errors | n | BCa as published | as limbeck bounds it | its margin, in BCa's (median) |", "| --- | --- | --- | --- | --- |"]
    for r in sorted(found, key=lambda r: (r["what"], r["n"])):
        rows.append(f"| {r['what']} ({r['kind']}) | {r['n']:,} | {_rate(r['published'])} | {_rate(r['passed'])} | {r['wider']:.2f} |")
    sets = " or ".join(f"{s:,}" for s in sorted({r["sets"] for r in found}, reverse=True))
    return "\n".join([*rows, "", f"The rate at which truth at the limit passes, of {sets} simulated sets each; **bold**: above {PROMISED:.1%}."])


def calibration(told: Mapping[str, Any] | None) -> str:
    """The increase of the calibration error: rates at the limit, and bounds."""
    if told is None:
        return NOT_RUN
    found = told["answers"]["calibration"]
    sizes = list(dict.fromkeys(r["n"] for r in found))
    rows = ["| baseline, then candidate | true increase | " + " | ".join(f"n = {n:,}: passes, bound" for n in sizes) + " |", "| --- | --- | " + "--- | " * len(sizes)]
    for what in dict.fromkeys(r["what"] for r in found):
        each = [r for r in found if r["what"] == what]
        rows.append(f"| {what} | {each[-1]['truth']:.3f} | " + " | ".join(f"{_rate(r['passed'])}, {r['bound']:.3f}" for r in each) + " |")
    sets = " or ".join(f"{s:,}" for s in sorted({r["sets"] for r in found}, reverse=True))
    return "\n".join([*rows, "", f"The rate at which a limit that equals the true increase passes, of {sets} sets, and the median bound: a limit that can be kept lies above it."])


def percentiles(told: Mapping[str, Any] | None) -> str:
    """The binomial rule where the percentile is exactly the limit."""
    if told is None:
        return NOT_RUN
    rows = ["| percentile | timings | over the limit, at most | passes at the limit |", "| --- | --- | --- | --- |"]
    for r in told["answers"]["percentile_rule"]:
        rows.append(f"| p{100 * r['percentile']:.0f} | {r['n']:,} | {r['most_over']} | {r['passed']:.2%} |")
    return "\n".join([*rows, "", "Summed exactly; at most 1 % is promised."])


def _of(rows: Rows, n: int, **asked: Any) -> Rows:
    return [r for r in rows if r["n"] == n and all(r[k] == v for k, v in asked.items())]


def _mean_and_most(rates: Sequence[float]) -> str:
    return f"{sum(rates) / len(rates):.1%} ({max(rates):.1%})"


def _rate(rate: float) -> str:
    return f"**{rate:.1%}**" if rate > PROMISED else f"{rate:.1%}"


def _about(told: Mapping[str, Any]) -> str:
    return f"numpy {told['versions']['numpy']}, scipy {told['versions']['scipy']}, {told['time'][:10]}, commit {told['commit']}."


PAGES = (
    ("accuracy-at-the-limit", accuracy),
    ("slices-at-the-limit", slices),
    ("bootstrap-at-the-limit", bootstrap),
    ("calibration-at-the-limit", calibration),
    ("percentiles-at-the-limit", percentiles),
)
