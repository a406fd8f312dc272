"""From the making of a process to the first answer, part by part, against single inferences once it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from limbeck.core.evidence import Status, Verdict
from limbeck.evaluation import device
from limbeck.evaluation.studies.study import Data, Setting, Side, Study, finite
from limbeck.stats.latency import percentile_verdict, samples_needed
from limbeck.stats.order import median_interval

CONFIDENCE = 0.99
ENOUGH = 8  # starts that give a median its interval; 7 of them, if none is over, pass a limit
PER_SECOND = 4  # starts more than that for each second of the setting's
DROP = Path("/proc/sys/vm/drop_caches")


def take(setting: Setting) -> Data:
    """Starts in turn, as many as the seconds allow, at least three of each."""
    sides = setting.sides
    most = max(ENOUGH, math.floor(PER_SECOND * setting.seconds))
    cached = all(s.latency for s in sides.values())  # all were loaded a moment ago, to be timed
    artifacts = [s.artifact for s in sides.values()]
    starts = device.cold_starts(artifacts, setting.feed, threads=setting.target.threads, seconds=setting.seconds, most=most, cached=cached, stop=setting.stop)
    return {
        "models": {name: _figures(side, own) for (name, side), own in zip(sides.items(), starts, strict=True)},
        "confidence": CONFIDENCE,
        "page_cache": "warm",
        "page_cache_note": _cache_note(),
    }


def _cache_note() -> str:
    if not DROP.exists():
        return "files were read before: this system offers no way to forget them"
    allowed = os.access(DROP, os.W_OK)
    why = "it would slow all else that runs here, and wasn't done" if allowed else "that isn't permitted here"
    return f"files were read before; to forget them takes a write to {DROP}: {why}"


def _figures(side: Side, starts: Sequence[device.Start]) -> Data:
    totals = [s.total for s in starts]
    interval = median_interval(totals, confidence=CONFIDENCE)
    return {
        "starts_ms": totals,
        "total_ms": interval.value,
        "low_ms": finite(interval.low),
        "high_ms": finite(interval.high),
        "parts_ms": {name: median(s.parts[name] for s in starts) for name in device.PARTS},
        "steady_ms": median(side.latency.samples) if side.latency else None,
        "disturbed": sum(s.disturbed for s in starts),
    }


def cold_start_at_most(found: Mapping[str, Any], limit: float) -> Verdict:
    """The median start is at most this, by the binomial rule at 99 %: 7 starts prove it if none is over. Disturbed ones fail nothing."""
    one = found["models"]["candidate"]
    starts = one["starts_ms"]
    answer = percentile_verdict(starts, limit, percentile=0.5, confidence=CONFIDENCE)
    status = {"below": Status.PASS, "above": Status.INCONCLUSIVE if one["disturbed"] else Status.FAIL}.get(answer, Status.INCONCLUSIVE)
    needed = samples_needed(starts, limit, percentile=0.5, confidence=CONFIDENCE) if answer == "undecided" else None
    reason = f"{sum(s > limit for s in starts)} of {len(starts)} starts took longer than {limit:g} ms, files in the page cache"
    reason += f", {one['disturbed']} waited for a processor that other work had" if one["disturbed"] else ""
    reason += f"; about {needed} starts would settle it: raise proof.seconds" if needed else ""
    return Verdict(gate="cold_start_ms", status=status, limit=limit, measured=one["total_ms"], low=one["low_ms"], high=one["high_ms"], reason=reason, samples_needed=needed)


COLD_START = Study(
    name="cold_start",
    summary="from the making of a process to its first answer, part by part",
    take=take,
    here=True,
    limits={"cold_start_ms": cold_start_at_most},
)
