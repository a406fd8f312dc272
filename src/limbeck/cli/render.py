"""Facts as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "ANOMALOUS": "magenta", "UNVERIFIED": "yellow", "REFUSED": "red"}


def console() -> Console:
    return Console(highlight=False)


def status_text(status: str | None) -> str:
    return f"[bold {COLOURS.get(status or '', 'white')}]{status or 'not judged'}[/]"


def size(value: float | None) -> str:
    if value is None:
        return "–"
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f} B"


def milliseconds(latency: Mapping[str, float] | None, key: str) -> str:
    return f"{latency[key]:.3f}" if latency else "–"


def number(value: float | None) -> str:
    return f"{value:,}" if value is not None else "–"


def metric(data: Mapping[str, Any]) -> str:
    value = data["metric"]["value"]
    return f"{value:.4f}" if value is not None else "–"


def kept(retention: Mapping[str, Any] | None) -> str:
    if not retention:
        return "–"
    return f"{retention['value']:.4f} (≥ {retention['low']:.4f})" if retention["kind"] == "ratio" else f"drop {retention['value']:.4f} (≤ {retention['low']:.4f})"


def models_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    name = next((r["metric"]["name"] for _, r in rows if r["metric"]["name"]), "metric")
    for column, justify in (("", "left"), (name, "right"), ("retention (95 % bound)", "right"), ("bytes", "right"), ("download", "right"), ("p50 ms", "right"), ("p90 ms", "right"), ("memory", "right"), ("parameters", "right"), ("MACs", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for title_, r in rows:
        latency = r["latency_ms"]
        table.add_row(title_, metric(r), kept(r.get("retention")), size(r["size_bytes"]), size(r["download_bytes"]), milliseconds(latency, "p50"), milliseconds(latency, "p90"), size(r["peak_memory_bytes"]), number(r["parameters"]), number(r["macs"]))
    return table


def verdicts_table(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(show_header=True)
    for column in ("limit", "", "verdict", "why"):
        table.add_column(column)
    for v in verdicts:
        table.add_row(v["gate"], f"{v['limit']:g}" if v.get("limit") is not None else "", status_text(v["status"]), v["reason"])
    return table


def run(data: Mapping[str, Any]) -> None:
    """A run's summary."""
    out = console()
    if data["verdict"] is None:
        out.print(f"[bold]{data['run']}[/bold] is under way, or was interrupted:")
        for event in data["events"]:
            out.print(f"  {event['time']}  {event['event']}  {event.get('stage', '')} {event.get('status', '')}")
        return
    if data["verdict"] == "REFUSED":
        out.print(f"{status_text('REFUSED')} {data['refusal']['reason']}\n{data['refusal']['fix']}", soft_wrap=True)
        return
    rows = [("baseline", data["baseline"]), *((s["name"], s) for s in data["stages"] if s.get("size_bytes")), ("final, on test", data["final"] | {"retention": data["retention"]})]
    out.print(models_table("Stages on validation; baseline and final on test", rows))
    for stage in data["stages"]:
        out.print(f"  {stage['name']}: {status_text(stage['verdict'])} in {stage['seconds']:.1f} s" + (f" – {stage['error']}" if stage["error"] else ""))
    _control(out, data)
    out.print(verdicts_table(data["contract"]))
    ratios = data["ratios"]
    speed = f", {ratios['latency_p50']:.1f}× faster (p50)" if ratios["latency_p50"] else ""
    out.print(f"{status_text(data['verdict'])} {ratios['size']:.1f}× smaller{speed}; {data['baseline']['runtime']}, {data['baseline']['threads']} thread(s); look {data['test_looks']} at this test split", soft_wrap=True)
    out.print(f"artifact: {data['run']}/{data['final']['artifact']}", soft_wrap=True)
    if data["closest"]:
        out.print(f"closest: stage {data['closest']['stage']}, worst violation {data['closest']['violation']:.1%}")


def _control(out: Console, data: Mapping[str, Any]) -> None:
    if data["control"]:
        out.print(models_table("Control: the final shape in FP32, trained without a teacher, on test", [("control", data["control"])]))
    else:
        out.print(f"  control not run: {data['control_note']}")


def judged(data: Mapping[str, Any]) -> None:
    """What `evaluate` and `compare` found."""
    out = console()
    where = f"{data['target']['runtime']}, {data['target']['threads']} thread(s), batch {data['target']['batch']}"
    out.print(models_table(f"On {data['split'] or 'random inputs'}; {where}", [(s["name"], s) for s in data["subjects"]]))
    for subject in data["subjects"]:
        if subject["metric_interval"]:
            low, high = subject["metric_interval"]
            out.print(f"  {subject['name']}: {subject['metric']['name']} {subject['metric']['value']:.4f}, each bound one-sided at 95 %: [{low:.4f}, {high:.4f}]")
        if subject["kernels"]:
            out.print(f"  {subject['name']}: {subject['kernels']['int8']} kernels in int8, {subject['kernels']['float']} in float")
        if subject["agreement"]:
            agreement = subject["agreement"]
            out.print(f"  outputs differ by {agreement['max_abs']:.3g} at most" + (f", argmax agrees on {agreement['argmax_agreement']:.1%}" if agreement["argmax_agreement"] is not None else ""))
        if subject["verdicts"]:
            out.print(verdicts_table(subject["verdicts"]))
    if data["test_looks"]:
        out.print(f"  look {data['test_looks']} at this test split")
    if data["verdict"]:
        out.print(status_text(data["verdict"]))


def techniques(data: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    out = console()
    if isinstance(data, Mapping):
        out.print(f"[bold]{data['name']}[/bold] ({data['family']}, version {data['version']}): {data['summary']}\npaper: {data['paper']}  needs: {', '.join(data['needs'])}  gives: {', '.join(data['gives']) or '–'}  breaks: {', '.join(data['breaks']) or '–'}")
        out.print(Markdown(data["table"]))
        return
    table = Table()
    for column in ("name", "what it does", "needs", "gives", "breaks", "data", "paper"):
        table.add_column(column)
    for t in data:
        table.add_row(t["name"], t["summary"], ", ".join(t["needs"]), ", ".join(t["gives"]), ", ".join(t["breaks"]), t["data"], t["paper"])
    out.print(table)


def runtimes(data: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    for column in ("name", "what it is", "files", "installed"):
        table.add_column(column)
    for r in data:
        table.add_row(r["name"], r["summary"], r["suffix"], r["version"] or "[yellow]no[/]")
    console().print(table)


RENDERERS: dict[str, Callable[[Any], None]] = {"run": run, "judged": judged, "techniques": techniques, "runtimes": runtimes}
