"""What was forgotten: counted over the whole split, by class and by how sure the baseline was."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

sys.path.insert(0, str(Path(__file__).parent))
from tables_of_answers import logits, setting, table

from limbeck.evaluation.studies import MISSING, taken
from limbeck.evaluation.studies.forgotten import FORGOTTEN
from limbeck.intake.metrics import mse
from limbeck.stats.answers import agreement

LABEL = np.arange(400) % 4
SURE = np.where(np.arange(400) < 200, 0.95, 0.55)


def forgotten(one) -> dict:
    return taken(one, (FORGOTTEN,))["forgotten"]


def made(folder: Path, lost: np.ndarray, won: np.ndarray, **options) -> dict:
    """A baseline wrong in `won` alone, a candidate in `lost` alone; both say the next class where they are wrong."""
    first, second = (np.where(np.isin(np.arange(400), wrong), (LABEL + 1) % 4, LABEL) for wrong in (won, lost))
    return setting(folder, logits(first, 4, SURE), logits(second, 4, 0.5), {"label": LABEL}, classes=["ant", "bee", "cow", "dog"], **options)


def test_counts_classes_and_chance(tmp_path: Path):
    lost, won = np.arange(3, 80, 4), np.array([200, 201])
    told = forgotten(made(tmp_path, lost, won))
    assert (told["samples"], told["right"], told["lost"], told["won"]) == (400, 398, 20, 2)
    assert told["share"] == 20 / 398 < told["share_high"] < 0.08
    assert told["mcnemar"] == pytest.approx(binomtest(2, 22, 0.5).pvalue)
    dog, ant = told["classes"][0], next(c for c in told["classes"] if c["class"] == "ant")
    assert (dog["class"], dog["samples"], dog["right"], dog["lost"], dog["share"]) == ("dog", 100, 100, 20, 0.2)
    chance = fisher_exact([[20, 80], [0, 298]], alternative="greater").pvalue
    assert dog["p_value"] == pytest.approx(4 * chance, rel=1e-6) and ant["p_value"] == 1 and (ant["lost"], ant["won"]) == (0, 1)


def test_chance_of_a_few_is_that_of_fishers_test(tmp_path: Path):
    dog, ant = forgotten(made(tmp_path, np.array([3, 7, 11, 0]), np.array([], dtype=int)))["classes"][:2]
    assert (dog["lost"], ant["lost"]) == (3, 1)
    assert dog["p_value"] == pytest.approx(4 * fisher_exact([[3, 97], [1, 299]], alternative="greater").pvalue, rel=1e-9) and 0.1 < dog["p_value"] < 0.5


def test_rows_may_name_classes_instead_of_numbering_them(tmp_path: Path):
    """Labels that are text, as a metric of a user's own gives them; or bools."""
    one = made(tmp_path, np.arange(3, 80, 4), np.array([200, 201]))
    words, numbers = np.array(["ant", "bee", "cow", "dog"]), forgotten(one)

    def turned(side, into):
        return replace(side, rows={k: into(side.rows[k]) for k in ("predicted", "target")})

    named = replace(one, candidate=turned(one.candidate, words.__getitem__), baseline=turned(one.baseline, words.__getitem__))
    told = forgotten(named)
    assert {k: told[k] for k in ("right", "lost", "won", "classes")} == {k: numbers[k] for k in ("right", "lost", "won", "classes")}
    assert (told["worst"][0]["label"], told["worst"][0]["says"]) == ("dog", "ant")
    assert agreement(named.candidate.rows, named.baseline.rows) == 1 - 22 / 400
    halves = replace(one, candidate=turned(one.candidate, lambda v: v > 1), baseline=turned(one.baseline, lambda v: v > 1))
    assert forgotten(halves)["lost"] == 20 and {c["class"] for c in forgotten(halves)["classes"]} == {"bee", "ant"}


def test_whether_it_was_easy(tmp_path: Path):
    told = forgotten(made(tmp_path, np.array([10, 11, 12, 300]), np.array([], dtype=int)))
    assert told["easy"] == {"from": 0.9, "right": 200, "lost": 3, "of_lost": 0.75}
    assert [(g["right"], g["lost"]) for g in told["by_sureness"]] == [(200, 1), (200, 3)]
    assert told["by_sureness"][0]["to"] == pytest.approx(0.55) and told["by_sureness"][1]["from"] == pytest.approx(0.95)


def test_the_samples_to_look_at_are_those_that_it_was_surest_of(tmp_path: Path):
    told = forgotten(made(tmp_path, np.array([300, 10, 301, 11]), np.array([5])))
    assert [w["id"] for w in told["worst"]] == [10, 11, 300, 301]
    assert told["worst"][0] == {"id": 10, "margin": pytest.approx(0.95 - 0.05 / 3), "sure": pytest.approx(0.95), "label": "cow", "says": "dog"}


def test_margins_of_what_was_lost_beside_what_was_kept(tmp_path: Path):
    near = SURE.copy()
    near[300:304] = 0.4
    first = logits(LABEL, 4, near)
    second = logits(np.where(np.isin(np.arange(400), [10, 300, 301, 302]), (LABEL + 1) % 4, LABEL), 4, 0.5)
    told = forgotten(setting(tmp_path, first, second, {"label": LABEL}))["margins"]
    assert told["near"] == 0.2 and told["lost"]["near"] == told["lost"]["near"] == 0.0
    near[300:304] = 0.3
    told = forgotten(setting(tmp_path / "nearer", logits(LABEL, 4, near), second, {"label": LABEL}))["margins"]
    assert told["lost"] == {"samples": 4, "near": 0.75, "median": pytest.approx(0.3 - 0.7 / 3, abs=1e-6)}
    assert told["kept"]["near"] == pytest.approx(1 / 396) and told["just_over"] == 0


def test_nothing_lost(tmp_path: Path):
    told = forgotten(made(tmp_path, np.array([], dtype=int), np.array([7])))
    assert told["lost"] == 0 and told["worst"] == [] and told["margins"] == {MISSING: "nothing was lost"} and told["easy"]["of_lost"] is None


def test_outputs_that_are_no_logits_leave_the_counts(tmp_path: Path):
    one = made(tmp_path, np.array([10]), np.array([5]))
    odd = [replace(s, artifact=table(tmp_path / f"odd-{i}", np.zeros((400, 2, 2)))) for i, s in enumerate((one.baseline, one.candidate))]
    told = forgotten(replace(one, baseline=odd[0], candidate=odd[1]))
    assert told["lost"] == 1 and "one row of logits a sample" in told["margins"][MISSING] and told["worst"][0]["margin"] is None


def test_when_it_can_not_be_made_it_says_why(tmp_path: Path):
    one = made(tmp_path, np.array([10]), np.array([5]))
    assert "--task" in forgotten(replace(one, task=None))[MISSING] and "baseline" in forgotten(replace(one, baseline=None))[MISSING]
    values = setting(tmp_path / "values", np.ones((60, 1)), np.ones((60, 1)), {"target": np.ones((60, 1), np.float32)}, metric=mse())
    assert "don't say which samples are right" in forgotten(values)[MISSING]
    halved = [replace(s, rows={k: v[::2] for k, v in s.rows.items()}) for s in (one.baseline, one.candidate)]
    assert "200 rows for 400 samples" in forgotten(replace(one, baseline=halved[0], candidate=halved[1]))[MISSING]
