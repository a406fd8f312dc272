"""Which layer of the teacher answers to a layer of the student: `teacher = "auto"` by shape, depth and name, "auto:cka" by what both hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, near
from limbeck.mechanics.alignment import Calls, linear_cka, vectors
from limbeck.mechanics.taps import INTO, first_tensor

AUTO = "auto:"  # a teacher's tap of this beginning stands for the layer that answers to the student's path behind it
BY_CKA = "auto:cka:"  # and this one, for the layer whose features are most alike
CHOICES = {"auto": AUTO, "auto:cka": BY_CKA}  # what users write for a teacher's layer
INSIDE = ">"  # "auto:<path>><name>": the module of this name inside the one that answers to the student's path
FARTHEST = 0.35  # of the depth: a layer beyond isn't taken for the one that answers


@dataclass(frozen=True)
class Layer:
    """A place that can be tapped. `depth` is the share of the layers with weights that have run by then, in [0, 1]."""

    path: str
    kind: str
    shape: tuple[int, ...]  # batch first
    depth: float
    model: nn.Module | None = field(default=None, repr=False, compare=False)  # that it is a place of


@dataclass(frozen=True)
class Match:
    """A layer of the student and the teacher's that answers to it. `cka`: how alike their features are, where that decided."""

    student: Layer
    teacher: Layer
    cka: float | None = None


