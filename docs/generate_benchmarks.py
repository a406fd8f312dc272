"""The tables of benchmarks that compare students, from their records: every figure is computed here from what each seed got right."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from arms import Difference, answers, difference, spread  # noqa: E402
from limbeck.mechanics.terms import ALL as TERMS  # noqa: E402
from limbeck.stats.multiplicity import step_down  # noqa: E402

MINUS = "−"
SIMKD = "simkd"  # a technique whose student is bigger


def record(name: str) -> dict[str, Any] | None:
    """A benchmark's record; None where it hasn't been run."""
    path = BENCHMARKS / "records" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def replication(told: Mapping[str, Any] | None) -> str:
    """Every term beside no teacher, the best first, the losers too."""
    if told is None:
        return "Not run yet: `python benchmarks/replication.py`."
    every, arms = answers(told["runs"], told["setting"]["test_images"]), told["arms"]
    made = {name: rows for name, rows in every.items() if name not in told["asides"]}
    noise, base = spread({name: rows for name, rows in made.items() if name != SIMKD}), made["none"]
    against = {name: difference(rows, base, noise) for name, rows in made.items() if name != "none"}
    claimed = apart(against)
    rows = ["| term | beside | accuracy, by seed | mean | beyond no teacher (95 %) | told apart | core time |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name in sorted(made, key=lambda n: -float(made[n].mean())):
        bold = "**no teacher**" if name == "none" else f"`{name.partition(',')[0]}`{', ' + name.partition(', ')[2] if ', ' in name else ''}"
        gap = "" if name == "none" else interval(against[name])
        verdict = "" if name == "none" else "" if not claimed[name] else "better" if against[name].value > 0 else "worse"
        cost = _seconds(told, name) / _seconds(told, "none")
        rows.append(f"| {bold} | {_beside(arms[name])} | {by_seed(made[name])} | {made[name].mean():.2%} | {gap} | {verdict} | {cost:.1f} |")
    diverged = {name for name, found in told["runs"].items() if any("failed" in run for run in found.values())}
    unrun = sorted({t.__name__ for t in TERMS} - {"task_loss"} - {name.partition(",")[0] for name in (*made, *diverged)} - told["left_out"].keys())
    failed = [f"`{name}` seed {seed}: {run['failed']}" for name, found in told["runs"].items() for seed, run in found.items() if "failed" in run]
    left = ["| left out | because |", "| --- | --- |", *(f"| `{name}` | {reason} |" for name, reason in told["left_out"].items())]
    where = (
        f'The teacher has {told["setting"]["teacher_accuracy"]:.2%}. "Told apart" is Holm\'s procedure over {len(against)} comparisons at 95 % in all; '
        f"empty: these seeds and images can't tell the term from no teacher. "
        f"Core time is a run's in that of no teacher, the teacher's own left out; the machine was shared, so it is rough. {_unranked(noise, base)}"
    )
    failed = ["Diverged: " + "; ".join(failed)] if failed else []
    lacking = ["Not run, or not with every seed: " + ", ".join(f"`{name}`" for name in unrun)] if unrun else []
    more = [*failed, *lacking, *_asides(told, every)]
    return "\n\n".join(["\n".join(rows), where, *more, "\n".join(left), _about(told)])


def _asides(told: Mapping[str, Any], every: Mapping[str, np.ndarray]) -> list[str]:
    """The same comparison under another training, whose arms aren't compared with the table's."""
    noise, found = spread({name: rows for name, rows in every.items() if name != SIMKD}), []
    for name, (of, other) in told["asides"].items():
        base = next((n for n, (o, same) in told["asides"].items() if o == "none" and same == other), "")
        if of != "none" and name in every and base in every:
            here, there = difference(every[name], every[base], noise), difference(every[of], every["none"], noise)
            found.append(f"| `{of}` | {name.partition(', ')[2]} | {every[base].mean():.2%} | {every[name].mean():.2%} | {interval(here)} | {_points(there.value)} |")
    head = ["| term | under | no teacher there | with it | a difference of (95 %) | in the table above |", "| --- | --- | --- | --- | --- | --- |"]
    return ["\n".join([*head, *found])] if found else []


def ensemble(told: Mapping[str, Any] | None) -> str:
    """Joins of five teachers beside the best single one's student and beside none."""
    if told is None:
        return "Not run yet: `python benchmarks/ensemble.py`."
    made = answers(told["runs"], told["setting"]["test_images"])
    noise = spread(made)
    singles = [name for name in made if name.endswith(" alone")]
    best = max(singles, key=lambda name: float(made[name].mean()))
    rows = [
        "| teacher | accuracy, by seed | mean | beyond no teacher (95 %) | beyond the best single one's student (95 %) | the bar: not below it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in made.items():
        beyond = ["" if name == other else interval(difference(found, made[other], noise)) for other in ("none", best)]
        bar = "" if name in ("none", *singles) else "met" if difference(found, made[best], noise).bounds()[1] >= 0 else "**missed**"
        label = (
            "**no teacher**"
            if name == "none"
            else f"{name} (itself {told['teacher_accuracy'][singles.index(name)]:.2%}){', the best' if name == best else ''}"
            if name in singles
            else name
        )
        rows.append(f"| {label} | {by_seed(found)} | {found.mean():.2%} | {beyond[0]} | {beyond[1]} | {bar} |")
    joined = " and ".join(f"{value:.2%} ({'mean of logits' if name == 'outputs' else 'of probabilities'})" for name, value in told["ensemble_accuracy"].items())
    where = f"The five together have {joined}. The best single teacher is chosen by its students' accuracy on test, which favours it. {_unranked(noise, made['none'])}"
    return "\n".join([*rows, "", where, "", _about(told)])


def label_scarce(told: Mapping[str, Any] | None) -> str:
    """Students of few labels and many images beside the same student on the labels alone."""
    if told is None:
        return "Not run yet: `python benchmarks/label_scarce.py`."
    made = answers(told["runs"], told["setting"]["test_images"])
    noise, base = spread(made), next(iter(made))
    rows = ["| student of | accuracy, by seed | mean | beyond 1,000 labels alone (95 %) | the bar: not below it |", "| --- | --- | --- | --- | --- |"]
    for name, found in made.items():
        gap = difference(found, made[base], noise)
        asked = told["arms"][name]["teacher"] == "own"
        bar = "" if not asked else "met" if gap.bounds()[1] >= 0 else "**missed**"
        rows.append(f"| {'**no teacher, 1,000 labels**' if name == base else name} | {by_seed(found)} | {found.mean():.2%} | {'' if name == base else interval(gap)} | {bar} |")
    own, outside = (told["teacher_accuracy"][which] for which in ("own", "outside"))
    where = f"The teacher of the same 1,000 labels has {own:.2%}, the one from outside {outside:.2%}. {_unranked(noise, made[base])}"
    return "\n".join([*rows, "", where, "", _about(told)])


def apart(found: Mapping[str, Difference]) -> dict[str, bool]:
    """Which differences aren't 0, either way, so that no false one is claimed among all of them at 95 %."""
    judged = step_down({name: gap.bounds for name, gap in found.items()}, lambda _, b: b[0] > 0 or b[1] < 0, confidence=0.975)
    return {name: low > 0 or high < 0 for name, (low, high) in judged.items()}


def interval(gap: Difference) -> str:
    """In points, with both bounds."""
    return f"{_points(gap.value)} ({' to '.join(_points(b) for b in gap.bounds())})"


def by_seed(rows: np.ndarray) -> str:
    """Each seed's accuracy in percent."""
    return " · ".join(f"{100 * row.mean():.2f}" for row in rows)


def _seconds(told: Mapping[str, Any], name: str) -> float:
    """The median of the seeds: a run that was stopped and went on counts only what came after."""
    return float(np.median([run["core_seconds"] for run in told["runs"][name].values()]))


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", MINUS)


def _beside(arm: Mapping[str, Any] | str) -> str:
    """The objective in a few words, and where its weights come from."""
    if isinstance(arm, str):
        return "no labels; the teacher's classifier behind a projector, which makes the student bigger"
    if arm["term"] == "task_loss":
        return "the labels alone"
    options = ", ".join(f"{k} {v}" for k, v in (arm["options"] or {}).items() if k not in ("student", "teacher", "pairs"))
    at = _layers(arm["options"] or {})
    labels = f"{arm['labels']:g} · task_loss + " if arm["labels"] else ""
    return f"{labels}{arm['weight']:g} · it{f' ({options})' if options else ''}{at}; {arm['source']}"


def _layers(options: Mapping[str, Any]) -> str:
    if "pairs" in options:
        return f", {len(options['pairs'])} layers"
    return f", at `{options['student']}`" if "student" in options else ""


def _unranked(noise: tuple[float, int], base: np.ndarray) -> str:
    """How far apart two arms must be, for the seeds alone."""
    from scipy.stats import t

    seeds = len(base)
    least = float(t.ppf(0.975, noise[1])) * noise[0] * (2 / seeds) ** 0.5
    return (
        f"From seed to seed an arm moves by {100 * noise[0]:.2f} points (standard deviation, pooled over arms, {noise[1]} degrees of freedom), "
        f"so two arms whose means of {seeds} seeds are closer than {100 * least:.1f} points can't be ranked, whatever their order here."
    )


def _about(told: Mapping[str, Any]) -> str:
    setting, seeds = told["setting"], max(len(found) for found in told["runs"].values())
    spent = f"{setting['images']:,} images, {setting['epochs']} epochs, batch {setting['batch_size']}, {seeds} seeds, {setting['test_images']:,} test images"
    where = f"{told['machine']['processor']}, one thread, torch {told['versions']['torch']}, {told['time'][:10]}, commit {told['commit']}"
    return f"{setting['data']}; {spent}; {told['core_hours']:.2f} core-hours. {where}."


PAGES: Sequence[tuple[str, str, Any]] = (("replication", "replication", replication), ("ensemble", "ensemble", ensemble), ("label-scarce", "label_scarce", label_scarce))
