"""How many parameters a model has, how many multiply-accumulates one call of it takes, and the bytes that it moves, by layer.

Counted from the operators that really run, so attention written in plain matrix products counts like attention in a module.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

ATEN = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own, or whose own code multiplies matrices; on request any module that ran."""

    path: str
    kind: str
    parameters: int  # a parameter that is tied counts at its first place
    macs: int
    output_shape: tuple[int, ...]  # of its last call; () if it wasn't called or gives no tensor
    weight_bytes: int = 0  # its own parameters and buffers, as torch holds them; what is tied counts at its first place
    input_bytes: int = 0  # tensors that it was called with, over all its calls
    activation_bytes: int = 0  # tensors that it gave back, over all its calls; what only passes through counts where it was made


@dataclass(frozen=True)
class Profile:
    """Totals, and the layers that add up to them, in the model's own order."""

    parameters: int
    macs: int
    layers: tuple[Layer, ...]


def profile(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *, every: bool = False) -> Profile:
    """Run `model(*args, **kwargs)` once, in eval mode and without gradient, and count.

    One MAC is a multiplication with its addition in a convolution, a linear layer, a matrix product or attention; norms,
    activations, sums, pooling and quantizers count nothing. Figures are of this call: a batch of one gives MACs per sample.
    Parameters are unique ones; buffers (running means, quantizers' scales) aren't parameters. The model is left as it was.

    Args:
        every: Also list modules that ran without parameters and products (activations, pooling, containers).
    """
    macs: Counter[str] = Counter()
    calls = _Calls()
    with _plain_attention(), _evaluating(model), _following(model, calls), torch.no_grad(), _Count(macs, calls.stack):
        model(*args, **(kwargs or {}))
    parameters, weights = _own(model)
    modules = [(path, type(m).__name__) for path, m in model.named_modules() if parameters[path] or macs[path] or (every and path in calls.shapes)]
    layers = tuple(Layer(path, kind, parameters[path], macs[path], calls.shapes.get(path, ()), weights[path], calls.taken[path], calls.given[path]) for path, kind in modules)
    return Profile(sum(parameters.values()), sum(macs.values()), layers)


def _own(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """By module path, its own parameters and the bytes of them and of its buffers; each tensor once, a tied one at its first place."""
    parameters: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parameters[name.rpartition(".")[0]] += parameter.numel()
        weights[name.rpartition(".")[0]] += parameter.nbytes
    for name, buffer in model.named_buffers():
        weights[name.rpartition(".")[0]] += buffer.nbytes
    return parameters, weights


class _Calls:
    """What is seen while a model runs: the path of the module that is at work, and by path shapes and bytes."""

    def __init__(self) -> None:
        self.stack: list[str] = [""]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.taken: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.seen = WeakTensorKeyDictionary()  # a module's inputs, and what modules gave back so far: it counts once

    def enter(self, path: str, inputs: Sequence[Tensor]) -> None:
        self.stack.append(path)
        self.taken[path] += sum(t.nbytes for t in inputs)
        for tensor in inputs:
            self.seen[tensor] = True

    def leave(self, path: str, output: Any) -> None:
        self.stack.pop()
        self.shapes[path] = tuple(output.shape) if isinstance(output, Tensor) else ()
        for tensor in tensors_in(output):
            if tensor not in self.seen:
                self.given[path] += tensor.nbytes
                self.seen[tensor] = True


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in tuples, lists and mappings, however deep."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for entry in inner for tensor in tensors_in(entry)]


class _Count(TorchDispatchMode):
    """Adds each operator's MACs to the module on top of the stack."""

    def __init__(self, macs: Counter[str], stack: list[str]):
        super().__init__()
        self.macs, self.stack = macs, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        formula = FORMULAS.get(func.overloadpacket)
        if formula is None and func not in _WHOLE:
            with self:  # an operator made of others: count those
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        out = func(*args, **(kwargs or {}))
        if formula is not None:
            self.macs[self.stack[-1]] += formula(out[0] if isinstance(out, (tuple, list)) else out, args)
        return out


_WHOLE = frozenset({ATEN.is_contiguous.default, ATEN.size.default, ATEN.stride.default, ATEN.storage_offset.default, ATEN.numel.default, ATEN.dim.default})


def _product(left: int) -> Callable[[Tensor, tuple], int]:
    """A matrix product whose left factor is argument `left`: each number that comes out sums over its last axis."""
    return lambda out, args: out.numel() * args[left].shape[-1]


def _convolution(out: Tensor, args: tuple) -> int:
    source, weight, transposed = args[0], args[1], args[6]
    return (source if transposed else out).numel() * math.prod(weight.shape[1:])  # weight.shape[1] is per group already


def _recurrent(out: Tensor, args: tuple) -> int:
    steps, weight_in, weight_hidden = args[:3]  # one layer, one direction
    return math.prod(steps.shape[:-1]) * (weight_in.numel() + weight_hidden.numel())


def _attention(out: Tensor, args: tuple) -> int:
    query, key, value = args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


FORMULAS: Mapping[Any, Callable[[Tensor, tuple], int]] = {
    ATEN.mm: _product(0),
    ATEN.bmm: _product(0),
    ATEN.mv: _product(0),
    ATEN.dot: _product(0),
    ATEN.addmm: _product(1),
    ATEN.addmv: _product(1),
    ATEN.baddbmm: _product(1),
    ATEN.convolution: _convolution,
    ATEN.mkldnn_rnn_layer: _recurrent,
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention: _attention,
    ATEN._scaled_dot_product_efficient_attention: _attention,
    ATEN._scaled_dot_product_cudnn_attention: _attention,
}


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused kernels in which whole attention layers hide their products."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _following(model: nn.Module, calls: _Calls) -> Iterator[None]:
    """While a module's forward runs, its path is on top of the stack; afterwards its output's shape is known."""
    handles = []
    for path, module in model.named_modules():

        def enter(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            calls.enter(path, tensors_in((args, kwargs)))

        def leave(_: nn.Module, __: Any, output: Any, path: str = path) -> None:
            calls.leave(path, output)

        handles += [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
