"""How often does a gate pass what doesn't hold? Candidates whose truth stands exactly at the limit, simulated or summed exactly.

Every question is a function that gives rows; `records/verdicts.json` holds them with seeds and numbers of sets, and `docs/evidence.md`
is rendered from it. A rate "at the limit" is the highest there is: a candidate beyond its limit passes less often.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from limbeck.evaluation import environment
from limbeck.intake import metrics
from limbeck.stats.bootstrap import bca_lower
from limbeck.stats.calibration import error, increase_upper
from limbeck.stats.latency import fixed_verdict
from limbeck.stats.multiplicity import shared, step_down
from limbeck.stats.paired import difference_scores, quantile, scores

RECORD = Path(__file__).parent / "records" / "verdicts.json"
CONFIDENCE = 0.95
SAMPLES = (360, 872, 10_000)
TRUTHS = tuple((p0, phi, wins) for p0 in (0.6, 0.83, 0.95, 1.0) for phi, wins in ((0.9, 0.02), (0.97, 0.01), (0.97, 0.0), (0.99, 0.002), (0.995, 0.0)) if p0 + wins <= 1)
DIFFERING = (0.5, 1, 2, 2.75, 3, 4, 5)  # samples expected to differ
SETS = 20_000
Row = dict[str, Any]


def cells(p0: float, phi: float, wins: float) -> np.ndarray:
    """Probabilities of both right, only the candidate, only the baseline, neither, where candidate = phi · baseline exactly."""
    both = phi * p0 - wins
    return np.maximum([both, wins, p0 - both, 1 - p0 - wins], 0.0)


def drawn(rng: np.random.Generator, n: int, p: np.ndarray, sets: int) -> np.ndarray:
    """Counts of (n11, n10, n01, n00), sets along the second axis."""
    return rng.multinomial(n, p / p.sum(), size=sets).T


def passes(counts: np.ndarray, limit: float, *, kind: str, confidence: float = CONFIDENCE) -> np.ndarray:
    """Whether each set of counts passes a limit on the ratio, or on the drop, at this confidence."""
    n11, n10, n01, n00 = counts
    found = scores(n11, n10, n01, phi=limit) if kind == "ratio" else difference_scores(n11, n10, n01, n00=n00, delta=-limit)
    return found >= quantile(confidence)


def one_look(sets: int = SETS) -> list[Row]:
    """Accuracy in one look: the rate at which truth at the limit passes, and how often both bounds hold it (each at 97.5 %)."""
    rows = []
    for n in SAMPLES:
        for p0, phi, wins in TRUTHS:
            p = cells(p0, phi, wins)
            counts = drawn(np.random.default_rng([n, round(1000 * p0), round(1000 * phi)]), n, p, sets)
            for kind, limit in (("ratio", phi), ("drop", p0 * (1 - phi))):
                n11, n10, n01, n00 = counts
                z = scores(n11, n10, n01, phi=phi) if kind == "ratio" else difference_scores(n11, n10, n01, n00=n00, delta=-limit)
                covered = float(np.mean(np.abs(z) <= quantile(0.5 + CONFIDENCE / 2)))
                row = {"kind": kind, "n": n, "accuracy": p0, "retention": phi, "wins": wins, "differing": float(n * (p[1] + p[2]))}
                rows.append(row | {"passed": float(passes(counts, limit, kind=kind).mean()), "covered": covered})
    return rows


def few_differ() -> list[Row]:
    """The same where 0.5 to 5 samples are expected to differ, summed exactly over all counts."""
    rows = []
    for n in (360, 872, 10_000):
        for accuracy in (0.6, 0.95, 0.995):
            for differing in DIFFERING:
                for wins in (0.0, 0.2, 0.45):
                    p10, p01 = differing * wins / n, differing * (1 - wins) / n
                    if p10 > 1 - accuracy or p01 >= accuracy:
                        continue
                    p = np.array([accuracy - p01, p10, p01, 1 - accuracy - p10])
                    for kind, limit in (("ratio", (p[0] + p10) / accuracy), ("drop", p01 - p10)):
                        rows.append({"kind": kind, "n": n, "accuracy": accuracy, "differing": differing, "wins": wins, "passed": exactly(n, p, limit, kind=kind)})
    return rows


def exactly(n: int, p: np.ndarray, limit: float, *, kind: str, most: int = 36) -> float:
    """The probability that the test passes, summed over all counts that can occur where few samples differ."""
    n10, n01 = (axis.astype(np.int64) for axis in np.meshgrid(np.arange(most), np.arange(most), indexing="ij"))
    outer = binom.pmf(n10, n, p[1]) * binom.pmf(n01, n - n10, p[2] / (1 - p[1]))
    total = 0.0
    share, rest = p[0] / (p[0] + p[3]), n - n10 - n01
    wide = 7 * math.sqrt(n * share * (1 - share)) + most
    for n11 in range(max(0, int(n * share - wide)), min(n, int(n * share + wide)) + 1):
        ok = passes(np.array([np.full_like(n10, n11), n10, n01, rest - n11]), limit, kind=kind) & (rest >= n11)
        total += float((outer * binom.pmf(n11, rest, share) * ok).sum())
    return total


def looks(sets: int = SETS) -> list[Row]:
    """Three looks at data that grows by thirds: any of them passes, planned (each at 98.3 %) and each for itself (95 %)."""
    rows = []
    for n in SAMPLES:
        for p0, phi, wins in TRUTHS:
            rng, p = np.random.default_rng([n, round(1000 * p0), round(1000 * phi), 2]), cells(p0, phi, wins)
            steps = np.cumsum([drawn(rng, n // 3, p, sets) for _ in range(3)], axis=0)
            any_of = {c: np.any([passes(s, phi, kind="ratio", confidence=c) for s in steps], axis=0).mean() for c in (shared(CONFIDENCE, 3), CONFIDENCE)}
            planned, alone = any_of.values()
            rows.append({"n": n, "accuracy": p0, "retention": phi, "wins": wins, "planned": float(planned), "alone": float(alone)})
    return rows


def tries(sets: int = SETS) -> list[Row]:
    """Three tries of a stage on the same samples, each at the limit: any passes, with the error shared and without; and three such looks."""
    rows = []
    for n in SAMPLES:
        for p0, phi, wins in TRUTHS:
            if p0 == 1.0:
                continue
            rng, p = np.random.default_rng([n, round(1000 * p0), round(1000 * phi), 3]), cells(p0, phi, wins)
            three = _on_same_baseline(rng, n, p, sets, 3)
            each = {c: np.any([passes(t, phi, kind="ratio", confidence=c) for t in three], axis=0) for c in (shared(CONFIDENCE, 3), CONFIDENCE)}
            in_shared, alone = each.values()
            second = _on_same_baseline(rng, n, p, sets, 3)
            both = shared(shared(CONFIDENCE, 2), 3)
            combined = np.any([passes(t, phi, kind="ratio", confidence=both) for t in (*three, *second)], axis=0)
            rows.append(
                {"n": n, "accuracy": p0, "retention": phi, "wins": wins, "shared": float(in_shared.mean()), "alone": float(alone.mean()), "combined": float(combined.mean())}
            )
    return rows


def _on_same_baseline(rng: np.random.Generator, n: int, p: np.ndarray, sets: int, candidates: int) -> list[np.ndarray]:
    """Counts of candidates that are judged beside one baseline: it has the same samples right for all of them."""
    right = rng.binomial(n, p[0] + p[2], size=sets)
    found = []
    for _ in range(candidates):
        n11 = rng.binomial(right, p[0] / (p[0] + p[2]))
        n10 = rng.binomial(n - right, p[1] / max(p[1] + p[3], 1e-300))
        found.append(np.array([n11, n10, right - n11, n - right - n10]))
    return found


def slices(sets: int = 4000) -> list[Row]:
    """Eight slices under one limit by Holm's procedure: any that stands at its limit is passed; the others keep it easily."""
    rows = []
    for size in (60, 150, 872):
        for at_limit in (1, 3, 8):
            rng, passed = np.random.default_rng([size, at_limit]), 0
            tight, easy = cells(0.85, 0.9, 0.01), cells(0.85, 0.999, 0.01)
            z = np.array([_z(drawn(rng, size, tight if k < at_limit else easy, sets), 0.9) for k in range(8)])
            for one in z.T:
                found = step_down({str(k): (lambda level, v=v: v >= quantile(level)) for k, v in enumerate(one)}, lambda _, kept: kept, confidence=CONFIDENCE)
                passed += any(found[str(k)] for k in range(at_limit))
            rows.append({"size": size, "slices": 8, "at_limit": at_limit, "passed": passed / sets})
    return rows


