"""attention_maps: scores from projections, or probabilities as they are tapped."""

import math
from dataclasses import replace

import pytest
import torch
from taps_said import features, gave, lengths, sentences
from torch import nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import attention_maps
from limbeck.mechanics.terms.attention_maps import attention_maps_loss
from limbeck.mechanics.terms.features import Pair
from limbeck.testing import check_term

ONE = (Pair(student="s", teacher="t"),)


def sides(seed: int, *, batch: int = 2, tokens: int = 4, own: int = 6, theirs: int = 8) -> tuple[dict, dict]:
    q, k, u, v = (features(seed + i, batch, tokens, width) for i, width in enumerate((own, own, theirs, theirs)))
    return {"s.query": q, "s.key": k}, {"t.query": u, "t.key": v}


def test_it_keeps_the_contract():
    task = sentences()
    check_term(attention_maps(pairs=(Pair(student="layers.0.attention"), Pair(student="layers.1.attention", teacher="auto")), heads=4), task=task)


def test_it_is_the_paper_written_out():
    own, theirs = sides(0)
    mask = lengths(2, 4, tokens=4)
    found = []
    for b, n in enumerate((2, 4)):
        total = 0.0
        for h in range(2):
            a = own["s.query"][b, :n, 3 * h : 3 * h + 3] @ own["s.key"][b, :n, 3 * h : 3 * h + 3].T / math.sqrt(3)
            c = theirs["t.query"][b, :n, 4 * h : 4 * h + 4] @ theirs["t.key"][b, :n, 4 * h : 4 * h + 4].T / math.sqrt(4)
            total += (a - c).square().mean().item() / 2
        found.append(total)
    term = attention_maps(pairs=ONE, heads=2)
    assert term.function(gave(own, theirs, mask=mask)).item() == pytest.approx(sum(found) / 2, rel=1e-10)
    assert term.student_taps == ("s.query", "s.key") and term.teacher_taps == ("t.query", "t.key")
    own["s.key"][0, 2:] = 99.0
    assert term.function(gave(own, theirs, mask=mask)).item() == pytest.approx(sum(found) / 2, rel=1e-10), "padding"


def test_a_fused_projection_and_other_names_say_the_same():
    own, theirs = sides(1)
    expected = attention_maps(pairs=ONE, heads=2).function(gave(own, theirs)).item()
    fused = {"s.qkv": torch.cat([own["s.query"], own["s.key"], features(9, 2, 4, 6)], -1)}
    term = attention_maps(pairs=ONE, heads=2, projections=("qkv",), teacher_projections=("q_lin", "k_lin"))
    assert term.function(gave(fused, {"t.q_lin": theirs["t.query"], "t.k_lin": theirs["t.key"]})).item() == pytest.approx(expected, rel=1e-12)
    assert attention_maps(pairs=(Pair(student="s"),), heads=2, projections=("qkv",)).teacher_taps == ("auto:s>qkv",)


def test_grouped_queries_repeat_their_keys():
    own, theirs = sides(2)
    alone, once = {"s.query": own["s.query"], "s.key": own["s.key"][..., :3]}, {"s.query": own["s.query"], "s.key": own["s.key"][..., :3].repeat(1, 1, 2)}
    term = attention_maps(pairs=ONE, heads=2)
    assert term.function(gave(alone, theirs)).item() == pytest.approx(term.function(gave(once, theirs)).item(), rel=1e-12)
    with pytest.raises(TaskError, match="heads = 2 gives heads of 3, which the key's width 4 doesn't fit"):
        term.function(gave({"s.query": own["s.query"], "s.key": own["s.key"][..., :4]}, theirs))


