"""Which settings of a distillation are worth trying, and what their results say: no training happens here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.core.metric import Metric
from limbeck.core.plan import Stage

NONE, PLAIN, COLD, EVEN, SCALED, CHAIN = "no teacher", "T = 4, weight 0.9", "T = 1, weight 0.9", "T = 4, weight 0.5", "standardized, T = 2", "through an assistant"

SHORT = 0.5  # of the teacher's metric: a student below it has hardly begun to learn


@dataclass(frozen=True)
class Gap:
    """Teacher and student before they meet.

    teacher_metric: on validation. student_metric: without a teacher, on validation, after the short training.
    left_open: by temperature, the mean entropy of the teacher's softened answers to training samples, 1 being that of knowing nothing.
    assistant: options of a student of a size between, if limbeck can make one.
    """

    teacher_parameters: int
    student_parameters: int
    teacher_metric: float
    student_metric: float | None
    left_open: Mapping[str, float]
    assistant: Mapping[str, Any] | None


@dataclass(frozen=True)
class Arm:
    """One setting: the trainings that lead to the student, and the arm that it is compared with."""

    name: str
    stages: tuple[Stage, ...]
    against: str = ""


@dataclass(frozen=True)
class Compared:
    """How much better than another arm, on validation, with a two-sided interval over samples and seeds."""

    against: str
    value: float
    low: float
    high: float
    confidence: float

    @property
    def settled(self) -> int:
        """1 better, −1 worse, 0 open."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Answer:
    """A question, what the evidence says, and the evidence."""

    question: str
    answer: str
    why: str


def arms(stage: Stage, *, metric: Metric, gap: Gap, epochs: int) -> tuple[Arm, ...]:
    """What is tried: without a teacher, temperatures, weights, standardized logits, and an assistant where one can be made."""
    training = {**stage.config.get("training", {}), "epochs": epochs}
    own = {"student": stage.config["student"], "options": dict(stage.config.get("options", {})), "training": training}

    def distil(**config: Any) -> Stage:
        return Stage(technique="distill", config={**own, **config})

    found = [Arm(NONE, (distil(teacher_weight=0.0),))]
    if metric.target == "value":
        found += [Arm(PLAIN, (distil(term="logit_mse"),), NONE), Arm(EVEN, (distil(term="logit_mse", teacher_weight=0.5),), PLAIN)]
    else:
        scaled = [{"name": "task_loss", "weight": 0.1}, {"name": "kd", "weight": 0.9, "options": {"temperature": 2.0, "standardize": True}}]
        found += [
            Arm(PLAIN, (distil(),), NONE),
            Arm(COLD, (distil(temperature=1.0),), PLAIN),
            Arm(EVEN, (distil(teacher_weight=0.5),), PLAIN),
            Arm(SCALED, (distil(terms=scaled),), PLAIN),
        ]
    if gap.assistant:
        term = {"term": "logit_mse"} if metric.target == "value" else {}
        found.append(Arm(CHAIN, (distil(options=dict(gap.assistant), **term), distil(teacher="input", **term)), PLAIN))
    return tuple(found)


def answers(gap: Gap, compared: Mapping[str, Compared], *, metric: Metric) -> tuple[Answer, ...]:
    """What the arms say. A difference whose interval holds 0 is said to be open, never rounded to a yes or a no."""
    found = [*_too_short(gap, metric), _helps(compared[PLAIN]), _too_strong(gap, compared.get(CHAIN))]
    if COLD in compared:
        found.append(_temperature(gap, compared[COLD], compared[SCALED]))
    found.append(_weight(compared[EVEN]))
    return tuple(found)


def _too_short(gap: Gap, metric: Metric) -> list[Answer]:
    """A warning where the student hardly learnt anything in that time."""
    alone = gap.student_metric
    if alone is None or not metric.ratio or metric.direction != "higher" or alone >= SHORT * gap.teacher_metric:
        return []
    why = f"without a teacher the student reached {alone:.4f} of the teacher's {gap.teacher_metric:.4f}, less than {SHORT:.0%}: settings can't show yet what they are worth"
    return [Answer("were the trainings long enough?", "hardly: take more epochs", why)]


def _helps(plain: Compared) -> Answer:
    said = {1: "yes", -1: "no: it harms at this length of training", 0: "not settled"}[plain.settled]
    return Answer("does this teacher help this student?", said, _told(PLAIN, plain))


def _too_strong(gap: Gap, chain: Compared | None) -> Answer:
    question = "is the teacher too strong, would an assistant help?"
    size = f"the teacher has {gap.teacher_parameters / gap.student_parameters:.1f}× the student's parameters" if gap.teacher_parameters else "the teacher's parameters aren't known"
    apart = f" and is {abs(gap.teacher_metric - gap.student_metric):.4f} better than the student alone" if gap.student_metric is not None else ""
    if chain is None:
        return Answer(question, "not tried", f"{size}{apart}; limbeck makes assistants of its own families alone: name one in Task.models for `assistant_chain`")
    said = {1: "yes: take `assistant_chain`", -1: "no: an assistant harms", 0: "nothing speaks for one: distil directly, which is cheaper"}[chain.settled]
    return Answer(question, said, f"{size}{apart}; {_told(CHAIN, chain)}")


def _temperature(gap: Gap, cold: Compared, scaled: Compared) -> Answer:
    best = "standardized logits with T = 2" if scaled.settled > 0 and scaled.value >= cold.value else "T = 1" if cold.settled > 0 else "T = 4"
    open_ = "; ".join(f"{share:.1%} at T = {temperature}" for temperature, share in gap.left_open.items())
    sure = " (none of these differences is settled, so the usual one stands)" if not cold.settled and not scaled.settled else ""
    return Answer("which temperature?", best + sure, f"{_told(COLD, cold)}; {_told(SCALED, scaled)}; of the teacher's answers, T leaves open {open_}")


def _weight(even: Compared) -> Answer:
    said = {1: "0.5: the labels deserve half", -1: "0.9", 0: "0.9 (not settled, so the usual one stands)"}[even.settled]
    return Answer("which weight of the teacher's term?", said, _told(EVEN, even))


def _told(name: str, found: Compared) -> str:
    return f"'{name}' is better than '{found.against}' by {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}] on validation"
