"""From an example to torch's exported program: quiet, and the same for the same module."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from limbeck.core.errors import ArtifactError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from limbeck.mechanics.data import Deployed, Example

CHATTER = ("torch.onnx", "torch.export", "torch._export", "torch.fx", "onnxscript", "onnx_ir")
CODE_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn about what isn't installed and what isn't folded; only errors may pass."""
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in CHATTER]
    try:
        for logger, _ in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)


def traced(example: Example, module: Deployed) -> ExportedProgram:
    """The program of a module, free in the axes that the example says.

    Raises: ArtifactError if the module can't be traced, or fixes an axis that must be free.
    """
    import torch

    free = torch.export.Dim.DYNAMIC
    shapes = (tuple(dict.fromkeys(example.dynamic.get(name, (0,)), free) for name in example.inputs),)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module.eval(), tuple(example.inputs.values()), dynamic_shapes=shapes)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        kind = type(module.model).__name__
        free_axes = {name: list(axes) for name, axes in example.dynamic.items()}
        raise ArtifactError(f"{kind} can't be traced with the axes {free_axes} free: {reason} Take what depends on values or on the batch size out of forward.") from error


def with_model(module: Deployed, model: nn.Module) -> Deployed:
    """The same shell around another model; the task and its data are shared, not copied."""
    shell = copy.copy(module)
    shell._modules = {**module._modules, "model": model}
    return shell


def without_traces(program: ExportedProgram) -> ExportedProgram:
    """In place: no node says in which file and line it was written, and no example input is kept."""
    from torch.fx import GraphModule

    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for key in CODE_TRACES:
                node.meta.pop(key, None)
    program._guards_code = []
    program._example_inputs = None
    return program
