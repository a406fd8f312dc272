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
    """Standard output; in a pipe or a file as wide as figures need, unless COLUMNS says otherwise."""
    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED)


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
    studies.show(out, data.get("studies"))
    ratios = data["ratios"]
    speed = f", {ratios['latency_p50']:.1f}× faster (p50)" if ratios["latency_p50"] else ""
    where = f"{data['baseline']['runtime']}, {data['baseline']['threads']} thread(s); look {data['test_looks']} at this test split"
    out.print(f"{status_text(data['verdict'])} {ratios['size']:.1f}× smaller{speed}; {where}", soft_wrap=True)
    out.print(f"artifact: {data['final']['artifact']}, in the folder of run {data['run']}", soft_wrap=True)
    for one in data.get("imported", ()):
        count = "used" if one["used"] else "kept, not used"
        p50, p90 = milliseconds(one["latency_ms"], "p50"), milliseconds(one["latency_ms"], "p90")
        out.print(f"evidence from {one['machine'].get('processor')} ({count}): p50 {p50} ms, p90 {p90} ms", soft_wrap=True)
    if data["closest"]:
        out.print(f"closest: stage {data['closest']['stage']}, worst violation {data['closest']['violation']:.1%}")


def _trained(out: Console, model: Mapping[str, Any]) -> None:
    """How each training of a stage, or of the control, ended."""
    claims = model.get("claims") or {}
    for name in ("history", "recovery"):
        if claims.get(name):
            out.print(f"    [dim]{'training' if name == 'history' else name}: {training.ended(claims[name])}[/dim]", soft_wrap=True)


def judged(data: Mapping[str, Any]) -> None:
    """What `evaluate` and `compare` found."""
    out, data = console(), plain(data)
    where = f"{data['target']['runtime']}, {data['target']['threads']} thread(s), batch {data['target']['batch']}"
    names = ["baseline", "candidate"] if len(data["subjects"]) == 2 else ["subject"]
    out.print(models_table(f"On {data['split'] or 'random inputs'}; {where}", list(zip(names, data["subjects"], strict=True)), width=out.width))
    for name, subject in zip(names, data["subjects"], strict=True):
        out.print(f"[bold]{name}[/bold] {subject['name']}", soft_wrap=True)
        if subject["metric_interval"]:
            low, high = subject["metric_interval"]
            out.print(f"  {subject['metric']['name']} {subject['metric']['value']:.4f}, each bound one-sided at 95 %: [{low:.4f}, {high:.4f}]")
        if subject["kernels"]:
            out.print(f"  {subject['kernels']['int8']} kernels in int8, {subject['kernels']['float']} in float")
        if subject["ratios"]:
            ratios, speed = subject["ratios"], subject["ratios"]["speedup_p50"]
            out.print(f"  {ratios['size']:.2f}× smaller, {speed['value']:.2f}× faster (p50, 99 % interval [{speed['low']:.2f}, {speed['high']:.2f}], timed in turn)")
        if subject["agreement"]:
            agreement = subject["agreement"]
            out.print(
                f"  on the timed inputs outputs differ by {agreement['max_abs']:.3g} at most"
                + (f", argmax agrees on {agreement['argmax_agreement']:.1%}" if agreement["argmax_agreement"] is not None else "")
            )
        behaviour.show(out, subject["behaviour"])
        studies.show(out, subject["studies"])
        if subject["verdicts"]:
            out.print(verdicts_table(subject["verdicts"]))
    if data["test_looks"]:
        out.print(f"  look {data['test_looks']} at this test split")
    if data["verdict"]:
        out.print(status_text(data["verdict"]))


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


RENDERERS: dict[str, Callable[[Any], None]] = {"run": run, "judged": judged, "techniques": techniques, "runtimes": runtimes, "studies": listed_studies}
