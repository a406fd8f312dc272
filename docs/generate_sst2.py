"""The tables of `benchmarks/sst2.py`, from its record: every arm, and each difference that was asked for under both seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from limbeck.stats.paired import Counts, counts, difference_lower, difference_upper, ratio_lower

RECORD = Path(__file__).parent.parent / "benchmarks" / "records" / "sst2.json"
KINDS = {
    "words_teacher": "`convolutions`, the teacher's words, with the teacher",
    "words_labels": "`convolutions`, the teacher's words, labels alone",
    "wide_teacher": "`wide`, the teacher's words, with the teacher",
    "wide_labels": "`wide`, the teacher's words, labels alone",
    "own_teacher": "`convolutions`, words of its own, with the teacher",
    "own_labels": "`convolutions`, words of its own, labels alone",
    "layers_teacher": "`layers`, with the teacher",
    "layers_labels": "`layers`, labels alone",
}
PAIRS = (
    ("words_teacher", "words_labels"),
    ("wide_teacher", "wide_labels"),
    ("words_teacher", "own_labels"),
    ("own_teacher", "own_labels"),
    ("words_labels", "own_labels"),
    ("layers_teacher", "layers_labels"),
)
BAR = 0.95
INTERVAL = 0.975  # one-sided, so that both together leave 5 %


def tables() -> str:
    """What stands in the page, as Markdown."""
    if not RECORD.exists():
        return "Not measured yet."
    arms = json.loads(RECORD.read_text())["arms"]
    teacher = arms["teacher-0"]
    rows = ["| student | seed | dev | test | kept of MiniLM (95 % bound) | bytes | core-seconds |", "| --- | --- | --- | --- | --- | --- | --- |"]
    rows.append(
        f"| MiniLM, FP32 | | {teacher['dev']:.2%} | {teacher['test']:.2%} | | {teacher['size_bytes']:,} | {teacher['claims']['answers_seconds']:.0f}, its answers to train |"
    )
    for kind, name in KINDS.items():
        found = [arm for arm in arms.values() if arm["kind"] == kind]
        rows += [_row(name, arm, teacher) for arm in found] or [f"| {name} | | not run | | | | |"]
    compared = ["| difference on test | by seed (95 %) |", "| --- | --- |", *(row for pair in PAIRS if (row := _compared(arms, *pair)))]
    return "\n".join((*rows, "", *compared, "", _about(arms)))


def _row(name: str, arm: dict[str, Any], teacher: dict[str, Any]) -> str:
    both = _counts(arm, teacher)
    kept = f"{both.candidate / both.baseline:.3f} (≥ {ratio_lower(both):.3f})"
    return f"| {name} | {arm['seed']} | {arm['dev']:.2%} | {arm['test']:.2%} | {kept} | {arm['size_bytes']:,} | {arm['cpu_seconds']:.0f} |"


def _counts(arm: dict[str, Any], other: dict[str, Any]) -> Counts:
    return counts(*([int(c) for c in a["right"]["test"]] for a in (arm, other)))


def _compared(arms: dict[str, Any], kind: str, other: str) -> str:
    cells = []
    for seed in (0, 1):
        first, second = arms.get(f"{kind}-{seed}"), arms.get(f"{other}-{seed}")
        if first and second:
            both = _counts(first, second)
            value = (both.candidate - both.baseline) / both.total
            cells.append(f"{value:+.1%} ({difference_lower(both, INTERVAL):+.1%} to {difference_upper(both, INTERVAL):+.1%})")
    return f"| {KINDS[kind]} − {KINDS[other]} | {'; '.join(cells)} |" if cells else ""


def _about(arms: dict[str, Any]) -> str:
    teacher, done = arms["teacher-0"], [a for a in arms.values() if a["kind"] != "teacher"]
    small = [a for a in done if a["size_bytes"] <= 2_000_000]
    reached = [f"{a['kind']}-{a['seed']}" for a in small if ratio_lower(_counts(a, teacher)) >= BAR]
    nearly = [f"{a['kind']}-{a['seed']}" for a in small if a["test"] / teacher["test"] >= BAR]
    twice = [f"{name} (dev {a['earlier'][0]['dev']:.2%}, test {a['earlier'][0]['test']:.2%} then)" for name, a in arms.items() if a.get("earlier")]
    again = f"The cut (from 8 times and the mean to 12 times and the nearest) was settled on dev after a first look at test: {', '.join(twice)}. " if twice else ""
    spent = (sum(a["cpu_seconds"] for a in arms.values()) + teacher["claims"]["answers_seconds"]) / 3600
    subsets = {a["kind"].split("_")[0]: f"{a['claims']['samples']:,} samples, {a['claims']['epochs']} epoch{'s' * (a['claims']['epochs'] > 1)}" for a in done}
    told = "; ".join(f"`{kind}`: {what}" for kind, what in subsets.items())
    return (
        f"The bar, at most 2,000,000 bytes with a retention of {BAR:g}: by its bound {', '.join(reached) or '**none**'}; by its value {', '.join(nearly) or '**none**'}. "
        f"{again}Learnt on {told}. {spent:.2f} core-hours in all, {teacher['machine']['processor']}, one thread, torch {teacher['versions']['torch']}, "
        f"{max(a['time'] for a in arms.values())[:10]}, commit {teacher['commit']}."
    )
