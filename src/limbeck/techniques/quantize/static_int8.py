"""Round weights and activations to 8-bit grids whose ranges are measured on calibration samples."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError, StageError, near
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import rebuild, torch_form
from limbeck.mechanics.data import batch_of, batches, predict
from limbeck.mechanics.observe import MinMax, Mse, Observer, Percentile, observe
from limbeck.mechanics.ports import Placement, folds, placement, trace
from limbeck.mechanics.quantizers import affine, fold_, quantize_edits, quantizer_at, set_face_, site_key, weight_scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
    """Static int8: one scale for each activation, one for each output channel of a weight."""

    samples: Annotated[int, Range(1, None), "calibration samples, drawn from train without replacement"] = 256
    batch_size: Annotated[int, Range(1, None), "samples in one calibration batch"] = 32
    observer: Annotated[Literal["minmax", "percentile", "mse"], "what range an activation's grid spans: all values, most of them, or the one of least squared error"] = "minmax"
    percentile: Annotated[float, Range(0.5, 1), Hint("It is a fraction; for 99.9 % write 0.999."), "fraction of values inside the range, under `percentile`"] = 0.9999
    reduce_range: Annotated[bool, "7-bit weights: pairs of products can't saturate on CPUs without VNNI"] = False
    keep_float: Annotated[tuple[str, ...], "module paths left in float, with all below them"] = ()


@technique(
    version=1,
    needs={Fact.TORCH, Fact.FLOAT_WEIGHTS},
    gives={Fact.QUANTIZED},
    breaks={Fact.FLOAT_WEIGHTS},
    data=Data.INPUTS,
    paper="arXiv:1712.05877",
    pays=True,
    exempt={"zero": 'rounding to 8 bits has no zero strength; keep_float = [""] would leave nothing to do and is refused'},
)
def quantize(candidate: Candidate, config: Quantize, context: Context) -> Outcome:
    """Static int8 for convs and linears: batch norms folded, ranges measured on calibration samples."""
    form, task = candidate.torch_form, context.task
    model = rebuild(form, task)
    _check_paths(model, config.keep_float)
    ids = _calibration_ids(task, config.samples, context.rng.numpy)
    batch = batch_of(task, "train", ids[:2])  # few: a trace keeps every tensor
    folded = folds(model, trace(model, lambda: predict(task, model, batch)))
    fold_(model, folded)
    placed = placement(model, trace(model, lambda: predict(task, model, batch)), weight_bits=7 if config.reduce_range else 8, keep_float=config.keep_float)
    if not placed.weights:
        raise StageError("this model has no conv or linear that can be quantized: none was called, or all are in quantize.keep_float. Leave this stage out.")
    quantize_edits(model, list(placed.edits))
    set_face_(model, "float")
    _calibrate(model, placed, config, task=task, ids=ids)
    set_face_(model, "fake_quant")
    new = torch_form(model, form.blueprint.edited(*folded, *placed.edits), task, batch)
    card = quantize.card
    claims = {
        "quantized_weights": len(placed.weights),
        "quantized_activations": sum("shares" not in e for e in placed.edits) - len(placed.weights),
        "left_float": list(placed.left_float),
        "calibration": {"samples": len(ids), "ids_sha256": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()},
    }
    return Outcome(dataclasses.replace(candidate, form=new, facts=(candidate.facts - card.breaks) | card.gives), claims)


def _check_paths(model: nn.Module, paths: tuple[str, ...]) -> None:
    known = [n for n, _ in model.named_modules(remove_duplicate=False)]
    for path in paths:
        if path not in known:
            raise ConfigError(f"quantize.keep_float must name modules of the model, got '{path}'. {near(path, known)}")


def _calibration_ids(task: Task, samples: int, rng: np.random.Generator) -> np.ndarray:
    available = len(task.split("train"))
    if not available:
        raise StageError("the train split is empty, so there is nothing to calibrate on. Add samples.")
    return rng.choice(available, size=min(samples, available), replace=False)


def _calibrate(model: nn.Module, placed: Placement, config: Quantize, *, task: Task, ids: np.ndarray) -> None:
    """Set every scale and zero point from the float model's activations."""

    def run() -> None:
        for _, batch in batches(task, "train", size=config.batch_size, ids=ids):
            predict(task, model, batch)

    sites: dict[str, Any] = {site_key(e): quantizer_at(model, e) for e in placed.edits if e["port"] != "weight" and "shares" not in e}
    for name, span in observe(sites, lambda: _observer(config), run).items():
        scale, zero_point = affine(*span, bits=sites[name].bits)
        sites[name].scale.fill_(scale)
        sites[name].zero_point.fill_(zero_point)
    for edit in placed.weights:
        module: Any = model.get_submodule(edit["module"])
        if not torch.isfinite(module.weight).all():
            raise StageError(f"weight of '{edit['module']}' holds NaN or Inf. Train the model again, or load another file.")
        source = placed.inputs.get(edit["module"])
        input_scale = float(sites[source].scale) if source else None
        module.weight_quantizer.scale.copy_(weight_scale(module.weight, axis=edit["axis"], bits=edit["bits"], bias=module.bias, input_scale=input_scale))


def _observer(config: Quantize) -> Observer:
    if config.observer == "percentile":
        return Percentile(config.percentile)
    return Mse() if config.observer == "mse" else MinMax()
