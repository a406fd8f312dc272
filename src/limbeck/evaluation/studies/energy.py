"""Energy of a sample: by the processor's own counter where there is one, else by a stated model, which proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from limbeck.analysis.flow import Flow
from limbeck.core.evidence import Status, Verdict
from limbeck.evaluation import device
from limbeck.evaluation.powercap import POWERCAP, zones
from limbeck.evaluation.studies.study import CANDIDATE, Data, Setting, Side, Study, finite
from limbeck.runtimes import runtime
from limbeck.stats.order import median_interval

CONFIDENCE = 0.99
MAC_PJ = {"int8": 0.2 + 0.1, "float16": 1.1 + 0.4, "float32": 3.7 + 0.9}  # a multiplication and an addition; int8 adds up in 32 bits
CACHE_PJ, DRAM_PJ = 100 / 8, (1300 / 8, 2600 / 8)  # of a byte: 64 bits from a cache of 1 MB; from DRAM, from best to worst
SOURCE = "Horowitz 2014, ISSCC, fig. 1.1.9: 45 nm, 0.9 V"
LEFT_OUT = "instructions, elementwise operators, layout changes within kernels, idle and leakage, the rest of the machine; another process than 45 nm"


def take(setting: Setting, *, powercap: Path = POWERCAP) -> Data:
    """Counted if a counter can be read, else modelled."""
    _, counted = zones(powercap)
    if not counted:
        artifacts = [s.artifact for s in setting.sides.values()]
        counted = device.energy(artifacts, setting.feed, threads=setting.target.threads, seconds=setting.seconds, powercap=powercap, stop=setting.stop)
    if isinstance(counted, str):
        return {"how": "modelled", "why": counted, "source": SOURCE, "left_out": LEFT_OUT, "models": {name: _modelled(side, setting) for name, side in setting.sides.items()}}
    batch = setting.target.batch
    return {
        "how": "counted",
        "counters": list(counted.zones),
        "idle_watts": median(counted.idle_watts),
        "rounds": len(counted.idle_watts),
        "window_s": counted.window_s,
        "disturbed": counted.disturbed,
        "confidence": CONFIDENCE,
        "models": {name: _counted(net, gross, batch) for name, net, gross in zip(setting.sides, counted.net_mj, counted.gross_mj, strict=True)},
    }


def _counted(net: Sequence[float], gross: Sequence[float], batch: int) -> Data:
    """Millijoules a sample above idle, with an interval over rounds; and with idle."""
    interval = median_interval([mj / batch for mj in net], confidence=CONFIDENCE)
    return {"mj": interval.value, "low_mj": finite(interval.low), "high_mj": finite(interval.high), "with_idle_mj": median(gross) / batch}


def _modelled(side: Side, setting: Setting) -> Data:
    if runtime(side.artifact.runtime).flow is None:
        return {"mj": None, "why": f"{side.artifact.runtime} can't say which tensors pass through an artifact"}
    return modelled(device.flow(side.artifact, setting.feed, threads=setting.target.threads, stop=setting.stop), setting.target.batch)


def modelled(flow: Flow, batch: int) -> Data:
    """Millijoules a sample by operations and bytes.

    E = Σ MACs · e(precision) + weights read · e(DRAM, 1.3 nJ a 64-bit word) + activations read and made · e(cache of 1 MB). `low_mj`
    takes all bytes from the cache, `high_mj` all from DRAM at 2.6 nJ. Weights are read once for all samples of a batch.
    """
    macs: Counter[str] = Counter()
    for step in flow.steps:
        macs[step.precision] += step.macs or 0
    sizes = {name: size for step in flow.steps for name, size in step.makes.items()} | dict(flow.inputs)
    weights = sum(step.weight_bytes for step in flow.steps)
    moved = sum(sum(sizes.get(name, 0) for name in step.reads) + sum(step.makes.values()) for step in flow.steps if not step.shows)
    multiplied = sum(count * MAC_PJ[precision] for precision, count in macs.items())
    mj = lambda weight_pj, activation_pj: (multiplied + weights * weight_pj + moved * activation_pj) / 1e9 / batch  # noqa: E731
    return {
        "mj": mj(DRAM_PJ[0], CACHE_PJ),
        "low_mj": mj(CACHE_PJ, CACHE_PJ),
        "high_mj": mj(DRAM_PJ[1], DRAM_PJ[1]),
        "parts_mj": {"multiply_adds": multiplied / 1e9 / batch, "weights": weights * DRAM_PJ[0] / 1e9 / batch, "activations": moved * CACHE_PJ / 1e9 / batch},
        "macs": {precision: count / batch for precision, count in sorted(macs.items()) if count},
        "weight_bytes": weights / batch,
        "activation_bytes": moved / batch,
        "uncounted": sorted({step.operator for step in flow.steps if step.macs is None}),
    }


def energy_at_most(found: Mapping[str, Any], limit: float) -> Verdict:
    """By a counter's interval. A modelled figure is no measurement: it neither keeps nor breaks a limit."""
    one = found["models"][CANDIDATE]
    if found["how"] == "modelled":
        figure = f"a model says {one['mj']:.3g} mJ" if one["mj"] is not None else one["why"]
        return Verdict(gate="energy_mj", status=Status.UNVERIFIED, limit=limit, reason=f"not measured: {found['why']}; {figure}, which proves nothing")
    low, high = one["low_mj"], one["high_mj"]
    status = Status.PASS if high is not None and high <= limit else Status.FAIL if low is not None and low > limit else Status.INCONCLUSIVE
    sure = f"99 % interval [{low:.3g}, {high:.3g}]" if low is not None and high is not None else "too few rounds for an interval"
    reason = f"{one['mj']:.3g} mJ a sample above idle, {sure}, at most {limit:g}, by {', '.join(found['counters'])}"
    if found["disturbed"]:
        status, reason = Status.INCONCLUSIVE, f"{reason}; other processes were at work, and the counter counts them too: measure on a quiet machine"
    return Verdict(gate="energy_mj", status=status, limit=limit, measured=one["mj"], low=low, high=high, reason=reason)


def study(powercap: Path = POWERCAP) -> Study:
    """The card; `powercap` is where the counters stand."""
    return Study(
        name="energy",
        summary="millijoules a sample: counted where the processor tells, else modelled and labelled so",
        take=partial(take, powercap=powercap),
        here=True,
        limits={"energy_mj": energy_at_most},
    )


ENERGY = study()
