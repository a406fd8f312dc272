"""What passes through an exported program in one inference, node by node as torch runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from limbeck.analysis.flow import Flow, Step

PRODUCTS = {"linear": 0, "matmul": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # operator → which argument its left factor is
CONVS = ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d")


def flow_of(module: fx.GraphModule, feed: Mapping[str, np.ndarray], *, multiplies: Sequence[str]) -> Flow:
    """A flow, seen by running the program once. A tensor that shares its storage with one that it was made from shows it.

    Args:
        feed: In the order of the program's inputs.
        multiplies: How the names of operators begin that multiply.
    """
    seen = _Seen(module, multiplies)
    given = [torch.from_numpy(np.require(value, requirements=["C", "W"])) for value in feed.values()]
    with torch.inference_mode():
        seen.run(*given)
    output = next(n for n in module.graph.nodes if n.op == "output")
    return Flow(tuple(seen.steps), seen.inputs, tuple(n.name for n in output.all_input_nodes), sum(seen.weights.values()))


class _Seen(fx.Interpreter):
    """Runs a program and notes for each node what it read and made."""

    def __init__(self, module: fx.GraphModule, multiplies: Sequence[str]):
        super().__init__(module)
        self.multiplies = tuple(multiplies)
        self.steps: list[Step] = []
        self.inputs: dict[str, int] = {}
        self.weights: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if n.op == "placeholder":
            self.inputs[n.name] = sum(t.nbytes for t in made)
        elif n.op == "get_attr":
            self.weights[n.name] = sum(t.nbytes for t in made)
        elif n.op in ("call_function", "call_module") and made:
            self._note(n, made)
        return out

    def _note(self, n: fx.Node, made: list[Tensor]) -> None:
        read = {m.name: [leaf for leaf in tree_leaves(self.env[m]) if isinstance(leaf, Tensor)] for m in n.all_input_nodes}
        owners = {t.untyped_storage().data_ptr(): name for name, tensors in read.items() for t in tensors}
        shared = next((owners[t.untyped_storage().data_ptr()] for t in made if t.untyped_storage().data_ptr() in owners), None)
        operator = str(n.target).removeprefix("aten.").partition(".")[0]
        weights = [t for name, tensors in read.items() if name in self.weights for t in tensors]
        self.steps.append(
            Step(
                name=n.name,
                operator=operator,
                reads=tuple(name for name in read if name not in self.weights),
                makes={n.name: sum(t.nbytes for t in made)},
                shows={n.name: shared} if shared is not None and shared not in self.weights else {},
                weight_bytes=made[0].nbytes if operator == "embedding" else sum(t.nbytes for t in weights),
                macs=self._macs(operator, made[0], [a for a in tree_leaves(self._arguments(n)) if isinstance(a, Tensor)]),
                precision="float16" if made[0].dtype in (torch.float16, torch.bfloat16) else "float32",
            )
        )

    def _arguments(self, n: fx.Node) -> Any:
        return self.fetch_args_kwargs_from_env(n)

    def _macs(self, operator: str, out: Tensor, tensors: list[Tensor]) -> int | None:
        """Products by their shapes; None for what multiplies in another way."""
        if operator in PRODUCTS:
            return out.numel() * tensors[PRODUCTS[operator]].shape[-1]
        if operator in CONVS:
            return (tensors[0] if "transpose" in operator else out).numel() * math.prod(tensors[1].shape[1:])
        if operator == "scaled_dot_product_attention":
            query, key, value = tensors[:3]
            return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return None if operator.startswith(self.multiplies) else 0
