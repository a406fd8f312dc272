"""review: levels fused from the deepest to the shallowest."""

import pytest
import torch
from taps_said import features, gave
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.objective import Wiring
from limbeck.mechanics.terms import review
from limbeck.mechanics.terms.features import Pair
from limbeck.mechanics.terms.review import Fusion, hierarchical_loss
from limbeck.testing import check_term

PAIRS = (Pair(student="a", teacher="x"), Pair(student="b", teacher="y"), Pair(student="c", teacher="z"))


def levels(seed: int = 0, batch: int = 2) -> tuple[dict, dict]:
    own = {"a": features(seed, batch, 3, 8, 8), "b": features(seed + 1, batch, 4, 4, 4), "c": features(seed + 2, batch, 5)}
    return own, {"x": features(seed + 3, batch, 6, 8, 8), "y": features(seed + 4, batch, 7, 2, 2), "z": features(seed + 5, batch, 8)}


def fusions(own: dict, theirs: dict) -> torch.nn.Module:
    shapes = [{f"tap:{k}": tuple(v.shape) for k, v in side.items()} for side in (own, theirs)]
    torch.manual_seed(0)
    return review(pairs=PAIRS).builds(Wiring(None, torch.nn.Identity(), *shapes, batches=lambda: iter([]))).double()


def test_it_keeps_the_contract():
    check_term(review(pairs=(Pair(student="features.2"), Pair(student="features.5"), Pair(student="in:head", teacher="in:head"))))
    check_term(review(pairs=(Pair(student="features.5"),), width=3))
    assert review(pairs=PAIRS).relational


def test_the_hierarchy_is_the_papers():
    s, t = features(0, 2, 3, 8, 8), features(1, 2, 3, 8, 8)
    parts = [F.mse_loss(s, t)] + [F.mse_loss(F.adaptive_avg_pool2d(s, n), F.adaptive_avg_pool2d(t, n)) for n in (4, 2, 1)]
    expected = sum(p * w for p, w in zip(parts, (1, 0.5, 0.25, 0.125), strict=True)) / 1.875
    assert hierarchical_loss(s, t).item() == pytest.approx(expected.item(), rel=1e-12)
    assert hierarchical_loss(t, t).item() == 0 and hierarchical_loss(s[..., :1, :1], t[..., :1, :1]).item() == F.mse_loss(s[..., :1, :1], t[..., :1, :1]).item()
    shifted = hierarchical_loss(t + 2, t)
    assert shifted.item() == pytest.approx(4), "a constant shift is the same at all levels"


def test_a_level_is_fused_with_the_deeper_one():
    """Written out: the attention's two maps share the sources out, place by place."""
    torch.manual_seed(0)
    fusion, x, deeper = Fusion(3, 4, 5, fuses=True).double(), features(0, 2, 3, 4, 4), features(1, 2, 4, 2, 2)
    out, left = fusion(x, deeper, [4, 4])
    inner, up = fusion.into(x), deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    z = fusion.attention(torch.cat([inner, up], 1)).sigmoid()
    assert torch.allclose(left, inner * z[:, :1] + up * z[:, 1:]) and torch.allclose(out, fusion.out(left)) and out.shape == (2, 5, 4, 4)


def test_levels_go_from_the_deepest_up():
    own, theirs = levels()
    maps, term = fusions(own, theirs), review(pairs=PAIRS)
    assert maps[2].attention is None and maps[0].attention is not None and maps[0].into[0].out_channels == 5, "the deepest layer's width"
    value = term.function(gave(own, theirs, own=maps))
    c, left = maps[2](own["c"][:, :, None, None], None, [1, 1])
    b, left = maps[1](own["b"], left, [2, 2])
    a, _ = maps[0](own["a"], left, [8, 8])
    expected = hierarchical_loss(a, theirs["x"]) + hierarchical_loss(b, theirs["y"]) + hierarchical_loss(c, theirs["z"][:, :, None, None])
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)


def test_every_level_of_the_student_gets_a_gradient():
    own, theirs = levels()
    own = {k: v.requires_grad_() for k, v in own.items()}
    review(pairs=PAIRS).function(gave(own, theirs, own=fusions(own, theirs))).backward()
    assert all(v.grad.abs().sum() > 0 for v in own.values())
    assert torch.autograd.gradcheck(lambda z: hierarchical_loss(z, features(1, 1, 2, 4, 4)), features(0, 1, 2, 4, 4).requires_grad_())


def test_what_is_refused():
    own, theirs = levels(batch=2)
    maps = fusions(own, theirs)
    with pytest.raises(TaskError, match="a batch of one gives it a single value a channel at 'c'. Raise the batch size"):
        review(pairs=PAIRS).function(gave({k: v[:1] for k, v in own.items()}, {k: v[:1] for k, v in theirs.items()}, own=maps))
    with pytest.raises(ConfigError, match="review.width must be ≥ 0, got -1"):
        review(pairs=PAIRS, width=-1)
