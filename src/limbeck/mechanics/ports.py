"""Where a model's quantizers belong, found by its dataflow in one eager pass: nothing is read off names.

Values are tensors at a moment (an operator in place makes a new one). A value's site is the output of the leaf module that
made it, or the operator call itself; what no call made (an input) is met at the input of its consumer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck.mechanics.quantizers import BATCH_NORMS, CONTAINERS, Calls, site_key, takes_quantized_weight

WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
MOVES = """
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d flatten unflatten reshape view view_as permute transpose
    movedim swapaxes squeeze unsqueeze contiguous clone detach getitem narrow select dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout
    chunk split unbind expand repeat channel_shuffle pixel_shuffle pixel_unshuffle roll flip
"""
PRODUCTS = """
    matmul rmatmul mm bmm addmm baddbmm einsum scaled_dot_product_attention multi_head_attention_forward bilinear
    conv_transpose1d conv_transpose2d conv_transpose3d lstm gru rnn_tanh rnn_relu
"""
SAME_VALUES = frozenset(MOVES.split())  # their results hold only values of their input, so they stay on its grid
LEFT_FLOAT = frozenset(PRODUCTS.split())  # heavy operators without an int8 form here: reported
POOLS = frozenset({"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"})
CONCATS = frozenset({"cat", "concat", "concatenate"})
STAYS_INT8 = frozenset({"same", "rectify", "pool", "concat", "add"})
ACTIVATION = {"bits": 8, "scheme": "asymmetric"}


@dataclass(frozen=True)
class Call:
    """One call of an operator in a module's forward; inputs and outputs are numbers of values."""

    module: str
    operator: str
    ordinal: int
    role: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    single: bool  # gives one tensor, not several


@dataclass
class Dataflow:
    """What one eager pass showed. `outputs` are the values that the model returns."""

    calls: list[Call] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    leaf_outputs: dict[int, str] = field(default_factory=dict)
    dims: dict[int, int] = field(default_factory=dict)
    outputs: set[int] = field(default_factory=set)
    producers: dict[int, Call] = field(default_factory=dict)
    consumers: dict[int, list[Call]] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self.producers.update(dict.fromkeys(call.outputs, call))
        for value in set(call.inputs):
            self.consumers.setdefault(value, []).append(call)

    def only_consumer(self, value: int) -> Call | None:
        """The one call that reads this value, if no other does and the model doesn't return it."""
        calls = self.consumers.get(value, [])
        return calls[0] if len(calls) == 1 and value not in self.outputs else None