def _z(counts: np.ndarray, phi: float) -> np.ndarray:
    return scores(counts[0], counts[1], counts[2], phi=phi)


def percentile_rule() -> list[Row]:
    """A percentile of latency that is exactly the limit, so that each timing is over it with probability 1 − q: the rate at which it passes."""
    rows = []
    for q, counts in ((0.5, (7, 20, 100, 1000)), (0.9, (44, 64, 200, 1000)), (0.99, (459, 1000, 5000))):
        for n in counts:
            accepted = [t for t in range(math.ceil(n * (1 - q)) + 2) if fixed_verdict(t, n, percentile=q, confidence=0.99) == "below"]
            rows.append({"percentile": q, "n": n, "most_over": max(accepted, default=None), "passed": float(binom.pmf(accepted, n, 1 - q).sum()) if accepted else 0.0})
    return rows


PRIOR = np.array([0.4, 0.25, 0.2, 0.1, 0.05])


def _classes(rng: np.random.Generator, n: int, prior: np.ndarray, wrong: float, lost: float, won: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Answers of candidate and baseline: the baseline has a share wrong, the candidate loses and wins some of each."""
    target = rng.choice(len(prior), n, p=prior)
    away, again = ((target + rng.integers(1, len(prior), n)) % len(prior) for _ in range(2))
    baseline = np.where(rng.random(n) < wrong, away, target)
    chance = rng.random(n)
    candidate = np.where((baseline == target) & (chance < lost), again, np.where((baseline != target) & (chance < won), target, baseline))
    return {"predicted": candidate, "target": target}, {"predicted": baseline, "target": target}


def _values(rng: np.random.Generator, n: int, kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Predictions of a number: errors of the candidate beside the baseline's are normal, of heavy tails, rare, or grow with the target."""
    target = rng.lognormal(0, 0.8, n) if kind == "growing" else rng.standard_normal(n)
    noise = 0.4 * rng.standard_normal(n) if kind != "growing" else 0.3 * target * rng.standard_normal(n)
    more = {
        "normal": lambda: 0.2 * rng.standard_normal(n),
        "heavy tails": lambda: 0.2 * rng.standard_t(4, n),
        "rare": lambda: (rng.random(n) < 0.02) * 1.4 * rng.standard_normal(n),
        "growing": lambda: 0.25 * target * rng.standard_normal(n),
    }[kind]()
    return {"predicted": (target + noise + more)[:, None], "target": target[:, None]}, {"predicted": (target + noise)[:, None], "target": target[:, None]}


DRAWS: Mapping[str, tuple[str, Callable[[np.random.Generator, int], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]]] = {
    "macro-F1, 5 uneven classes": ("ratio", lambda r, n: _classes(r, n, PRIOR, 0.15, 0.04, 0.08)),
    "macro-F1, 10 even classes": ("ratio", lambda r, n: _classes(r, n, np.full(10, 0.1), 0.2, 0.05, 0.1)),
    "macro-F1, hardly any differ": ("ratio", lambda r, n: _classes(r, n, PRIOR, 0.1, 0.008, 0.0)),
    "R², normal errors": ("drop", lambda r, n: _values(r, n, "normal")),
    "R², heavy tails": ("drop", lambda r, n: _values(r, n, "heavy tails")),
    "R², errors grow with the target": ("drop", lambda r, n: _values(r, n, "growing")),
    "R², rare errors": ("drop", lambda r, n: _values(r, n, "rare")),
}


def bootstrap(sets: int, *, sizes: Sequence[int], resamples: int = 400) -> list[Row]:
    """Metrics that are no share of samples: truth at the limit under BCa as published, and as limbeck widens it where few units carry it."""
    rows = []
    for name, (kind, draw) in DRAWS.items():
        reduce = metrics.macro_f1().reduce if kind == "ratio" else metrics.r2().reduce

        def statistic(c: Any, b: Any, reduce: Any = reduce, kind: str = kind) -> float:
            return reduce(c) / reduce(b) if kind == "ratio" else reduce(b) - reduce(c)

        for n in sizes:
            truth = _truth(draw, statistic)
            rng, hits, widths = np.random.default_rng([n, len(name)]), np.zeros(2), ([], [])
            for seed in range(sets):
                pair = draw(rng, n)
                for number, rare in enumerate((False, True)):
                    found = bca_lower(*pair, statistic, resamples=resamples, seed=seed, rare=rare)
                    hits[number] += found.low >= truth if kind == "ratio" else found.high <= truth
                    widths[number].append(found.value - found.low if kind == "ratio" else found.high - found.value)
            plain, widened = (float(h) / sets for h in hits)
            rows.append(
                {
                    "what": name,
                    "kind": kind,
                    "n": n,
                    "truth": truth,
                    "published": plain,
                    "passed": widened,
                    "wider": float(np.median(widths[1]) / np.median(widths[0])),
                    "sets": sets,
                }
            )
    return rows


def _truth(draw: Any, statistic: Any, parts: int = 20, size: int = 200_000) -> float:
    """The statistic of four million samples."""
    rng = np.random.default_rng(1)
    return float(np.mean([statistic(*draw(rng, size)) for _ in range(parts)]))


def _sure(rng: np.random.Generator, n: int, near_one: bool) -> np.ndarray:
    return 1 - 0.5 * rng.beta(0.3, 1.5, n) if near_one else rng.uniform(0.55, 0.95, n)


SHAPES: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], float, bool]] = {
    # how much too sure the baseline is and the candidate is, how far their confidences differ, and whether most are near 1
    "both calibrated": (lambda c: 0 * c, lambda c: 0 * c, 0.1, False),
    "both too sure by 5 points": (lambda c: 0 * c + 0.05, lambda c: 0 * c + 0.05, 0.1, False),
    "too sure by 5 points, then by 8": (lambda c: 0 * c + 0.05, lambda c: 0 * c + 0.08, 0.1, False),
    "calibrated, then too sure by 5": (lambda c: 0 * c, lambda c: 0 * c + 0.05, 0.0, False),
    "calibrated, then too sure by 10": (lambda c: 0 * c, lambda c: 0 * c + 0.1, 0.1, False),
    "unsure by 3, then too sure by 5": (lambda c: 0 * c - 0.03, lambda c: 0 * c + 0.05, 0.1, False),
    "both ways by 3, then by 5": (lambda c: np.where(c > 0.75, 0.03, -0.03), lambda c: np.where(c > 0.75, 0.05, -0.05), 0.0, False),
    "most near 100 %, then too sure": (lambda c: 0 * c, lambda c: 0.1 * (1 - c), 0.1, True),
}
RARE = ((0.01, 0.03), (0.002, 0.01), (0.02, 0.05))  # errors of a baseline that says so, and of a candidate that says the same and is wrong more often


