"""Facts as tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from limbeck.cli import behaviour, studies, training

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "ANOMALOUS": "magenta", "UNVERIFIED": "yellow", "REFUSED": "red"}


def console() -> Console:
    """Standard output; in a pipe or a file as wide as figures need, unless COLUMNS says otherwise. `:two:` in a name is no picture."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED)


def plain(data: Any) -> Any:
    """The same data, its text free of what rich would read as markup: names and messages come from outside."""
    if isinstance(data, Mapping):
        return {k: plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(v) for v in data]
    return escape(data) if isinstance(data, str) else data


def status_text(status: str | None) -> str:
    return f"[bold {COLOURS.get(status or '', 'white')}]{status or 'not judged'}[/]"


def size(value: float | None) -> str:
    if value is None:
        return "–"
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.{2 if value < 10 * scale else 1 if value < 100 * scale else 0}f} {unit}"
    return f"{value:.0f} B"


def milliseconds(latency: Mapping[str, float] | None, key: str) -> str:
    return f"{latency[key]:.3f}" if latency and latency[key] is not None else "–"


def number(value: float | None) -> str:
    return f"{value:,}" if value is not None else "–"


def metric(data: Mapping[str, Any]) -> str:
    value = data["metric"]["value"]
    return f"{value:.4f}" if value is not None else "–"


def kept(retention: Mapping[str, Any] | None) -> str:
    """What is kept, and its bound on the bad side."""
    if not retention:
        return "–"
    return f"{retention['value']:.3f} ≥ {retention['low']:.3f}" if retention["kind"] == "ratio" else f"drop {retention['value']:.3f} ≤ {retention['low']:.3f}"


FOLDS = "kept, bound"  # the one column that may take a second line before a figure is cut
COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    (FOLDS, lambda r: kept(r.get("retention"))),
    ("size", lambda r: size(r["size_bytes"])),
    ("p50 ms", lambda r: milliseconds(r["latency_ms"], "p50")),
    ("p90 ms", lambda r: milliseconds(r["latency_ms"], "p90")),
    ("memory", lambda r: size(r["peak_memory_bytes"])),
    ("weights", lambda r: number(r["parameters"])),
    ("download", lambda r: size(r["download_bytes"])),  # from here on only where the terminal is wide
    ("MACs", lambda r: number(r["macs"])),
)
NARROW, WIDE = 5, 100
PERCENTILES = ("p50", "p90", "p99")
PIPED = 120


def models_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], *, width: int) -> Table:
    """One row a model."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    columns = COLUMNS if width >= WIDE else COLUMNS[:NARROW]
    table.add_column("", no_wrap=True, min_width=9)
    for name in (next((r["metric"]["name"] for _, r in rows if r["metric"]["name"]), "metric"), *(c[0] for c in columns)):
        table.add_column(name, justify="right", no_wrap=name != FOLDS)
    for name, r in rows:
        table.add_row(name, metric(r), *(cell(r) for _, cell in columns))
    return table


def verdicts_table(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1))
    for column in ("limit", "", "verdict", "why"):
        table.add_column(column)
    for v in verdicts:
        table.add_row(v["gate"], f"{v['limit']:g}" if v.get("limit") is not None else "", status_text(v["status"]), v["reason"])
    return table


def run(data: Mapping[str, Any]) -> None:
    """A run's summary."""
    out, data = console(), plain(data)
    if data["verdict"] is None:
        out.print(f"[bold]{data['run']}[/bold] is under way, or was interrupted:")
        for event in data["events"]:
            out.print(f"  {event['time']}  {event['event']}  {event.get('stage', '')} {event.get('status', '')}")
        return
    if data["verdict"] == "REFUSED":
        out.print(f"{status_text('REFUSED')} {data['refusal']['reason']}\n{data['refusal']['fix']}", soft_wrap=True)
        return
    rows = [("baseline", data["baseline"]), *((s["name"], s) for s in data["stages"] if s.get("size_bytes")), ("final", data["final"] | {"retention": data["retention"]})]
    control = [("control", data["control"])] if data["control"] else []
    out.print(models_table("Stages judged on validation; baseline, final and control on test", [*rows, *control], width=out.width))
    for stage in data["stages"]:
        out.print(f"  {stage['name']}: {status_text(stage['verdict'])} in {stage['seconds']:.1f} s" + (f" – {stage['error']}" if stage["error"] else ""))
        _trained(out, stage)
    out.print("  control: the final shape in FP32, trained without a teacher" if control else f"  control not run: {data['control_note']}")
    _trained(out, data["control"] or {})
    if data.get("chosen"):
        out.print(f"  final is {data['chosen']['stage']}: {data['chosen']['why']}", soft_wrap=True)
    out.print(verdicts_table(data["contract"]))
    behaviour.show(out, data.get("behaviour"))
    studies.show(out, data.get("studies"), brief=True)
    _latencies(out, data)
    ratios = data["ratios"]
    speed = f", {ratios['latency_p50']:.1f}× faster (p50)" if ratios["latency_p50"] else ""
    where = f"{data['baseline']['runtime']}, {data['baseline']['threads']} thread(s); {_look(data)}"
    out.print(f"{status_text(data['verdict'])} {ratios['size']:.1f}× smaller{speed}; {where}", soft_wrap=True)
    out.print(f"artifact: {data['final']['artifact']}, in the folder of run {data['run']}", soft_wrap=True)
    for one in data.get("imported", ()):
        count = "used" if one["used"] else "kept, not used"
        p50, p90 = milliseconds(one["latency_ms"], "p50"), milliseconds(one["latency_ms"], "p90")
        out.print(f"evidence from {one['machine'].get('processor')} ({count}): p50 {p50} ms, p90 {p90} ms", soft_wrap=True)
    if data["closest"]:
        out.print(f"closest: stage {data['closest']['stage']}, worst violation {data['closest']['violation']:.1%}")


