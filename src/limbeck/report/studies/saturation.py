"""Saturation in the report: the metric without VNNI and with 7-bit weights, and which layers cut sums off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Node, el

NAMES = {"neighbours": "without VNNI", "sorted": "without VNNI, large weights together", "seven": "7-bit weights"}


def saturation(data: Mapping[str, Any]) -> list[Node]:
    """The finding, what was measured and what is predicted, layer by layer."""
    text = data["finding"]
    verdict = el("p", {"class": "verdict error" if data["warning"] else "verdict"}, text[:1].upper() + text[1:] + ".")
    if not data["runs"]:
        return [verdict, el("p", {"class": "note"}, machine(data["cpu"]))]
    lead = "CPUs without VNNI multiply bytes with an instruction that adds two neighbouring products in 16 bits, and cuts off what doesn't fit. "
    lead += f"Each integer product of this file was computed that way on {data['samples']:,} samples. No kernel is known to bring the largest weights of a channel "
    lead += "together, as the third row does; it shows what packing may decide. Weights of 7 bits can't saturate: the technique quantize makes them with reduce_range = true."
    rows = [(NAMES[r["mode"]], *measures(r)) for r in data["runs"]]
    before = ("measured here", figures.plain(data["measured"]), figures.NONE, figures.NONE, figures.NONE)
    head = ("where", data["metric"] or "metric", "drop", "bounds", "same answer")
    return [
        verdict,
        el("p", None, lead),
        table("Measured, and predicted by emulation, on the same samples", head, [before, *rows], kind="figures"),
        layers(data),
        notes(data),
    ]


def measures(run: Mapping[str, Any]) -> tuple[Node, ...]:
    bounds = f"{figures.plain(run['low'])} to {figures.plain(run['high'])}" if run["low"] is not None and run["high"] is not None else figures.NONE
    return (figures.plain(run["metric"]), figures.plain(run["drop"]), bounds, figures.percent(run["agreement"], 2))


def machine(cpu: Mapping[str, Any]) -> str:
    """Which CPU this is, and what follows."""
    name = cpu["processor"] or cpu["architecture"] or "this CPU"
    if cpu["saturates"] is None:
        return f"{name}: no x86 whose instructions are known"
    return f"{name}, {'without VNNI: it saturates itself' if cpu['saturates'] else 'with VNNI: exact sums' if cpu['vnni'] else 'without AVX2: exact sums'}"


def layers(data: Mapping[str, Any]) -> Node:
    rows = []
    for la in data["layers"]:
        own, together = la["neighbours"], la["sorted"]
        hit = own["hit"] / own["outputs"] if own["outputs"] else 0.0
        could = f"{own['risky_pairs']:,} of {la['pairs']:,}"
        cells = (la["operator"], could, f"{own['saturated']:,}", figures.percent(hit, 3), f"{together['risky_pairs']:,}")
        rows.append((la["module"], *cells))
    head = ("module", "operator", "pairs that could", "sums cut off", "outputs hit", "could, large together")
    return table("Sums of two products that saturate, by layer", head, rows, kind="figures named")


def notes(data: Mapping[str, Any]) -> Node:
    here, cpu = data["agreement_here"], data["cpu"]
    told = [f"This machine: {machine(cpu)}. Emulated without saturation, {figures.percent(here['exact'], 2)} of the outputs equal those of this machine"]
    told.append(f", with saturation {figures.percent(here['neighbours'], 2)}." if cpu["saturates"] else ".")
    if data["not_emulated"]:
        told.append(f" {len(data['not_emulated'])} other int8 kernels run as this machine computes them.")
    return el("p", {"class": "note"}, "".join(told))
