"""The student's deepest layer as the teacher of its shallower ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, cast

from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.data import labels
from limbeck.mechanics.depths import HEAD, at
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import TAKEN, mask_of, width_of
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.mechanics.terms.logits import Temperature, paired
from limbeck.mechanics.terms.task_loss import main_name, main_output, task_loss

MIDDLE = (8, 64)  # the least and the most channels of a branch's bottleneck


def deep_supervision(
    *,
    layers: Annotated[tuple[str, ...], "module paths in the student that get a branch; none: `branches` of them, evenly spaced through its depth"] = (),
    branches: Annotated[int, Range(1, None), "how many, where layers aren't named"] = 2,
    deepest: Annotated[str, "module path of the features that branches imitate; `auto`: what goes into the student's head"] = "auto",
    alpha: Annotated[float, Range(0, 1), "share of the deepest answer in what a branch learns from; labels get the rest"] = 0.1,
    temperature: Temperature = 3.0,
    hint: Annotated[float, Range(0, None), "weight of the deepest features"] = 0.07,
) -> Term:
    """Be your own teacher: a classifier on each of some layers, taught by labels and by the student's own deepest layer; no teacher is needed.

    Σ over branches of (1 − α) · `task_loss` + α · T² · KL(deepest ‖ branch) + λ · (branch's features − deepest features)², the last
    averaged over width. The deepest layer gets no gradient from this: its own `task_loss` stands beside. Where a batch has no labels,
    their part is left out. A branch is a bottleneck (maps: 1×1 and 3×3 convolutions, with group norm), a mean over places, a linear layer
    to the deepest features' width, one to classes; it trains with the student and is thrown away.

    Source: Zhang et al. 2019, arXiv:1905.08094, eq. 1 to 4; α and T as in the public code. Differs: group norm instead of batch norm, so
    that samples aren't related; the features' difference is averaged instead of summed, so that λ doesn't depend on width and batch
    (10⁻⁶ of the sum over 512 values and 128 samples there is 0.07 of the mean).
    Raises: ConfigError for a value outside its range, or a student whose outputs aren't class logits of samples or tokens.
    """
    if not (branches >= 1 and 0 <= alpha <= 1 and hint >= 0):
        raise ConfigError(f"deep_supervision needs branches ≥ 1, alpha in [0, 1] and hint ≥ 0, got {branches!r}, {alpha!r} and {hint!r}. 2, 0.1 and 0.07 are usual.")
    places = layers or tuple(at(i, branches) for i in range(1, branches + 1))
    goal = HEAD if deepest == "auto" else deepest

    def builds(wiring: Wiring) -> nn.Module:
        answer, width = _sizes(wiring, goal)
        return nn.ModuleList(Branch(_shaped(wiring, place, answer), width, answer[-1]) for place in places)

    def term(seen: Seen) -> Tensor:
        answer, main = main_output(seen.task, seen.student), main_name(seen.task, seen.student)
        whole, labelled = answer.dim() == 2, bool(seen.task.loss) or labels(seen.batch) is not None
        target, losses = _gathered(seen, seen.tap("student", goal).detach(), whole=whole), []
        for place, branch in zip(places, cast(list[Branch], seen.own), strict=True):
            features = branch.widen(_gathered(seen, branch.narrow(seen.tap("student", place)), whole=whole))
            logits = branch.classify(features)
            rows = paired(seen, "deep_supervision", logits, answer)
            loss = alpha * rows.mean(kd_rows(rows.student, rows.teacher, temperature=temperature)) + hint * _apart(seen, features, target)
            if labelled:
                loss = loss + (1 - alpha) * task_loss().function(replace(seen, student={**seen.student, main: logits}))
            losses.append(loss)
        return sum(losses[1:], losses[0])

    named = tuple(dict.fromkeys((*layers, *(() if deepest == "auto" else (deepest,)))))
    return Term("deep_supervision", term, builds=builds, student_taps=named, chosen=tuple(p for p in (*places, goal) if p not in named))


class Branch(nn.Module):
    """A classifier on a layer: a bottleneck, place by place; then features as wide as the deepest ones; then classes."""

    def __init__(self, shape: Sequence[int], width: int, classes: int):
        super().__init__()
        own = width_of(shape)
        middle = max(MIDDLE[0], min(own, MIDDLE[1]))
        layers: list[nn.Module] = [nn.Linear(own, middle), nn.LayerNorm(middle), nn.ReLU()]
        if len(shape) == 4:
            layers = []
            for before, size in ((own, 1), (middle, 3)):
                layers += [nn.Conv2d(before, middle, size, padding=size // 2, bias=False), nn.GroupNorm(1, middle), nn.ReLU()]
        self.narrow = nn.Sequential(*layers)
        self.widen = nn.Linear(middle, width)
        self.classify = nn.Linear(width, classes)


def _sizes(wiring: Wiring, goal: str) -> tuple[tuple[int, ...], int]:
    """The shape of the main output and the width of the deepest features. Raises ConfigError for what a branch can't answer."""
    answer, features = wiring.student_shapes[main_name(wiring.task, wiring.student_shapes)], wiring.shape("student", goal)
    if len(answer) not in (2, 3) or answer[-1] < 2 or len(features) not in (2, 3, 4) or (len(answer) == 3 and len(features) != 3):
        raise ConfigError(
            f"deep_supervision needs class logits of samples [batch, classes], or of tokens with features of tokens, got outputs {list(answer)} and deepest features "
            f"{list(features)}. Name the layer before the head in deepest, or leave the term out."
        )
    return answer, width_of(features)


def _shaped(wiring: Wiring, place: str, answer: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the features that a branch stands on. Raises ConfigError for others than it takes."""
    shape = wiring.shape("student", place)
    path = wiring.matched.get(place, place)
    if len(shape) not in (2, 3, 4):
        raise ConfigError(f"deep_supervision takes features of shape {TAKEN}, got {list(shape)} from '{path}'. Name another layer.")
    if len(answer) == 3 and tuple(shape[:2]) != tuple(answer[:2]):
        raise ConfigError(f"deep_supervision answers each token at '{path}', which gives {list(shape)} for outputs {list(answer)}. Name layers that keep the tokens.")
    return shape


def _gathered(seen: Seen, features: Tensor, *, whole: bool) -> Float[Tensor, "batch ... width"]:
    """One vector a sample, the mean over places without padding; or one a token, as they are."""
    if not whole or features.dim() == 2:
        return features
    if features.dim() == 4:
        return features.mean((2, 3))
    mask = mask_of(seen, features)
    return features.mean(1) if mask is None else (features * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _apart(seen: Seen, features: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """(features − target)², averaged over width, a sample's tokens without padding, and samples."""
    squares = (features - target).square().mean(-1)
    mask = mask_of(seen, features)
    return squares.mean() if mask is None else ((squares * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
