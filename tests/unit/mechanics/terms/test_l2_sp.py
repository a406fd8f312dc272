"""l2_sp: the weights stay near where they began."""

import numpy as np
import pytest
import torch
from said import quarters
from torch import nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.terms import ALL, l2_sp
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.testing import SmallNet, check_term


def value(student: nn.Module, bound) -> torch.Tensor:
    return bound(student, batch_of(quarters(), "train", range(4)), np.arange(4))[0]


def test_it_keeps_the_contract():
    check_term(l2_sp(), task=quarters())
    check_term(l2_sp(fresh=("head",), fresh_decay=0.5), task=quarters())


def test_it_is_half_the_squared_distance_and_its_gradient_the_way_back():
    student = SmallNet(8)
    bound = (1.0 * l2_sp()).bind(quarters(), None, student)
    start = [p.detach().clone() for p in student.parameters()]
    assert value(student, bound).item() == 0 and bound.parameters() == []
    with torch.no_grad():
        for i, p in enumerate(student.parameters()):
            p += 0.1 * (i + 1)
    loss = value(student, bound)
    loss.backward()
    assert loss.item() == pytest.approx(sum(0.5 * p.numel() * (0.1 * (i + 1)) ** 2 for i, p in enumerate(student.parameters())), rel=1e-5)
    assert all(torch.allclose(p.grad, p.detach() - s, atol=1e-7) for p, s in zip(student.parameters(), start, strict=True))


def test_what_starts_anew_is_pulled_to_zero_instead():
    student = SmallNet(8)
    bound = (1.0 * l2_sp(fresh=("head",), fresh_decay=0.5)).bind(quarters(), None, student)
    expected = 0.5 * 0.5 * sum(p.square().sum().item() for p in student.head.parameters())
    assert value(student, bound).item() == pytest.approx(expected, rel=1e-5)
    free = (1.0 * l2_sp(fresh=("head",))).bind(quarters(), None, student)
    with torch.no_grad():
        student.head.weight += 1
    assert value(student, free).item() == 0


def test_frozen_weights_do_not_count_and_a_change_of_mind_is_told():
    student = SmallNet(8)
    student.head.weight.requires_grad_(False)
    bound = (1.0 * l2_sp()).bind(quarters(), None, student)
    with torch.no_grad():
        student.head.weight += 1
    assert value(student, bound).item() == 0
    student.head.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"l2_sp: the student has 11 weights that learn, and had 10 when the objective was bound"):
        value(student, bound)


def test_a_path_that_is_not_there_and_a_bad_option_are_refused():
    with pytest.raises(ConfigError, match="l2_sp.fresh: there is no module 'haed' in SmallNet. Did you mean 'head'"):
        (1.0 * l2_sp(fresh=("haed",))).bind(quarters(), None, SmallNet(8))
    with pytest.raises(ConfigError, match="options.fresh_decay must be ≥ 0, got -1"):
        objective_of([Entry(name="l2_sp", options={"fresh_decay": -1})], ALL)
