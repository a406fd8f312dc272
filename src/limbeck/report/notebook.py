"""A run in a notebook: its verdict, its limits and its stages, as a small table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = {"PASS": "#1a7f37", "FAIL": "#b42318"}  # of text; the verdict is said in words as well
UNSETTLED = "#8a5a00"


def run_html(summary: Mapping[str, Any]) -> str:
    """HTML of a summary, as `summary.json` has it; of a run without a verdict, what happened last."""
    verdict = summary.get("verdict")
    head = f"<b>limbeck run {escape(str(summary.get('run', '')))}</b>: {_verdict(verdict or 'under way')}"
    if verdict is None:
        last = (summary.get("events") or [{}])[-1]
        return f"<div>{head}<br>{escape(str(last.get('event', 'nothing yet')))}, {escape(str(last.get('time', '')))}</div>"
    if verdict == "REFUSED":
        refusal = summary["refusal"]
        return f"<div>{head}<br>{escape(refusal['reason'])}<br>{escape(refusal['fix'])}</div>"
    return f"<div>{head}, {_gain(summary)}{_limits(summary['contract'])}{_models(summary)}</div>"


def _verdict(text: str) -> str:
    return f'<b style="color:{COLOURS.get(text, UNSETTLED)}">{escape(text)}</b>'


def _gain(summary: Mapping[str, Any]) -> str:
    ratios = summary["ratios"]
    faster = f", {ratios['latency_p50']:.1f}× faster (p50)" if ratios.get("latency_p50") else ""
    return f"{ratios['size']:.1f}× smaller{faster}"


def _limits(contract: Sequence[Mapping[str, Any]]) -> str:
    rows = [[escape(v["gate"]), f"{v['limit']:g}" if v.get("limit") is not None else "", _verdict(v["status"]), escape(v["reason"])] for v in contract]
    return _table(("limit", "", "verdict", "why"), rows)


def _models(summary: Mapping[str, Any]) -> str:
    rows = [("baseline", summary["baseline"], "")]
    rows += [(stage["name"], stage, stage["verdict"]) for stage in summary["stages"]]
    rows += [("final", summary["final"], "")] + ([("control", summary["control"], "")] if summary.get("control") else [])
    return _table(("", summary["final"]["metric"]["name"] or "metric", "bytes", "p50 ms", ""), [_model(*row) for row in rows])


def _model(name: str, model: Mapping[str, Any], verdict: str) -> list[str]:
    if "size_bytes" not in model:  # a stage that broke
        return [escape(name), "", "", "", _verdict(verdict)]
    value, p50 = model["metric"]["value"], (model.get("latency_ms") or {}).get("p50")
    figures = [f"{value:.4g}" if value is not None else "", f"{model['size_bytes']:,}", f"{p50:.3g}" if p50 else ""]
    return [escape(name), *figures, _verdict(verdict) if verdict else ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th scope='col'>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + f"<th scope='row'>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
