"""Structural changes as data: captured by comparison, replayed on a fresh model, refused where they don't fit."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from limbeck.core.errors import ReplayError
from limbeck.mechanics.edits import capture, replay, snapshot, submodule


class Net(nn.Module):
    """A norm with buffers, a tied weight, an attribute that forward reads, and one that is a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.left, self.right = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.right.weight = self.left.weight
        self.norm, self.parts, self.left.weight.requires_grad = nn.LayerNorm((2, 4)), 2, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.right(self.left(self.body(x)))
        return self.norm(x.unflatten(-1, (self.parts, -1)))


def narrow(net: Net, width: int = 6, parts: int = 2) -> Net:
    """What a technique does: smaller tensors, and the attributes that go with them."""
    linear, norm = net.body[0], net.body[1]
    linear.weight, linear.bias, linear.out_features = nn.Parameter(linear.weight[:width].detach()), nn.Parameter(linear.bias[:width].detach()), width
    norm.weight, norm.bias, norm.num_features = nn.Parameter(norm.weight[:width].detach()), nn.Parameter(norm.bias[:width].detach()), width
    norm.running_mean, norm.running_var = norm.running_mean[:width], norm.running_var[:width]
    net.left.weight = net.right.weight = nn.Parameter(net.left.weight[:width, :width].detach(), requires_grad=False)
    for tied in (net.left, net.right):
        tied.in_features = tied.out_features = width
    net.parts, net.norm.normalized_shape = parts, (parts, width // parts)
    net.norm.weight, net.norm.bias = nn.Parameter(torch.rand(parts, width // parts)), nn.Parameter(torch.rand(parts, width // parts))
    return net


def narrowed() -> tuple[Net, tuple]:
    net = Net().eval()
    before = snapshot(net)
    return narrow(net), capture(before, net)


def test_nothing_changed_is_no_edit():
    net = Net()
    assert capture(snapshot(net), net) == ()


def test_other_numbers_are_no_edit():
    net = Net()
    before = snapshot(net)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.add_(1)
    assert capture(before, net.eval()) == ()


def test_a_reshape_says_sizes_and_attributes_and_no_numbers():
    _, edits = narrowed()
    by_module = {e["module"]: e for e in edits}
    assert set(by_module) == {"body.0", "body.1", "left", "right", "norm"}
    assert by_module["body.1"] == {
        "edit": "reshape",
        "module": "body.1",
        "attributes": {"num_features": 6},
        "tensors": {"weight": [6], "bias": [6], "running_mean": [6], "running_var": [6]},
    }
    assert by_module["norm"]["attributes"] == {"normalized_shape": [2, 3]}


def test_replayed_from_json_it_takes_the_weights_and_gives_the_same_bits():
    net, edits = narrowed()
    again = replay(Net(), json.loads(json.dumps(edits))).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(5, 4)
    assert torch.equal(again(x), net(x))
    assert again.norm.normalized_shape == (2, 3) and again.parts == 2


def test_an_attribute_that_forward_reads_is_carried():
    net = Net().eval()
    before = snapshot(net)
    edits = capture(before, narrow(net, width=6, parts=3))
    again = replay(Net(), edits).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.parts == 3 and again(torch.randn(2, 4)).shape == (2, 3, 2)


def test_tied_weights_stay_tied_and_frozen_ones_frozen():
    _, edits = narrowed()
    again = replay(Net(), edits)
    assert again.left.weight is again.right.weight
    assert again.left.weight.shape == (6, 6) and not again.left.weight.requires_grad
    assert again.body[0].weight.requires_grad


def test_what_the_weights_miss_is_loud():
    _, edits = narrowed()
    again = replay(Net(), edits).eval()
    assert torch.isnan(again(torch.randn(2, 4))).all()


def test_recurrent_weights_are_seen_by_the_module():
    net = nn.Sequential(nn.LSTM(3, 8, num_layers=2))
    before = snapshot(net)
    kept = torch.tensor([0, 2, 5, 7])
    rows = torch.cat([kept + 8 * gate for gate in range(4)])
    for layer in range(2):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = getattr(net[0], f"{name}_l{layer}").detach()[rows]
            value = value[:, kept] if name == "weight_hh" or (name == "weight_ih" and layer) else value
            setattr(net[0], f"{name}_l{layer}", nn.Parameter(value.contiguous()))
    net[0].hidden_size = 4
    again = replay(nn.Sequential(nn.LSTM(3, 8, num_layers=2)), capture(before, net))
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(6, 2, 3)
    assert torch.equal(again(x)[0], net(x)[0])


def test_edits_in_two_steps_add_up():
    net, first = narrowed()
    before = snapshot(net)
    second = capture(before, narrow(net, width=4))
    again = replay(Net(), (*first, *second)).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(3, 4)
    assert torch.equal(again(x), net(x)) and again.left.weight is again.right.weight


# ---- refusals ----------------------------------------------------------------------------------------------------------


def added(net: Net) -> None:
    net.extra = nn.Linear(2, 2)


def removed(net: Net) -> None:
    del net.norm


def retyped(net: Net) -> None:
    net.body[2] = nn.GELU()


def unbiased(net: Net) -> None:
    net.body[0].bias = None


@pytest.mark.parametrize(("change", "place"), [(added, "extra"), (removed, "norm"), (retyped, "body.2"), (unbiased, "body.0")])
def test_a_change_of_kind_is_no_reshape(change, place):
    net = Net()
    before = snapshot(net)
    change(net)
    with pytest.raises(ReplayError, match=f"'{place}'.*a reshape can't say that"):
        capture(before, net)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"edit": "reshape", "module": "body.9", "attributes": {}, "tensors": {}}, r"no module 'body\.9'.*'body\.0'"),
        ({"edit": "reshape", "module": "left", "attributes": {"num_heads": 2}, "tensors": {}}, "'left' has no attribute 'num_heads'"),
        ({"edit": "reshape", "module": "left", "attributes": {}, "tensors": {"bias": [4]}}, "'left' has no tensor 'bias'"),
        ({"edit": "reshap", "module": "left"}, "edit 0 is of kind 'reshap'.*'reshape'"),
        ({"edit": "reshape", "attributes": {}, "tensors": {}}, r"edit 0 \(reshape\) is malformed.*'module'"),
        ({"edit": "reshape", "module": "left", "attributes": {}, "tensors": {"weight": "six"}}, r"tensor 'weight' of 'left' must have a list of sizes ≥ 0, got six"),
        ({"module": "left"}, "edit 0 is of kind None"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_with_its_place(edit, message):
    with pytest.raises(ReplayError, match=message):
        replay(Net(), [edit])


def test_a_missing_module_is_named_with_near_ones():
    with pytest.raises(ReplayError, match=r"no module 'boddy'.*'body'"):
        submodule(Net(), "boddy")
