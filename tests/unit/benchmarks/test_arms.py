"""What benchmarks rest on: arms that resume, intervals that hold over seeds and samples, tables that hide no loser."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from limbeck.core.errors import Interrupted, StageError

ROOT = Path(__file__).parents[3]
SETTING = {"images": 8, "epochs": 1, "batch_size": 2, "test_images": 16, "data": "none", "teacher_accuracy": 0.9}


@pytest.fixture(scope="module")
def arms():
    return _module("benchmarks", "arms")


@pytest.fixture(scope="module")
def tables():
    return _module("docs", "generate_benchmarks")


def _module(folder: str, name: str):
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = before


def drawn(rng, *, arms=6, seeds=3, samples=400, effect=0.3, by_seed=0.03, by_arm_and_seed=0.05, by_sample=0.5, by_arm_and_sample=0.4):
    """Rows of every arm with known truth: effects of seeds and samples, alone and with the arm, and noise. The last arm is better by `effect`."""
    rows = rng.normal(0, by_seed, (1, seeds, 1)) + rng.normal(0, by_sample, (1, 1, samples)) + rng.normal(0, 0.5, (arms, seeds, samples))
    rows = rows + rng.normal(0, by_arm_and_seed, (arms, seeds, 1)) + rng.normal(0, by_arm_and_sample, (arms, 1, samples))
    rows[-1] += effect
    return {f"arm {i}": rows[i] for i in range(arms)}


def test_an_interval_covers_the_truth_in_19_of_20_draws_of_seeds_and_samples(arms):
    rng, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        made = drawn(rng)
        gap = arms.difference(made["arm 5"], made["arm 0"], arms.spread(made))
        low, high = gap.bounds()
        covered += low <= 0.3 <= high
        samples_alone = (made["arm 5"] - made["arm 0"]).mean(0).std(ddof=1) / 400**0.5
        naive += abs(gap.value - 0.3) <= 1.96 * samples_alone
    assert 0.935 <= covered / 1000 <= 0.985
    assert naive / 1000 < 0.9  # an interval over test samples alone forgets the seeds


def test_what_a_seed_does_to_all_arms_is_no_spread(arms):
    made = drawn(np.random.default_rng(1))
    moved = {name: rows + np.array([[0.5], [-0.2], [0.1]]) for name, rows in made.items()}
    assert arms.spread(moved)[0] == pytest.approx(arms.spread(made)[0], abs=1e-12)
    assert arms.spread(made)[1] == 10
    own = {name: rows + np.array([[0.5], [-0.2], [0.1]]) * (name == "arm 2") for name, rows in made.items()}
    assert arms.spread(own)[0] > 2 * arms.spread(made)[0]


def test_a_difference_by_hand(arms):
    candidate, baseline = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool), np.array([[1, 0, 0, 0], [1, 0, 0, 0]], bool)
    gap = arms.difference(candidate, baseline, (0.0, 1))
    means = np.array([0, 0.5, 0, 1.0])
    apart = candidate.astype(float) - baseline
    rest = apart - means - apart.mean(1, keepdims=True) + apart.mean()
    assert gap.value == pytest.approx(0.375)
    assert gap.error**2 == pytest.approx(max(means.var(ddof=1) / 4 - (rest**2).sum() / 3 / 8, means.var(ddof=1) / 4))
    same = arms.difference(candidate, candidate, (0.0, 1))
    assert (same.value, same.error) == (0, 0)


def test_a_finished_arm_is_not_run_again_and_another_setting_is_another_arm(arms, tmp_path):
    ran = []

    def work(_):
        ran.append(1)
        return np.array([True, False, True]), {"curve": [1.0]}

    ledger = arms.Ledger.at(tmp_path, "some arm", SETTING)
    first = ledger.run("kd, standardized", 0, work)
    assert ledger.run("kd, standardized", 0, work) == first
    assert len(ran) == 1
    assert first["accuracy"] == pytest.approx(2 / 3)
    assert arms.unpacked(first["right"], 3).tolist() == [True, False, True]
    arms.Ledger.at(tmp_path, "some arm", {**SETTING, "epochs": 2}).run("kd, standardized", 0, work)
    assert len(ran) == 2
    assert arms.collected(["kd, standardized", "dkd"], [0, 1], ledger) == {"kd, standardized": {"0": first}}


def test_a_divergence_is_a_result_and_a_stop_is_none(arms, tmp_path):
    ledger = arms.Ledger.at(tmp_path, "arm", SETTING)

    def diverges(_):
        raise StageError("diverged")

    def stops(checkpoint):
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.path.touch()
        raise Interrupted("stopped")

    assert ledger.run("a", 0, diverges)["failed"] == "diverged"
    with pytest.raises(Interrupted):
        ledger.run("b", 0, stops)
    assert arms.collected(["a", "b"], [0], ledger).keys() == {"a"}
    assert len(list(tmp_path.rglob("b-0.safetensors"))) == 1  # where it goes on


def replicated(arms, **accuracy):
    rng = np.random.default_rng(0)
    runs = {name: {str(s): {"right": arms.packed(rng.random(16) < share), "core_seconds": 1.0} for s in range(3)} for name, share in accuracy.items()}
    arm = {"term": "kd", "weight": 0.9, "labels": 0.1, "options": {"temperature": 4.0}, "source": "somewhere"}
    own = {name: {**arm, "term": "task_loss"} if name == "none" else arm for name in accuracy}
    told = {"commit": "c", "time": "2026-01-01T00:00:00", "machine": {"processor": "p"}, "versions": {"torch": "2"}, "core_hours": 0.1}
    return {
        "setting": SETTING,
        "runs": runs,
        "arms": own,
        "left_out": {"ewc": "is about forgetting"},
        "asides": {"none, AdamW": ["none", {"a": 1}], "kd, AdamW": ["kd", {"a": 1}], "kd, other": ["kd", {"b": 1}]},
        **told,
    }


def test_the_table_shows_losers_and_those_that_diverged(arms, tables):
    told = replicated(arms, none=0.5, kd=1.0, hint=0.0, dist=0.5)
    told["runs"]["dist"]["1"] = {"failed": "the loss is NaN", "core_seconds": 1.0}
    text = tables.replication(told)
    lines = text.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["`kd`", "**no teacher**", "`hint`"]
    assert "better" in lines[2]
    assert "worse" in lines[4]
    assert "`dist` seed 1: the loss is NaN" in text
    assert "| `ewc` | is about forgetting |" in text
    (unrun,) = [line for line in text.splitlines() if line.startswith("Not run")]
    assert "`vid`" in unrun
    assert "`dist`" not in unrun
    del told["runs"]["hint"]["2"]
    (unrun,) = [line for line in tables.replication(told).splitlines() if line.startswith("Not run")]
    assert "`hint`" in unrun  # what lacks a seed isn't in the table, and is named
    assert "Not run yet" in tables.replication(None)


def test_another_training_is_compared_with_its_own_baseline(arms, tables):
    told = replicated(arms, none=0.5, kd=0.5)
    told["runs"] |= {"none, AdamW": replicated(arms, none=0.0)["runs"]["none"], "kd, AdamW": replicated(arms, kd=1.0)["runs"]["kd"]}
    text = tables.replication(told)
    (line,) = [line for line in text.splitlines() if "AdamW" in line]
    assert line.startswith("| `kd` | AdamW | 0.00% | 100.00% | +100.00 (")


def test_terms_that_agree_with_none_are_not_told_apart(arms, tables):
    rng = np.random.default_rng(3)
    made = {f"arm {i}": rng.random((3, 500)) < 0.5 for i in range(8)}
    gaps = {name: arms.difference(rows, made["arm 0"], arms.spread(made)) for name, rows in made.items() if name != "arm 0"}
    assert not any(tables.apart(gaps).values())
    gaps["arm 1"] = arms.difference(np.ones((3, 500), bool), made["arm 0"], arms.spread(made))
    assert [name for name, told in tables.apart(gaps).items() if told] == ["arm 1"]
