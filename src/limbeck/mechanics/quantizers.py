"""The quantized form of a model: quantizers at sites, replayed from edits, with faces that agree bit for bit.

A weight's quantizer lives on its module; an activation's lives at a site: a module's input or output, or the result of an
operator that a module's forward calls. Each has three faces: `float` (identity, to observe ranges), `fake_quant` (trains,
straight-through) and `qdq` (exports: quantize and dequantize operators). Scales and zero points are buffers.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, Literal

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from limbeck.core.errors import ReplayError, near

Face = Literal["float", "fake_quant", "qdq"]
Edit = Mapping[str, Any]
QDQ = torch.ops.quantized_decomposed
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # what walks over its children would call a quantizer as a layer
FORWARDS = {kind: kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)}
PORTS = ("weight", "in", "out", "operator")
MOST_BITS = 16
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ActivationQuantizer(nn.Module):
    """Rounds a tensor to one affine grid of 2^bits steps. Zero points are kept signed; u8 shifts them by 2^(bits-1)."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits
        self.face: Face = "fake_quant"
        self.register_buffer("scale", torch.full((1,), float("nan")))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self._deployed: tuple[float, int, int, int, torch.dtype] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.face == "float":
            return x
        if self.face == "qdq":
            if self._deployed is None:
                raise ReplayError("an activation quantizer has no deployed numbers. Make the deployed face with `deployed(model, activations=…)`.")
            return QDQ.dequantize_per_tensor(QDQ.quantize_per_tensor(x, *self._deployed), *self._deployed)
        low, high = limits(self.bits)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, low, high)

    def deploy_(self, activations: Literal["u8", "s8"]) -> None:
        """Take the qdq face, its numbers fixed; the buffers go."""
        low, high = limits(self.bits)
        shift, dtype = (-low, torch.uint8) if activations == "u8" else (0, torch.int8)
        self._deployed = (float(self.scale), int(self.zero_point) + shift, low + shift, high + shift, dtype)
        self.face = "qdq"
        del self.scale, self.zero_point


class WeightQuantizer(nn.Module):
    """Rounds a weight to a symmetric grid for each output channel: zero point 0, ±(2^(bits-1) − 1) steps."""

    scale: Tensor
    integers: Tensor
    zeros: Tensor

    def __init__(self, channels: int, *, axis: int, bits: int):
        super().__init__()
        self.bits, self.axis = bits, axis
        self.face: Face = "fake_quant"
        self.register_buffer("scale", torch.full((channels,), float("nan")))

    def forward(self, weight: Tensor | None) -> Tensor:
        high = limits(self.bits)[1]
        if self.face == "qdq":
            return QDQ.dequantize_per_channel(self.integers, self.scale, self.zeros, self.axis, -high, high, torch.int8)
        if weight is None:
            raise ReplayError("a weight quantizer was given no weight: its float weight went with deployment. Use a copy that isn't deployed.")
        if self.face == "float":
            return weight
        return torch.fake_quantize_per_channel_affine(weight, self.scale, torch.zeros_like(self.scale, dtype=torch.int32), self.axis, -high, high)

    def deploy_(self, weight: Tensor) -> None:
        """Take the qdq face: keep the weight as int8, so that the float copy can go."""
        high = limits(self.bits)[1]
        zeros = torch.zeros_like(self.scale, dtype=torch.int64)
        self.register_buffer("zeros", zeros)
        self.register_buffer("integers", QDQ.quantize_per_channel(weight.detach(), self.scale, zeros, self.axis, -high, high, torch.int8))
        self.face = "qdq"


