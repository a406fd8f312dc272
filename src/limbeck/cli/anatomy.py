"""An analysis as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from limbeck.cli.render import console, plain, size

PATH, KIND = 32, 16  # characters of a path and of a kind that are shown
MIDDLE, WIDE = 142, 162  # terminals


def analysis(data: Mapping[str, Any]) -> None:
    """Totals, the table of layers, blocks or operators, what is in none of them, and what stands out."""
    out, data = console(), plain(data)
    target, measured = data["target"], data["measured"]
    where = f"{target['runtime']}, {target['threads']} thread(s), batch {target['batch']}"
    what = f", {data['model']['name']} ({data['model']['kind']})" if data["model"] else ""
    out.print(f"[bold]{data['subject']}[/bold]{what}: {measured['latency_ms']:.3f} ms a call (median); {where}", soft_wrap=True)
    out.print(f"  {_totals(data['totals'])}", soft_wrap=True)
    out.print(_operators_table(data, data["shown"]) if data["kind"] == "artifact" else _layers_table(data, data["shown"], out.width))
    for text in data["findings"]:
        out.print(f"  • {text}", soft_wrap=True)
    machine = data["machine"]
    peak = f"{machine['gflops']:.0f} GFLOP/s, {machine['gigabytes_per_second']:.1f} GB/s ({machine['method']}): compute-bound from {machine['ridge']:.0f} operations a byte"
    out.print(f"  [dim]{peak}[/dim]\n  [dim]times: {measured['method']}[/dim]", soft_wrap=True)
    for note in data["notes"]:
        out.print(f"  [yellow]{note}[/yellow]", soft_wrap=True)


def _totals(totals: Mapping[str, Any]) -> str:
    names = {"parameters": "parameters", "macs": "multiply-adds"}
    counts = [f"{totals[key]:,} {name}" for key, name in names.items() if key in totals]
    sizes = {"weight_bytes": "of weights", "activation_bytes": "of activations", "artifact_bytes": "of artifact"}
    return ", ".join([*counts, *(f"{size(totals[key])} {name}" for key, name in sizes.items() if totals.get(key) is not None)])


def _layers_table(data: Mapping[str, Any], shown: Mapping[str, Any], width: int) -> Table:
    blocks = shown["by"] == "block"
    rows = data["blocks"] if blocks else data["layers"]
    columns = [(name, cell) for name, least, cell in (BLOCKS if blocks else LAYERS) if width >= least]
    table = _table(*(name for name, _ in columns))
    for row in rows[: shown["top"]]:
        table.add_row(*(cell(row) for _, cell in columns))
    _rest(table, rows[shown["top"] :], data["elsewhere"])
    return table


def _count(value: int) -> str:
    for scale, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return str(value)


def _short(path: str) -> str:
    """The end of a long path: that is where layers differ."""
    return path if len(path) <= PATH else f"…{path[1 - PATH :]}"


def _held(row: Mapping[str, Any]) -> str:
    return size(row["artifact_bytes"] if row["artifact_bytes"] is not None else row["weight_bytes"])


def _rank(row: Mapping[str, Any]) -> str:
    seen = row["redundancy"]
    return f"{seen['rank']} of {seen['full_rank']}" if seen and seen["rank"] is not None else "–"


def _idle(row: Mapping[str, Any]) -> str:
    seen = row["redundancy"]
    return str(seen["zero_channels"] + seen["duplicate_channels"]) if seen else "–"


Column = tuple[str, int, Callable[[Mapping[str, Any]], str]]  # title, the least width of a terminal that shows it, cell
NUMBERS: tuple[Column, ...] = (
    ("time", 0, lambda r: f"{r['share']:.1%}"),
    ("ms", 0, lambda r: f"{r['ms']:.3f}"),
    ("weights", 0, lambda r: _count(r["parameters"])),
    ("bytes", 112, _held),
    ("MACs", 0, lambda r: _count(r["macs"])),
    ("outputs", 112, lambda r: size(r["activation_bytes"])),
    ("op/byte", 112, lambda r: f"{r['intensity']:.1f}" if r["intensity"] is not None else "–"),
    ("bound by", 112, lambda r: r["bound"] or "–"),
    ("of peak", MIDDLE, lambda r: f"{r['of_peak']:.0%}" if r["of_peak"] is not None else "–"),
)
LAYERS: tuple[Column, ...] = (
    ("layer", 0, lambda r: _short(r["path"]) or "(itself)"),
    *NUMBERS,
    ("kind", MIDDLE, lambda r: r["kind"][:KIND]),
    ("rank 99 %", WIDE, _rank),
    ("idle", WIDE, _idle),
)
BLOCKS: tuple[Column, ...] = (("block", 0, lambda r: _short(r["path"]) or "(itself)"), *NUMBERS, ("layers", MIDDLE, lambda r: str(r["layers"])))


def _operators_table(data: Mapping[str, Any], shown: Mapping[str, Any]) -> Table:
    blocks = shown["by"] == "block"
    rows = data["kinds"] if blocks else data["operators"]
    table = _table("operator", "count" if blocks else "name", "time", "ms", "inputs", "outputs")
    for row in rows[: shown["top"]]:
        table.add_row(
            row["operator"], str(row["count"]) if blocks else _short(row["name"]), f"{row['share']:.1%}", f"{row['ms']:.3f}", size(row["input_bytes"]), size(row["output_bytes"])
        )
    _rest(table, rows[shown["top"] :], data["elsewhere"], before=("",))
    return table


def _rest(table: Table, hidden: list[Mapping[str, Any]], elsewhere: list[Mapping[str, Any]], *, before: tuple[str, ...] = ()) -> None:
    """The rows that were cut, as one, and the time that belongs to no row. `before`: cells between their name and their time."""
    if hidden:
        table.add_row(f"{len(hidden)} more", *before, f"{sum(r['share'] for r in hidden):.1%}", f"{sum(r['ms'] for r in hidden):.3f}", style="dim")
    for row in elsewhere:
        if row["ms"]:
            table.add_row(row["what"], *before, f"{row['share']:.1%}", f"{row['ms']:.3f}", style="italic")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column not in ("name", "kind", "count") else "left", no_wrap=True)
    return table


RENDERERS: dict[str, Callable[[Any], None]] = {"analysis": analysis}
