"""Numbers as people read them: with their unit, and no more digits than mean something."""

from __future__ import annotations

import math
import re

from limbeck.report.story import Kept

NONE = "–"
TRAILING = re.compile(r"(?<=\d)\.0+(?!\d)|(?<=\.\d)0+(?!\d)|(?<=\.\d\d)0+(?!\d)")
TITLES = {
    "retention": "Quality kept",
    "metric": "Metric",
    "max_drop": "Largest drop",
    "slice_retention": "Quality kept in slice",
    "worst_slice_retention": "Quality kept in the worst slice",
    "slice_drop": "Largest drop in slice",
    "worst_slice_drop": "Largest drop in the worst slice",
    "max_flips": "Right before, wrong now",
    "max_ece": "Calibration error",
    "max_ece_increase": "Calibration error more than before",
    "corruption_retention": "Quality kept under corruption",
    "size_bytes": "Size",
    "size_ratio": "Times smaller",
    "download_bytes": "Download size",
    "latency_p50_ms": "Median latency",
    "latency_p90_ms": "90th percentile latency",
    "latency_p99_ms": "99th percentile latency",
    "speedup_p50": "Times faster",
    "peak_memory_bytes": "Peak memory",
    "cold_start_ms": "Cold start",
    "samples_per_second": "Samples a second",
    "energy_mj": "Energy a sample",
    "pays": "Pays for itself",
    "not slower": "Not slower",
}
AT_MOST = frozenset(
    {
        *("max_drop", "slice_drop", "worst_slice_drop", "max_flips", "max_ece", "max_ece_increase"),
        *("size_bytes", "download_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_memory_bytes"),
        *("cold_start_ms", "energy_mj"),
    }
)
SHARES = frozenset({"retention", "slice_retention", "worst_slice_retention", "max_flips", "max_ece", "max_ece_increase", "corruption_retention"})


def size(value: float | None) -> str:
    """Bytes, in units of a thousand."""
    if value is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{_three(value)} ms"


def times(value: float | None) -> str:
    return NONE if value is None else f"{_three(value)}×"


def plain(value: float | None, digits: int = 4) -> str:
    """A metric: four decimals where it is of order one, else four significant digits."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    """A whole number, shortened from a million on."""
    if value is None:
        return NONE
    for unit, scale in (("G", 1e9), ("M", 1e6)):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:,.0f}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def bound(value: Kept) -> str:
    """The bound of what is kept, rounded to the bad side: what is shown is no better than what was proved."""
    if not math.isfinite(value.bound):
        return str(value.bound)
    down, up = math.floor(value.bound * 1000 + 1e-9) / 1000, math.ceil(value.bound * 1e4 - 1e-9) / 1e4
    return f"at least {percent(down)}" if value.kind == "ratio" else f"at most {plain(up)}"


def kept(value: Kept | None) -> str:
    """What is kept and the bound that a limit is held against."""
    if value is None:
        return NONE
    if value.kind == "ratio":
        return f"{percent(value.value)}, {bound(value)}"
    return f"drop {plain(value.value)}, {bound(value)}"


def of_gate(gate: str, value: float | None) -> str:
    """A figure of a limit, in that limit's unit."""
    if value is None:
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if gate.endswith("_bytes"):
        return size(value)
    if gate.endswith("_ms"):
        return milliseconds(value)
    if gate == "energy_mj":
        return f"{_three(value)} mJ"
    if gate == "samples_per_second":
        return count(value)
    if gate in ("size_ratio", "speedup_p50", "pays", "not slower"):
        return times(value)
    return percent(value) if option(gate) in SHARES else plain(value)


def asked(gate: str, limit: float | None) -> str:
    return NONE if limit is None else f"{'at most' if option(gate) in AT_MOST else 'at least'} {of_gate(gate, limit)}"


def title(gate: str) -> str:
    name = gate.partition(".")[2]
    return TITLES.get(option(gate), option(gate)) + (f" {name}" if name else "") if option(gate) in TITLES else gate


def option(gate: str) -> str:
    """The option of the contract that a gate answers: of `slice_retention.night` the part before the slice."""
    return gate.partition(".")[0]


def trimmed(text: str) -> str:
    """A figure without zeros after its point that say nothing, as on an axis."""
    return TRAILING.sub("", text)


def _three(value: float) -> str:
    """Three significant digits, whole from a hundred on."""
    if not math.isfinite(value):
        return str(value)
    digits = min(2 - math.floor(math.log10(abs(value))), 6) if value else 0
    return f"{value:,.{max(digits, 0)}f}"