def calibration(sets: int = 1000) -> list[Row]:
    """The increase of the calibration error at its limit: the rate at which it passes, and the median bound, which is what limit can be kept."""
    rows = []
    for n in (360, 872, 5000):
        for name, (before, after, apart, near_one) in SHAPES.items():
            rng = np.random.default_rng([n, len(name)])
            sure = _sure(rng, 400_000, near_one)
            truth = error(*_expected(_moved(rng, sure, apart), after)) - error(*_expected(sure, before))
            found = np.array([increase_upper(*_answers(rng, n, before, after, apart, near_one)) for _ in range(sets)])
            rows.append({"what": name, "n": n, "truth": truth, "passed": float(np.mean(found[:, 1] <= truth)), "bound": float(np.median(found[:, 1])), "sets": sets})
        for wrong, more in RARE:
            rng, found = np.random.default_rng([n, round(1000 * more)]), []
            for _ in range(sets):
                chance, sure = rng.random(n), np.clip(1 - wrong + 0.0005 * rng.standard_normal(n), 0, 1)
                found.append(increase_upper((sure, (chance >= more).astype(float)), (sure, (chance >= wrong).astype(float)))[1])
            passed = float(np.mean(np.array(found) <= more - wrong))
            rows.append({"what": f"{wrong:.1%} errors, then {more:.1%}", "n": n, "truth": more - wrong, "passed": passed, "bound": float(np.median(found)), "sets": sets})
    return rows


