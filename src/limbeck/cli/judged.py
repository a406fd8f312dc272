"""What `evaluate` and `compare` found, on one screen: the verdict first, then figures side by side, then behaviour and studies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from limbeck.cli import behaviour, studies
from limbeck.cli.render import WIDE, console, number, plain, size, status_text, verdicts_table

NAMES = ("baseline", "candidate")
SIZES = {"size": "size_bytes", "download": "download_bytes", "memory": "peak_memory_bytes"}
PERCENTILES = ("p50", "p90", "p99")
Row = tuple[str, list[str], str]  # what it is, its figure for each model, what is to be said of them


def judged(data: Mapping[str, Any]) -> None:
    """One model by itself, or a candidate beside its baseline."""
    out, data = console(), plain(data)
    subjects: Sequence[Mapping[str, Any]] = data["subjects"]
    last = subjects[-1]
    names = NAMES if len(subjects) == 2 else (last["kind"],)
    if data["verdict"]:
        against = f" against {subjects[0]['name']}" if len(subjects) == 2 else ""
        out.print(f"{status_text(data['verdict'])} {last['name']}{against}", soft_wrap=True)
        out.print(verdicts_table([v for s in subjects for v in s["verdicts"]]))
    for name, subject in zip(names, subjects, strict=True):
        out.print(f"[bold]{name}[/bold] {subject['name']}{_built(subject)}", soft_wrap=True)
        for note in subject["notes"]:
            out.print(f"  [yellow]note:[/yellow] {note}", soft_wrap=True)
    out.print(_table(names, subjects, data, out.width))
    for line in _lines(data, last):
        out.print(f"  {line}", soft_wrap=True)
    _noted(out, names, subjects)
    behaviour.show(out, last["behaviour"])
    studies.show(out, last["studies"])


def _built(subject: Mapping[str, Any]) -> str:
    """What it is made of, where that is known."""
    parts = [f"{number(subject[key])} {name}" for key, name in (("parameters", "weights"), ("macs", "multiply-adds")) if subject[key] is not None]
    return f": {', '.join(parts)}" if parts else ""


def _table(names: Sequence[str], subjects: Sequence[Mapping[str, Any]], data: Mapping[str, Any], width: int) -> Table:
    target, inputs = data["target"], data["inputs"]
    threads = f"{target['threads']} thread{'s' if target['threads'] > 1 else ''}"
    where = f"{subjects[-1]['runtime']}, {threads}, batch {target['batch']}; timed on {'inputs that were ' if inputs['source'] == 'given' else ''}{inputs['source']}"
    title = where + ("" if inputs["source"] != "random" else " inputs")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for name in names if len(names) == 2 else ("",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for label, figures, said in (*_quality(subjects), *_latency(subjects, wide=width >= WIDE), *_resources(subjects)):
        table.add_row(label, *figures, said)
    return table


def _quality(subjects: Sequence[Mapping[str, Any]]) -> list[Row]:
    name = next((s["metric"]["name"] for s in subjects if s["metric"]["name"]), None)
    if name is None:
        return []
    values = [s["metric"]["value"] for s in subjects]
    bounds = [_pair(s["metric_interval"], ".3f") for s in subjects]
    if len(subjects) == 1:
        sure = 100 * (subjects[0]["behaviour"] or {}).get("confidence", 0.95)
        return [(name, [_figure(values[0])], f"{bounds[0]}, each bound at {sure:.3g} %" if bounds[0] else "")]
    kept = subjects[-1]["retention"]
    change = f"{values[1] - values[0]:+.4f}" if None not in values else ""
    rows: list[Row] = [(name, [_figure(v) for v in values], change)]
    if any(bounds) or kept:
        said = "" if not kept else f"kept {kept['value']:.3f} ≥ {kept['low']:.3f}" if kept["kind"] == "ratio" else f"drop {kept['value']:.4f} ≤ {kept['low']:.4f}"
        rows.append(("  bounds", [b or "–" for b in bounds], said))
    return rows


def _latency(subjects: Sequence[Mapping[str, Any]], *, wide: bool) -> list[Row]:
    """Percentiles, with their bounds where there is room for them."""
    rows: list[Row] = []
    for key in PERCENTILES:
        values = [(s["latency_ms"] or {}).get(key) for s in subjects]
        if all(v is None for v in values):
            continue
        bounds = [_pair((s.get("latency_interval_ms") or {}).get(key), ".3f") for s in subjects]
        if len(subjects) == 1:
            rows.append((f"{key} ms", [f"{values[0]:.3f}"], f"{bounds[0]}, each bound at 99 %" if bounds[0] else ""))
            continue
        shown = ["–" if v is None else f"{v:.3f} {b}".rstrip() if wide else f"{v:.3f}" for v, b in zip(values, bounds, strict=True)]
        rows.append((f"{key} ms", shown, _faster(key, subjects)))
    return rows


def _faster(key: str, subjects: Sequence[Mapping[str, Any]]) -> str:
    """The median's ratio with its interval, from turns; of another percentile the plain one, where the bounds of both lie apart."""
    ratios = subjects[-1]["ratios"]
    if key == "p50" and ratios:
        speed = ratios["speedup_p50"]
        return _times(speed["value"], "faster", "slower", speed["low"], speed["high"])
    slow, fast = ((s["latency_ms"] or {}).get(key) for s in subjects)
    bounds = [(s.get("latency_interval_ms") or {}).get(key) or (None, None) for s in subjects]
    apart = max(-math.inf if low is None else low for low, _ in bounds) > min(math.inf if high is None else high for _, high in bounds)
    return (_times(slow / fast, "faster", "slower") if apart else "can't be told apart") if slow and fast else ""


