"""What the doctor found, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from limbeck.cli.render import console, plain

COLOURS = {"broken": "red", "warning": "yellow", "note": "cyan"}
NO = "[yellow]no[/]"


def doctor(data: Mapping[str, Any]) -> None:
    """The machine, what is installed, and the problems with their way out."""
    out, data = console(), plain(data)
    out.print(f"limbeck {data['limbeck']}, Python {data['python']}")
    for name, text in _machine(data["machine"]):
        out.print(f"  {name:<12} {text}", soft_wrap=True)
    table = Table(box=SIMPLE, padding=(0, 1))
    for column in ("", "installed", "version", "how to get it"):
        table.add_column(column)
    for r in data["runtimes"]:
        table.add_row(f"runtime {r['name']}", "yes" if r["version"] else NO, r["version"] or "", r["pip"] or "")
    for name, libraries, whole, pip in [("limbeck's own", data["required"], all(q["ok"] for q in data["required"]), None), *map(_extra, data["extras"])]:
        table.add_row(name, "yes" if whole else NO, _versions(libraries), pip or "")
    for p in data["plugins"]:
        table.add_row(f"technique {p['name']}", "yes" if p["ok"] else "[red]broken[/]", "", "")
    out.print(table)
    for p in data["problems"]:
        out.print(f"[bold {COLOURS[p['severity']]}]{p['severity']}[/] [bold]{p['name']}[/bold]: {p['detected']}", soft_wrap=True)
        out.print(f"  {p['follows']}\n  → {p['way']}", soft_wrap=True)
    out.print("[bold green]limbeck works here[/]" if data["ok"] else "[bold red]limbeck doesn't work here: mend what is broken[/]")


def _extra(extra: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]], bool, str | None]:
    return f"extra {extra['name']}", extra["libraries"], extra["installed"], extra["pip"]


def _versions(libraries: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{q['name']} {q['version']}" if q["version"] else f"[yellow]{q['name']} –[/]" for q in libraries)


def _machine(m: Mapping[str, Any]) -> list[tuple[str, str]]:
    held = "" if m["usable_cores"] == m["cores"] else f" of {m['cores']}"
    free = f", {m['free_memory_bytes'] / 1e9:.1f} GB of it free" if m["free_memory_bytes"] is not None else ""
    clocks = [f"governor {m['governor']}" if m["governor"] else "", "" if m["turbo"] is None else f"turbo {'on' if m['turbo'] else 'off'}"]
    threads = ", ".join(f"{k}={v}" for k, v in m["threads"].items())
    rows = [
        ("processor", f"{m['processor']} ({m['architecture']}, {m['system']}), {m['usable_cores']}{held} cores"),
        ("instructions", ", ".join(m["instructions"]) or "none that limbeck's kernels look for"),
        ("memory", f"{m['memory_bytes'] / 1e9:.1f} GB{free}" if m["memory_bytes"] is not None else "not told"),
        ("disk", f"{m['free_disk_bytes'] / 1e9:.1f} GB free at {m['disk']}" if m["free_disk_bytes"] is not None else "not told"),
        ("GPU", ", ".join(m["gpus"]) or "none that torch sees"),
        ("energy", f"{m['energy']}: {m['energy_why']}" if m["energy"] else f"no counter: {m['energy_why']}"),
        ("clock", ", ".join(c for c in clocks if c) or "not told"),
        ("threads", threads or "no variable sets them"),
    ]
    return rows


RENDERERS: dict[str, Callable[[Any], None]] = {"doctor": doctor}
