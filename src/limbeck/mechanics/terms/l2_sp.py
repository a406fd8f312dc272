"""Where the student's weights stood when training began."""

from __future__ import annotations

from typing import Annotated, cast

from torch import Tensor, nn

from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.anchors import Anchors, trainable


def l2_sp(
    *,
    fresh: Annotated[tuple[str, ...], "module paths that start anew (a new head): they aren't held to their start"] = (),
    fresh_decay: Annotated[float, Range(0, None), "how much these are pulled to 0 instead, relative to the others"] = 0.0,
) -> Term:
    """½ ‖w − w⁰‖², summed over all weights that learn, + fresh_decay · ½ ‖w_fresh‖²; w⁰ are the weights when training began.

    It reads no data, no labels and no teacher. 0 at the start, in the square of a weight's unit. Take weight_decay = 0 beside it, which
    would pull the same weights to 0.

    Raises: ConfigError, where the term is built, for a fresh path that doesn't exist.
    Source: Li et al. 2018, arXiv:1802.01483, eq. 3 (L²-SP); its β over its α is `fresh_decay`, α is the term's weight.
    """

    def builds(wiring: Wiring) -> nn.Module:
        known = [path for path, _ in wiring.student.named_modules() if path]
        for path in fresh:
            if path not in known:
                raise ConfigError(f"l2_sp.fresh: there is no module '{path}' in {type(wiring.student).__name__}. {near(path, known)}")
        anchors = Anchors(wiring.student, [fresh_decay if _under(name, fresh) else 1.0 for name, _ in trainable(wiring.student)])
        for i, (name, _) in enumerate(trainable(wiring.student)):
            if _under(name, fresh):
                getattr(anchors, f"start{i}").zero_()
        return anchors

    def term(seen: Seen) -> Tensor:
        return cast(Anchors, seen.own).distance("l2_sp", seen.model)

    return Term("l2_sp", term, builds=builds)


def _under(name: str, paths: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)
