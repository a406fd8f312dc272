"""The teacher's features in its own short words: factors that an autoencoder found before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, as_map, both_of, resized, taps_of, width_of

SLOPE = 0.1  # of the leaky ReLUs


def factor_transfer(
    *,
    student: Annotated[str, "module path in the student, as a rule the last map"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    ratio: Annotated[float, Range(0, None, closed="neither"), "factors, as a fraction of the teacher's channels"] = 0.5,
    passes: Annotated[int, Range(1, None), "over the training split, in which the teacher's autoencoder learns, before training"] = 5,
    learning_rate: Annotated[float, Range(0, None, closed="neither"), "of Adam, for the autoencoder"] = 1e-3,
) -> Term:
    """Factor transfer: the teacher's factors, matched by a translator that trains with the student; see `factor_transfer_loss`.

    The paraphraser is the encoder of an autoencoder of the teacher's features, trained when the objective is bound and frozen then.
    Paraphraser and translator are three 3×3 convolutions with leaky ReLU. Tokens are taken as a square grid.

    Differs from the paper: no batch norm in either, so that the loss doesn't depend on who shares a batch; Adam and a few passes
    instead of 30 epochs of SGD.
    Raises: ConfigError for a ratio or rate ≤ 0, or fewer than one pass.
    """
    if not (ratio > 0 and passes >= 1 and learning_rate > 0):
        raise ConfigError(f"factor_transfer needs ratio > 0, passes ≥ 1 and learning_rate > 0, got {ratio!r}, {passes!r} and {learning_rate!r}. 0.5, 5 and 0.001 are usual.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        own, theirs = width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer))
        factors = max(1, round(ratio * theirs))
        made = Factors(own, theirs, factors)
        _learn(made.paraphraser, _stack(factors, theirs, theirs), lambda: _maps(wiring.batches(), pair), passes, learning_rate)
        made.paraphraser.requires_grad_(False)
        return made

    def term(seen: Seen) -> Tensor:
        own, theirs = _pair_of_maps(seen, pair)
        return factor_transfer_loss(seen.own.translator(own), seen.own.paraphraser(theirs))

    return Term("factor_transfer", term, teacher=True, builds=builds, agrees=False, **taps_of([pair]))


class Factors(nn.Module):
    """The teacher's paraphraser and the student's translator, both into as many factors."""

    def __init__(self, own: int, theirs: int, factors: int):
        super().__init__()
        self.paraphraser, self.translator = _stack(theirs, theirs, factors), _stack(own, own, factors)


def factor_transfer_loss(student: Float[Tensor, "batch factors height width"], teacher: Float[Tensor, "batch factors height width"]) -> Float[Tensor, ""]:
    """|F_S/‖F_S‖₂ − F_T/‖F_T‖₂|, averaged over a sample's values and the samples.

    Returns: Dimensionless, ≥ 0; scaling a sample's factors changes nothing.
    Source: Kim et al. 2018, arXiv:1802.04977, eq. 3 with p = 1. Differs: the mean over values instead of the sum, to which the weight 200 belongs.
    """
    own, theirs = (F.normalize(side.flatten(1), dim=1) for side in (student, teacher))
    return (own - theirs).abs().mean()


def _stack(wide: int, middle: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, middle, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(middle, out, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(out, out, 3, padding=1))


def _pair_of_maps(seen: Seen, pair: Pair) -> tuple[Tensor, Tensor]:
    own, theirs = both_of(seen, "factor_transfer", pair)
    own, theirs = as_map(own, "factor_transfer", pair.student), as_map(theirs, "factor_transfer", pair.answer)
    size = [min(own.shape[axis], theirs.shape[axis]) for axis in (2, 3)]
    return resized(own, size), resized(theirs, size)


def _maps(steps: Iterator[Seen], pair: Pair) -> Iterator[Tensor]:
    """The teacher's maps, batch by batch."""
    while True:
        with torch.no_grad():
            step = next(steps, None)
        if step is None:
            return
        yield _pair_of_maps(step, pair)[1]


def _learn(encoder: nn.Module, decoder: nn.Module, batches: Callable[[], Iterator[Tensor]], passes: int, rate: float) -> None:
    """Train both to give the maps again (eq. 1). Adam's steps don't depend on the scale of the maps."""
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=rate)
    for _ in range(passes):
        for maps in batches():
            loss = (decoder(encoder(maps)) - maps).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
