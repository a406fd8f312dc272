"""Three columns: the metric in FP32, simulated, and deployed; and the first layer in which simulation and artifact part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.errors import Interrupted, LimbeckError
from limbeck.core.metric import Rows
from limbeck.core.task import Task
from limbeck.evaluation.feeds import in_whole_batches
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, MISSING, Data, Setting, Side, Study, finite, needs_task
from limbeck.runtimes import parity
from limbeck.runtimes.card import Session, fixed_batch

if TYPE_CHECKING:
    from torch import nn

    from limbeck.evaluation.divergence import Distance

INSIDE = 8  # samples whose inner tensors are compared
INSIDE_BYTES = 1 << 26  # of a network's inner tensors, which are held six times
OUTPUTS, OUTPUT_BYTES = 64, 1 << 26  # samples whose outputs are compared, and what these may take in one column
LEAST = 128  # samples that are judged however large the network
MACS_A_SECOND = 10e9  # what torch is taken to do, to choose how many samples cost about the seconds that there are
TEACHER, TEACHER_FILE, SIMULATED, UNOPTIMIZED, DEPLOYED = "fp32", "fp32_deployed", "simulated", "unoptimized", "deployed"
WHAT = {
    TEACHER: "the baseline's module in torch",
    TEACHER_FILE: "the baseline's artifact",
    SIMULATED: "the candidate's module in torch",
    UNOPTIMIZED: "the candidate's file, unoptimized: what it quantizes is computed in float",
    DEPLOYED: "the candidate's artifact",
}
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """A model in one place: the metric's rows of the samples that all columns share, and its outputs for the first of them."""

    rows: Rows
    outputs: Outputs


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all columns share: the task, the samples that are judged, those whose outputs are compared, and an open session a side."""

    setting: Setting
    task: Task
    ids: Sequence[int]
    few: Sequence[int]
    sessions: Mapping[str, Session]


def take(setting: Setting) -> Data:
    """Figures: see docs/studies/columns.md."""
    task = setting.task
    if task is None:
        return {}
    with ExitStack() as open_:
        sessions = {name: open_.enter_context(Apart(side.artifact, threads=setting.target.threads, stop=setting.stop)) for name, side in setting.sides.items()}
        ids = _ids(setting)
        asked = Asked(setting=setting, task=task, ids=ids, few=_few(setting, task, sessions[CANDIDATE], ids), sessions=sessions)
        found = dict(_columns(asked))
        layers = _layers(asked)
    return {
        "metric": task.metric.name,
        "split": setting.split,
        "samples": len(ids),
        "whole": len(ids) == len(task.split(setting.split)),
        "outputs_samples": len(asked.few),
        "confidence": setting.confidence,
        "columns": [{"name": name, "what": WHAT[name], "metric": task.metric.value(one.rows)} for name, one in found.items()],
        "differences": [{"before": a, "after": b, "what": what, **_difference(asked, found[a], found[b])} for a, b, what in _pairs(found)],
        "layers": layers,
    }


def _pairs(found: Collection[str]) -> list[tuple[str, str, str]]:
    """Which columns are compared, and what lies between them."""
    first = TEACHER if TEACHER in found else TEACHER_FILE
    second = SIMULATED if SIMULATED in found else UNOPTIMIZED
    pairs = ((first, second, "compression"), (TEACHER, TEACHER_FILE, "deployment of the baseline"), (second, DEPLOYED, "deployment"))
    return [pair for pair in pairs if pair[0] in found and pair[1] in found]


def _ids(setting: Setting) -> list[int]:
    """Evenly spread samples: as many as two passes in torch take in about the seconds that there are, and at least 128 of those allowed."""
    macs = max((side.macs or 0 for side in setting.sides.values()), default=0)
    return setting.ids(max(LEAST, int(setting.seconds * MACS_A_SECOND / macs)) if macs else None)


def _few(setting: Setting, task: Task, session: Session, ids: Sequence[int]) -> Sequence[int]:
    """The first samples, as many as have outputs that can be held for every column."""
    from limbeck.mechanics.data import batch_of, feed

    size = fixed_batch(session) or 1
    held = sum(value.nbytes for value in in_whole_batches(session)(feed(task, batch_of(task, setting.split, ids[:size]))).values()) // size
    return ids[: max(1, min(OUTPUTS, OUTPUT_BYTES // max(held, 1)))]


def _columns(asked: Asked) -> Iterator[tuple[str, Column]]:
    names = {BASELINE: (TEACHER, TEACHER_FILE), CANDIDATE: (SIMULATED, DEPLOYED)}
    for which, side in asked.setting.sides.items():
        module, file = names[which]
        asked.setting.go_on()
        if side.module:
            yield module, _in_torch(asked, side.module())
        elif module == SIMULATED:
            yield UNOPTIMIZED, _as_written(asked, side)
        asked.setting.go_on()
        yield file, _in_runtime(asked, side, asked.sessions[which])


def _in_torch(asked: Asked, model: nn.Module) -> Column:
    import torch

    from limbeck.evaluation.quality import rows_of_module
    from limbeck.mechanics.data import batch_of, predict

    task, split = asked.task, asked.setting.split
    with torch.no_grad():
        outputs = {k: v.float().numpy() if v.is_floating_point() else v.numpy() for k, v in predict(task, model.eval(), batch_of(task, split, asked.few)).items()}
    return Column(rows_of_module(model, task, split, ids=asked.ids), outputs)


def _as_written(asked: Asked, side: Side) -> Column:
    """A file that nobody here exported simulates itself: unoptimized, what it quantizes is computed in float."""
    from limbeck.evaluation.graph.inside import load_model, opened

    session = opened(load_model(side.artifact), optimized=False, threads=asked.setting.target.threads)
    return Column(_rows(asked, session), _answers(asked, session))


def _in_runtime(asked: Asked, side: Side, session: Session) -> Column:
    known = asked.setting.rows_at(side, asked.ids)
    return Column(_rows(asked, session) if known is None else known, _answers(asked, session))


def _rows(asked: Asked, session: Session) -> Rows:
    from limbeck.evaluation.quality import rows_of_session

    return rows_of_session(session, asked.task, asked.setting.split, ids=asked.ids)


def _answers(asked: Asked, session: Session) -> dict[str, np.ndarray]:
    """Outputs for the few; none where parts of a fixed batch gave several lengths."""
    from limbeck.mechanics.data import batches, feed

    task, size, ask = asked.task, fixed_batch(session) or len(asked.few), in_whole_batches(session)
    parts = [ask(feed(task, batch)) for _, batch in batches(task, asked.setting.split, size=size, ids=asked.few)]
    shapes = {tuple((name, value.shape[1:]) for name, value in part.items()) for part in parts}
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if len(shapes) == 1 else {}


def _difference(asked: Asked, before: Column, after: Column) -> Data:
    """The drop of the metric with both bounds, each one-sided, on the same samples; agreement of answers and distance of outputs."""
    from limbeck.evaluation.drops import drop
    from limbeck.stats.answers import agreement

    lost = drop(asked.task.metric, after.rows, before.rows, asked.setting.confidence)
    bounds = {"drop": finite(lost.value), "low": finite(lost.low), "high": finite(lost.high), "method": lost.method}
    apart = _apart(before.outputs, after.outputs)
    return bounds | {"agreement": agreement(after.rows, before.rows)} | {name: finite(apart[name]) for name in ("max_abs", "max_rel")}


def _apart(before: Outputs, after: Outputs) -> Mapping[str, float | None]:
    if before.keys() != after.keys() or any(before[k].shape != after[k].shape for k in before):
        return {"max_abs": None, "max_rel": None}
    return parity(before, after)


def _layers(asked: Asked) -> Data:
    """Layer by layer, or `{"missing": why}`."""
    setting, task = asked.setting, asked.task
    artifact, module, session = setting.candidate.artifact, setting.candidate.module, asked.sessions[CANDIDATE]
    if module is None:
        return {MISSING: "there is no torch module that this file was exported from, to hold its inner tensors against"}
    if artifact.runtime != "onnxruntime":
        return {MISSING: f"what flows inside an artifact of '{artifact.runtime}' can't be looked at"}
    from limbeck.analysis.profile import profile
    from limbeck.evaluation.divergence import RELATIVE, STEPS, divergence
    from limbeck.mechanics.data import arguments, batch_of, feed

    asked.setting.go_on()
    model = module()
    held = sum(layer.activation_bytes for layer in profile(model, *arguments(task, batch_of(task, setting.split, asked.ids[:1]))).layers)
    chosen = asked.ids[: fixed_batch(session) or max(1, min(INSIDE, INSIDE_BYTES // max(held, 1)))]
    batch = batch_of(task, setting.split, chosen)
    try:
        found = divergence(task, model, artifact, batch, threads=setting.target.threads, answers=session(feed(task, batch)))
    except Interrupted:
        raise
    except LimbeckError as error:
        return {MISSING: str(error)}
    rows = [_row(r) for r in found.rows]
    first = _row(found.first) if found.first else None
    told = {"unmatched": found.unmatched, "same_kernels": found.same_kernels}
    return {"samples": len(chosen), "tolerance": {"steps": STEPS, "relative": RELATIVE}, "rows": rows, "first": first, **told}


def _row(one: Distance) -> Data:
    numbers = {name: finite(getattr(one, name)) for name in ("exported", "deployed", "travelled", "differing")}
    return asdict(one) | numbers | {"operators": list(one.operators[-4:]), "tolerance": one.tolerance, "stage": one.stage}


def why_not(setting: Setting) -> str:
    """Why it can't be made; empty where it can."""
    alone = setting.candidate.module is None and setting.candidate.artifact.runtime != "onnxruntime"
    return needs_task(setting) or ("it holds an artifact against the torch module that it was exported from, and there is none for this file" if alone else "")


COLUMNS = Study(
    name="columns",
    summary="the metric in FP32, simulated and deployed, and the first layer that parts",
    take=take,
    why_not=why_not,
)
