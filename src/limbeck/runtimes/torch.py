"""PyTorch itself, from an exported program (.pt2): graph and weights without the user's code, and without pickles."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.analysis.flow import Flow
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.core.require import installed, require
from limbeck.runtimes.archive import check_plain
from limbeck.runtimes.card import Feed, InputSpec, Runtime, Session, artifact_file, bind
from limbeck.runtimes.tracing import quiet, traced, with_model, without_traces

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from limbeck.mechanics.data import Example

NAMES = "limbeck.json"  # the names of inputs and outputs, inside the archive
WARM_UP = 3  # calls of a module before those that are timed
FLOAT = ("addmm", "baddbmm", "bmm", "conv", "einsum", "gru", "linear", "lstm", "matmul", "mm", "rnn_", "scaled_dot_product")  # how the names of what multiplies begin


class TorchSession:
    """A program that torch runs, without gradients."""

    def __init__(self, program: ExportedProgram, inputs: tuple[InputSpec, ...], *, outputs: tuple[str, ...], name: str):
        self._module, self._name = program.module(check_guards=False), name  # guards would refuse a batch of 1; bind checks the shapes
        self.inputs, self.outputs = inputs, outputs

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        import torch
        from torch.utils._pytree import tree_leaves

        bound = bind(feed, self.inputs)
        try:
            with torch.inference_mode():
                results = self._module(*(torch.from_numpy(np.require(bound[spec.name], requirements=["C", "W"])) for spec in self.inputs))
        except (RuntimeError, IndexError, TypeError) as error:
            raise ArtifactError(f"{self._name}: torch failed: {_first_line(error)} Check that the feed is of the kind that it was exported for.") from error
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, tree_leaves(results), strict=True)}


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load(artifact: Artifact, threads: int = 1) -> Session:
    """A session; `threads` becomes torch's number of threads in the whole process.

    Raises: ArtifactError if there is no such file, it isn't an exported program, or it holds pickles or code.
    """
    torch = require("torch")
    program, names = _program(artifact)
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    given = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs]
    named = names.get("inputs") or [str(i) for i in program.graph_signature.user_inputs]
    outputs = names.get("outputs") or [str(o) for o in program.graph_signature.user_outputs]
    if len(named) != len(given) or len(outputs) != len(program.graph_signature.user_outputs) or not all(isinstance(v, torch.Tensor) for v in given):
        raise ArtifactError(f"{artifact.path} must take and give tensors, each with a name. Export it with limbeck.")
    inputs = tuple(InputSpec(n, str(v.dtype).removeprefix("torch."), tuple(d if isinstance(d, int) else None for d in v.shape)) for n, v in zip(named, given, strict=True))
    return TorchSession(program, inputs, outputs=tuple(outputs), name=artifact.path.name)


def _program(artifact: Artifact) -> tuple[ExportedProgram, dict[str, list[str]]]:
    import torch
    import torch.ao.quantization.fx._decomposed  # declares operators that a quantized program may hold
    from torch._export.verifier import SpecViolationError

    path = artifact_file(artifact, ".pt2")
    check_plain(path)
    extra = {NAMES: ""}
    logger = logging.getLogger("torch.export")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)  # it logs what it then raises
        program = torch.export.load(path, extra_files=extra)
        names = json.loads(extra[NAMES]) if extra[NAMES] else {}
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, AttributeError, SpecViolationError) as error:
        raise ArtifactError(f"{path} can't be loaded by torch {torch.__version__}: {_first_line(error)} Export it again with this version.") from error
    finally:
        logger.setLevel(level)
    return program, names if isinstance(names, dict) else {}


def export(example: Example, folder: Path) -> Artifact:
    """`model.pt2` in `folder`: free batch, no trace of its source; int8 weights as int8, made float again at each inference.

    Raises: ArtifactError if the module can't be traced.
    """
    from limbeck.mechanics.quantizers import deployed

    program = traced(example, with_model(example.module, deployed(example.module.model, activations="s8")))
    return _saved(program, folder, {"inputs": list(example.inputs), "outputs": list(example.outputs)})


def _saved(program: ExportedProgram, folder: Path, names: dict[str, list[str]]) -> Artifact:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.pt2"  # the archive's root is called after the file, so the name is part of the bytes
    with quiet():
        torch.export.save(without_traces(program), path, extra_files={NAMES: json.dumps(names)})
    return Artifact(path, "torch")


def describe(artifact: Artifact) -> dict[str, Any]:
    """The ATen operators of the program. All of them compute in float: quantizers are simulated here, exactly."""
    import torch

    program, _ = _program(artifact)
    operators = Counter(n.target.__name__.partition(".")[0] for n in program.graph.nodes if n.op == "call_function" and callable(n.target))
    tensors = [t for t in (*program.state_dict.values(), *program.constants.values()) if isinstance(t, torch.Tensor)]
    weights = sum(t.numel() * t.element_size() for t in tensors)
    return {"int8": 0, "float": sum(n for op, n in operators.items() if op.startswith(FLOAT)), "operators": dict(sorted(operators.items())), "initializer_bytes": weights}


def empty(folder: Path) -> Artifact:
    """A program of one clone."""
    import torch

    class Clone(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

    with torch.no_grad():
        program = torch.export.export(Clone(), (torch.zeros(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    return _saved(program, folder, {"inputs": ["x"], "outputs": ["y"]})


def time_modules(model: nn.Module, args: tuple, kwargs: Mapping[str, Any], threads: int, blocks: int, runs: int) -> dict[str, tuple[float, ...]]:
    """Milliseconds that each module's own code takes in one call of the model, without that of the modules that it calls, by path and block.

    `blocks` of `runs` calls, after a few that aren't counted. The hooks that take the time cost some themselves. The model, its
    hooks and torch's number of threads are left as they were.
    """
    import torch

    clock = _ModuleClock()
    handles = [handle for path, module in model.named_modules() for handle in clock.watch(path, module)]
    before = torch.get_num_threads()
    taken: list[dict[str, float]] = []
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for number in range(-1, blocks):
                clock.own.clear()
                for _ in range(runs if number >= 0 else WARM_UP):
                    model(*args, **kwargs)
                if number >= 0:
                    taken.append({path: ns / 1e6 / runs for path, ns in clock.own.items()})
    finally:
        torch.set_num_threads(before)
        for handle in handles:
            handle.remove()
    return {path: tuple(block.get(path, 0.0) for block in taken) for path in taken[0]}


class _ModuleClock:
    """Nanoseconds by module path, each charged to the innermost module that is at work."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self._stack: list[str] = []
        self._since = 0

    def watch(self, path: str, module: nn.Module) -> list[Any]:
        return [
            module.register_forward_pre_hook(lambda *_: self._turn(enter=path), prepend=True),
            module.register_forward_hook(lambda *_: self._turn(enter=None), always_call=True),
        ]

    def _turn(self, *, enter: str | None) -> None:
        now = time.perf_counter_ns()
        if self._stack:
            self.own[self._stack[-1]] += now - self._since
        if enter is None:
            self._stack.pop()
        else:
            self._stack.append(enter)
        self._since = time.perf_counter_ns()


def flow(artifact: Artifact, feed: Feed, threads: int = 1) -> Flow:
    """What passes through the program in one inference. torch plans no memory ahead, so there is no arena. Raises: ArtifactError as `load`."""
    from limbeck.runtimes.torch_flow import flow_of

    session = load(artifact, threads)
    session(feed)  # what doesn't fit is refused here
    program, _ = _program(artifact)
    return flow_of(program.module(check_guards=False), bind(feed, session.inputs), multiplies=FLOAT)


def start() -> None:
    """What `load` imports."""
    require("torch")
    import torch.ao.quantization.fx._decomposed
    import torch.export  # noqa: F401


def available() -> str | None:
    return installed("torch")


TORCH = Runtime(
    name="torch",
    summary="PyTorch on the CPU, from an exported program",
    round_to=8,
    suffix=".pt2",
    available=available,
    export=export,
    load=load,
    describe=describe,
    empty=empty,
    modules=time_modules,
    start=start,
    flow=flow,
)
