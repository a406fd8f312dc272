"""Integer products: exactly as ONNX Runtime's kernels, and cut off as `vpmaddubsw` does, against a loop that follows its definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from limbeck.evaluation.graph.inside import opened
from limbeck.evaluation.graph.integers import HIGHEST, LOWEST, SEVEN, Product, Tally, depthwise, product_of, risky, seven

RNG = np.random.default_rng(0)


def whole(*shape: int, low: int = -127, high: int = 128, kind: type = np.int8) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(kind)


def product(operator: str, weight: np.ndarray, **attributes: Any) -> Product:
    found = product_of(operator, weight, None, attributes)
    assert found
    return found


def answered(operator: str, inputs: Sequence[np.ndarray | None], domain: str = "", **attributes: Any) -> np.ndarray:
    """What ONNX Runtime computes for one node, its parameters constant as in a file."""
    names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
    node = helper.make_node(operator, names, ["y"], domain=domain, **attributes)
    first = helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), [None] * inputs[0].ndim)
    graph = helper.make_graph([node], "g", [first], [onnx.ValueInfoProto(name="y")])
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in list(zip(names, inputs, strict=True))[1:] if v is not None)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)], ir_version=10)
    return opened(model, optimized=False)({"i0": inputs[0]})["y"]


def quantization(channels: int, x_zero: int = 117) -> list[np.ndarray]:
    return [np.float32(0.02), np.uint8(x_zero), RNG.uniform(0.001, 0.01, channels).astype(np.float32), np.zeros(channels, np.int8), np.float32(0.09), np.uint8(101)]


CONVOLUTIONS = [
    {"pads": [1, 1, 1, 1], "strides": [1, 1]},
    {"pads": [0, 2, 1, 0], "strides": [2, 1], "dilations": [1, 2]},
    {"pads": [1, 1, 1, 1], "group": 2},
]


@pytest.mark.parametrize(("channels", "attributes"), [(c, a) for c in (3, 4, 6) for a in CONVOLUTIONS if c % a.get("group", 1) == 0])
def test_exact_convolutions_equal_the_runtimes_bit_for_bit(channels: int, attributes: dict[str, Any]):
    """Oracle 21. Weights below 64 saturate on no CPU, so that this holds on every machine."""
    group = attributes.get("group", 1)
    x, weight, bias = whole(2, channels, 9, 8, low=0, high=256, kind=np.uint8), whole(6, channels // group, 3, 3, low=-63, high=64), whole(6, low=-3000, high=3000, kind=np.int32)
    xs, xz, ws, wz, ys, yz = quantization(6)
    inputs = [x, xs, xz, weight, ws, wz, ys, yz, bias]
    assert np.array_equal(product("QLinearConv", weight, **attributes)(inputs, "exact", Tally()), answered("QLinearConv", inputs, **attributes))


def test_exact_convolution_over_one_axis():
    x, weight = whole(2, 4, 20, low=0, high=256, kind=np.uint8), whole(5, 4, 3, low=-63, high=64)
    xs, xz, ws, wz, ys, yz = quantization(5)
    inputs, attributes = [x, xs, xz, weight, ws, wz, ys, yz], {"pads": [1, 1], "strides": [2]}
    assert np.array_equal(product("QLinearConv", weight, **attributes)(inputs, "exact", Tally()), answered("QLinearConv", inputs, **attributes))


@pytest.mark.parametrize("flipped", [0, 1])
@pytest.mark.parametrize("quantized", [True, False])
def test_exact_gemm(quantized: bool, flipped: int):
    x, weight = whole(3, 33, low=0, high=256, kind=np.uint8), whole(*((7, 33) if flipped else (33, 7)), low=-63, high=64)
    xs, xz, ws, wz, ys, yz = quantization(7)
    inputs = [x, xs, xz, weight, ws, wz, whole(7, low=-900, high=900, kind=np.int32), *((ys, yz) if quantized else ())]
    got, expected = product("QGemm", weight, transB=flipped)(inputs, "exact", Tally()), answered("QGemm", inputs, "com.microsoft", transB=flipped)
    assert got.dtype == expected.dtype and np.allclose(got, expected, rtol=1e-6, atol=0 if quantized else 1e-5)


@pytest.mark.parametrize("operator", ["QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"])
def test_exact_matrix_products(operator: str):
    x, weight = whole(2, 5, 32, low=0, high=256, kind=np.uint8), whole(32, 6, low=-63, high=64)
    xs, xz, ws, wz, ys, yz = quantization(6)
    inputs = {
        "QLinearMatMul": [x, xs, xz, weight, ws, wz, ys, yz],
        "MatMulInteger": [x, weight, xz, wz],
        "MatMulIntegerToFloat": [x, weight, xs, ws, xz, wz, RNG.standard_normal(6).astype(np.float32)],
    }[operator]
    got, expected = product(operator, weight)(inputs, "exact", Tally()), answered(operator, inputs, "com.microsoft" if "Float" in operator else "")
    assert got.shape == expected.shape and got.dtype == expected.dtype and np.allclose(got, expected, rtol=1e-6, atol=1e-5)


def cut(a: Sequence[int], w: Sequence[int]) -> int:
    """Oracle 26: products of neighbours added in int16 with saturation, those sums in int32."""
    pairs = zip(range(0, len(a), 2), range(1, len(a) + 1, 2), strict=False)
    return sum(max(LOWEST, min(HIGHEST, int(a[i]) * int(w[i]) + (int(a[j]) * int(w[j]) if j < len(a) else 0))) for i, j in pairs)


@pytest.mark.parametrize("k", [8, 9])
def test_neighbours_are_cut_off_as_the_instruction_does(k: int):
    x, weight, zero = whole(50, k, low=120, high=256, kind=np.uint8), whole(k, 12), 30
    tally = Tally()
    got = product("MatMulInteger", weight)([x, weight, np.uint8(zero), np.int8(0)], "neighbours", tally)
    expected = np.array([[cut(row, weight[:, c]) - zero * int(weight[:, c].astype(int).sum()) for c in range(12)] for row in x])
    assert np.array_equal(got, expected)
    exact = np.array([[int((row.astype(int) * weight[:, c]).sum()) - zero * int(weight[:, c].astype(int).sum()) for c in range(12)] for row in x])
    assert tally.sums == 50 * 12 * -(-k // 2) and tally.hit >= (got != exact).sum() > 0 and tally.outputs == 600


def test_a_convolution_adds_neighbouring_channels_of_one_place():
    """The channel runs fastest: [place, channel] pairs channels 0 and 1, 2 and 3 of a place, padding counts as the zero point."""
    x, weight = whole(1, 4, 5, 5, low=150, high=256, kind=np.uint8), whole(3, 4, 3, 3)
    got = product("ConvInteger", weight, pads=[1, 1, 1, 1])([x, weight, np.uint8(200), np.int8(0)], "neighbours", Tally())
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=200)
    for c, i, j in [(0, 0, 0), (1, 2, 3), (2, 4, 4)]:
        a = padded[0, :, i : i + 3, j : j + 3].transpose(1, 2, 0).reshape(-1)
        w = weight[c].transpose(1, 2, 0).reshape(-1)
        assert got[0, c, i, j] == cut(a, w) - 200 * int(w.astype(int).sum())


def test_a_signed_activation_is_shifted_to_u8_first():
    x, weight = whole(4, 6), whole(6, 5)
    got = product("MatMulInteger", weight)([x, weight, np.int8(-3), np.int8(0)], "neighbours", Tally())
    expected = [[cut(row.astype(int) + 128, weight[:, c]) - 125 * int(weight[:, c].astype(int).sum()) for c in range(5)] for row in x]
    assert np.array_equal(got, np.array(expected))


def test_weights_of_seven_bits_cannot_saturate():
    weights = torch.from_numpy(whole(40, 300)).float()
    assert len(risky(weights, ordered=True).channels) and not len(risky(seven(weights), ordered=True).channels)
    assert seven(weights).abs().max() == SEVEN and 2 * 255 * SEVEN < HIGHEST
    step = 127 / SEVEN
    assert ((seven(weights) * step - weights).abs() <= step / 2 + 1e-4).all()


@pytest.mark.parametrize("k", [6, 7])
def test_if_no_sorted_pair_is_risky_none_is_in_any_order(k: int):
    for _ in range(200):
        weights = torch.from_numpy(whole(1, k, low=-90, high=91)).float()
        sums = [(max(a, 0) + max(b, 0), min(a, 0) + min(b, 0)) for i, a in enumerate(weights[0].tolist()) for b in weights[0].tolist()[:i]]
        could = any(255 * high > HIGHEST or 255 * low < LOWEST for high, low in sums)
        assert bool(len(risky(weights, ordered=True).channels)) == could, weights


def test_small_weights_stay_as_they_are_under_seven_bits():
    weight = whole(16, 4, low=-60, high=61)
    inputs = [whole(3, 16, low=0, high=256, kind=np.uint8), weight, np.uint8(0), np.int8(0)]
    one = product("MatMulInteger", weight)
    assert np.array_equal(one(inputs, "seven", Tally()), one(inputs, "exact", Tally()))


def test_what_is_not_known_here_is_none():
    assert product_of("QLinearMatMul", whole(4, 4, low=0, high=256, kind=np.uint8), None, {}) is None
    assert product_of("QLinearConv", whole(2, 2, 3, 3), None, {"auto_pad": b"SAME_UPPER"}) is None
    assert product_of("QLinearConv", whole(2, 2, 3, 3), np.array([0, 1], np.int8), {}) is None
    assert depthwise("QLinearConv", whole(8, 1, 3, 3), {"group": 8}) and not depthwise("QLinearConv", whole(16, 1, 3, 3), {"group": 8})
    assert not depthwise("QGemm", whole(8, 1), {})
