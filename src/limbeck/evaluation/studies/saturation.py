"""What an int8 file would answer on a CPU without VNNI, whose kernels cut sums of two products off at 16 bits; and with weights of 7 bits."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.metric import Rows
from limbeck.core.task import Task
from limbeck.evaluation.machine import read_machine
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.studies.study import Data, Setting, Study, finite
from limbeck.runtimes import parity
from limbeck.runtimes.card import Session

if TYPE_CHECKING:
    from limbeck.evaluation.graph.emulation import Emulator
    from limbeck.evaluation.graph.integers import Tally

BATCH = 16  # samples emulated at once
MOST, LEAST = 512, 16  # samples that are run
MACS_A_SECOND = 1.5e9  # what emulation is taken to do, three networks together, to choose how many samples there is time for
PREDICTED, SORTED, SEVEN = "neighbours", "sorted", "seven"
WHAT = {
    PREDICTED: "without VNNI: neighbours on the summed axis are added in 16 bits, as ONNX Runtime packs them",
    SORTED: "without VNNI, by a packing that brings the largest weights of a channel together: worse than any that is known",
    SEVEN: "weights of 7 bits, which can't saturate",
}
VNNI = frozenset({"AVX-VNNI", "AVX-512 VNNI"})
X86 = frozenset({"x86_64", "AMD64", "amd64", "i386", "i686"})


def take(setting: Setting) -> Data:
    """Figures: see docs/studies/saturation.md."""
    artifact = setting.candidate.artifact
    with Apart(artifact, threads=setting.target.threads, stop=setting.stop) as session:
        return _told(setting, session)


def _told(setting: Setting, session: Session) -> Data:
    from limbeck.evaluation.graph.emulation import emulator

    here = session(setting.feed)
    emulated = emulator(setting.candidate.artifact)
    known = {"cpu": _cpu(), "products": len(emulated.products), "not_emulated": list(emulated.left)}
    if not emulated.products:
        why = "no kernel of this file multiplies u8 by constant s8 weights, so there is nothing that such a CPU could cut off"
        return known | {"layers": [], "risky": False, "runs": [], "samples": 0, "finding": why, "warning": False}
    check = {mode: _same(emulated(setting.feed, mode), here) for mode in ("exact", PREDICTED)}
    risky = any(p.at_risk(SORTED) for p in emulated.products.values())
    if not risky:
        judged: Data = {"samples": 0, "metric": None, "measured": None, "runs": [], "layers": _layers(emulated, {})}
    else:
        judged = _judged(setting, setting.task, emulated, session) if setting.task else _answered(setting, emulated, here)
    told = known | {"agreement_here": check, "risky": risky, **judged}
    return told | _finding(told)


def _judged(setting: Setting, task: Task, emulated: Emulator, session: Session) -> Data:
    """The metric on the same samples, measured and in each mode."""
    from limbeck.evaluation.drops import drop
    from limbeck.evaluation.quality import rows_of_session
    from limbeck.stats.answers import agreement

    ids = _ids(setting, emulated)
    measured = _measured(setting, task, session, ids)
    runs, tallies = [], {}
    for mode in (PREDICTED, SORTED, SEVEN):
        setting.go_on()
        emulated.tallies.clear()
        rows = rows_of_session(session, task, setting.split, batch_size=BATCH, ids=ids, ask=partial(emulated, mode=mode))
        tallies[mode] = dict(emulated.tallies)
        lost = drop(task.metric, rows, measured, setting.confidence)
        bounds = {"drop": lost.value, "low": finite(lost.low), "high": finite(lost.high)}
        runs.append({"mode": mode, "what": WHAT[mode], "metric": task.metric.value(rows), **bounds, "agreement": agreement(rows, measured)})
    shared = {"metric": task.metric.name, "measured": task.metric.value(measured), "split": setting.split, "confidence": setting.confidence}
    return {"samples": len(ids), **shared, "runs": runs, "layers": _layers(emulated, tallies)}


def _answered(setting: Setting, emulated: Emulator, here: Mapping[str, np.ndarray]) -> Data:
    """Without a task: how far the outputs for one feed move."""
    runs, tallies = [], {}
    for mode in (PREDICTED, SORTED, SEVEN):
        emulated.tallies.clear()
        apart = parity(here, emulated(setting.feed, mode))
        tallies[mode] = dict(emulated.tallies)
        runs.append(
            {
                "mode": mode,
                "what": WHAT[mode],
                "metric": None,
                "drop": None,
                "low": None,
                "high": None,
                "agreement": apart["argmax_agreement"],
                "max_rel": finite(apart["max_rel"]),
            }
        )
    return {"samples": setting.target.batch, "metric": None, "measured": None, "runs": runs, "layers": _layers(emulated, tallies)}


def _ids(setting: Setting, emulated: Emulator) -> list[int]:
    """Evenly spread samples, as many as there is about time for."""
    emulated.tallies.clear()
    emulated(setting.feed, "exact")
    macs = sum(t.macs for t in emulated.tallies.values()) / setting.target.batch
    return setting.ids(min(MOST, max(LEAST, int(setting.seconds * MACS_A_SECOND / max(macs, 1)))))


def _measured(setting: Setting, task: Task, session: Session, ids: list[int]) -> Rows:
    from limbeck.evaluation.quality import rows_of_session

    known = setting.rows_at(setting.candidate, ids)
    return known if known is not None else rows_of_session(session, task, setting.split, ids=ids)


def _layers(emulated: Emulator, tallies: Mapping[str, Mapping[str, Tally]]) -> list[Data]:
    """Each product in the order in which it runs: pairs of its weights that could saturate, and sums that did."""
    from limbeck.evaluation.graph.integers import Tally

    rows = []
    for name, product in emulated.products.items():
        own = {mode: tallies.get(mode, {}).get(name, Tally()) for mode in (PREDICTED, SORTED)}
        found = {"node": name, "module": emulated.modules.get(name, name), "operator": product.operator, "pairs": product.count}
        for mode, tally in own.items():
            found[mode] = {"risky_pairs": product.at_risk(mode), "sums": tally.sums, "saturated": tally.saturated, "outputs": tally.outputs, "hit": tally.hit}
        rows.append(found)
    return rows


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """The share of output numbers that are equal."""
    equal = [np.ravel(one[name] == other[name]) for name in other]
    return float(np.concatenate(equal).mean())


def _cpu() -> Data:
    """This machine: whether its integer kernels saturate; None where that isn't known."""
    machine = read_machine(Path())
    x86 = platform.machine() in X86
    vnni = bool(VNNI & set(machine.instructions))
    saturates = None if not x86 or not machine.instructions else not vnni and "AVX2" in machine.instructions
    return {"processor": machine.processor, "architecture": machine.architecture, "vnni": vnni if x86 else None, "saturates": saturates}


