"""What short trainings are taken to say."""

import pytest

from limbeck.core.plan import Stage
from limbeck.intake.metrics import accuracy, mse
from limbeck.planner.advice import CHAIN, COLD, EVEN, NONE, PLAIN, SCALED, Compared, Gap, answers, arms

STAGE = Stage(technique="distill", config={"student": "limbeck:convnet", "options": {"width": 8}, "training": {"epochs": 50, "batch_size": 16}})


def gap(*, assistant=None, student_metric: float | None = 0.8) -> Gap:
    return Gap(1000, 100, 0.9, student_metric, {"1": 0.1, "4": 0.6}, assistant)


def better(value: float, *, width: float = 0.01, against: str = PLAIN) -> Compared:
    return Compared(against, value, value - width, value + width, 0.95)


def said(found: Gap, **by_arm: float) -> dict[str, str]:
    names = {"plain": PLAIN, "cold": COLD, "even": EVEN, "scaled": SCALED, "chain": CHAIN}
    compared = {names[k]: better(v) for k, v in by_arm.items()}
    return {a.question.split("?")[0]: a.answer for a in answers(found, compared, metric=accuracy())}


def test_every_arm_is_one_change_of_the_same_training():
    found = {a.name: a for a in arms(STAGE, metric=accuracy(), gap=gap(assistant={"width": 16}), epochs=3)}
    assert list(found) == [NONE, PLAIN, COLD, EVEN, SCALED, CHAIN]
    assert all(s.config["training"] == {"epochs": 3, "batch_size": 16} for a in found.values() for s in a.stages)
    assert found[NONE].stages[0].config["teacher_weight"] == 0 and not found[NONE].against and found[PLAIN].against == NONE
    assert [s.config["options"] for s in found[CHAIN].stages] == [{"width": 16}, {"width": 8}] and found[CHAIN].stages[1].config["teacher"] == "input"


def test_regression_asks_for_no_temperature():
    found = arms(STAGE, metric=mse(), gap=gap(), epochs=3)
    assert [a.name for a in found] == [NONE, PLAIN, EVEN] and all(s.config.get("term", "logit_mse") == "logit_mse" for a in found[1:] for s in a.stages)


@pytest.mark.parametrize(("by", "answer"), [(0.05, "yes"), (-0.05, "no: it harms"), (0.005, "not settled")])
def test_an_interval_that_holds_zero_settles_nothing(by, answer):
    assert said(gap(), plain=by, cold=0, even=0, scaled=0)["does this teacher help this student"].startswith(answer)


@pytest.mark.parametrize(("by", "answer"), [(0.05, "yes: take `assistant_chain`"), (-0.05, "no: an assistant harms"), (0.005, "nothing speaks for one")])
def test_an_assistant_must_show_that_it_helps(by, answer):
    found = said(gap(assistant={}), plain=0.1, cold=0, even=0, scaled=0, chain=by)
    assert found["is the teacher too strong, would an assistant help"].startswith(answer)


def test_temperature_and_weight_stay_usual_until_something_is_better():
    usual = said(gap(), plain=0.1, cold=0.005, even=-0.005, scaled=0.0)
    assert usual["which temperature"].startswith("T = 4 (none of these") and usual["which weight of the teacher's term"].startswith("0.9 (not settled")
    assert said(gap(), plain=0.1, cold=0.05, even=0.05, scaled=0.0)["which temperature"] == "T = 1"
    other = said(gap(), plain=0.1, cold=0.02, even=0.05, scaled=0.05)
    assert other["which temperature"] == "standardized logits with T = 2" and other["which weight of the teacher's term"].startswith("0.5")


def test_a_student_that_has_hardly_begun_is_said_to():
    assert "were the trainings long enough" in said(gap(student_metric=0.3), plain=0.1, cold=0, even=0, scaled=0)
    assert "were the trainings long enough" not in said(gap(), plain=0.1, cold=0, even=0, scaled=0)