def _latencies(out: Console, data: Mapping[str, Any]) -> None:
    """Between which bounds the final model's percentiles lie, and what else is in the timings."""
    bounds, values = data["final"].get("latency_interval_ms") or {}, data["final"]["latency_ms"] or {}
    known = [(name, bounds[name]) for name in PERCENTILES if bounds.get(name) and values.get(name)]
    shown = [f"{name} {values[name]:.3f} ({' to '.join(f'{b:.3f}' if b is not None else '?' for b in both)})" for name, both in known]
    if shown:
        out.print(f"  latency in ms, each bound at 99 %: {', '.join(shown)}", soft_wrap=True)
    notes = {m: data[m]["latency_note"] for m in ("baseline", "final", "control") if (data[m] or {}).get("latency_note")}
    for note in dict.fromkeys(notes.values()):
        out.print(f"  [yellow]{', '.join(m for m, same in notes.items() if same == note)}: {note}[/yellow]", soft_wrap=True)


def _look(data: Mapping[str, Any]) -> str:
    """Which look at test this was, and what that means for its verdicts."""
    return (data.get("look") or {}).get("note") or f"look {data['test_looks']} at this test split"


def _trained(out: Console, model: Mapping[str, Any]) -> None:
    """How each training of a stage, or of the control, ended."""
    claims = model.get("claims") or {}
    for name in ("history", "recovery"):
        if claims.get(name):
            out.print(f"    [dim]{'training' if name == 'history' else name}: {training.ended(claims[name])}[/dim]", soft_wrap=True)


def techniques(data: Mapping[str, Any]) -> None:
    out = console()
    if "techniques" not in data:
        kind = f"{data['family']}, version {data['version']}" if "family" in data else "a recipe: it becomes stages"
        out.print(f"[bold]{data['name']}[/bold] ({kind}): {data['summary']}")
        out.print("  ".join((f"paper: {data['paper']}", *(f"{k}: {', '.join(data[k]) or '–'}" for k in ("needs", "gives", "breaks") if k in data))))
        out.print(Markdown(data["table"]))
        return
    for t in data["techniques"]:
        out.print(f"[bold]{t['name']}[/bold]  {t['summary']}")
        facts = [f"{k} {', '.join(t[k])}" for k in ("needs", "gives", "breaks") if t[k]]
        out.print(f"  [dim]{'; '.join((*facts, 'data: ' + t['data'], t['paper']))}[/dim]")
    for r in data["recipes"]:
        out.print(f"[bold]{r['name']}[/bold]  {r['summary']}")
        out.print(f"  [dim]a recipe: it becomes stages; {r['paper']}[/dim]")


def runtimes(data: Mapping[str, Any]) -> None:
    table = Table()
    for column in ("name", "what it is", "files", "installed"):
        table.add_column(column)
    for r in data["runtimes"]:
        table.add_row(r["name"], r["summary"], r["suffix"], r["version"] or "[yellow]no[/]")
    console().print(table)


def listed_studies(data: Mapping[str, Any]) -> None:
    table = Table()
    for column in ("name", "what it shows", "limits"):
        table.add_column(column, no_wrap=column == "name")
    for s in plain(data["studies"]):
        table.add_row(s["name"], s["summary"], ", ".join(s["limits"]))
    console().print(table)


RENDERERS: dict[str, Callable[[Any], None]] = {"run": run, "techniques": techniques, "runtimes": runtimes, "studies": listed_studies}
