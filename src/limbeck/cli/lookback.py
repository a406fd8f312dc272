"""Runs, differences and clean-ups as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from limbeck.cli.render import console, plain, size, status_text

STATES = {"under way": "cyan", "interrupted": "yellow", "damaged": "red"}
HIDDEN = ("time", "event", "verdicts", "plan", "contract", "target", "data", "structures", "candidate", "teacher", "artifact", "final", "control", "key", "curve", "seed")


def state_text(state: str) -> str:
    return f"[bold {STATES[state]}]{state}[/]" if state in STATES else status_text(state)


def runs(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    if not data["runs"]:
        out.print(f"no runs in {data['root']}")
        return
    table = _table("run", "state", "stages", "on disk", "last event (UTC)", "metric", "kept", "smaller", "faster")
    for r in data["runs"]:
        metric, ratios = r["metric"] or {}, r["ratios"] or {}
        stages = f"{r['stages_passed']} of {r['stages']}" if r["stages"] else "–"
        kept = f"{r['retention']:.3f}" if r["retention"] is not None else "–"
        value = f"{metric['name']} {metric['value']:.4f}" if metric.get("value") is not None else "–"
        when = r["last_event"][:19].replace("T", " ") if r["last_event"] else "–"
        table.add_row(r["name"], state_text(r["state"]), stages, size(r["size_bytes"]), when, value, kept, _times(ratios.get("size")), _times(ratios.get("latency_p50")))
    out.print(table)
    for r in data["runs"]:
        if r["error"]:
            out.print(f"[bold]{r['name']}[/bold]: {r['error']}", soft_wrap=True)


def rollback(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    out.print(f"{data['run']} is back at [bold]{data['stage']}[/bold]: {data['artifact']} ({size(data['size_bytes'])})", soft_wrap=True)
    for name, sha in data["files"].items():
        out.print(f"  {sha}  {name}", soft_wrap=True)
    for path in data["out"]:
        out.print(f"written to {path}", soft_wrap=True)


def diff(data: Mapping[str, Any]) -> None:
    """Each part that differs as a table; what is equal is said in one line."""
    out, data = console(), plain(data)
    a, b = data["a"]["name"], data["b"]["name"]
    out.print(f"[bold]{a}[/bold] ({state_text(data['a']['state'])}) → [bold]{b}[/bold] ({state_text(data['b']['state'])})")
    equal = []
    for part in ("plan", "config", "verdicts", "environment"):
        rows = [(r["what"], _cell(r["a"]), _cell(r["b"])) for r in data[part]]
        _part(part, rows, (a, b), equal, out)
    edits = data["edits"]
    if edits["equal"] is False or edits["base"]:
        rows = [(r["what"], _cell(r["a"]), _cell(r["b"])) for r in edits["base"]]
        rows += [(f"{r['name']} edits", str(r["a"]), str(r["b"])) for r in edits["kinds"]]
        rows += [(f"at {r['name'] or 'the inputs'}", str(r["a"]), str(r["b"])) for r in edits["modules"]]
        _part("edits of the blueprint", rows, (a, b), equal, out)
    else:
        equal.append("edits" if edits["equal"] else "edits (not both have a blueprint)")
    table = _table("evidence", a, b, "b / a")
    for r in data["evidence"]:
        table.add_row(r["name"], _cell(r["a"]), _cell(r["b"]), f"{r['ratio']:.3f}" if r["ratio"] is not None else "")
    out.print(table)
    if equal:
        out.print(f"no difference in: {', '.join(equal)}")
    for note in data["notes"]:
        out.print(f"  [yellow]{note}[/yellow]", soft_wrap=True)


def _part(title: str, rows: Sequence[tuple[str, ...]], names: tuple[str, str], equal: list[str], out: Any) -> None:
    if not rows:
        equal.append(title)
        return
    table = _table(title, *names)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def gc(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    if not data["files"]:
        out.print(f"{data['run']}: every file is needed")
        return
    table = _table("file", "size", "why")
    for f in data["files"]:
        table.add_row(f["file"], size(f["size_bytes"]), f["why"])
    out.print(table)
    done = "deleted" if data["deleted"] else "nothing deleted; --delete does it"
    out.print(f"{len(data['files'])} files, {size(data['size_bytes'])}: {done}")


def exported(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    out.print(f"{data['file']}: {data['files']} files of {data['run']}, {size(data['size_bytes'])}\nsha256 {data['sha256']}", soft_wrap=True)


def imported(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    out.print(f"{data['folder']}: {data['files']} files, {data['checked']} of them evidence, all as they were", soft_wrap=True)
    _notes(data, out)


def verify(data: Mapping[str, Any]) -> None:
    out, data = console(), plain(data)
    for problem in data["problems"]:
        out.print(f"[red]{problem['file']}[/red]: {problem['what']}", soft_wrap=True)
    _notes(data, out)
    verdict = "[bold green]holds[/]" if data["clean"] else f"[bold red]{len(data['problems'])} files don't hold[/]"
    if "package" in data:
        _golden(data, out)
    out.print(f"{data['package'] if 'package' in data else data['run']}: {data['checked']} files checked, {verdict}")


def _golden(data: Mapping[str, Any], out: Any) -> None:
    """What a package's model answered here, and what could not be checked."""
    golden = data["golden"]
    if golden and golden["holds"]:
        far = "bit for bit" if golden["exact"] else f"at most {golden['max_rel']:.2g} of the largest output away"
        out.print(f"{golden['samples']} golden answers as they should be, {far} ({golden['runtime']})", soft_wrap=True)
    for what in data["unchecked"]:
        out.print(f"  [yellow]not checked[/yellow]: {what}", soft_wrap=True)


def event_line(event: Mapping[str, Any]) -> str:
    """One event of a run that is followed, as one line of plain text."""
    more = " ".join(f"{k}={_cell(v)}" for k, v in event.items() if k not in HIDDEN and v is not None)
    return f"{event['time']}  {event['event']:<12} {more}".rstrip()


def _notes(data: Mapping[str, Any], out: Any) -> None:
    for note in data["notes"]:
        out.print(f"  [yellow]{note}[/yellow]", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _times(ratio: float | None) -> str:
    return f"{ratio:.1f}×" if ratio else "–"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


RENDERERS: dict[str, Callable[[Any], None]] = {
    "runs": runs,
    "rollback": rollback,
    "diff": diff,
    "gc": gc,
    "exported": exported,
    "imported": imported,
    "verify": verify,
}