def limits(bits: int) -> tuple[int, int]:
    """The signed integers of this many bits, least and greatest."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def takes_quantized_weight(module: nn.Module) -> bool:
    """Whether a `quantize` edit can be made on this module's weight: torch's own conv or linear, with a plain float32 parameter."""
    weight = module._parameters.get("weight")
    return type(module) in FORWARDS and "forward" not in vars(module) and weight is not None and weight.dtype is torch.float32


def fold_edits(model: nn.Module, edits: list[Edit]) -> None:
    """Replay `fold`: the conv or linear gets a bias, the batch norm after it becomes an identity. Numbers come with the weights.

    Raises: ReplayError if a module isn't there or isn't of the kind that folds.
    """
    for edit in edits:
        module, norm = _at(model, edit["module"]), _at(model, edit["norm"])
        if type(module) not in FORWARDS or not isinstance(norm, BATCH_NORMS):
            raise ReplayError(f"'{edit['norm']}' ({type(norm).__name__}) can't fold into '{edit['module']}' ({type(module).__name__}). The factory differs from the blueprint's.")
        weight = module.get_parameter("weight")
        if module._parameters["bias"] is None:
            module.register_parameter("bias", nn.Parameter(weight.new_full((weight.shape[0],), float("nan"))))
        for parent in list(model.modules()):
            for name, child in parent._modules.items():
                if child is norm:
                    parent._modules[name] = nn.Identity()


@torch.no_grad()
def fold_(model: nn.Module, edits: Sequence[Edit]) -> None:
    """Fold batch norms in their eval form into what is before them, in place: the structure as `fold_edits` replays it, and the numbers.

    w' = w · γ / √(σ² + ε), b' = β + (b − μ) · γ / √(σ² + ε), computed in float64.
    """
    norms: list[Any] = [_at(model, e["norm"]) for e in edits]
    biases = [_at(model, e["module"])._parameters["bias"] for e in edits]
    biases = [None if b is None else b.double() for b in biases]
    fold_edits(model, list(edits))
    for edit, norm, bias in zip(edits, norms, biases, strict=True):
        module: Any = _at(model, edit["module"])
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight.double()
        shifted = -norm.running_mean.double() if bias is None else bias - norm.running_mean.double()
        module.weight.copy_(module.weight.double() * factor.view(-1, *[1] * (module.weight.dim() - 1)))
        module.bias.copy_(shifted * factor if norm.bias is None else shifted * factor + norm.bias.double())


def quantize_edits(model: nn.Module, edits: list[Edit]) -> None:
    """Replay `quantize`: place each quantizer, its scale NaN until the weights are loaded.

    An edit with `shares` puts the quantizer of that site here as well: both round to one grid.
    Raises: ReplayError if a site isn't there, is taken, or shares with one that isn't.
    """
    placed: dict[str, ActivationQuantizer] = {}
    operators: dict[tuple[str, str], dict[int, ActivationQuantizer]] = {}
    counts: dict[tuple[str, str], int] = {}
    for edit in edits:
        module = _at(model, edit["module"])
        if edit["port"] not in PORTS:
            raise ReplayError(f"'{edit['module']}' has no port '{edit['port']}'. {near(edit['port'], PORTS)}")
        if type(edit["bits"]) is not int or not 2 <= edit["bits"] <= MOST_BITS:
            raise ReplayError(f"a quantizer at '{site_key(edit)}' must have 2 to {MOST_BITS} bits, got {edit['bits']!r}. The blueprint was damaged or written by another version.")
        if edit["port"] == "weight":
            _place_weight(module, edit)
            continue
        if "shares" in edit and edit["shares"] not in placed:
            raise ReplayError(f"a quantizer at '{site_key(edit)}' shares with '{edit['shares']}', which isn't placed before it. {near(edit['shares'], placed)}")
        quantizer = placed[site_key(edit)] = placed[edit["shares"]] if "shares" in edit else ActivationQuantizer(edit["bits"])
        _own(module, quantizer, edit)
        if edit["port"] == "operator":
            key = (edit["module"], edit["operator"])
            operators.setdefault(key, {})[edit["ordinal"]] = quantizer
            counts[key] = edit["count"]
        elif edit["port"] == "in":
            module.register_forward_pre_hook(_quantize_in, with_kwargs=True)
        else:
            module.register_forward_hook(_quantize_out)
    if operators:
        _watch_operators(model, OperatorQuantizers(operators, counts))


def site_key(edit: Edit) -> str:
    """The name of a site: `conv1:weight`, `relu1:out`, `layer1.0:relu:1`."""
    return f"{edit['module']}:{edit['operator']}:{edit['ordinal']}" if edit["port"] == "operator" else f"{edit['module']}:{edit['port']}"


def _at(model: nn.Module, path: str) -> nn.Module:
    known = dict(model.named_modules(remove_duplicate=False))
    if path not in known:
        raise ReplayError(f"there is no module '{path}' in {type(model).__name__}. {near(path, known)}")
    return known[path]


def _child(edit: Edit) -> str:
    return f"{edit['operator']}_{edit['ordinal']}_quantizer" if edit["port"] == "operator" else f"{edit['port']}_quantizer"


def quantizer_at(model: nn.Module, edit: Edit) -> nn.Module:
    """The quantizer that this `quantize` edit placed. Raises ReplayError if it wasn't replayed."""
    found = _at(model, edit["module"])._modules.get(_child(edit))
    if found is None:
        raise ReplayError(f"there is no quantizer at '{site_key(edit)}'. Replay the edit first.")
    return found


