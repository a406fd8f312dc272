"""Stacks of blocks: found by their shape, cut by number, refused where they don't fit."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from limbeck.core.errors import ReplayError
from limbeck.mechanics.edits import replay
from limbeck.mechanics.stacks import drop_edit, evenly, stacks


class Block(nn.Module):
    """A residual block; the first of a stage may widen."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(before, after), nn.ReLU())
        self.grows = before != after

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.grows else x + self.inner(x)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), Block(8, 8), Block(8, 8), Block(8, 8), nn.Linear(8, 2))


def test_finds_blocks_and_what_stands_beside_them():
    (found,) = stacks(net())
    assert (found.path, found.blocks, found.others) == ("", (1, 2, 3), (0, 4))
    assert found.block(2) == "2"


def test_layers_without_children_are_no_blocks():
    assert list(stacks(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))) == []


def test_an_outer_stack_comes_before_those_inside_it():
    stages = nn.ModuleDict({"body": nn.ModuleList([nn.Sequential(Block(4, 4), Block(4, 4)), nn.Sequential(Block(4, 4), Block(4, 4))])})
    assert [s.path for s in stacks(stages)] == ["body", "body.0", "body.1"]


@pytest.mark.parametrize(("kept", "of", "chosen"), [(3, 6, (0, 2, 4)), (6, 12, (0, 2, 4, 6, 8, 10)), (4, 6, (0, 1, 3, 4)), (1, 5, (0,)), (3, 3, (0, 1, 2)), (4, 2, (0, 0, 1, 1))])
def test_evenly_spread(kept, of, chosen):
    assert evenly(kept, of) == chosen


def test_a_drop_is_replayed_and_renumbers():
    model, edit = net(), json.loads(json.dumps(drop_edit("", [0, 1, 3, 4])))
    third, shorter = model[3], replay(model, [edit])
    assert shorter is model and len(model) == 4 and model[2] is third
    assert sorted({name.split(".")[0] for name in model.state_dict()}) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop_edit("body", [0]), "no module 'body'"),
        (drop_edit("1.inner.0", [0]), "no stack of blocks"),
        (drop_edit("", [0, 5]), "5 children"),
        (drop_edit("", [1, 0]), "in order"),
        (drop_edit("", []), "in order"),
        ({"edit": "drop", "stack": "", "kept": [True]}, "in order"),
        ({"edit": "drop", "stack": ""}, "malformed"),
    ],
)
def test_a_drop_that_does_not_fit_is_refused(edit, words):
    with pytest.raises(ReplayError, match=words):
        replay(net(), [edit])
