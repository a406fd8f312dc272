"""Samples a second at several batch sizes and numbers of threads, baseline and candidate in turn."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.evidence import Status, Verdict
from limbeck.evaluation import device
from limbeck.evaluation.measure import DISTURBED
from limbeck.evaluation.studies.study import CANDIDATE, Data, Setting, Study, finite
from limbeck.stats.bootstrap import Interval
from limbeck.stats.latency import median_ratio
from limbeck.stats.order import median_interval

CONFIDENCE = 0.99
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SHARE = 0.5  # of the setting's seconds


def take(setting: Setting) -> Data:
    """All points that time and memory allow; the target's own point always."""
    sides, target = setting.sides, setting.target
    artifacts = [s.artifact for s in sides.values()]
    threads = list(dict.fromkeys((target.threads, 1, _cores())))
    seconds = SHARE * setting.seconds
    taken = device.throughput(artifacts, setting.feed, batch=target.batch, batches=BATCHES, thread_counts=threads, seconds=seconds, stop=setting.stop)
    points = sorted(taken["points"], key=lambda p: (p["threads"], p["batch"]))
    return {
        "target": {"threads": target.threads, "batch": target.batch},
        "points": [_point(p, list(sides)) for p in points],
        "left_out": taken["left_out"],
        "fixed_batch": {name: target.batch if fixed else None for name, fixed in zip(sides, taken["fixed"], strict=True)},
        "confidence": CONFIDENCE,
        "disturbed": taken["waited"] > DISTURBED,
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1


def _point(point: Mapping[str, Any], names: Sequence[str]) -> Data:
    blocks = dict(zip(names, point["blocks"], strict=True))
    both = [[[ms] for ms in own] for own in blocks.values() if own]
    ratio = median_ratio(both[0], both[1], confidence=CONFIDENCE) if len(both) == len(names) == 2 else None
    found: Data = {"threads": point["threads"], "batch": point["batch"]}
    found |= {name: _rate(own) if own else None for name, own in blocks.items()}
    return found | {"ratio": _shown(ratio) if ratio else None}


def _rate(ms_a_sample: Sequence[float]) -> Data:
    return _shown(median_interval([1e3 / ms for ms in ms_a_sample], confidence=CONFIDENCE)) | {"rounds": len(ms_a_sample)}


def _shown(interval: Interval) -> Data:
    return {"value": finite(interval.value), "low": finite(interval.low), "high": finite(interval.high)}


def samples_per_second_at_least(found: Mapping[str, Any], limit: float) -> Verdict:
    """The median rate at the target's own batch and threads, by its 99 % interval; a disturbed measurement fails nothing."""
    target = found["target"]
    own = next((p[CANDIDATE] for p in found["points"] if (p["threads"], p["batch"]) == (target["threads"], target["batch"])), None)
    if own is None:
        return Verdict(gate="samples_per_second", status=Status.UNVERIFIED, limit=limit, reason="it was not measured at the target's own batch and threads")
    low, high = own["low"], own["high"]
    status = Status.PASS if low is not None and low >= limit else Status.FAIL if high is not None and high < limit else Status.INCONCLUSIVE
    where = f"batch {target['batch']}, {target['threads']} thread(s)"
    sure = f"99 % interval [{low:,.0f}, {high:,.0f}]" if low is not None and high is not None else "too few rounds for an interval"
    reason = f"{own['value']:,.0f} samples a second at {where}, {sure}, at least {limit:,.0f}"
    if found["disturbed"]:
        slowed = status is Status.FAIL  # other work can only slow it: what it doesn't break is kept all the same
        status = Status.INCONCLUSIVE if slowed else status
        reason += "; other work on this machine " + ("may have slowed it: measure on a quiet machine" if slowed else "is in the figures")
    return Verdict(gate="samples_per_second", status=status, limit=limit, measured=own["value"], low=low, high=high, reason=reason)


THROUGHPUT = Study(
    name="throughput",
    summary="samples a second, by batch size and number of threads",
    take=take,
    here=True,
    limits={"samples_per_second": samples_per_second_at_least},
)
