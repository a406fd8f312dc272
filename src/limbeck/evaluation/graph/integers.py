"""Products of u8 by s8 as integer kernels compute them: exactly, with pairs cut off at 16 bits, or with weights of 7 bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# exact: no pair is cut off. neighbours: pairs as MLAS packs them. sorted: the largest weights of a channel meet each other.
# seven: weights of products with a risky pair rounded once more, to 7 bits; no pair can be cut off then
Mode = Literal["exact", "neighbours", "sorted", "seven"]
LOWEST, HIGHEST, MOST_INPUT = -32768, 32767, 255
SEVEN = 63  # the greatest integer of symmetric 7-bit weights: 2 · 255 · 63 = 32130
CHUNK = 4_000_000  # numbers gathered at once
EXACT_K = 518  # products that float32 sums without rounding: 518 · 255 · 127 < 2^24
SIGNED_SHIFT = 128  # kernels add it to signed activations, so that u8 meets s8

# places among a node's inputs
PRODUCTS: Mapping[str, Mapping[str, int]] = {
    "QLinearConv": {"scale": 1, "zero": 2, "weight": 3, "weight_scale": 4, "weight_zero": 5, "out_scale": 6, "out_zero": 7, "bias": 8},
    "QLinearMatMul": {"scale": 1, "zero": 2, "weight": 3, "weight_scale": 4, "weight_zero": 5, "out_scale": 6, "out_zero": 7},
    "QGemm": {"scale": 1, "zero": 2, "weight": 3, "weight_scale": 4, "weight_zero": 5, "bias": 6, "out_scale": 7, "out_zero": 8},
    "MatMulIntegerToFloat": {"weight": 1, "scale": 2, "weight_scale": 3, "zero": 4, "weight_zero": 5, "bias": 6},
    "MatMulInteger": {"weight": 1, "zero": 2, "weight_zero": 3},
    "ConvInteger": {"weight": 1, "zero": 2, "weight_zero": 3},
}


@dataclass
class Tally:
    """What was counted of a product: sums of two products, those that were cut off, and outputs with at least one of them."""

    sums: int = 0
    saturated: int = 0
    outputs: int = 0
    hit: int = 0
    macs: int = 0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of weights that some input could bring over 16 bits: output channels, places on the summed axis, weights."""

    channels: Tensor
    places: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]

    def reachable(self, most: Tensor | None = None) -> Pairs:
        """Those that leave 16 bits with inputs of at most so much at each place; of at most 255 where that isn't said."""
        limits = [MOST_INPUT if most is None else most[place] for place in self.places]
        (first, second), (one, two) = self.weights, limits
        high = first.clamp(min=0) * one + second.clamp(min=0) * two > HIGHEST
        kept = high | (first.clamp(max=0) * one + second.clamp(max=0) * two < LOWEST)
        return Pairs(self.channels[kept], (self.places[0][kept], self.places[1][kept]), (self.weights[0][kept], self.weights[1][kept]))


