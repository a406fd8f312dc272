"""The tables of how often a gate is wrong: every rate of the record is shown, what breaks its promise in bold."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def loaded(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    return loaded("docs", "generate_verdicts")


@pytest.fixture(scope="module")
def verdicts():
    return loaded("benchmarks", "verdicts")


def test_before_the_benchmark_was_run_the_page_says_so(tables):
    assert all("Not run yet" in rendered(None) for _, rendered in tables.PAGES)


def test_a_rate_that_breaks_the_promise_stands_in_bold(tables):
    rows = [{"what": w, "kind": "drop", "n": 360, "published": 0.12, "passed": p, "wider": 1.2, "sets": 400} for w, p in (("rare", 0.1), ("normal", 0.05))]
    text = tables.bootstrap({"answers": {"bootstrap": rows}})
    assert "| normal (drop) | 360 | **12.0%** | 5.0% | 1.20 |" in text and "| rare (drop) | 360 | **12.0%** | **10.0%** | 1.20 |" in text


def test_the_record_keeps_the_promises(tables):
    told = tables.record()["answers"]
    assert max(r["passed"] for r in told["one_look"]) <= 0.065 and max(r["passed"] for r in told["few_differ"]) <= 0.067
    assert max(r["planned"] for r in told["looks"]) <= 0.065 < max(r["alone"] for r in told["looks"])
    assert max(max(r["shared"], r["combined"]) for r in told["tries"]) <= 0.065 < max(r["alone"] for r in told["tries"])
    assert max(r["passed"] for r in told["slices"]) <= 0.065 and max(r["passed"] for r in told["percentile_rule"]) <= 0.01
    assert min(r["covered"] for r in told["one_look"]) >= 0.935
    assert all(r["passed"] <= 0.05 + 3 * (0.05 * 0.95 / r["sets"]) ** 0.5 for r in told["calibration"])
    json.dumps(told, allow_nan=False)


def test_the_exact_sum_agrees_with_a_simulation(verdicts):
    p = verdicts.cells(0.95, 0.99, 0.002)
    simulated = verdicts.passes(verdicts.drawn(verdicts.np.random.default_rng(0), 360, p, 200_000), 0.99, kind="ratio").mean()
    assert verdicts.exactly(360, p, 0.99, kind="ratio") == pytest.approx(simulated, abs=3 * (0.05 * 0.95 / 200_000) ** 0.5)


def test_candidates_beside_one_baseline_have_the_truth_that_is_asked(verdicts):
    p = verdicts.cells(0.8, 0.9, 0.02)
    first, second = verdicts._on_same_baseline(verdicts.np.random.default_rng(1), 1000, p, 20_000, 2)
    assert (first[0] + first[2] == second[0] + second[2]).all(), "the baseline is the same"
    assert first.mean(axis=1) / 1000 == pytest.approx(p, abs=2e-3) and (first.sum(axis=0) == 1000).all()