def test_a_decoder_does_not_look_ahead():
    own, theirs = sides(3)
    term = attention_maps(pairs=ONE, heads=1, causal=True)
    before = term.function(gave(own, theirs)).item()
    a, c = (side[0][0] @ side[1][0].T / math.sqrt(side[0].shape[-1]) for side in ((own["s.query"], own["s.key"]), (theirs["t.query"], theirs["t.key"])))
    assert term.function(gave({k: v[:1] for k, v in own.items()}, {k: v[:1] for k, v in theirs.items()})).item() == pytest.approx(
        (a - c).square().tril().sum().item() / 10, rel=1e-10
    )
    own["s.key"][:, 3] += 5 * features(5, 2, 6)
    own["s.query"][:, 3] = sides(3)[0]["s.query"][:, 3]
    assert term.function(gave(own, theirs)).item() != before, "the last token sees itself"


def test_probabilities_are_compared_as_they_are():
    term = attention_maps(pairs=ONE, heads=3, projections=())
    s, t = features(0, 2, 3, 4, 4).softmax(-1), features(1, 2, 3, 4, 4).softmax(-1)
    assert term.function(gave(s, t)).item() == pytest.approx((s - t).square().mean().item(), rel=1e-12) and term.function(gave(t, t)).item() == 0
    with pytest.raises(TaskError, match=r"student \[2, 3, 4, 4\] and teacher \[2, 2, 4, 4\]. For other numbers of heads use minilm_relations"):
        term.function(gave(s, t[:, :2]))
    with pytest.raises(TaskError, match=r"needs maps \[batch, 4 heads, tokens, tokens\] on both sides"):
        attention_maps(pairs=ONE, heads=4, projections=()).function(gave(s, t))


def test_gradient_and_splits():
    kept = torch.ones(2, 3, 3, dtype=torch.bool).tril()
    assert torch.autograd.gradcheck(lambda z: attention_maps_loss(z, features(1, 2, 2, 3, 3), kept), features(0, 2, 2, 3, 3).requires_grad_())
    own, theirs, mask = *sides(4, batch=4), lengths(1, 4, 2, 3, tokens=4)
    term = attention_maps(pairs=ONE, heads=2)
    part = lambda i: term.function(gave({k: v[i] for k, v in own.items()}, {k: v[i] for k, v in theirs.items()}, mask=mask[i])).item()  # noqa: E731
    assert part(slice(None)) == pytest.approx((part(slice(0, 1)) + part(slice(1, 2)) + part(slice(2, 3)) + part(slice(3, 4))) / 4, rel=1e-12)


def test_what_is_refused():
    own, theirs = sides(0)
    with pytest.raises(ConfigError, match="attention_maps.heads must be ≥ 1"):
        attention_maps(pairs=ONE, heads=0)
    with pytest.raises(ConfigError, match=r"attention_maps.projections must name query and key, or the one module .* got \['a', 'b', 'c'\]"):
        attention_maps(pairs=ONE, heads=2, projections=("a", "b", "c"))
    with pytest.raises(TaskError, match="attention_maps.heads = 5 must divide the width of what is tapped, got 6"):
        attention_maps(pairs=ONE, heads=5).function(gave(own, theirs))
    with pytest.raises(TaskError, match="have other ones. Both must read the same tokens"):
        attention_maps(pairs=ONE, heads=2).function(gave(own, {k: v[:, :3] for k, v in theirs.items()}))
    with pytest.raises(TaskError, match=r"of shape \[batch, tokens, width\], got \[2, 6\] from the student's side"):
        attention_maps(pairs=ONE, heads=2).function(gave({k: v[:, 0] for k, v in own.items()}, theirs))


def test_it_reads_berts_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = lambda layers: transformers.BertConfig(  # noqa: E731
        vocab_size=20, hidden_size=16, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=16, max_position_embeddings=8, num_labels=2
    )
    task = sentences()
    build = lambda layers: lambda: Logits(transformers.BertForSequenceClassification(config(layers)))  # noqa: E731
    torch.manual_seed(0)
    weights = build(4)().state_dict()
    bert = replace(task, models={"teacher": build(4), "small": build(2)}, weights={"teacher": weights})
    check_term(attention_maps(pairs=(Pair(student="bert.bert.encoder.layer.1.attention.self"),), heads=4), task=bert)


class Logits(nn.Module):
    def __init__(self, bert: nn.Module):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).logits
