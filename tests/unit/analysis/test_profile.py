"""MACs against counts by hand; parameters against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from limbeck.analysis.profile import Layer, profile


class Products(nn.Module):
    """Attention in three spellings, no parameters."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if self.how == "fused":
            return F.scaled_dot_product_attention(query, key, value)
        if self.how == "einsum":
            return torch.einsum("bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", query, key).softmax(-1), value)
        return (query @ key.transpose(-1, -2)).softmax(-1) @ value


IMAGE = torch.rand(1, 4, 9, 9)
TOKENS = torch.rand(1, 5, 8)
BY_HAND = {
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (IMAGE,), 5 * 5 * 6 * 4 * 9),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (IMAGE,), 7 * 7 * 6 * 2 * 9),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (IMAGE,), 9 * 9 * 4 * 9),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2), (IMAGE,), 5 * 5 * 6 * 4 * 9),
    "conv1d": (nn.Conv1d(4, 6, 5), (torch.rand(1, 4, 20),), 16 * 6 * 4 * 5),
    "conv3d": (nn.Conv3d(2, 3, 2), (torch.rand(1, 2, 4, 4, 4),), 27 * 3 * 2 * 8),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (IMAGE,), 81 * 4 * 6 * 9),
    "linear": (nn.Linear(8, 3), (torch.rand(1, 8),), 24),
    "linear on tokens": (nn.Linear(8, 3, bias=False), (TOKENS,), 5 * 24),
    "lstm": (nn.LSTM(8, 4, num_layers=2, batch_first=True), (TOKENS,), 5 * (16 * 8 + 16 * 4) + 5 * (16 * 4 + 16 * 4)),
    "gru": (nn.GRU(8, 4, batch_first=True), (TOKENS,), 5 * (12 * 8 + 12 * 4)),
    "multi-head": (nn.MultiheadAttention(8, 2, batch_first=True), (TOKENS, TOKENS, TOKENS), 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8),
    "transformer layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (TOKENS,), 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_macs_equal_the_count_by_hand(name: str) -> None:
    model, inputs, macs = BY_HAND[name]
    found = profile(model, inputs)
    assert found.macs == macs
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert sum(la.macs for la in found.layers) == found.macs and sum(la.parameters for la in found.layers) == found.parameters


@pytest.mark.parametrize("how", ["fused", "einsum", "matmul"])
def test_attention_counts_both_products_however_it_is_written(how: str) -> None:
    query, key, value = torch.rand(1, 2, 5, 8), torch.rand(1, 2, 7, 8), torch.rand(1, 2, 7, 6)
    found = profile(Products(how), (query, key, value))
    assert found.macs == 2 * 5 * 7 * 8 + 2 * 5 * 7 * 6
    assert found.layers == (Layer("", "Products", 0, found.macs, (1, 2, 5, 6), 0, 4 * 2 * (5 * 8 + 7 * 8 + 7 * 6), 4 * 2 * 5 * 6),)


def test_vectors_count_too() -> None:
    class Dots(nn.Module):
        def forward(self, matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
            return (matrix @ vector).dot(vector[:3])

    assert profile(Dots(), (torch.rand(3, 4), torch.rand(4))).macs == 12 + 3


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def test_layers_carry_path_kind_parameters_shape_and_bytes() -> None:
    assert profile(small(), (IMAGE,)).layers == (
        Layer("0", "Conv2d", 4 * 6 * 9 + 6, 49 * 6 * 4 * 9, (1, 6, 7, 7), 4 * (4 * 6 * 9 + 6), 4 * 4 * 81, 4 * 6 * 49),
        Layer("1", "BatchNorm2d", 12, 0, (1, 6, 7, 7), 4 * 24 + 8, 4 * 6 * 49, 4 * 6 * 49),  # running mean and variance, and a counter of 8 bytes
        Layer("5", "Linear", 21, 18, (1, 3), 4 * 21, 4 * 6, 4 * 3),
    )


def test_every_module_that_ran_on_request_and_a_tensor_counts_where_it_was_made() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten())
    found = {la.path: la.activation_bytes for la in profile(model, (IMAGE,), every=True).layers}
    assert found == {"": 0, "0": 4 * 6 * 49, "1": 0, "2": 0, "3": 4 * 6 * 49}  # in place and identity make nothing; the container passes on


def test_activation_bytes_of_attention_and_of_half_precision_are_exact() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    (layer,) = [la for la in profile(attention, (TOKENS, TOKENS, TOKENS)).layers if la.path == ""]
    assert layer.activation_bytes == 4 * (5 * 8 + 5 * 5)  # the output and the weights of attention, a tuple
    (half,) = profile(nn.Linear(8, 3).to(torch.bfloat16), (TOKENS.to(torch.bfloat16),)).layers
    assert (half.weight_bytes, half.input_bytes, half.activation_bytes) == (2 * 27, 2 * 40, 2 * 15)


def test_macs_grow_with_the_batch_and_parameters_do_not() -> None:
    one, three = profile(small(), (IMAGE,)), profile(small(), (IMAGE.expand(3, -1, -1, -1),))
    assert three.macs == 3 * one.macs and three.parameters == one.parameters


def test_tied_weights_count_once_and_what_runs_twice_counts_twice() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.shared, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.shared(self.shared(self.embed(ids))))

    found = profile(Tied(), (torch.tensor([[1, 2, 3]]),))
    assert found.parameters == 11 * 8 + 72
    assert {la.path: la.macs for la in found.layers} == {"embed": 0, "shared": 2 * 3 * 64, "head": 3 * 88}
    assert {la.path: la.weight_bytes for la in found.layers} == {"embed": 4 * 88, "shared": 4 * 72, "head": 0}
    assert {la.path: la.activation_bytes for la in found.layers} == {"embed": 4 * 24, "shared": 2 * 4 * 24, "head": 4 * 33}


def test_keyword_inputs_and_inference_mode() -> None:
    layer = nn.Linear(8, 3)
    with torch.inference_mode():
        assert profile(layer, (), {"input": TOKENS}).macs == 120


def test_the_model_is_left_as_it_was() -> None:
    model = small()
    model[1].eval()
    model[5].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert torch.backends.mha.get_fastpath_enabled()  # torch's default, which the profiles before this left alone
    profile(model.train(), (IMAGE,))
    model[1].eval()
    profile(model, (IMAGE,))
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_hooks_go_even_when_the_model_raises() -> None:
    model = small()
    with pytest.raises(RuntimeError):
        profile(model, (torch.rand(1, 3, 9, 9),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.training


def test_folded_and_quantized_models_take_the_same_macs() -> None:
    from limbeck.mechanics import quantizers

    plain = profile(small(), (IMAGE,))
    model = small().eval()
    quantizers.fold_(model, [{"edit": "fold", "module": "0", "norm": "1"}])
    folded = profile(model, (IMAGE,))
    assert folded.macs == plain.macs and folded.parameters == plain.parameters - 12
    sites = [{"module": m, "port": "weight", "axis": 0, "bits": 8} for m in ("0", "5")] + [{"module": m, "port": "out", "bits": 8} for m in ("2", "5")]
    quantizers.quantize_edits(model, [{"edit": "quantize", **site} for site in sites])
    for quantizer in quantizers.quantizers_of(model).values():
        quantizer.scale.fill_(0.1)
    quantized = profile(model, (IMAGE,))
    assert quantized.macs == plain.macs and quantized.parameters == folded.parameters
    assert {la.path: la.macs for la in quantized.layers} == {"0": plain.layers[0].macs, "5": 18}
