"""Drop whole blocks out of a stack of them, and prove that the model which is left is the one without them.

A block may go if it gives back what it takes, in shape: then the model without it computes what the whole one would if that block
handed its input through. This is tried bit for bit. A forward that counts its blocks, or names one, fails it and is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from limbeck.analysis.profile import profile
from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError, StageError, near
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import rebuild, torch_form
from limbeck.mechanics.data import arguments, batch_of, predict
from limbeck.mechanics.edits import replay
from limbeck.mechanics.stacks import Stack, drop_edit, evenly, stacks

MISFITS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError)  # what a forward raises that misses a block


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How many blocks go, and which."""

    ratio: Annotated[
        float,
        Range(0, 1, closed="left"),
        Hint("It is a fraction of blocks; for every second write 0.5."),
        "fraction of a stack's blocks removed, evenly spread: 0.5 keeps every second",
    ] = 0.5
    kept: Annotated[
        tuple[int, ...], Hint("Write their numbers from 0, as in [0, 2, 4]."), "numbers of the blocks that stay, as they stand in module paths; instead of `ratio`"
    ] = ()
    stack: Annotated[str, Hint("Write its module path, as in 'bert.encoder.layer'."), "the stack that is cut; empty: each one under `ratio`, the only one under `kept`"] = ""


@technique(
    version=1,
    needs={Fact.TORCH, Fact.FLOAT_WEIGHTS},
    gives={Fact.NARROWER},
    data=Data.NONE,
    paper="arXiv:1909.11556",
    recovers=True,
    pays=True,
    gentler=lambda config: replace(config, ratio=config.ratio * 2 / 3) if not config.kept and config.ratio * 2 / 3 >= 0.05 else None,
    zero=lambda: Blocks(ratio=0.0),
    example=lambda: Blocks(ratio=0.5),
    checked_on="tokens",
)
def blocks(candidate: Candidate, config: Blocks, context: Context) -> Outcome:
    """Drop whole blocks of a stack: layers of a transformer, residual blocks of one width.

    Claims: `parameters` and `macs` of one sample afterwards, `kept` (stack → numbers of the blocks that stay), `of` (stack → how many there
    were), `skipped` (block → why it can't go).
    Raises: ConfigError for a stack or block that isn't there; StageError if there is no stack, or the forward doesn't allow it.
    """
    if config.ratio == 0 and not config.kept:
        return Outcome(candidate)
    form, task = candidate.torch_form, context.task
    batch, model = batch_of(task, "train", [0, 1]), rebuild(form, task)
    watched = _watched(model, task, batch)
    taken = _taken(watched, config)
    removed = _chosen(taken, config) if config.kept else _spread(taken, config)
    edits = [drop_edit(path, [n for n in sorted((*w.stack.blocks, *w.stack.others)) if n not in removed[path]]) for path, w in taken.items() if removed[path]]
    expected = _passed_over(model, task, batch, [taken[p].stack.block(n) for p, numbers in removed.items() for n in numbers])
    _check(replay(model, edits), task, batch, expected)
    shorter = torch_form(model, form.blueprint.edited(*edits), task, batch)
    size = profile(model, *arguments(task, batch_of(task, "train", [0])))
    kept = {path: [n for n in w.stack.blocks if n not in removed[path]] for path, w in taken.items()}
    of = {path: len(w.stack.blocks) for path, w in taken.items()}
    context.log.event("blocks dropped", removed=sum(map(len, removed.values())), of=sum(of.values()))
    skipped = {where: reason for w in taken.values() for where, reason in w.skipped.items()}
    claims = {"parameters": size.parameters, "macs": size.macs, "kept": kept, "of": of, "skipped": skipped}
    return Outcome(replace(candidate, form=shorter, facts=candidate.facts | {Fact.NARROWER}), claims)


