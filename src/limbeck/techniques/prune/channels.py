"""Remove whole channels with the smallest weights, and prove each cut before it is made.

torch-pruning's dependency graph says which layers hang together; which channels go, how tensors are cut and whether a cut
is right are settled here. A cut is right if the narrower model computes what the full one would if every layer that reads
these channels had zeros for them. BatchNorm, any activation, depthwise and grouped convolutions, concats, residual adds and
squeeze-excite pass. What the graph gets wrong (padded shortcuts, attention heads, norms over channels, recurrent nets) does
not: it stays whole and is named in the claims.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_map

from limbeck.analysis.profile import profile
from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError, StageError, near
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range
from limbeck.core.require import require
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics import edits
from limbeck.mechanics.build import rebuild, torch_form
from limbeck.mechanics.data import arguments, batch_of, named_outputs
from limbeck.mechanics.importance import CRITERIA, summed
from limbeck.mechanics.slicing import WEIGHED, Cuts, cut_, depthwise, joined, silence_, sizes_of

CHANNELWISE = (_BatchNorm, _InstanceNorm, nn.PReLU)
WHOLE = (nn.MultiheadAttention, nn.RNNBase)
MISFITS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError, AssertionError)  # what a model or a tracer raises on a wrong shape
Index = namedtuple("Index", ("idx", "root_idx"))  # a layer's channel and the root's that it hangs on, as torch-pruning's mappings take and give them


@dataclass(frozen=True, kw_only=True)
class Prune:
    """How many channels go, and which."""

    ratio: Annotated[float, Range(0, 1, closed="left"), Hint("It is a fraction of channels; for 12 % write 0.12."), "fraction of channels removed"] = 0.3
    criterion: Annotated[Literal["l1", "l2", "batchnorm"], "what a channel's importance is read from: the norm of its weights, or the scale of its BatchNorm"] = "l1"
    scope: Annotated[Literal["layer", "global"], "the ratio holds in each layer, or over all layers together: then layers compete"] = "layer"
    round_to: Annotated[int | None, Range(1, None), Hint("It is a number of channels, as in 8."), "what is kept is a multiple of this; none: what the target likes"] = None
    ignore: Annotated[tuple[str, ...], Hint("Write module paths in brackets, as in ['layer1.0.conv1']."), "module paths, with all inside them, whose outputs keep their width"] = ()


@dataclass(frozen=True)
class Slice:
    """Channels of one axis of one module, and the root's channel that each hangs on."""

    path: str
    axis: Literal["out", "in"]  # what works channel by channel (norms, depthwise convolutions) has only "out"
    channels: np.ndarray
    roots: np.ndarray


@dataclass(frozen=True)
class Group:
    """Layers whose channels can only go together; the root is the first of them."""

    root: str
    slices: tuple[Slice, ...]
    scores: np.ndarray  # importance of each of the root's channels
    buckets: np.ndarray  # the part of a grouped convolution that each belongs to; all parts lose equally many

    @property
    def width(self) -> int:
        return len(self.scores)

    def cuts(self, removed: np.ndarray) -> Cuts:
        return {(s.path, s.axis): s.channels[np.isin(s.roots, removed)] for s in self.slices}


@technique(
    version=1,
    needs={Fact.TORCH, Fact.FLOAT_WEIGHTS},
    gives={Fact.NARROWER},
    data=Data.NONE,
    paper="arXiv:1608.08710",
    recovers=True,
    pays=True,
    gentler=lambda config: replace(config, ratio=config.ratio * 2 / 3) if config.ratio * 2 / 3 >= 0.05 else None,
    zero=lambda: Prune(ratio=0.0),
)
def prune(candidate: Candidate, config: Prune, context: Context) -> Outcome:
    """Remove whole channels with the smallest weights, and everything that hangs on them.

    Claims: `parameters` and `macs` of one sample afterwards, `kept` (root module → [channels kept, of]), `skipped` (module → reason).
    Raises: ConfigError if `ignore` names no module, StageError if no channel can go.
    """
    if config.ratio == 0:
        return Outcome(candidate)
    form, task = candidate.torch_form, context.task
    batch, model = batch_of(task, "train", [0, 1]), rebuild(form, task)
    witness = _witness(rebuild(form, task), task, batch, context.rng.torch)
    groups, skipped = _groups(witness, model, config)
    removed = _proved(witness, groups, skipped, config, config.round_to or context.round_to)
    before = edits.snapshot(model)
    cut_(model, joined([g.cuts(removed[g.root]) for g in groups if g.root in removed]))
    pruned = torch_form(model, form.blueprint.edited(*edits.capture(before, model)), task, batch)
    size = profile(model, *arguments(task, batch_of(task, "train", [0])))
    kept = {g.root: [g.width - len(removed.get(g.root, ())), g.width] for g in groups if g.root not in skipped}
    context.log.event("pruned", removed=sum(map(len, removed.values())), of=sum(n for _, n in kept.values()), skipped=len(skipped))
    facts, claims = candidate.facts | {Fact.NARROWER}, {"parameters": size.parameters, "macs": size.macs, "kept": kept, "skipped": skipped}
    return Outcome(replace(candidate, form=pruned, facts=facts), claims)


