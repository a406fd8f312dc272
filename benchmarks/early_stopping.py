"""How often is the rule wrong that lets a timing end as soon as a percentile's limit is settled, and how many inferences does it save?

Simulated. Under the hypothesis (the percentile stands exactly at the limit) it is asked after every sample up to 5,000, beside the
binomial rule for a fixed number asked as often. Then what it takes where a share of all inferences is over the limit, beside a
number fixed in advance that settles that very share in nine of ten sets: the best plan of one who knows the share. Then a
process in phases, with and without allowing for them. Writes `records/early_stopping.json`; the bar: wrong in at most 1 %, and
3 standard errors.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.stats import binom, norm

from limbeck.evaluation import environment
from limbeck.stats.percentiles import claim, most_over
from limbeck.stats.sequential import anytime_verdict

RECORD = Path(__file__).parent / "records" / "early_stopping.json"
LONGEST, SETS, TAKEN, PHASES = 5000, 20_000, 2000, 400
SHARES = (0.0, 0.1, 0.25, 0.5, 2.0, 4.0)  # of the share that the limit allows
PERSISTENCE = (  # correlation with the one before, and the share of the variance that has it
    *((persistence, 1.0) for persistence in (0.0, 0.5, 0.8, 0.95, 0.99, 0.999)),
    *((persistence, 0.5) for persistence in (0.95, 0.99, 0.999)),
)
SPREAD = 0.5  # standard deviation of the timings' logarithms: a factor of 1.65
CONFIDENCE = 0.99


def main() -> int:
    rng = np.random.default_rng(0)
    tables = {q: {rule: _table(q, anytime=rule == "anytime") for rule in ("anytime", "fixed")} for q in (0.5, 0.9, 0.99)}
    record = {
        "question": "how often is a percentile's limit settled wrongly if it is asked again after every sample, and how many samples does it take",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "setting": {"longest": LONGEST, "sets": SETS, "taken_sets": TAKEN, "phase_sets": PHASES, "phase_spread": SPREAD, "confidence": CONFIDENCE, "seed": 0},
        "wrong": {str(q): {rule: _wrong(q, table, rng) for rule, table in rules.items()} for q, rules in tables.items()},
        "taken": {str(q): {str(share): _taken(q, share, rules["anytime"], rng) for share in SHARES if share * (1 - q) <= 1} for q, rules in tables.items()},
        "phases": {f"{p:g}" + (f" in {weight:.0%} of the variance" if weight < 1 else ""): _phases(p, weight, rng) for p, weight in PERSISTENCE},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    worst = max(rate for rules in record["wrong"].values() for rate in rules["anytime"].values())
    print(f"wrong in {worst:.2%} at most (bar 1 %)")
    return 0 if worst <= 1 - CONFIDENCE + 3 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / SETS) else 1


def _table(q: float, *, anytime: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each number of samples how many over prove "below" at most, and "above" at least."""
    counts = [most_over(n, percentile=q, anytime=anytime) for n in range(1, LONGEST + 1)]
    return np.array([-1 if b is None else b for b, _ in counts]), np.array([2 * LONGEST if a is None else a for _, a in counts])


def _over(share: float, sets: int, rng: np.random.Generator) -> np.ndarray:
    """How many of the first n are over the limit, for every n: a row a set."""
    return np.cumsum(rng.random((sets, LONGEST), dtype=np.float32) < share, axis=1, dtype=np.int32)


def _wrong(q: float, table: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> dict[str, float]:
    wrong, batch = np.zeros(2), 500
    for _ in range(SETS // batch):
        over = _over(1 - q, batch, rng)
        wrong += (over <= table[0]).any(1).sum(), (over >= table[1]).any(1).sum()
    return dict(zip(("below", "above"), (wrong / SETS).tolist(), strict=True))


def _taken(q: float, share: float, table: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    over = _over(share * (1 - q), TAKEN, rng)
    settled = (over <= table[0]) | (over >= table[1])
    ended = np.where(settled.any(1), settled.argmax(1) + 1, LONGEST)
    return {"mean": float(ended.mean()), "median": float(np.median(ended)), "settled": float(settled.any(1).mean()), "fixed": _fixed(q, share * (1 - q))}


def _fixed(q: float, share: float) -> int | None:
    """The least number with which the binomial rule settles this share in 90 % of sets."""
    for n in range(1, 4 * LONGEST):
        below, above = (binom.ppf(0.01, n, 1 - q), binom.isf(0.01, n, 1 - q)) if n else (0, 0)
        below = below if binom.cdf(below, n, 1 - q) <= 0.01 else below - 1
        power = binom.cdf(below, n, share) if share < 1 - q else binom.sf(above, n, share)
        if power >= 0.9:
            return n
    return None


def _phases(persistence: float, weight: float, rng: np.random.Generator) -> dict[str, float]:
    """Timings whose logarithms are a stationary Gaussian process of first order, p90 at the limit, asked from 100 inferences on, after each tenth more, up to 1,000."""
    limit, wrong = math.exp(SPREAD * float(norm.ppf(0.9))), {"counted as independent": 0, "phases counted as one": 0}
    for _ in range(PHASES):
        noise = rng.normal(size=1000) * math.sqrt(1 - persistence**2)
        noise[0] = rng.normal()
        slow = lfilter([1], [1, -persistence], noise)
        values = np.exp(SPREAD * (math.sqrt(weight) * slow + math.sqrt(1 - weight) * rng.normal(size=1000))).reshape(-1, 5)
        found: dict[str, str] = {}
        turns = 20
        while turns <= 200 and len(found) < 2:
            over = int((values[:turns] > limit).sum())
            if (plain := anytime_verdict(over, 5 * turns, percentile=0.9)) != "undecided":
                found.setdefault("counted as independent", plain)
                if (answer := claim(values[:turns], limit, percentile=0.9, anytime=True).answer) != "undecided":
                    found.setdefault("phases counted as one", answer)
            turns = math.ceil(1.1 * turns)
        for name, answer in found.items():
            wrong[name] += answer == "below"
    return {name: count / PHASES for name, count in wrong.items()}


if __name__ == "__main__":
    sys.exit(main())