@dataclass
class Watched:
    """A stack in one forward: which of its blocks may go, and why the others may not."""

    stack: Stack
    able: list[int] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def _watched(model: nn.Module, task: Task, batch: Any) -> dict[str, Watched]:
    """Every stack, and what one forward says of its blocks. Raises StageError if there is none that may go."""
    found = list(stacks(model))
    paths = {s.block(n) for s in found for n in s.blocks}
    calls, alike = Counter[str](), dict[str, bool]()

    def see(path: str, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
        taken, given = first_tensor((*args, *kwargs.values())), first_tensor((output,))
        calls[path] += 1
        alike[path] = taken is not None and given is not None and (taken.shape, taken.dtype) == (given.shape, given.dtype)

    with _hooked(model, paths, see), torch.no_grad():
        predict(task, model, batch)
    watched: dict[str, Watched] = {}
    for stack in found:
        seen = watched[stack.path] = Watched(stack)
        for number in stack.blocks:
            path = stack.block(number)
            reason = f"is called {calls[path]} times in a forward" if calls[path] != 1 else "" if alike[path] else "gives another shape than it takes"
            if reason:
                seen.skipped[path] = reason
            else:
                seen.able.append(number)
    if not any(w.able for w in watched.values()):
        reasons = "; ".join(f"'{p}' {r}" for w in watched.values() for p, r in list(w.skipped.items())[:2]) or "no ModuleList or Sequential of blocks"
        raise StageError(f"{type(model).__name__} has no stack of blocks that can go: {reasons}. Leave the stage out, or prune channels instead.")
    return watched


def _taken(watched: Mapping[str, Watched], config: Blocks) -> dict[str, Watched]:
    """The stacks that are cut: the one that is named, or each outermost one with two blocks that may go (so stages aren't taken for blocks)."""
    if config.stack:
        if config.stack not in watched:
            raise ConfigError(f"blocks.stack must name a stack of the model, got '{config.stack}'. {near(config.stack, watched)}")
        return {config.stack: watched[config.stack]}
    taken: dict[str, Watched] = {}
    for path, seen in watched.items():
        inside = any(f"{path}.".startswith(f"{w.stack.block(n)}.") for w in taken.values() for n in w.stack.blocks)
        if len(seen.able) > 1 and not inside:
            taken[path] = seen
    if not taken:
        raise StageError(f"no stack has two blocks that can go: there is {', '.join(watched)}. Name one in blocks.stack, or leave the stage out.")
    return taken


def _spread(taken: Mapping[str, Watched], config: Blocks) -> dict[str, list[int]]:
    """The blocks that go, by stack; those that can't go count among those that stay."""
    removed = {}
    for path, seen in taken.items():
        count = math.ceil((1 - config.ratio) * len(seen.stack.blocks) - 1e-9)
        stuck = len(seen.stack.blocks) - len(seen.able)
        stay = {seen.able[i] for i in evenly(count - stuck, len(seen.able))} if count > stuck else set()
        removed[path] = [n for n in seen.able if n not in stay]
    if not any(removed.values()):
        deepest = max(len(w.stack.blocks) for w in taken.values())
        raise StageError(f"blocks can't drop any at ratio {config.ratio:g}: the deepest stack has {deepest}. Raise the ratio, or leave the stage out.")
    return removed


def _chosen(watched: Mapping[str, Watched], config: Blocks) -> dict[str, list[int]]:
    if len(watched) != 1:
        raise ConfigError(f"blocks.kept needs blocks.stack: the model has {len(watched)} stacks. There is {', '.join(watched) or 'none whose blocks may go'}.")
    ((path, seen),) = watched.items()
    odd = [n for n in config.kept if n not in seen.stack.blocks]
    if odd:
        raise ConfigError(f"blocks.kept must name blocks of '{path}', got {odd[0]}. There is {', '.join(map(str, seen.stack.blocks))}.")
    removed = [n for n in seen.stack.blocks if n not in config.kept]
    stuck = [seen.stack.block(n) for n in removed if n not in seen.able]
    if stuck:
        raise StageError(f"blocks can't drop '{stuck[0]}': it {seen.skipped[stuck[0]]}. Name it in blocks.kept.")
    if not removed:
        raise StageError(f"blocks.kept names every block of '{path}', so there is nothing to do. Leave some out, or the stage.")
    return {path: removed}


def _passed_over(model: nn.Module, task: Task, batch: Any, paths: Sequence[str]) -> dict[str, Tensor]:
    """What the model answers if these blocks hand their input through."""

    def bypass(path: str, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        taken = first_tensor((*args, *kwargs.values()))
        return taken if isinstance(output, Tensor) else type(output)((taken, *output[1:]))

    with _hooked(model, set(paths), bypass), torch.no_grad():
        return predict(task, model, batch)


def _check(model: nn.Module, task: Task, batch: Any, expected: Mapping[str, Tensor]) -> None:
    """Raises StageError unless the model without these blocks answers as the one that passes them over."""
    way = "Its forward counts its blocks, or names one. Build it from its factory with fewer, and distill into that."
    try:
        with torch.no_grad():
            got = predict(task, model, batch)
    except MISFITS as error:
        raise StageError(
            f"{type(model).__name__} doesn't run without these blocks ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}). {way}"
        ) from error
    for name, value in expected.items():
        if got[name].shape != value.shape or not torch.equal(got[name], value):
            raise StageError(f"without these blocks, output '{name}' of {type(model).__name__} isn't that of the model which passes them over. {way}")


def first_tensor(values: Sequence[Any]) -> Tensor | None:
    """The first tensor among these, or the first entry of a tuple that comes first."""
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (tuple, list)) and value and isinstance(value[0], Tensor):
            return value[0]
    return None


@contextmanager
def _hooked(model: nn.Module, paths: set[str], on_output: Any) -> Iterator[None]:
    """Inside, `on_output(path, args, kwargs, output)` sees what these modules give, and may give another."""
    handles = []
    for path in sorted(paths):
        handles.append(model.get_submodule(path).register_forward_hook(lambda m, args, kwargs, output, path=path: on_output(path, args, kwargs, output), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