@dataclass(frozen=True)
class Sliding:
    """How a convolution walks: of each axis the kernel's size, stride, dilation and padding at both ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    def rows(self, x: Tensor, fill: float) -> tuple[Tensor, tuple[int, ...]]:
        """[n, channels, height, width] → [n · places, kernel · channels], the channel fastest; and the sizes of the output."""
        import torch.nn.functional as F

        x = F.pad(x, (*self.pads[1], *self.pads[0]), value=fill)
        spans = zip(x.shape[2:], self.kernel, self.strides, self.dilations, strict=True)
        sizes = tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in spans)
        columns = F.unfold(x, self.kernel, dilation=self.dilations, stride=self.strides).view(x.shape[0], x.shape[1], math.prod(self.kernel), -1)
        return columns.permute(0, 3, 2, 1).reshape(-1, x.shape[1] * math.prod(self.kernel)), sizes


@dataclass(eq=False)
class Product:
    """A node that multiplies activations by constant s8 weights, as rows [p, k] times weights [channels, k] of each group."""

    operator: str
    alpha: float
    weights: tuple[Tensor, ...]
    sliding: Sliding | None = None
    flat: bool = False  # a convolution over one axis
    _pairs: dict[tuple[int, str], Pairs] = field(default_factory=dict)

    def __call__(self, inputs: Sequence[np.ndarray | None], mode: Mode, tally: Tally) -> np.ndarray:
        """The node's output for its inputs, None where one is left out."""
        import torch

        given = {name: inputs[at] for name, at in PRODUCTS[self.operator].items() if at < len(inputs)}
        activation = inputs[0]
        if activation is None:
            raise ValueError("an integer product has no activation")
        shift = SIGNED_SHIFT if activation.dtype == np.int8 else 0
        zero, weight_zero = _whole(given.get("zero")) + shift, _whole(given.get("weight_zero"))
        x = torch.from_numpy(activation.astype(np.float32)) + shift
        groups, sizes = self._rows(x, float(zero))
        mode = "exact" if mode == "seven" and not self.at_risk("sorted") else mode  # its weights are small enough as they are
        sums = [self._summed(i, rows, mode, tally, zeros=(zero, weight_zero)) for i, rows in enumerate(groups)]
        factor = 127 / SEVEN if mode == "seven" else 1.0
        whole = self._finished(torch.cat(sums, 1).numpy(), given, factor)
        if self.sliding is None:
            return whole.reshape(*activation.shape[:-1], whole.shape[-1])
        placed = np.moveaxis(whole.reshape(len(activation), *sizes, -1), -1, 1)
        return np.ascontiguousarray(placed[:, :, 0] if self.flat else placed)

    def _rows(self, x: Tensor, fill: float) -> tuple[list[Tensor], tuple[int, ...]]:
        if self.sliding is None:
            return [x.reshape(-1, x.shape[-1])], ()
        x = x[:, :, None] if self.flat else x
        found = [self.sliding.rows(part, fill) for part in x.chunk(len(self.weights), 1)]
        return [rows for rows, _ in found], found[0][1]

    def _summed(self, group: int, rows: Tensor, mode: Mode, tally: Tally, *, zeros: tuple[int, int]) -> Tensor:
        """Σ (a − zero of a) · (w − zero of w), for each row and channel; whole numbers."""
        weights = seven(self.weights[group]) if mode == "seven" else self.weights[group]
        exact = (rows.to(weights.dtype) @ weights.T).double()
        tally.macs += rows.shape[0] * weights.numel()
        if mode in ("neighbours", "sorted"):
            exact += self._cut(group, rows, mode, tally)
        zero, weight_zero = zeros
        if zero:
            exact -= zero * (weights.double().sum(1) - rows.shape[1] * weight_zero)
        return exact - weight_zero * rows.double().sum(1, keepdim=True) if weight_zero else exact

    def _cut(self, group: int, rows: Tensor, mode: str, tally: Tally) -> Tensor:
        """What cutting pairs off adds to each sum."""
        import torch

        channels, columns = self.weights[group].shape[0], rows.T.contiguous()
        pairs = self.pairs(group, mode).reachable(columns.amax(1))
        change, hit = torch.zeros(channels, rows.shape[0]), torch.zeros(channels, rows.shape[0])
        step = max(1, CHUNK // max(1, rows.shape[0]))
        for start in range(0, len(pairs.channels), step):
            part = slice(start, start + step)
            first, second = (columns[place[part]].mul_(weight[part, None]) for place, weight in zip(pairs.places, pairs.weights, strict=True))
            whole = first.add_(second)
            off = whole.clamp(LOWEST, HIGHEST).sub_(whole)
            if number := int(off.count_nonzero()):
                tally.saturated += number
                change.index_add_(0, pairs.channels[part], off)
                hit.index_add_(0, pairs.channels[part], off.abs_())
        tally.sums += rows.shape[0] * channels * math.ceil(rows.shape[1] / 2)
        tally.outputs += hit.numel()
        tally.hit += int((hit > 0).sum())
        return change.T.double()

    def _finished(self, sums: np.ndarray, given: Mapping[str, np.ndarray | None], factor: float) -> np.ndarray:
        """From sums to the node's own output. `factor`: how many times larger a step of the weights is than it was."""
        bias, out_scale = given.get("bias"), given.get("out_scale")
        if "scale" not in given:
            return np.rint(sums * factor).astype(np.int32)
        scale = _scale(given, "scale") * _scale(given, "weight_scale") * np.float32(self.alpha) * np.float32(factor)
        if self.operator == "MatMulIntegerToFloat":
            return (sums.astype(np.float32) * scale + (0 if bias is None else bias)).astype(np.float32)
        if bias is not None:
            sums = sums + np.rint(bias.astype(np.float64).reshape(-1) / factor)
        if out_scale is None:
            return sums.astype(np.float32) * scale
        scale = (_scale(given, "scale") * _scale(given, "weight_scale") * np.float32(self.alpha) / np.float32(out_scale.reshape(-1)[0])) * np.float32(factor)
        zero = given.get("out_zero")
        kind = np.uint8 if zero is None else zero.dtype
        limits = np.iinfo(kind)
        return np.clip(np.rint(sums.astype(np.float32) * scale) + _whole(zero), limits.min, limits.max).astype(kind)

    def pairs(self, group: int, mode: str) -> Pairs:
        """The risky pairs of a group, found once."""
        if (group, mode) not in self._pairs:
            self._pairs[group, mode] = risky(self.weights[group], ordered=mode == "sorted")
        return self._pairs[group, mode]

    @property
    def count(self) -> int:
        """Pairs of weights, risky or not."""
        return sum(w.shape[0] * math.ceil(w.shape[1] / 2) for w in self.weights)

    def at_risk(self, mode: str) -> int:
        """Pairs that some input could bring over 16 bits."""
        return sum(len(self.pairs(i, mode).channels) for i in range(len(self.weights)))


def _whole(value: np.ndarray | None) -> int:
    return 0 if value is None else int(value.reshape(-1)[0])


def _scale(given: Mapping[str, np.ndarray | None], name: str) -> np.ndarray:
    value = given[name]
    return np.ones(1, np.float32) if value is None else value.astype(np.float32).reshape(-1)


def seven(weights: Tensor) -> Tensor:
    """Integer weights on the grid of 7 bits: ±63 steps, each 127/63 as large."""
    return (weights * SEVEN / 127).round().clamp(-SEVEN, SEVEN)


def risky(weights: Tensor, *, ordered: bool) -> Pairs:
    """Pairs of a [channels, k] matrix whose sum of products with inputs in 0 … 255 can leave 16 bits.

    They are neighbours on k, 2i and 2i + 1; with `ordered` those of each channel's weights sorted by value, which brings its two
    largest and its two least together: if none of these pairs is risky, none is in any order.
    """
    import torch

    channels, k = weights.shape
    places = weights.argsort(1, descending=True) if ordered else torch.arange(k).expand(channels, k)
    if k % 2:  # one is alone, and always fits: the last, or one in the middle, so that both ends are paired
        alone = k // 2 // 2 * 2 if ordered else k - 1
        places = torch.cat([places[:, :alone], places[:, alone + 1 :]], 1)
    places = places.unflatten(1, (-1, 2))
    values = weights.float().unsqueeze(2).expand(-1, -1, 2).gather(1, places)
    own = torch.arange(channels)[:, None].expand(places.shape[:2])
    return Pairs(own.reshape(-1), (places[..., 0].reshape(-1), places[..., 1].reshape(-1)), (values[..., 0].reshape(-1), values[..., 1].reshape(-1))).reachable()


def product_of(operator: str, weight: np.ndarray, weight_zero: np.ndarray | None, attributes: Mapping[str, Any]) -> Product | None:
    """An integer product that can be computed here; None where its weights aren't s8 with one zero point, or its shape is another."""
    import torch

    if weight.dtype != np.int8 or (weight_zero is not None and len(np.unique(weight_zero)) > 1) or attributes.get("channels_last") or attributes.get("transA"):
        return None
    alpha = float(attributes.get("alpha", 1.0))
    if "Conv" not in operator:
        matrix = weight if attributes.get("transB") else weight.T
        return Product(operator, alpha, (_exactly(torch.tensor(matrix)),)) if weight.ndim == 2 else None
    if weight.ndim not in (3, 4) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", "NOTSET", "VALID"):
        return None
    axes = weight.ndim - 2
    flat = axes == 1
    kernel = tuple(weight.shape[2:])
    strides, dilations = (tuple(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    ends = attributes.get("pads", [0] * 2 * axes)
    pads = tuple(zip(ends[:axes], ends[axes:], strict=True))
    one = (1,) if flat else ()
    sliding = Sliding((*one, *kernel), (*one, *strides), (*one, *dilations), ((0, 0), *pads) if flat else pads)
    ordered = torch.tensor(weight).reshape(*weight.shape[:2], -1).permute(0, 2, 1).reshape(len(weight), -1)  # places first, the channel fastest
    return Product(operator, alpha, tuple(_exactly(part) for part in ordered.chunk(int(attributes.get("group", 1)))), sliding, flat)


def _exactly(weights: Tensor) -> Tensor:
    """In a type that sums these products without rounding."""
    return weights.float() if weights.shape[1] <= EXACT_K else weights.double()


def depthwise(operator: str, weight: np.ndarray, attributes: Mapping[str, Any]) -> bool:
    """Whether each output channel reads one input channel alone: kernels widen those to 16 bits before they add, so that none is cut off."""
    group = int(attributes.get("group", 1))
    return "Conv" in operator and group > 1 and weight.shape[1] == 1 and weight.shape[0] == group
