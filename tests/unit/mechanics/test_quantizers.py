"""Quantizers at sites: replayed from JSON, copied deeply, two faces equal bit for bit, loud where the model differs."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ReplayError
from limbeck.mechanics.quantizers import affine, deployed, fold_, fold_edits, quantize_edits, quantizers_of, set_face_, weight_scale

X = torch.linspace(-2, 2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
WEIGHT = {"edit": "quantize", "module": "a", "port": "weight", "bits": 8, "scheme": "symmetric", "axis": 0}
ACT = {"edit": "quantize", "bits": 8, "scheme": "asymmetric"}
EDITS = [
    WEIGHT,
    WEIGHT | {"module": "head"},
    ACT | {"module": "a", "port": "in"},
    ACT | {"module": "", "port": "operator", "operator": "relu", "ordinal": 1, "count": 2},
    ACT | {"module": "pool", "port": "out", "shares": ":relu:1"},
    ACT | {"module": "head", "port": "out"},
]


class Net(nn.Module):
    def __init__(self, relus: int = 2) -> None:
        super().__init__()
        self.a, self.pool, self.head, self.relus = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.MaxPool2d(8), nn.Linear(4, 3), relus

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(input=x)
        for _ in range(self.relus):
            x = F.relu(x)
        return self.head(self.pool(x).flatten(1))


def quantized(relus: int = 2) -> Net:
    torch.manual_seed(0)
    model = Net(relus).eval()
    quantize_edits(model, json.loads(json.dumps(EDITS)))
    for number, quantizer in enumerate(quantizers_of(model).values()):
        quantizer.scale.fill_(0.02 + 0.003 * number)
    return model


def test_scales_are_nan_until_the_weights_are_loaded():
    model = Net().eval()
    quantize_edits(model, EDITS)
    assert model(X).isnan().all()
    model.load_state_dict(quantized().state_dict(), strict=True)
    assert torch.equal(model(X), quantized()(X))


def test_float_face_is_the_float_model_and_fake_quant_is_not():
    model = quantized()
    torch.manual_seed(0)
    plain = Net().eval()
    assert not torch.equal(model(X), plain(X))
    set_face_(model, "float")
    assert torch.equal(model(X), plain(X))


@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_both_faces_give_the_same_bits(activations):
    model = quantized()
    ready = deployed(model, activations=activations)
    assert torch.equal(ready(X), model(X))
    assert torch.equal(deployed(ready, activations=activations)(X), model(X))


def test_deployed_holds_int8_and_no_float_weight():
    ready = deployed(quantized(), activations="u8")
    tensors = dict(ready.state_dict())
    assert "a.weight" not in tensors and tensors["a.weight_quantizer.integers"].dtype is torch.int8
    assert not any(t.is_floating_point() and t.dim() > 1 for t in tensors.values())
    assert not dict(ready.named_parameters()).keys() - {"a.bias", "head.bias"}


def test_deployed_without_quantizers_is_an_unchanged_copy():
    model = Net()
    copied = deployed(model, activations="u8")
    assert copied is not model and torch.equal(copied(X), model(X)) and copied.training


def test_a_deep_copy_is_independent_of_its_original():
    model = quantized()
    before, other = model(X), copy.deepcopy(model)
    for quantizer in quantizers_of(other).values():
        quantizer.scale.mul_(3)
    other.a.weight.data.zero_()
    assert torch.equal(model(X), before)
    assert not torch.equal(other(X), before)
    assert other.relu_1_quantizer is other.pool.out_quantizer is not model.relu_1_quantizer
    with torch.no_grad():
        other.relu_1_quantizer.scale.fill_(1000.0)
    assert torch.equal(other(X), other.head.out_quantizer(other.head.bias.expand(2, -1)))  # the copy's forward uses the copy's quantizer


def test_another_number_of_calls_is_refused():
    model = quantized()
    for relus in (1, 3):
        model.relus = relus
        with pytest.raises(ReplayError, match=f"called relu {relus} times .* but 2 times"):
            model(X)
    model.relus = 2
    model(X)


def test_an_error_inside_the_forward_leaves_no_mode_on():
    model = quantized()
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 5, 8, 8))
    assert torch.overrides._get_current_function_mode() is None
    assert torch.equal(model(X), quantized()(X))


def test_gradient_is_straight_through_inside_and_zero_outside():
    model = nn.Sequential(nn.Identity())
    quantize_edits(model, [ACT | {"module": "0", "port": "out"}])
    model[0].out_quantizer.scale.fill_(0.1)
    x = torch.tensor([-12.9, -12.7, 0.33, 12.6, 12.9], requires_grad=True)
    model(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_training_reaches_weights_behind_their_quantizer():
    model = quantized()
    model(X).sum().backward()
    assert model.a.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([WEIGHT | {"module": "b"}], "no module 'b'"),
        ([WEIGHT | {"module": "pool"}], "no float32 weight"),
        ([WEIGHT, WEIGHT], "quantized already"),
        ([ACT | {"module": "a", "port": "inn"}], "no port 'inn'.*'in'"),
        ([ACT | {"module": "a", "port": "in"}, ACT | {"module": "a", "port": "in"}], "has a quantizer already"),
        ([ACT | {"module": "a", "port": "in", "shares": "a:out"}], "isn't placed before"),
    ],
)
def test_edits_that_do_not_fit_are_refused(edits, message):
    with pytest.raises(ReplayError, match=message):
        quantize_edits(Net(), edits)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine_norm", [True, False])
def test_folding_keeps_the_function_and_replays_from_json(bias, affine_norm):
    def make() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine_norm), nn.Flatten(), nn.Linear(144, 5, bias=bias), nn.BatchNorm1d(5, affine=affine_norm)
        )

    torch.manual_seed(0)
    model = make()
    for _ in range(5):
        model(torch.randn(8, 3, 8, 8) * 2 + 1)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1, 1)
    expected = model.eval()(X)
    edits = [{"edit": "fold", "module": "0", "norm": "1"}, {"edit": "fold", "module": "3", "norm": "4"}]
    fold_(model, edits)
    assert torch.allclose(model(X), expected, rtol=1e-5, atol=1e-5)
    again = make().eval()
    fold_edits(again, json.loads(json.dumps(edits)))
    assert bias or again(X).isnan().all()  # a bias that it lacked is to come
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(X), model(X))


def test_fold_of_what_is_no_norm_is_refused():
    with pytest.raises(ReplayError, match="can't fold"):
        fold_edits(Net(), [{"edit": "fold", "module": "a", "norm": "pool"}])


def test_empty_ranges_and_dead_channels_do_not_divide_by_zero():
    assert affine(0.0, 0.0, bits=8) == (2.0**-8, -128)
    scale, zero_point = affine(5.0, 5.0, bits=8)  # a constant: the grid holds it and 0
    assert (scale * 255, zero_point) == (pytest.approx(5.0), -128)
    assert affine(-3.0, -3.0, bits=8)[1] == 127
    assert torch.isfinite(1 / weight_scale(torch.zeros(4, 3, 1, 1), axis=0, bits=8)).all()
    dead = weight_scale(torch.tensor([[0.0, 0.0], [1.0, -2.0]]), axis=0, bits=8)
    assert dead.tolist() == [pytest.approx(2 / 127)] * 2


def test_bias_of_a_tiny_channel_fits_int32_steps():
    weight, bias, input_scale = torch.tensor([[1e-9], [1.0]]), torch.tensor([3.0, 0.1]), 0.02
    scale = weight_scale(weight, axis=0, bits=8, bias=bias, input_scale=input_scale)
    assert (bias.abs() / (input_scale * scale) <= 2.0**30 * 1.001).all()
    assert scale[1] == pytest.approx(1 / 127)
    assert weight_scale(weight, axis=0, bits=8)[0] < scale[0]


def test_seven_bit_pairs_cannot_saturate_int16():
    weight = torch.tensor([[1.0, 1.0], [-3.0, -3.0]])
    for bits, fits in ((7, True), (8, False)):
        linear = nn.Sequential(nn.Linear(2, 2))
        linear[0].weight.data.copy_(weight)
        quantize_edits(linear, [WEIGHT | {"module": "0", "bits": bits}])
        linear[0].weight_quantizer.scale.copy_(weight_scale(weight, axis=0, bits=bits))
        integers = deployed(linear, activations="u8")[0].weight_quantizer.integers.int()
        pairs = 255 * (integers[:, 0] + integers[:, 1])
        assert bool(((pairs >= -32768) & (pairs <= 32767)).all()) == fits
