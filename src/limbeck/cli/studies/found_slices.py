"""Parts of the data that lose most, in the terminal. Words come escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

MOST = 4  # parts that are shown


def found_slices(data: Mapping[str, Any]) -> list[RenderableType]:
    """Each part in a sentence; or that nothing was found, and out of how much."""
    looked = len(data["found"]) + len(data["not_proved"])
    where = f"{data['samples']:,} samples of {data['split']}, {looked} {'part' if looked == 1 else 'parts'} judged on held-out halves"
    if not data["found"]:
        return [f"  found slices: none loses more than the rest for sure ({where})"]
    lines: list[RenderableType] = [f"  [bold]found slices[/]: {where}, at {data['confidence']:.0%}"]
    apart = {frozenset(part["words"].split(" and ")): part for part in reversed(data["found"])}  # what both halves found is told once
    shown = [part for part in data["found"] if part in apart.values()]
    lines += [f"    [red]{part['words']}[/]: {_sentence(part, binary=data['binary'])}" for part in shown[:MOST]]
    return lines + ([f"    {len(shown) - MOST} more in --json"] if len(shown) > MOST else [])


def _sentence(part: Mapping[str, Any], *, binary: bool) -> str:
    if not binary:
        return f"worse by {part['drop']:.4g} on {part['samples']:,} held-out samples, at least by {part['drop_low']:.4g}"
    high = f" ≤ {min(part['retention_high'], 1.0):.2f}" if part["retention_high"] is not None else ""
    kept = f", retention {part['retention']:.2f}{high}" if part["retention"] is not None else ""
    return f"{part['harmed']:,} of {part['samples']:,} held-out samples flipped to wrong, {part['helped']:,} to right{kept}"