def _resources(subjects: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for label, key in SIZES.items():
        values = [s[key] for s in subjects]
        ratio = _times(values[0] / values[1], "smaller", "larger") if len(values) == 2 and values[0] and values[1] else ""
        rows.append((label, [size(v) for v in values], ratio))
    kernels = [s["kernels"] for s in subjects]
    if any(kernels):
        rows.append(("int8 kernels", [f"{k['int8']} of {k['int8'] + k['float']}" if k else "–" for k in kernels], "of what multiplies"))
    return rows


def _times(ratio: float, more: str, less: str, low: float | None = None, high: float | None = None) -> str:
    """A ratio in words; with its interval, the right way round."""
    if 0.995 <= ratio < 1.005 and low is None:
        return "the same"
    turned = ratio < 1
    ends = ((1 / high, 1 / low) if turned else (low, high)) if low and high else None
    value = 1 / ratio if turned else ratio
    return f"{value:.2f}× {less if turned else more}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _pair(bounds: Sequence[float | None] | None, form: str) -> str:
    return f"[{', '.join('–' if b is None else format(b, form) for b in bounds)}]" if bounds else ""


def _lines(data: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    """What stands below the table: the inputs, how near the outputs are, how often this test split was looked at."""
    arrays = data["inputs"]["arrays"]
    fed = ", ".join(f"{a['name']} = {a['value']}" if "value" in a else f"{a['name']} {a['dtype']}{a['shape']}".replace("[", r"\[") for a in arrays)
    lines = [f"inputs: {fed}"]
    if alike := last["agreement"]:
        most = f"outputs differ by {alike['max_abs']:.3g} at most" if alike["max_abs"] is not None else "outputs differ by NaN or infinity"
        relative = f" ({alike['max_rel']:.2g} of the largest)" if alike["max_rel"] is not None and alike["max_abs"] else ""
        same = f", argmax agrees on {alike['argmax_agreement']:.1%}" if alike["argmax_agreement"] is not None else ""
        lines.append(f"on {alike['inputs']} {most}{relative}{same}")
    if data["test_looks"]:
        lines.append((data.get("look") or {}).get("note") or f"look {data['test_looks']} at this test split")
    return lines


def _noted(out: Console, names: Sequence[str], subjects: Sequence[Mapping[str, Any]]) -> None:
    for name, subject in zip(names, subjects, strict=True):
        if subject.get("latency_note"):
            out.print(f"  [dim]latency of the {name}: {subject['latency_note']}[/dim]", soft_wrap=True)


RENDERERS = {"judged": judged}
