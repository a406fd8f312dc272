"""Slices that are found: a planted one is, one of chance is not, and what is said was measured on samples that had no part in finding it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tables_of_answers import logits, setting

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.task import Task
from limbeck.evaluation.studies import MISSING, Setting, Side, taken
from limbeck.evaluation.studies.found_slices import FOUND_SLICES
from limbeck.intake.metrics import accuracy, mae
from limbeck.stats import paired

CLASSES = 5


class Numbered:
    """Samples of two columns and a label, for studies that need no artifact."""

    def __init__(self, brightness: np.ndarray, site: np.ndarray, label: np.ndarray):
        self.rows = list(zip(brightness.tolist(), site.tolist(), label.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int):
        brightness, site, label = self.rows[i]
        return {"brightness": brightness, "site": site, "label": label}


def made(rng: np.random.Generator, count: int, planted: float, *, broken: float = 0.02) -> Setting:
    """A baseline right in nine of ten; a candidate that loses a share `broken` of it anywhere, and `planted` where label is 3 and brightness above 0.6."""
    brightness, label = rng.random(count), rng.integers(0, CLASSES, count)
    site = np.where(rng.random(count) < 0.5, "north", "south")
    first = rng.random(count) < 0.9
    second = np.where(first, rng.random(count) > broken, rng.random(count) < 0.1)
    damaged = (label == 3) & (brightness > 0.6)
    second &= ~(damaged & (rng.random(count) < planted))
    task = Task(name="made", metric=accuracy(), splits={"test": Numbered(brightness, site, label)}, inputs=lambda b: ((), {}))
    rows = [{"correct": right.astype(np.int8), "predicted": np.where(right, label, (label + 1) % CLASSES), "target": label} for right in (first, second)]
    sides = [Side(artifact=Artifact(Path("none"), "onnxruntime"), rows=r) for r in rows]
    return Setting(baseline=sides[0], candidate=sides[1], task=task, split="test", target=Target(), feed={}, samples=count)


def found(one: Setting) -> dict:
    return taken(one, (FOUND_SLICES,))["found_slices"]


def test_a_planted_slice_is_found_and_told_in_words():
    one = made(np.random.default_rng(1), 2000, planted=0.6)
    told = found(one)
    best = told["found"][0]
    assert {c["feature"] for c in best["conditions"]} == {"label", "brightness"}
    assert best["words"].startswith("label = 3 and brightness > 0.") and 0.5 < best["conditions"][1]["value"] < 0.7
    assert best["drop"] > 0.3 and best["drop_low"] > 0.2 and best["retention"] < best["retention_high"] < 0.8 and best["elsewhere"] < 0.1
    assert told["features"] == ["label", "brightness", "site"] and told["samples"] == 2000 and told["binary"]
    for part in (*told["found"], *told["not_proved"]):
        assert "site" not in part["words"] or part in told["not_proved"]


def test_its_figures_are_those_of_the_samples_that_it_was_not_sought_in():
    one = made(np.random.default_rng(1), 2000, planted=0.6)
    part = found(one)["found"][0]
    data, rows = one.task.splits["test"].rows, [s.rows["correct"] for s in (one.baseline, one.candidate)]
    order = np.random.default_rng(0).permutation(2000)
    held = order[1000:] if part["half"] == 1 else order[:1000]
    inside = [i for i in held if data[i][2] == 3 and data[i][0] > part["conditions"][1]["value"]]
    assert part["samples"] == len(inside)
    assert part["harmed"] == sum(rows[0][i] and not rows[1][i] for i in inside) and part["helped"] == sum(rows[1][i] and not rows[0][i] for i in inside)
    assert set(part["ids"]) <= {i for i in inside if rows[0][i] and not rows[1][i]}
    counts = paired.counts(rows[1][inside], rows[0][inside])
    assert part["retention"] == pytest.approx(counts.candidate / counts.baseline)
    assert part["drop_low"] < part["drop"] < 1


def false_finds(times: int, count: int) -> int:
    rng = np.random.default_rng(7)
    return sum(bool(found(made(rng, count, planted=0.0, broken=0.05))["found"]) for _ in range(times))


def test_a_slice_that_only_chance_made_is_not_found():
    assert false_finds(60, 300) <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("count", [360, 1000])
def test_chance_finds_a_slice_in_at_most_one_of_twenty(count: int):
    assert false_finds(1000, count) <= 1000 * 0.05 + 3 * np.sqrt(1000 * 0.05 * 0.95)


@pytest.mark.slow
def test_a_planted_slice_is_found_nearly_always():
    rng = np.random.default_rng(5)
    assert sum(any("label = 3" in p["words"] for p in found(made(rng, 1000, planted=0.6))["found"]) for _ in range(100)) >= 90


def test_of_a_metric_that_is_no_share_the_drop_is_bounded():
    rng = np.random.default_rng(3)
    size, label = rng.random(1000), np.zeros(1000)
    before = np.abs(rng.normal(0, 1, 1000))
    after = before + np.where(size > 0.7, 0.5, 0.0) + rng.normal(0, 0.2, 1000)
    data = Numbered(size, np.full(1000, "a"), label)
    task = Task(name="made", metric=mae(), splits={"test": data}, inputs=lambda b: ((), {}))
    sides = [Side(artifact=Artifact(Path("none"), "onnxruntime"), rows={"error": e}) for e in (before, after)]
    told = found(Setting(baseline=sides[0], candidate=sides[1], task=task, split="test", target=Target(), feed={}))
    best = told["found"][0]
    assert told["score"] == "error" and not told["binary"] and {c["feature"] for c in best["conditions"]} == {"brightness"}
    assert best["retention"] is None and 0.3 < best["drop_low"] < best["drop"] < 0.7 and abs(best["elsewhere"]) < 0.1


def test_the_tasks_own_features_are_sought_in(tmp_path: Path):
    label = np.arange(800) % 4
    wrong = (np.arange(800) // 4) % 5 == 2
    own = {"features": lambda batch: {"fifth": (batch["index"] // 4) % 5 == 2}}
    told = found(setting(tmp_path, logits(label, 4), logits(np.where(wrong, (label + 1) % 4, label), 4), {"label": label}, task=own))
    assert told["features"] == ["label", "fifth"] and told["found"][0]["words"] == "fifth = true" and told["found"][0]["retention"] == 0


def one_of(first: np.ndarray, second: np.ndarray, size: np.ndarray) -> Setting:
    task = Task(name="made", metric=accuracy(), splits={"test": Numbered(size, np.full(len(size), "a"), np.zeros(len(size)))}, inputs=lambda b: ((), {}))
    sides = [Side(artifact=Artifact(Path("none"), "onnxruntime"), rows={"correct": c.astype(np.int8)}) for c in (first, second)]
    return Setting(baseline=sides[0], candidate=sides[1], task=task, split="test", target=Target(), feed={})


def test_a_part_that_only_gains_less_than_the_rest_lost_nothing():
    rng = np.random.default_rng(0)
    size = rng.random(1000)
    first = rng.random(1000) < 0.5
    second = np.where(size > 0.7, first, True)
    second[0] = False
    told = found(one_of(first, second, size))
    assert told["found"] == [] and told["not_proved"][0]["p_value"] < 0.01 and told["not_proved"][0]["drop"] <= 0


def test_what_is_lost_everywhere_alike_is_no_slice():
    rng = np.random.default_rng(0)
    size = rng.random(1000)
    told = found(one_of(np.ones(1000), rng.random(1000) < 0.5, size))
    assert told["found"] == [] and any(part["drop_low"] > 0.1 for part in told["not_proved"])


def test_nothing_lost_is_nothing_found():
    one = made(np.random.default_rng(2), 200, planted=0)
    told = found(replace(one, candidate=one.baseline))
    assert told["found"] == told["not_proved"] == [] and told["harmed"] == 0


def test_when_it_can_not_be_made_it_says_why():
    one = made(np.random.default_rng(2), 200, planted=0)
    missing = lambda s: found(s)[MISSING]  # noqa: E731
    assert "--task" in missing(replace(one, task=None)) and "baseline" in missing(replace(one, baseline=None))
    assert "40 samples are too few" in missing(replace(one, samples=40))
    units = replace(one.task.metric, unit="speaker")
    assert "units of 'speaker'" in missing(replace(one, task=replace(one.task, metric=units)))
    halved = [replace(s, rows={k: v[::2] for k, v in s.rows.items()}) for s in (one.baseline, one.candidate)]
    assert "100 rows for 200 samples" in missing(replace(one, baseline=halved[0], candidate=halved[1]))
    scoreless = [replace(s, rows={"score": np.linspace(0, 1, 200)}) for s in (one.baseline, one.candidate)]
    area = replace(one.task, metric=replace(one.task.metric, name="area", reduce=lambda r: 0.7, proportion=None))
    assert "no score of single samples" in missing(replace(one, task=area, baseline=scoreless[0], candidate=scoreless[1]))


def test_a_slice_that_is_lost_altogether_has_a_bound_too():
    """None right of n that the baseline has right: at most z² / n, where the score is −z."""
    one = made(np.random.default_rng(1), 2000, planted=1.0)
    for part in (lost := [part for part in found(one)["found"] if part["retention"] == 0]):
        right = round(part["baseline"] * part["samples"])
        told = part["retention_high"]
        assert 0 < told < 0.3 and paired.score(paired.Counts(0, 0, right, 0), told) == pytest.approx(-((told * right) ** 0.5))
        assert told > paired.quantile(0.95) ** 2 / right, "shared among all parts that were judged"
    assert lost