def trace(model: nn.Module, run: Callable[[], Any]) -> Dataflow:
    """The dataflow of `run`, which calls `model` once. No gradient, no trace left on the model."""
    flow, values = Dataflow(), _Values()

    def on_call(module: str, operator: str, ordinal: int, call: Callable[[], Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
        inputs = tuple(values.number(t) for t in _floats((args, kwargs)))
        flow.dims.update({values.number(t): t.dim() for t in _floats((args, kwargs))})
        role = _role(operator, args, kwargs) if inputs else ""
        result = call()
        outputs = tuple(n for n in (values.number(t) for t in _floats(result)) if n not in inputs)
        if outputs or (isinstance(result, Tensor) and not result.is_floating_point()):  # not sizes, nor what hands its input back
            flow.add(Call(module, operator, ordinal, role, inputs, outputs, isinstance(result, Tensor)))
        return result

    calls = Calls(on_call)
    handles = _watch(model, calls, flow, values)
    try:
        with torch.no_grad(), calls:
            run()
    finally:
        for handle in handles:
            handle.remove()
    flow.counts = calls.counts
    return flow


class _Values:
    """A number for each tensor at each version; keeps the tensors alive, so that an id is never used twice."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], int] = {}
        self.kept: list[Tensor] = []

    def number(self, tensor: Tensor) -> int:
        key = (id(tensor), tensor._version)
        if key not in self.known:
            self.known[key] = len(self.kept)
            self.kept.append(tensor)
        return self.known[key]


def _floats(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _floats(item)
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _floats(item)


def _watch(model: nn.Module, calls: Calls, flow: Dataflow, values: _Values) -> list[RemovableHandle]:
    def enter(path: str) -> Callable[..., None]:
        return lambda module, args: calls.stack.append(path)

    def leave(path: str, leaf: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            calls.stack.pop()
            flow.runs[path] += 1
            if leaf and isinstance(output, Tensor) and output.is_floating_point():
                flow.leaf_outputs.setdefault(values.number(output), path)  # an identity after it is not its maker
            if not path:
                flow.outputs.update(values.number(t) for t in _floats(output))

        return hook

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(leave(path, not module._modules)))
    return handles


def _role(operator: str, args: tuple, kwargs: Mapping[str, Any]) -> str:
    """What an operator means to a quantized graph."""
    if operator in WEIGHTED:
        return "weighted"
    if operator in LEFT_FLOAT:
        return "float"
    if operator == "batch_norm":
        return "norm"
    if operator in ("add", "radd", "iadd"):
        return "add" if _residual(args, kwargs) else ""
    if operator == "pad":
        zero = _argument(args, kwargs, 2, "mode", "constant") != "constant" or not _argument(args, kwargs, 3, "value", 0)
        return "same" if zero else ""
    if operator in ("relu", "relu6") or (operator in ("hardtanh", "clamp", "clip", "clamp_min") and _lower(operator, args, kwargs) == 0):
        return "rectify"
    return "same" if operator in SAME_VALUES else "pool" if operator in POOLS else "concat" if operator in CONCATS else ""


def _argument(args: tuple, kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _lower(operator: str, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    low = _argument(args, kwargs, 1, "min_val" if operator == "hardtanh" else "min", -1.0 if operator == "hardtanh" else None)
    return None if isinstance(low, Tensor) else low


def _residual(args: tuple, kwargs: Mapping[str, Any]) -> bool:
    left, right = _argument(args, kwargs, 0, "input", None), _argument(args, kwargs, 1, "other", None)
    return isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape and left.is_floating_point() and kwargs.get("alpha", 1) == 1


def folds(model: nn.Module, flow: Dataflow) -> tuple[dict[str, Any], ...]:
    """The `fold` edits that this model allows: a conv or linear, run once, whose output only one batch norm reads."""
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    edits = []
    for call in flow.calls:
        made = flow.producers.get(call.inputs[0]) if call.role == "norm" else None
        if made is None or made.role != "weighted" or flow.only_consumer(call.inputs[0]) is not call:
            continue
        norm, module = model.get_submodule(call.module), model.get_submodule(made.module)
        once = flow.runs[call.module] == flow.runs[made.module] == 1 and flow.leaf_outputs.get(call.inputs[0]) == made.module
        plain = type(norm) in BATCH_NORMS and norm._buffers.get("running_var") is not None and flow.leaf_outputs.get(call.outputs[0]) == call.module
        rows = not isinstance(module, nn.Linear) or flow.dims[call.inputs[0]] == 2
        if once and plain and rows and takes_quantized_weight(module) and uses[id(module.weight)] == 1:
            edits.append({"edit": "fold", "module": made.module, "norm": call.module})
    return tuple(edits)


@dataclass(frozen=True)
class Placement:
    """Where quantizers go, as edits; what stays float; and for each weighted module the site that quantizes its input."""

    edits: tuple[dict[str, Any], ...]
    left_float: tuple[str, ...]
    inputs: Mapping[str, str]

    @property
    def weights(self) -> list[dict[str, Any]]:
        return [e for e in self.edits if e["port"] == "weight"]


def placement(model: nn.Module, flow: Dataflow, *, weight_bits: int = 8, keep_float: Collection[str] = ()) -> Placement:
    """The full rule, under which runtimes keep every conv and linear in int8.

    Quantized are: weights; the input of each conv and linear; its output, after a rectifier that reads it alone; both
    operands and the result of each residual add that leads to a conv, a linear or the output without leaving int8.
    Operators that only move values keep the grid of what they move. A module path in `keep_float` covers all below it.
    """
    kept = {n for n, _ in model.named_modules() if any(n == k or n.startswith(f"{k}.") or k == "" for k in keep_float)}
    weighted = {c.module for c in flow.calls if c.role == "weighted" and c.module not in kept and takes_quantized_weight(model.get_submodule(c.module))}
    paths = [m for m in dict.fromkeys(c.module for c in flow.calls) if m in weighted]
    weights = [{"edit": "quantize", "module": m, "port": "weight", "bits": weight_bits, "scheme": "symmetric", "axis": 0} for m in paths]
    placer = _Placer(model, flow, weighted)
    for value in sorted(_wanted(model, flow, weighted)):
        placer.place(value)
    inputs = {c.module: placer.primary[c.inputs[0]] for c in flow.calls if c.module in weighted and c.role == "weighted" and c.inputs[0] in placer.primary}
    return Placement((*weights, *placer.edits.values()), _left_float(flow, weighted), inputs)


def _left_float(flow: Dataflow, weighted: Collection[str]) -> tuple[str, ...]:
    calls = [c for c in flow.calls if c.role in ("weighted", "norm", "float") and c.module not in weighted]
    named = (c.module if c.module and c.role != "float" else f"{c.module}:{c.operator}" for c in calls)
    return tuple(dict.fromkeys(named))


def _wanted(model: nn.Module, flow: Dataflow, weighted: Collection[str]) -> set[int]:
    reaches = set(flow.outputs)  # values that lead to a quantized module or the output without leaving int8
    for call in reversed(flow.calls):
        if call.role == "weighted" and call.module in weighted:
            reaches.add(call.inputs[0])
        elif call.role in STAYS_INT8 and reaches.intersection(call.outputs):
            reaches.update(call.inputs)
    wanted: set[int] = set()
    for call in flow.calls:
        if call.role == "weighted" and call.module in weighted:
            wanted |= {call.inputs[0], _settled(flow, call.outputs[0])}
        elif call.role == "add" and call.outputs[0] in reaches and all(site(model, flow, v) for v in call.inputs):
            wanted |= {*call.inputs, _settled(flow, call.outputs[0])}
    return wanted


def _settled(flow: Dataflow, value: int) -> int:
    """The value after the rectifier that alone reads this one, which kernels fuse; else the value."""
    reader = flow.only_consumer(value)
    return reader.outputs[0] if reader is not None and reader.role == "rectify" else value


def site(model: nn.Module, flow: Dataflow, value: int) -> dict[str, Any] | None:
    """Where this value can be met as it is made; None for what no call made, and where no quantizer can live."""
    call = flow.producers.get(value)
    if call is None or not call.single:
        return None
    if flow.leaf_outputs.get(value) == call.module and flow.runs[call.module] == 1:
        return {"module": call.module, "port": "out"}
    if isinstance(model.get_submodule(call.module), CONTAINERS):
        return None
    return {"module": call.module, "port": "operator", "operator": call.operator, "ordinal": call.ordinal, "count": flow.counts[call.module, call.operator]}


class _Placer:
    """Builds the edits of activations, one site once; remembers which site first quantizes each value."""

    def __init__(self, model: nn.Module, flow: Dataflow, weighted: Collection[str]):
        self.model, self.flow, self.weighted = model, flow, weighted
        self.edits: dict[str, dict[str, Any]] = {}
        self.primary: dict[int, str] = {}

    def place(self, value: int) -> None:
        """Place what quantizes this value, and what lies between it and the quantized value whose grid it keeps."""
        path, made = [value], self.flow.producers.get(value)
        while made is not None and made.role == "same" and made.inputs[0] not in self.primary:
            path.append(made.inputs[0])
            made = self.flow.producers.get(made.inputs[0])
        shares = self.primary.get(made.inputs[0]) if made is not None and made.role == "same" else None
        for step in reversed(path) if shares else [value]:
            self._put(step, shares)

    def _put(self, value: int, shares: str | None) -> None:
        made = site(self.model, self.flow, value)
        readers = [c.module for c in self.flow.consumers.get(value, []) if c.role == "weighted" and c.module in self.weighted]
        for place in [made] if made else [{"module": m, "port": "in"} for m in dict.fromkeys(readers)]:
            key = site_key(place)
            if key not in self.edits:
                self.edits[key] = {"edit": "quantize", **place, **ACTIVATION, **({"shares": shares} if shares else {})}
            shares = str(self.edits[key].get("shares", key))
            self.primary[value] = shares
