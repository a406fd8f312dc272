"""nst: channels as distributions over places (oracle 6: a Gram over channels)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, lengths, rotation, split_changes_nothing, value
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import nst
from limbeck.mechanics.terms.features import Pair
from limbeck.mechanics.terms.nst import nst_loss
from limbeck.testing import check_term

ONE = (Pair(student="s", teacher="t"),)


def test_it_keeps_the_contract():
    check_term(nst(pairs=(Pair(student="features.2"), Pair(student="features.8", teacher="features.8"))))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_permuting_and_scaling_channels_changes_nothing_and_rotating_them_does(seed, scale):
    s, t = features(seed, 2, 6, 4), features(seed + 1, 2, 6, 5)
    before, scales = nst_loss(s, t), torch.tensor([scale, -1.0, 3.0, 1 / scale]).double()
    assert nst_loss((s * scales)[:, :, [2, 0, 3, 1]], t).item() == pytest.approx(before.item(), rel=1e-9)
    assert nst_loss((s * scales)[:, :, [2, 0, 3, 1]], s).item() == pytest.approx(0, abs=1e-12) and before > 0
    assert nst_loss(s @ rotation(seed, 4), s) > 1e-4, "oracle 6"


def test_it_is_the_paper_written_out():
    s, t = features(0, 2, 6, 3), features(1, 2, 6, 4)
    total = 0.0
    for b in range(2):
        x, y = [F.normalize(s[b, :, i], dim=0) for i in range(3)], [F.normalize(t[b, :, i], dim=0) for i in range(4)]
        k = lambda p, q: sum((a @ c).item() ** 2 for a in p for c in q) / (len(p) * len(q))  # noqa: E731
        total += (k(y, y) + k(x, x) - 2 * k(x, y)) / 2
    assert nst_loss(s, t).item() == pytest.approx(total, rel=1e-10)
    assert value(nst(pairs=ONE * 2), s, t).item() == pytest.approx(2 * total, rel=1e-10)
    by_hand = nst_loss(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [5.0]]]))
    assert by_hand.item() == 2, "1 + 1 − 2 · 0"


def test_gradient_splits_and_padding():
    assert torch.autograd.gradcheck(lambda z: nst_loss(z, features(1, 2, 4, 3)), features(0, 2, 4, 2).requires_grad_())
    split_changes_nothing(nst(pairs=ONE), features(0, 4, 3, 4, 4), features(1, 4, 5, 2, 2))
    s, t, mask = features(0, 2, 6, 3), features(1, 2, 6, 5), lengths(3, 6, tokens=6)
    split_changes_nothing(nst(pairs=ONE), s, t, mask)
    assert value(nst(pairs=ONE), s.masked_fill(mask[:, :, None] == 0, 4.0), t, mask=mask).item() == value(nst(pairs=ONE), s, t, mask=mask).item()


def test_what_is_refused():
    with pytest.raises(ConfigError, match="nst.pairs must name at least one"):
        nst(pairs=())
    with pytest.raises(TaskError, match="nst compares channels over places, and 's' with 't' has one only"):
        nst(pairs=ONE).function(gave(features(0, 2, 3), features(1, 2, 3)))
