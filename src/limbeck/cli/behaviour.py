"""How a candidate answers, in the terminal: slices, flips, calibration, agreement. Names come escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

MOST = 12  # slices that are listed


def show(out: Console, data: Mapping[str, Any] | None) -> None:
    """What is known of it; nothing where a run was judged before this was kept."""
    if not data:
        return
    if data["slices"]:
        out.print(_slices(data))
    for line in (_flips(data), _calibration(data)):
        if line:
            out.print(f"  {line}", soft_wrap=True)


def _slices(data: Mapping[str, Any]) -> Table:
    """The slices of which the least is kept come first; those that prove nothing come last."""
    known = sorted(data["slices"], key=_order)
    left = len(known) - MOST
    bounded = any(s["retention"] for s in known)
    title = f"Slices of {data['split']}" + (f", their bounds together at {data['confidence']:.0%}" if bounded else "") + (f"; {left} more in --json" if left > 0 else "")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    alone = all(s["baseline"] is None for s in known)
    for name in ("slice", "samples", *(("metric",) if alone else ("baseline", "candidate", "kept, bound"))):
        table.add_column(name, justify="left" if name == "slice" else "right")
    for s in known[:MOST]:
        compared = () if alone else (_metric(s["baseline"]), _metric(s["candidate"]), _kept(s["retention"], s["note"]))
        table.add_row(s["name"], f"{s['samples']:,}", *(compared or (_metric(s["candidate"]),)))
    return table


def _order(one: Mapping[str, Any]) -> tuple[bool, float]:
    kept = one["retention"]
    return (True, 0.0) if not kept else (False, kept["low"] if kept["kind"] == "ratio" else -kept["low"])


def _kept(kept: Mapping[str, Any] | None, note: str) -> str:
    if not kept:
        return "too few or undefined" if note else "–"
    return f"{kept['value']:.3f} ≥ {kept['low']:.3f}" if kept["kind"] == "ratio" else f"drop {kept['value']:.3f} ≤ {kept['low']:.3f}"


def _metric(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _flips(data: Mapping[str, Any]) -> str:
    flips, agreement = data["flips"], data["agreement"]
    same = f"the same answer as the baseline on {agreement:.1%}" if agreement is not None else ""
    if not flips:
        return same
    lost = f"{flips['lost']:,} right → wrong ({flips['lost_share']:.2%}, bound {flips['lost_high']:.2%})"
    return f"flips: {lost}, {flips['won']:,} wrong → right, of {flips['samples']:,}" + (f"; {same}" if same else "")


def _calibration(data: Mapping[str, Any]) -> str:
    found = data["calibration"]
    if not found:
        return ""
    both = ", ".join(_ece(name, found[key]) for name, key in (("", "candidate"), ("baseline ", "baseline")) if found[key])
    more = found.get("increase")
    return f"calibration error {both}" + (f"; {more['value']:+.4f} against it, at most {more['high']:+.4f}" if more else "")


def _ece(name: str, one: Mapping[str, Any]) -> str:
    return f"{name}{one['ece']:.4f}" + (f" (bound {one['high']:.4f})" if one["high"] is not None else "")
