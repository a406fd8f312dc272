"""The tables of the page on latency, from the records of `benchmarks/self_comparison.py` and `benchmarks/early_stopping.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

RECORDS = Path(__file__).parent.parent / "benchmarks" / "records"
Told = Mapping[str, Any]


def record(name: str) -> dict[str, Any] | None:
    """A benchmark's record; None where it hasn't been run."""
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def self_comparison(told: Told | None) -> str:
    """An artifact against itself: how often the interval holds 1, how wide it is, how busy the machine was."""
    if told is None:
        return "Not run yet: `python benchmarks/self_comparison.py`."
    head = "| machine | comparisons | the interval holds 1 | turns each (median) | width of the interval (median) | farthest from 1 | waiting for a CPU (median) |"
    rows = [head, "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, found in told["arms"].items():
        held = sum(one["low"] <= 1 <= one["high"] for one in found)
        turns, width, waited = (np.median(values) for values in ([len(o["ratios"].split()) for o in found], [o["high"] - o["low"] for o in found], [o["waited"] for o in found]))
        far = max(abs(one["value"] - 1) for one in found)
        rows.append(f"| {name} | {len(found)} | {held} ({held / len(found):.0%}) | {turns:.0f} | {width:.1%} | {far:.1%} | {waited:.0%} of the time |")
    setting = told["setting"]
    text = f"{setting['artifact']}; {setting['seconds']:g} s for each side; the bar is {setting['bar']:.0%} in each row."
    arms = "*As found*: beside what else ran on this machine; *loaded*: beside one more busy process for each CPU."
    return "\n".join([*rows, "", f"{text} {arms} {_where(told)}"])


def wrong(told: Told | None) -> str:
    """Wrong answers at the limit, asked after every sample."""
    if told is None:
        return "Not run yet: `python benchmarks/early_stopping.py`."
    rows = ["| percentile | wrongly *below* | wrongly *above* | the binomial rule asked as often: *below* | *above* |", "| --- | --- | --- | --- | --- |"]
    for q, rules in told["wrong"].items():
        rates = [rules[rule][side] for rule in ("anytime", "fixed") for side in ("below", "above")]
        rows.append(f"| {_name(q)} | {' | '.join(f'{rate:.2%}' for rate in rates)} |")
    setting = told["setting"]
    return "\n".join([*rows, "", f"{setting['sets']:,} simulated sets each, asked after every one of {setting['longest']:,} samples; promised: at most 1 %."])


def taken(told: Told | None) -> str:
    """Inferences until it is settled, beside a number that was fixed in advance."""
    if told is None:
        return "Not run yet: `python benchmarks/early_stopping.py`."
    rows = ["| percentile | share over the limit | inferences until settled: mean (median) | settled | a number fixed for this share |", "| --- | --- | --- | --- | --- |"]
    for q, shares in told["taken"].items():
        for share, found in shares.items():
            fixed = f"{found['fixed']:,}" if found["fixed"] else "–"
            over = f"{100 * float(share) * (1 - float(q)):.3g} %"
            rows.append(f"| {_name(q)} | {over} | {found['mean']:,.0f} ({found['median']:,.0f}) | {found['settled']:.0%} | {fixed} |")
    setting = told["setting"]
    said = f"{setting['taken_sets']:,} sets each, of {setting['longest']:,} samples at most; where not all were settled the mean is of what was taken till then."
    return "\n".join(
        [*rows, "", f"{said} The last column is the least number with which the binomial rule settles this very share in 90 % of sets: one must know the share to choose it."]
    )


def phases(told: Told | None) -> str:
    """Wrong answers where slow phases of the machine make inferences depend on each other."""
    if told is None:
        return "Not run yet: `python benchmarks/early_stopping.py`."
    names = list(next(iter(told["phases"].values())))
    rows = [f"| correlation with the inference before | {' | '.join(f'wrongly *below*: {name}' for name in names)} |", "| --- | --- | --- |"]
    rows += [f"| {persistence} | {' | '.join(f'{rates[name]:.1%}' for name in names)} |" for persistence, rates in told["phases"].items()]
    process = f"timings whose logarithms are a Gaussian process of first order with a standard deviation of {told['setting']['phase_spread']:g}"
    text = f"p90 at the limit, {process}, asked from 100 inferences on, after each tenth more, up to 1,000"
    return "\n".join([*rows, "", f"{text}; {told['setting']['phase_sets']} sets each. {_where(told)}"])


def _name(q: str) -> str:
    return f"p{100 * float(q):.0f}"


def _where(told: Told) -> str:
    return f"{told['machine']['processor']}, {told['machine']['cores']} CPUs, {told['time'][:10]}, commit {told['commit']}."


PAGES: tuple[tuple[str, str, Callable[[Told | None], str]], ...] = (
    ("self-comparison", "self_comparison", self_comparison),
    ("stopping-wrong", "early_stopping", wrong),
    ("stopping-taken", "early_stopping", taken),
    ("stopping-phases", "early_stopping", phases),
)