def _groups(witness: Witness, model: nn.Module, config: Prune) -> tuple[list[Group], dict[str, str]]:
    """The groups that may be cut, in the order of the model's modules, and what may not with its reason."""
    graph = _graph(witness)
    names = {m: n for n, m in witness.model.named_modules()}
    for path in config.ignore:
        if path not in names.values():
            raise ConfigError(f"prune.ignore must name modules of the model, got {path!r}. {near(path, filter(None, names.values()))}")
    skipped = {n: f"{type(m).__name__} is left whole" for n, m in model.named_modules() if isinstance(m, WHOLE)}
    shared = _shared(model)
    groups, seen = list[Group](), set[str]()
    for name, module in model.named_modules():
        if name in seen or not isinstance(module, WEIGHED) or witness.model.get_submodule(name) not in graph.module2node:
            continue
        slices = _slices(graph, witness.model.get_submodule(name), names)
        seen |= {name} if isinstance(slices, str) else {s.path for s in slices if s.axis == "out"}
        group = slices if isinstance(slices, str) else _group(name, slices, model, shared, config)
        if isinstance(group, str):
            skipped[name] = group
        else:
            groups.append(group)
    return groups, skipped


def _shared(model: nn.Module) -> set[str]:
    """Modules one of whose parameters is another module's too: cutting one would untie them."""
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return {n for n, m in model.named_modules() if any(owners[id(p)] > 1 for p in m._parameters.values())}


def _graph(witness: Witness) -> Any:
    """torch-pruning's dependency graph of the witness. Raises StageError if it can't trace the model."""
    pruning = require("torch_pruning", pip="torch-pruning")

    def forward(model: nn.Module, inputs: tuple[tuple, Mapping[str, Any]]) -> list[Tensor]:
        return [t for t in named_outputs(witness.task, model(*inputs[0], **inputs[1])).values() if t.grad_fn is not None]

    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            return pruning.DependencyGraph().build_dependency(witness.model, (witness.args, witness.kwargs), forward_fn=forward, verbose=False)
    except MISFITS as error:
        raise StageError(f"prune can't trace {type(witness.model).__name__}: {_first_line(error)}. Its forward must run on a batch of 2 with gradients enabled.") from error


def _followed(graph: Any, root: nn.Module) -> dict[tuple[Any, Any], dict[int, int]] | str:
    """(node, how it is cut) → {its channel: the root's}, or why that can't be told.

    The graph's own walk never ends on rotary embeddings, and doesn't see that a channel hangs on two of the root's.
    """
    found: dict[tuple[Any, Any], dict[int, int]] = {}
    todo = [(graph.module2node[root], graph.get_pruner_of_module(root).prune_out_channels, [Index(i, i) for i in range(sizes_of(root)[0])])]
    for _ in range(100 * len(graph.module2node)):
        if not todo:
            return found
        node, handler, indices = todo.pop()
        known = found.setdefault((node, handler), {})
        fresh = [i for i in indices if i.idx not in known]
        for index in indices:
            if known.setdefault(index.idx, index.root_idx) != index.root_idx:
                return "its channels hang on each other"
        for dependency in node.dependencies if fresh else ():
            if dependency.is_triggered_by(handler):
                mapped = fresh
                for mapping in dependency.index_mapping:
                    mapped = mapping(mapped) if mapping is not None else mapped
                todo += [(dependency.target, dependency.handler, mapped)] if mapped else []
    return "its channels run in circles"