def _finding(told: Mapping[str, Any]) -> Data:
    """The sentence that matters, and whether it is a warning."""
    cut = sum(la[PREDICTED]["saturated"] for la in told["layers"])
    runs: Mapping[str, Any] = {r["mode"]: r for r in told["runs"]}
    if not told["risky"]:
        return {"finding": "no pair of its weights can saturate, in whatever order kernels pack them: this file answers alike with and without VNNI", "warning": False}
    if not cut:
        return {"finding": "on these samples no sum saturates without VNNI, though pairs of its weights could", "warning": False}
    share = f"{cut:,} sums of {sum(la[PREDICTED]['sums'] for la in told['layers']):,} saturate without VNNI"
    if told["metric"]:
        figures = f"{runs[PREDICTED]['metric']:.4f} there, {told['measured']:.4f} measured here, {runs[SEVEN]['metric']:.4f} with 7-bit weights"
        return {"finding": f"{share}: {told['metric']} of {told['samples']:,} samples {figures}", "warning": runs[PREDICTED]["drop"] > 0}
    agreement = runs[PREDICTED]["agreement"]
    return {"finding": share + ("" if agreement is None else f": the same answer on {agreement:.1%}"), "warning": agreement is not None and agreement < 1}


def why_not(setting: Setting) -> str:
    """Why it can't be made; empty where it can."""
    name = setting.candidate.artifact.runtime
    return "" if name == "onnxruntime" else f"how '{name}' packs its integer kernels isn't known here"


SATURATION = Study(
    name="saturation",
    summary="what CPUs without VNNI would answer, and with 7-bit weights",
    take=take,
    why_not=why_not,
)
