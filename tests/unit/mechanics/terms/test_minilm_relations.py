"""minilm_relations: token relations in queries, keys and values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, lengths, rotation, sentences
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import minilm_relations
from limbeck.mechanics.terms.minilm_relations import minilm_relations_loss
from limbeck.testing import check_term

PARTS = ("query", "key", "value")


def sides(seed: int, *, batch: int = 3, tokens: int = 4, own: int = 6, theirs: int = 8) -> tuple[dict, dict]:
    return {f"s.{p}": features(seed + i, batch, tokens, own) for i, p in enumerate(PARTS)}, {f"t.{p}": features(seed + 5 + i, batch, tokens, theirs) for i, p in enumerate(PARTS)}


def all_places(batch: int, tokens: int) -> torch.Tensor:
    return torch.ones(batch, tokens, tokens, dtype=torch.bool)


def test_it_keeps_the_contract():
    check_term(minilm_relations(student="layers.1.attention", relation_heads=3), task=sentences())


def test_it_is_the_paper_written_out_with_masks():
    own, theirs = sides(0)
    mask, expected = lengths(2, 4, 1, tokens=4), 0.0
    for part in PARTS:
        for b, n in enumerate((2, 4, 1)):
            for h in range(2):
                a, c = own[f"s.{part}"][b, :n, 3 * h : 3 * h + 3], theirs[f"t.{part}"][b, :n, 4 * h : 4 * h + 4]
                q, p = (a @ a.T / math.sqrt(3)).softmax(-1), (c @ c.T / math.sqrt(4)).softmax(-1)
                expected += (p * (p / q).log()).sum(-1).mean().item() / 2 / 3
    term = minilm_relations(student="s", teacher="t", relation_heads=2)
    assert term.function(gave(own, theirs, mask=mask)).item() == pytest.approx(expected, rel=1e-10)
    own["s.value"][0, 2:] = 1e3
    assert term.function(gave(own, theirs, mask=mask)).item() == pytest.approx(expected, rel=1e-10), "padding isn't looked at"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rotating_each_relation_head_changes_nothing(seed):
    s, t = features(seed, 2, 5, 8), features(seed + 1, 2, 5, 12)
    turn = torch.block_diag(rotation(seed, 4), rotation(seed + 1, 4))
    whole = rotation(seed, 8)
    loss = lambda a: minilm_relations_loss(a, t, all_places(2, 5), relation_heads=2).item()  # noqa: E731
    assert loss(s @ turn) == pytest.approx(loss(s), rel=1e-9) and loss(s) > 0
    assert loss(s @ whole) != pytest.approx(loss(s), rel=1e-6), "across heads it does"
    assert minilm_relations_loss(t, t, all_places(2, 5), relation_heads=3).item() == 0


def test_it_is_kl_div_where_nothing_is_masked():
    s, t = features(0, 2, 5, 4), features(1, 2, 5, 4)
    q, p = ((x @ x.transpose(1, 2) / 2).log_softmax(-1) for x in (s, t))
    expected = F.kl_div(q, p, reduction="sum", log_target=True) / 10
    assert minilm_relations_loss(s, t, all_places(2, 5), relation_heads=1).item() == pytest.approx(expected.item(), rel=1e-12)


def test_one_projection_may_hold_all_three_and_a_decoder_looks_back():
    own, theirs = sides(2)
    expected = minilm_relations(student="s", teacher="t", relation_heads=2).function(gave(own, theirs)).item()
    fused = minilm_relations(student="s", teacher="t", relation_heads=2, projections=("qkv",), teacher_projections=("q", "k", "v"))
    others = {f"t.{a}": theirs[f"t.{p}"] for a, p in zip("qkv", PARTS, strict=True)}
    assert fused.function(gave({"s.qkv": torch.cat(list(own.values()), -1)}, others)).item() == pytest.approx(expected, rel=1e-12)
    back = minilm_relations(student="s", teacher="t", relation_heads=2, causal=True)
    first = {k: v[:, :1] for k, v in own.items()}, {k: v[:, :1] for k, v in theirs.items()}
    assert back.function(gave(*first)).item() == pytest.approx(0, abs=1e-12), "the first token sees only itself"
    assert back.function(gave(own, theirs)).item() != pytest.approx(expected, rel=1e-3)


def test_gradient_splits_and_half_precision():
    kept = all_places(2, 3).tril()
    assert torch.autograd.gradcheck(lambda z: minilm_relations_loss(z, features(1, 2, 3, 6), kept, relation_heads=2), features(0, 2, 3, 4).requires_grad_())
    own, theirs, mask = *sides(4, batch=4), lengths(1, 4, 2, 3, tokens=4)
    term = minilm_relations(student="s", teacher="t", relation_heads=2)
    part = lambda i: term.function(gave({k: v[i] for k, v in own.items()}, {k: v[i] for k, v in theirs.items()}, mask=mask[i])).item()  # noqa: E731
    assert part(slice(None)) == pytest.approx((part(slice(0, 2)) + part(slice(2, 4))) / 2, rel=1e-12)
    halves = {k: v.half() for k, v in theirs.items()}
    assert term.function(gave({k: v.float() for k, v in own.items()}, halves, mask=mask)).item() == pytest.approx(part(slice(None)), rel=1e-2)


def test_a_sample_that_is_all_padding_is_finite():
    own, theirs = sides(0)
    own = {k: v.requires_grad_() for k, v in own.items()}
    loss = minilm_relations(student="s", teacher="t", relation_heads=2).function(gave(own, theirs, mask=lengths(0, 4, 2, tokens=4)))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(v.grad).all() and (v.grad[0] == 0).all() for v in own.values())


def test_what_is_refused():
    own, theirs = sides(0)
    with pytest.raises(TaskError, match="minilm_relations.relation_heads = 12 must divide the width of what is tapped, got 6"):
        minilm_relations(student="s", teacher="t").function(gave(own, theirs))
    with pytest.raises(ConfigError, match="needs relation_heads ≥ 1 and projections, got 0"):
        minilm_relations(student="s", relation_heads=0)
    with pytest.raises(ConfigError, match="teacher_projections must name query and key and value"):
        minilm_relations(student="s", teacher_projections=("q", "k"))