def _expected(sure: np.ndarray, over: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return sure, np.clip(sure - over(sure), 0, 1)


def _moved(rng: np.random.Generator, sure: np.ndarray, apart: float) -> np.ndarray:
    return np.clip(sure + 2 * apart * rng.standard_normal(len(sure)) * (1 - sure), 0.05, 1) if apart else sure


def _answers(rng: np.random.Generator, n: int, before: Any, after: Any, apart: float, near_one: bool) -> tuple[Any, Any]:
    """Confidences and rights of candidate and baseline; nine samples in ten are hard or easy for both."""
    sure, chance = _sure(rng, n, near_one), rng.random(n)
    own = _moved(rng, sure, apart)
    other = np.where(rng.random(n) < 0.9, chance, rng.random(n))
    return (own, (other < _expected(own, after)[1]).astype(float)), (sure, (chance < _expected(sure, before)[1]).astype(float))


QUESTIONS: Mapping[str, Callable[[], list[Row]]] = {
    "one_look": one_look,
    "few_differ": few_differ,
    "looks": looks,
    "tries": tries,
    "slices": slices,
    "percentile_rule": percentile_rule,
    "calibration": calibration,
    "bootstrap": lambda: bootstrap(400, sizes=(360,)),
    "bootstrap_of_more": lambda: bootstrap(200, sizes=(872,)),
}


def main() -> int:
    """Answer the questions that are named (all by default), and keep the others as they are recorded."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {"answers": {}}
    for name in sys.argv[1:] or QUESTIONS:
        start = time.perf_counter()
        known["answers"][name] = QUESTIONS[name]()
        print(f"{name}: {len(known['answers'][name])} rows in {time.perf_counter() - start:.0f} s", flush=True)
        record = {
            "question": "how often does a gate pass a candidate whose truth stands exactly at the limit",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent).stdout.strip(),
            "machine": environment.machine(),
            "versions": {k: v for k, v in environment.versions().items() if k in ("limbeck", "numpy", "scipy")},
            "sets": SETS,
        }
        RECORD.write_text(json.dumps(record | {"answers": known["answers"]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