def _slices(graph: Any, root: nn.Module, names: Mapping[Any, str]) -> tuple[Slice, ...] | str:
    """All that loses channels with the root's outputs, or why they can't go."""
    kinds = require("torch_pruning.ops", pip="torch-pruning").OPTYPE
    through = {kinds.CONCAT, kinds.SPLIT, kinds.ELEMENTWISE, kinds.RESHAPE, kinds.UNBIND, kinds.EXPAND, kinds.SLICE}
    try:
        found = _followed(graph, root)
    except MISFITS as error:
        return f"its channels can't be followed ({_first_line(error)})"
    if isinstance(found, str):
        return found
    slices = []
    for (node, handler), channels in found.items():
        module = node.module
        if node.type == kinds.OUTPUT:
            return "its channels are an output of the model"
        if node.type in through:
            continue
        if module not in names:
            return "a bare parameter hangs on its channels"
        if not isinstance(module, (*WEIGHED, *CHANNELWISE)) or (isinstance(module, _ConvNd) and module.transposed and module.groups > 1 and not depthwise(module)):
            return f"'{names[module]}' ({type(module).__name__}) hangs on its channels"
        axis = "in" if isinstance(module, WEIGHED) and not depthwise(module) and handler.__name__ == "prune_in_channels" else "out"
        slices.append(Slice(names[module], axis, np.fromiter(channels, dtype=int), np.fromiter(channels.values(), dtype=int)))
    return tuple(slices)


def _group(root: str, slices: tuple[Slice, ...], model: nn.Module, shared: set[str], config: Prune) -> Group | str:
    """A group with its importance, or why it may not be cut."""
    modules = {s.path: model.get_submodule(s.path) for s in slices}
    for path, module in modules.items():
        if path in shared:
            return f"'{path}' shares its weight with another module"
        if isinstance(module, WEIGHED) and "weight" not in module._parameters:
            return f"the weight of '{path}' is computed, not stored"
    if not any(s.axis == "in" for s in slices):
        return "no layer reads its channels through a weight, as with an output of the model"
    for path in (s.path for s in slices if s.axis == "out"):
        if any(path == i or path.startswith(i + ".") for i in config.ignore):
            return f"prune.ignore names '{path}'"
    width = sizes_of(modules[root])[0]
    scores = summed(CRITERIA[config.criterion], [(modules[s.path], s.channels, s.roots) for s in slices if s.axis == "out"], width)
    if scores is None:
        return f"no layer in its group tells the criterion '{config.criterion}' anything"
    buckets = np.stack([_bucket(modules[s.path], s, width) for s in slices])
    _, bucket, counts = np.unique(buckets, axis=1, return_inverse=True, return_counts=True)
    if len(set(counts.tolist())) > 1:
        return "a grouped convolution reads its channels in unequal parts"
    return Group(root, slices, scores, bucket.reshape(-1))


def _bucket(module: nn.Module, part: Slice, width: int) -> np.ndarray:
    """For each root channel, the part of this grouped convolution that it is in; 0 where it isn't one."""
    bucket = np.zeros(width, dtype=int)
    if isinstance(module, _ConvNd) and module.groups > 1 and not depthwise(module):
        size = (module.out_channels if part.axis == "out" else module.in_channels) // module.groups
        bucket[part.roots] = part.channels // size + 1
    return bucket


def _proved(witness: Witness, groups: list[Group], skipped: dict[str, str], config: Prune, multiple: int) -> dict[str, np.ndarray]:
    """The channels to remove by root, every cut proved; groups whose cut is wrong are added to `skipped`.

    Raises: StageError if nothing is left to remove.
    """
    while True:
        able = [g for g in groups if g.root not in skipped]
        removed = _chosen(able, config, multiple)
        if not removed:
            reasons = "; ".join(f"'{path}': {reason}" for path, reason in list(skipped.items())[:3]) or "there is no convolution or linear layer"
            why = f"kept widths are multiples of {multiple} and the widest layer has {max(g.width for g in able)} channels" if able else reasons
            raise StageError(f"prune can't remove any channel at ratio {config.ratio:g}: {why}. Raise the ratio, lower round_to, or leave the stage out.")
        cut = sorted((g for g in able if g.root in removed), key=lambda g: len(g.slices))  # those that go wrong lie together: fewer tries
        wrong = _wrong(witness, [(g.root, g.cuts(removed[g.root])) for g in cut])
        if not wrong:
            return removed
        skipped.update(wrong)


