"""hidden_states: several layers at once, each through its own map."""

import pytest
import torch
from taps_said import features, gave, lengths, sentences, value

from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import ALL, hidden_states, hint
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.features import Pair
from limbeck.testing import check_term

TWO = (Pair(student="a", teacher="b"), Pair(student="c", teacher="d"))


def test_it_keeps_the_contract():
    check_term(hidden_states(pairs=(Pair(student="layers.0"), Pair(student="tokens"), Pair(student="layers.1", teacher="layers.3"))), task=sentences())
    check_term(hidden_states(pairs=(Pair(student="features.2"), Pair(student="features.8"))))


def test_it_adds_what_each_pair_says():
    own = {"a": features(0, 2, 5, 3), "c": features(1, 2, 5, 3)}
    theirs = {"b": features(2, 2, 5, 4), "d": features(3, 2, 5, 6)}
    maps = torch.nn.ModuleList([torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(3, 6, bias=False)]).double()
    mask = lengths(2, 5, tokens=5)
    both = hidden_states(pairs=TWO).function(gave(own, theirs, mask=mask, own=maps))
    each = [hint(student=p.student, teacher=p.teacher).function(gave(own, theirs, mask=mask, own=m)) for p, m in zip(TWO, maps, strict=True)]
    assert both.item() == pytest.approx(sum(e.item() for e in each), rel=1e-12)
    changed = own | {"a": own["a"].masked_fill(mask[:, :, None] == 0, 9.0)}
    assert hidden_states(pairs=TWO).function(gave(changed, theirs, mask=mask, own=maps)).item() == both.item(), "padding isn't looked at"


def test_its_maps_have_no_bias():
    assert (
        value(hidden_states(pairs=TWO), {"a": torch.zeros(2, 5, 3).double(), "c": torch.zeros(2, 5, 3).double()}, {"b": torch.ones(2, 5, 4), "d": torch.ones(2, 5, 4)}).item() == 2
    )


def test_its_options():
    found = objective_of([Entry(name="hidden_states", options={"pairs": [{"student": "x"}, {"student": "y", "teacher": "z"}]})], ALL).terms[0][1]
    assert found.student_taps == ("x", "y") and found.teacher_taps == ("auto:x", "z")
    with pytest.raises(ConfigError, match=r"terms\[0\].options.pairs\[0\].studnt is not an option.*Did you mean 'student'"):
        objective_of([Entry(name="hidden_states", options={"pairs": [{"studnt": "x"}]})], ALL)