def layers(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Every place of the model that can be tapped, what goes into a module ("in:<path>") too, read off one pass in eval mode.

    A module that is called several times stands with its last call, as in `tapped`. Modes are left as they are, and no hook stays.
    """
    found: dict[str, tuple[str, tuple[int, ...], int]] = {}
    ran, entered, modes = [0], dict[nn.Module, int](), {module: module.training for module in model.modules()}

    def enter(module: nn.Module, _: tuple) -> None:
        entered[module] = ran[0]

    def leave(module: nn.Module, given: tuple, output: Any) -> None:
        ran[0] += any(True for _ in module.parameters(recurse=False))
        for path, tensor, depth in ((INTO + paths[module], first_tensor(given), entered[module]), (paths[module], first_tensor(output), ran[0])):
            if isinstance(tensor, Tensor):
                found[path] = (type(module).__name__, tuple(tensor.shape), depth)

    paths = {module: path for path, module in model.named_modules() if path}
    handles = [h for module in paths for h in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))]
    try:
        model.eval()
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return tuple(Layer(path, kind, shape, depth / max(ran[0], 1), model) for path, (kind, shape, depth) in found.items())


def match(path: str, student: Sequence[Layer], teacher: Sequence[Layer]) -> Match:
    """The teacher's layer for the student's at `path`.

    Among those whose output has as many dimensions and whose depth differs by at most 0.35: the nearest resolution (places or
    tokens), then the longest common end of the names without their numbers (a query answers to a query), then the nearest depth, then
    the same class of module, then the outermost. Among modules of one class and one name but for its numbers, depth is their order:
    the last of two layers answers to the last of six.

    Raises: ConfigError if the student's layer isn't reached, or no layer of the teacher can answer.
    """
    own = _own(path, student)
    able = [t for t in teacher if t.path.startswith(INTO) == path.startswith(INTO) and len(t.shape) == len(own.shape) and t.shape[0] == own.shape[0]]
    close = [t for t in able if abs(t.depth - own.depth) <= FARTHEST]
    if not close:
        seen = f"those of its rank stand at {', '.join(sorted({f'{t.depth:.2f}' for t in able}))}" if able else f"none gives {len(own.shape)} dimensions"
        raise ConfigError(f"no layer of the teacher answers to the student's '{path}' ({list(own.shape)}, at depth {own.depth:.2f}): {seen}. Name the teacher's layer.")
    return Match(own, min(close, key=lambda t: _nearness(own, t, student, teacher)))


def match_by_cka(paths: Sequence[str], student: Sequence[Layer], teacher: Sequence[Layer], given: Calls) -> dict[str, Match]:
    """The teacher's layer for each of these of the student's: the one whose features are most alike by linear CKA on the samples of `given`.

    Maps, tokens and vectors are compared by their means, so that a map can answer to tokens. Of layers that are equally alike (to three
    digits) the one is taken that has as many dimensions, then as `match` has it: resolution, name, depth, class of module, the outermost.

    Raises: ConfigError if a layer of the student isn't reached or gives no features, or none of the teacher's can answer.
    """
    own = {path: _own(path, student) for path in paths}
    into = {path.startswith(INTO) for path in paths}
    able = {t.path: t for t in teacher if t.path.startswith(INTO) in into and len(t.shape) in (2, 3, 4)}
    if not able or not own:
        raise ConfigError('no layer of the teacher gives features that "auto:cka" could compare. Name the teacher\'s layer.')
    theirs = dict(vectors(_model(teacher), {path: width_of(t.shape) for path, t in able.items()}, given))
    found = {}
    for path, mine in vectors(_model(student), {path: width_of(layer.shape) for path, layer in own.items()}, given):
        alike = {t: linear_cka(mine, value) for t, value in theirs.items() if t.startswith(INTO) == path.startswith(INTO)}
        if alike:
            best = min(alike, key=lambda t: (-round(alike[t], 3), len(able[t].shape) != len(own[path].shape), *_nearness(own[path], able[t], student, teacher)))
            found[path] = Match(own[path], able[best], alike[best])
    for path in own.keys() - found.keys():
        raise ConfigError(f"the student's '{path}' ({list(own[path].shape)}) gives no features that \"auto:cka\" could compare. Name another layer, or the teacher's.")
    return found


def resolved(asked: Sequence[str], student: Sequence[Layer], teacher: Sequence[Layer], given: Callable[[], Calls] | None = None) -> tuple[tuple[Match, ...], dict[str, str]]:
    """Every match that these "auto:" taps ask for, once, and the teacher's path that each tap stands for.

    given: what the models are called with where features are compared.
    """
    parts = {tap: (prefix, *tap.removeprefix(prefix).partition(INSIDE)) for tap in asked for prefix in (BY_CKA if tap.startswith(BY_CKA) else AUTO,)}
    found = {(prefix, path): match(path, student, teacher) for prefix, path, _, _ in parts.values() if prefix == AUTO}
    compared = list(dict.fromkeys(path for prefix, path, _, _ in parts.values() if prefix == BY_CKA))
    if compared and given:
        found |= {(BY_CKA, path): at for path, at in match_by_cka(compared, student, teacher, given()).items()}
    return tuple(found.values()), {tap: found[prefix, path].teacher.path + (f".{inside}" if inside else "") for tap, (prefix, path, _, inside) in parts.items()}


def table(matches: Sequence[Match]) -> str:
    """What answers to what, as lines of Markdown; with CKA, where that decided."""
    by_cka = any(m.cka is not None for m in matches)
    rows = [
        f"| `{m.student.path}` | {list(m.student.shape[1:])} | {m.student.depth:.2f} | `{m.teacher.path}` | {list(m.teacher.shape[1:])} | {m.teacher.depth:.2f} |"
        + (f" {'' if m.cka is None else f'{m.cka:.3f}'} |" if by_cka else "")
        for m in matches
    ]
    heads = ["| student | shape | depth | teacher | shape | depth |" + (" CKA |" if by_cka else ""), "| --- | --- | --- | --- | --- | --- |" + (" --- |" if by_cka else "")]
    return "\n".join([*heads, *rows])


def _own(path: str, student: Sequence[Layer]) -> Layer:
    own = next((layer for layer in student if layer.path == path), None)
    if own is None:
        raise ConfigError(f"the student has no layer '{path}' that runs, so none of the teacher's can be matched to it. {near(path, (layer.path for layer in student))}")
    return own


def _model(layers: Sequence[Layer]) -> nn.Module:
    model = layers[0].model if layers else None
    if model is None:
        raise ConfigError('"auto:cka" reads features of a model, and this one is known by its shapes alone. Name the teacher\'s layer.')
    return model


def width_of(shape: Sequence[int]) -> int:
    """Channels of a map, the dimension of tokens or a vector."""
    return shape[2] if len(shape) == 3 else shape[1]


def _nearness(own: Layer, other: Layer, student: Sequence[Layer], teacher: Sequence[Layer]) -> tuple:
    """What decides between layers, the smaller the nearer."""
    return _apart(own, other), -_alike(own.path, other.path), _gap(own, other, student, teacher), other.kind != own.kind, len(other.path), other.path


def _apart(a: Layer, b: Layer) -> float:
    """How far resolutions lie apart, in doublings of the number of places."""
    places = [math.prod(layer.shape[2:]) if len(layer.shape) == 4 else layer.shape[1] if len(layer.shape) == 3 else 1 for layer in (a, b)]
    return round(abs(math.log2(max(places[0], 1) / max(places[1], 1))), 2)


def _names(path: str) -> list[str]:
    return [name for name in path.removeprefix(INTO).split(".") if not name.isdigit()]


def _alike(a: str, b: str) -> int:
    """How many names two paths share at their ends, numbers left aside."""
    ends = _names(a)[::-1], _names(b)[::-1]
    return next((i for i, (x, y) in enumerate(zip(*ends, strict=False)) if x != y), min(map(len, ends)))


def _gap(own: Layer, other: Layer, student: Sequence[Layer], teacher: Sequence[Layer]) -> float:
    """How far two layers lie apart in depth, in [0, 1]."""
    if own.kind != other.kind or _names(own.path) != _names(other.path):
        return abs(own.depth - other.depth)
    places = []
    for layer, model in ((own, student), (other, teacher)):
        kin = [m.path for m in model if m.kind == layer.kind and m.path.startswith(INTO) == layer.path.startswith(INTO) and _names(m.path) == _names(layer.path)]
        places.append((kin.index(layer.path) + 1) / len(kin))
    return round(abs(places[0] - places[1]), 6)