def _own(module: nn.Module, quantizer: nn.Module, edit: Edit) -> None:
    name = _child(edit)
    if name in module._modules:
        raise ReplayError(f"site '{site_key(edit)}' has a quantizer already. A model is quantized once.")
    module.add_module(name, quantizer)


def _place_weight(module: nn.Module, edit: Edit) -> None:
    if not takes_quantized_weight(module):
        raise ReplayError(
            f"module '{edit['module']}' ({type(module).__name__}) has no float32 weight to quantize. The factory differs from the blueprint's, or it is quantized already."
        )
    channels = module.get_parameter("weight").shape[edit["axis"]]
    _own(module, WeightQuantizer(channels, axis=edit["axis"], bits=edit["bits"]), edit)
    module.forward = MethodType(_linear if isinstance(module, nn.Linear) else _conv, module)


def _conv(self: Any, input: Tensor) -> Tensor:
    return self._conv_forward(input, self.weight_quantizer(self.weight), self.bias)


def _linear(self: Any, input: Tensor) -> Tensor:
    return F.linear(input, self.weight_quantizer(self.weight), self.bias)


def _quantize_in(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if args:
        return (module.in_quantizer(args[0]), *args[1:]), kwargs
    return args, kwargs | {"input": module.in_quantizer(kwargs["input"])}


def _quantize_out(module: Any, args: tuple, output: Tensor) -> Tensor:
    return module.out_quantizer(output)


class Calls(TorchFunctionMode):
    """Sees each operator that a model's forward calls: whose forward, which operator, the how-manieth call of it there.

    `on_call(module path, operator, ordinal, run, args, kwargs)` decides what the call gives; `run()` makes it. Operators
    inside another operator aren't seen. `enter` and `leave` say which module's forward is running.
    """

    def __init__(self, on_call: Callable[..., Any]):
        super().__init__()
        self.on_call = on_call
        self.stack: list[str] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        run = functools.partial(func, *args, **(kwargs or {}))
        operator = func.__name__.strip("_")
        if not self.stack or operator == "get":
            return run()
        key = (self.stack[-1], operator)
        ordinal = self.counts[key]
        self.counts[key] += 1
        return self.on_call(*key, ordinal, run, args, kwargs or {})


class OperatorQuantizers:
    """The quantizers at a model's functional operators, and how often each operator must be called in one forward."""

    def __init__(self, quantizers: dict[tuple[str, str], dict[int, ActivationQuantizer]], counts: dict[tuple[str, str], int]):
        self.quantizers, self.counts = quantizers, counts
        self.calls: Calls | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For one forward of the model. Raises ReplayError if an operator was called another number of times than recorded."""
        self.calls = Calls(self._on_call)
        self.calls.stack.append("")
        try:
            with self.calls:
                yield
            seen = self.calls.counts
        finally:
            self.calls = None
        for (module, operator), count in self.counts.items():
            if seen[module, operator] != count:
                raise ReplayError(
                    f"'{module}' called {operator} {seen[module, operator]} times in its forward, but {count} times when it was quantized. Its forward's code differs."
                )

    def _on_call(self, module: str, operator: str, ordinal: int, run: Callable[[], Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        result = run()
        quantizer = self.quantizers.get((module, operator), {}).get(ordinal)
        return result if quantizer is None else quantizer(result)


class _Enter:
    """A hook that says whose forward begins. A class, so that a deep copy of the model refers to the copy."""

    def __init__(self, operators: OperatorQuantizers, path: str):
        self.operators, self.path = operators, path

    def __call__(self, module: nn.Module, args: tuple) -> None:
        if self.operators.calls is not None:
            self.operators.calls.stack.append(self.path)


class _Leave:
    """A hook that says that a forward ended."""

    def __init__(self, operators: OperatorQuantizers):
        self.operators = operators

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.operators.calls is not None:
            self.operators.calls.stack.pop()


def _watch_operators(model: nn.Module, operators: OperatorQuantizers) -> None:
    for path, module in model.named_modules():
        if path:
            module.register_forward_pre_hook(_Enter(operators, path), prepend=True)
            module.register_forward_hook(_Leave(operators))
    bound = vars(model).get("forward")
    original = bound.__func__ if isinstance(bound, MethodType) else type(model).forward

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.operator_quantizers.watching():
            return original(self, *args, **kwargs)

    vars(model)["operator_quantizers"] = operators
    model.forward = MethodType(forward, model)


def quantizers_of(model: nn.Module) -> dict[str, ActivationQuantizer | WeightQuantizer]:
    """Every quantizer by its path, each once."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (ActivationQuantizer, WeightQuantizer))}


def set_face_(model: nn.Module, face: Literal["float", "fake_quant"]) -> None:
    """Show this face at every quantizer. The qdq face is for good and made by `deployed`."""
    for quantizer in quantizers_of(model).values():
        quantizer.face = face


def deployed(model: nn.Module, *, activations: Literal["u8", "s8"]) -> nn.Module:
    """A deep copy in the qdq face, ready for torch.export; a model without quantizers is copied as it is.

    Weights are int8 buffers, no float copy stays. u8 and s8 are the same reals: zero points differ by 128.
    """
    ready = copy.deepcopy(model)
    for quantizer in quantizers_of(ready).values():
        if isinstance(quantizer, ActivationQuantizer) and quantizer.face != "qdq":
            quantizer.deploy_(activations)
    for module in ready.modules():
        quantizer = module._modules.get("weight_quantizer")
        if isinstance(quantizer, WeightQuantizer) and quantizer.face != "qdq":
            quantizer.deploy_(module.get_parameter("weight"))
            module.register_parameter("weight", None)
    return ready


def affine(low: float, high: float, *, bits: int) -> tuple[float, int]:
    """Scale (a float32 number) and signed zero point of the grid over [low, high], which is widened to hold 0 exactly.

    An empty range, as of a tensor that is always 0, gets a scale of 2^-8.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    least, greatest = limits(bits)
    if high - low < (greatest - least) * SMALLEST:
        return 2.0**-8, least if low == 0.0 else 0
    scale = float(torch.tensor((high - low) / (greatest - least), dtype=torch.float32))
    return scale, max(least, min(greatest, least - round(low / scale)))


SMALLEST = 2.0**-40  # below this a scale's reciprocal, or a bias in its steps, leaves the range of what kernels compute


def weight_scale(weight: Tensor, *, axis: int, bits: int, bias: Tensor | None = None, input_scale: float | None = None) -> Tensor:
    """A scale for each output channel: its largest magnitude over the greatest integer.

    Kernels add the bias as an int32 in steps of input scale × weight scale. A channel whose weights are tiny beside its bias
    (a folded, nearly dead batch norm) would overflow it in silence; its scale is raised until the bias fits 2^30 steps.
    """
    rows = weight.detach().transpose(0, axis).flatten(1).abs()
    greatest = limits(bits)[1]
    largest = rows.amax(1) if rows.shape[1] else rows.new_zeros(rows.shape[0])
    scale = torch.where(largest > 0, largest, rows.max()) / greatest  # a dead channel takes the layer's: its bias keeps fine steps
    scale = scale.clamp(min=SMALLEST)
    if bias is not None and input_scale is not None:
        scale = torch.maximum(scale, (bias.detach().abs().double() / (input_scale * 2.0**30)).to(scale.dtype))
    return scale