def _wrong(witness: Witness, cuts: Sequence[tuple[str, Cuts]]) -> dict[str, str]:
    """The roots whose cuts are wrong, with the reason, found by halving."""
    objection = _objection(witness, joined([c for _, c in cuts]))
    if not objection or len(cuts) == 1:
        return {cuts[0][0]: objection} if objection else {}
    half = len(cuts) // 2
    return _wrong(witness, cuts[:half]) | _wrong(witness, cuts[half:]) or {root: f"right apart, wrong together: {objection}" for root, _ in cuts}


def _chosen(groups: Sequence[Group], config: Prune, multiple: int) -> dict[str, np.ndarray]:
    """By root, its least important channels; the same number from each bucket, ties settled by index."""
    removed = {}
    for group, wished in zip(groups, _wished(groups, config), strict=True):
        parts = int(group.buckets.max()) + 1
        step = math.lcm(multiple, parts)
        kept = max(math.ceil((group.width - wished) / step), 1) * step
        if kept < group.width:
            order, each = np.argsort(group.scores, kind="stable"), (group.width - kept) // parts
            removed[group.root] = np.sort(np.concatenate([order[group.buckets[order] == part][:each] for part in range(parts)]))
    return removed


def _wished(groups: Sequence[Group], config: Prune) -> list[int]:
    """How many channels each group should lose, before rounding."""
    if config.scope == "layer" or not groups:
        return [math.floor(config.ratio * g.width + 1e-9) for g in groups]
    relative = np.concatenate([g.scores / (g.scores.mean() or 1.0) for g in groups])  # layers differ in size: each by its own mean
    owner = np.repeat(np.arange(len(groups)), [g.width for g in groups])
    lowest = np.argsort(relative, kind="stable")[: math.floor(config.ratio * len(relative) + 1e-9)]
    return np.bincount(owner[lowest], minlength=len(groups)).tolist()


@dataclass(frozen=True)
class Witness:
    """A copy of the model on which cuts are tried, with inputs to try them on."""

    model: nn.Module
    task: Task
    args: tuple
    kwargs: Mapping[str, Any]
    tolerance: float  # how far outputs may differ, relative to the largest

    def outputs(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return {k: v.double() for k, v in named_outputs(self.task, self.model(*self.args, **self.kwargs)).items()}


def _witness(model: nn.Module, task: Task, batch: Any, generator: torch.Generator) -> Witness:
    """In float64 if the model can, else in float32. Constant tensors are shaken: a zero-initialised scale would hide a wrong cut."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.min() == parameter.max():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.requires_grad_(parameter.is_floating_point())
    args, kwargs = arguments(task, batch)
    exact = tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, (args, kwargs))
    witness = Witness(model.double(), task, *exact, tolerance=1e-8)
    try:
        witness.outputs()
    except MISFITS:  # it makes float32 tensors of its own
        return Witness(model.float(), task, args, kwargs, tolerance=1e-4)
    return witness


def _objection(witness: Witness, cuts: Cuts) -> str:
    """Why these cuts are wrong; empty if the narrower model equals the full one whose readers ignore these channels."""
    try:
        with _whole_again(witness.model, cuts):
            cut_(witness.model, cuts)
            got = witness.outputs()
    except MISFITS as error:
        return f"the model doesn't run without them ({_first_line(error)})"
    with _whole_again(witness.model, cuts):
        silence_(witness.model, cuts)
        expected = witness.outputs()
    for name, value in expected.items():
        if got[name].shape != value.shape:
            return f"output '{name}' would change its shape"
        if not (got[name] - value).abs().max() <= witness.tolerance * value.abs().max():
            return f"its channels don't go together as they seem to: output '{name}' isn't that of the model without them"
    return ""


@contextmanager
def _whole_again(model: nn.Module, cuts: Cuts) -> Iterator[None]:
    """Inside, the modules of `cuts` may be changed; afterwards they are as before."""
    modules = [model.get_submodule(path) for path in {p for p, _ in cuts}]
    saved = [(vars(m).copy(), m._parameters.copy(), m._buffers.copy()) for m in modules]
    try:
        yield
    finally:
        for module, (attributes, parameters, buffers) in zip(modules, saved, strict=True):
            vars(module).update(attributes)
            module._parameters, module._buffers = parameters, buffers


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
