"""Which layers of a candidate hold what the baseline's hold, and which moved: centred kernel alignment, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.core.errors import ConfigError, TaskError
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, Data, Setting, Study, needs_baseline

if TYPE_CHECKING:
    from torch import Tensor, nn

    from limbeck.mechanics.matching import Layer

SAMPLES = 256  # on which layers are compared
FEWEST = 16  # below, the estimate says nothing
BATCH = 32
MOST = 16  # layers of each model
STILL = 0.9995  # shown as 1.000: from here on a layer hasn't moved
NORM = "norm"  # in the kind of a layer that only scales what the one before it holds


def take(setting: Setting) -> Data:
    """For each layer of the candidate the baseline's that answers to it and how alike both are; and all against all."""
    if setting.task is None or setting.baseline is None or setting.baseline.module is None or setting.candidate.module is None:
        raise TaskError("layers are compared between two torch modules, and there is no module of one of them.")
    from limbeck.mechanics.alignment import linear_cka
    from limbeck.mechanics.data import arguments, batch_of

    ids = setting.ids(SAMPLES)
    calls = [arguments(setting.task, batch_of(setting.task, setting.split, ids[start : start + BATCH])) for start in range(0, len(ids), BATCH)]
    sides = {BASELINE: setting.baseline.module().eval(), CANDIDATE: setting.candidate.module().eval()}
    able = {name: _able(model, calls[0]) for name, model in sides.items()}
    thinned = [able[CANDIDATE][i] for i in _places(len(able[CANDIDATE]))]
    answer = {layer.path: _answering(layer, able) for layer in thinned}
    theirs = {path for path, _ in answer.values()}
    answering = [layer for layer in able[BASELINE] if layer.path in theirs] or [able[BASELINE][i] for i in _places(len(able[BASELINE]))]
    kept = {BASELINE: answering, CANDIDATE: thinned}
    features = {}
    for name, model in sides.items():
        setting.progress(0, 0, f"study: what layers of the {name} hold")
        features[name] = _vectors(model, kept[name], calls, len(ids))
        setting.go_on()
    alike = {one: {other: linear_cka(mine, theirs) for other, theirs in features[BASELINE].items()} for one, mine in features[CANDIDATE].items()}
    if not alike or not features[BASELINE]:
        raise TaskError("no layer with weights of both models gives floating-point numbers of two to four dimensions, so none can be compared.")
    layers = [_told(layer, alike[layer.path], *answer[layer.path]) for layer in thinned if layer.path in alike]
    paired = [layer for layer in layers if layer[BASELINE] is not None]
    moved = [layer for layer in paired if layer["cka"] < STILL]
    return {
        "split": setting.split,
        "samples": len(ids),
        "layers": layers,
        "moved_most": min(moved, key=lambda layer: layer["cka"])["path"] if moved else None,
        "mean": sum(layer["cka"] for layer in paired) / len(paired) if paired else None,
        "matrix": {CANDIDATE: list(features[CANDIDATE]), BASELINE: list(features[BASELINE]), "cka": [[_rounded(v) for v in row.values()] for row in alike.values()]},
    }


def _able(model: nn.Module, call: tuple[tuple, Mapping[str, Any]]) -> list[Layer]:
    """A model's layers with weights, in the order in which they run."""
    from limbeck.mechanics.matching import layers

    modules = dict(model.named_modules())
    found = [layer for layer in layers(model, *call) if layer.path in modules and len(layer.shape) in (2, 3, 4) and _bears(modules[layer.path], layer.kind)]
    return sorted(found, key=lambda layer: layer.depth)


def _vectors(model: nn.Module, kept: Sequence[Layer], calls: Sequence[Any], samples: int) -> dict[str, Tensor]:
    """One vector a sample for each of these layers; a table of places, which has none, is left out."""
    from limbeck.mechanics.alignment import vectors
    from limbeck.mechanics.matching import width_of

    found = dict(vectors(model, {layer.path: width_of(layer.shape) for layer in kept}, calls))
    return {layer.path: found[layer.path] for layer in kept if layer.path in found and len(found[layer.path]) == samples}


def _bears(module: nn.Module, kind: str) -> bool:
    return NORM not in kind.lower() and any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))


def _places(count: int) -> list[int]:
    """At most 16 of them, evenly spread, the first and the last among them."""
    return list(range(count)) if count <= MOST else [round(i * (count - 1) / (MOST - 1)) for i in range(MOST)]


def _told(layer: Layer, row: dict[str, float], answer: str, by: str) -> dict[str, Any]:
    """A layer of the candidate, the one that answers to it, and the one that it is most like."""
    best = max(row, key=lambda path: row[path])
    return {
        "path": layer.path,
        "kind": layer.kind,
        "depth": round(layer.depth, 4),
        BASELINE: answer if answer in row else None,
        "by": by if answer in row else None,
        "cka": _rounded(row[answer]) if answer in row else None,
        "most_like": {"path": best, "cka": _rounded(row[best])},
    }


def _answering(layer: Layer, able: Mapping[str, list[Layer]]) -> tuple[str, str]:
    """The baseline's layer, by name where both models have the same layers, else by resolution, name and depth; nothing where none stands near enough."""
    from limbeck.mechanics.matching import match

    if {one.path for one in able[BASELINE]} == {one.path for one in able[CANDIDATE]}:
        return layer.path, "name"
    try:
        return match(layer.path, able[CANDIDATE], able[BASELINE]).teacher.path, "place"
    except ConfigError:
        return "", ""


def _rounded(value: float) -> float:
    return round(value, 4)


def why_not(setting: Setting) -> str:
    """Both must be known as modules, on enough samples."""
    missing = needs_baseline(setting)
    if missing or setting.baseline is None:
        return missing
    sides = [name for name, side in setting.sides.items() if side.module is None]
    if sides:
        return f"layers are read off torch modules, and of the {' and the '.join(sides)} there is only a file"
    count = len(setting.ids())
    return f"{count} samples say nothing of how alike layers are; it takes {FEWEST}" if count < FEWEST else ""


LAYERS = Study(name="layers", summary="which layers still hold what the baseline's hold, and which moved most", take=take, why_not=why_not)
