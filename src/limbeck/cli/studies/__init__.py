"""How the terminal shows each study: what rich prints for its figures. One file a study, one line here, by the study's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, RenderableType

Show = Callable[[Mapping[str, Any]], list[RenderableType]]
SHOW: Mapping[str, Show] = {}
MISSING = "missing"


def show(out: Console, found: Mapping[str, Mapping[str, Any]] | None) -> None:
    """All studies that were made; those that weren't, in a line each."""
    for name, data in (found or {}).items():
        if MISSING in data:
            out.print(f"  [dim]{name}: not made: {data[MISSING]}[/]", soft_wrap=True, highlight=False)
        elif name in SHOW:
            for part in SHOW[name](data):
                out.print(part, soft_wrap=True)
