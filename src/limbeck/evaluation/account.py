"""An anatomy as plain data: rows by layer, block and operator, with shares and bounds, and what stands out in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from limbeck.evaluation.anatomy import BETWEEN, Anatomy, Part, block_of, sensible_depth
from limbeck.evaluation.roofline import Peak
from limbeck.runtimes.card import OperatorTime

SHOWN = 3  # things that stand out
FAR = 0.05  # share of the time below which nothing stands out
LOW_RANK = 0.5  # of the full rank: below it a pair of thinner layers would hold fewer weights
OPERATOR_HEAVY = 0.15  # share of the time outside of layers that is worth a word
SUMS = ("parameters", "weight_bytes", "artifact_bytes", "macs", "activation_bytes", "ms", "share", "moved_bytes")
Finding = tuple[float, str]  # how much it matters, as a share of time or bytes, and what it is


def account(found: Anatomy, peak: Peak, *, depth: int | None = None) -> dict[str, Any]:
    """The measured part of what `limbeck analyze` says of a model: totals, layers and blocks by share, and what stands out."""
    depth = depth or sensible_depth(p.layer for p in found.parts)
    total = found.total_ms
    layers = sorted((_row(p, peak, total, depth) for p in found.parts), key=lambda r: -r["ms"])
    elsewhere = [{"what": what, "ms": ms, "share": ms / total if total else 0.0} for what, ms in sorted(found.elsewhere.items(), key=lambda x: -x[1])]
    return {
        "measured": {"method": found.method, "latency_ms": found.latency_ms, "total_ms": total, "disturbed": found.disturbed},
        "machine": machine(peak),
        "totals": {
            "parameters": found.parameters,
            "macs": found.macs,
            "weight_bytes": sum(p.layer.weight_bytes for p in found.parts),
            "activation_bytes": sum(p.layer.activation_bytes for p in found.parts),
            "artifact_bytes": found.size_bytes,
        },
        "depth": depth,
        "layers": layers,
        "blocks": _blocks(layers, peak),
        "elsewhere": elsewhere,
        "findings": [text for _, text in sorted(_findings(layers, elsewhere, found), key=lambda f: -f[0])[:SHOWN]],
    }


def machine(peak: Peak) -> dict[str, Any]:
    """What the machine reached, and where its ridge lies."""
    return {
        "gflops": peak.flops / 1e9,
        "gigabytes_per_second": peak.bytes / 1e9,
        "ridge": peak.ridge,
        "threads": peak.threads,
        "method": "measured here, FP32: the fastest of many matrix products and of many copies beyond the caches",
    }


def _row(part: Part, peak: Peak, total: float, depth: int) -> dict[str, Any]:
    layer, twice = part.layer, part.redundancy
    return {
        "path": layer.path,
        "kind": layer.kind,
        "block": block_of(layer.path, depth),
        "parameters": layer.parameters,
        "weight_bytes": layer.weight_bytes,
        "artifact_bytes": part.held_bytes,
        "macs": layer.macs,
        "activation_bytes": layer.activation_bytes,
        "output_shape": list(layer.output_shape),
        "ms": part.ms,
        "share": part.ms / total if total else 0.0,
        "moved_bytes": part.moved_bytes,
        **_roof(layer.macs, part.moved_bytes, part.ms, peak),
        "operators": dict(part.operators),
        "redundancy": vars(twice) if twice else None,
    }


def _roof(macs: int, moved: int, ms: float, peak: Peak) -> dict[str, Any]:
    """Intensity (operations a byte), which peak bounds it, and how much of what that peak allows was reached."""
    intensity = 2 * macs / moved if macs and moved else None
    bound = peak.bound(intensity) if intensity is not None else "memory" if moved else None
    return {"intensity": intensity, "bound": bound, "of_peak": peak.least_ms(macs, moved) / ms if ms and moved else None}


def _blocks(layers: Sequence[Mapping[str, Any]], peak: Peak) -> list[dict[str, Any]]:
    """Layers added up by block, the slowest first."""
    members: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for layer in layers:
        members[layer["block"]].append(layer)
    blocks = []
    for path, rows in members.items():
        sums = {key: None if any(r[key] is None for r in rows) else sum(r[key] for r in rows) for key in SUMS}
        blocks.append({"path": path, "layers": len(rows), **sums, **_roof(sums["macs"] or 0, sums["moved_bytes"] or 0, sums["ms"] or 0.0, peak)})
    return sorted(blocks, key=lambda b: -b["ms"])


def _findings(layers: Sequence[Mapping[str, Any]], elsewhere: Sequence[Mapping[str, Any]], found: Anatomy) -> list[Finding]:
    return [*_where(layers), *_out_of_step(layers, found.macs), *_heavy(layers), *_outside(elsewhere), *_memory(layers), *_redundant(layers, found.parameters)]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['path'] or 'the model itself'} ({row['kind']})"


def _where(layers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """How few layers take half of the time. It is said first."""
    shares, count = 0.0, 0
    for row in layers:
        if shares >= 0.5:
            break
        shares, count = shares + row["share"], count + 1
    if not layers or not layers[0]["share"]:
        return []
    most = f"the slowest is {_name(layers[0])} with {layers[0]['share']:.0%}"
    return [(2.0, f"{count} of {len(layers)} layers take {shares:.0%} of the time; {most}." if count > 1 else f"One layer takes most of the time: {most}.")]


def _out_of_step(layers: Sequence[Mapping[str, Any]], macs: int) -> list[Finding]:
    """The layer whose time is farthest above its share of the multiply-adds."""
    gaps = [(row["share"] - row["macs"] / macs, row) for row in layers] if macs else []
    gap, row = max(gaps, key=lambda g: g[0], default=(0.0, None))
    if row is None or gap < FAR:
        return []
    why = "it moves bytes more than it computes" if row["bound"] == "memory" else "its shape suits the target badly, or its kernel is slow"
    return [(gap, f"{_name(row)} takes {row['share']:.0%} of the time for {row['macs'] / macs:.1%} of the multiply-adds: {why}.")]


def _heavy(layers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The layer whose bytes are farthest above its share of the time."""
    key = "artifact_bytes" if all(row["artifact_bytes"] is not None for row in layers) else "weight_bytes"
    held = sum(row[key] for row in layers)
    gaps = [(row[key] / held - row["share"], row) for row in layers] if held else []
    gap, row = max(gaps, key=lambda g: g[0], default=(0.0, None))
    if row is None or gap < FAR or 3 * row["share"] > row[key] / held:
        return []
    return [(gap, f"{_name(row)} holds {row[key] / held:.0%} of the weights' bytes and takes {row['share']:.0%} of the time: making it smaller saves bytes, little time.")]


def _outside(elsewhere: Sequence[Mapping[str, Any]]) -> list[Finding]:
    share = sum(row["share"] for row in elsewhere)
    if share < OPERATOR_HEAVY:
        return []
    most = max(elsewhere, key=lambda row: row["share"])
    what = "calls and the binding of inputs and outputs, which no smaller layer makes faster" if most["what"] == BETWEEN else f"{most['what']}, mostly"
    return [(share, f"{share:.0%} of the time is in no layer: {what}.")]


def _memory(layers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    share = sum(row["share"] for row in layers if row["bound"] == "memory")
    if share < 0.5:
        return []
    return [(share / 2, f"{share:.0%} of the time is in memory-bound layers: fewer bytes (int8, fewer channels) help there, fewer multiply-adds alone don't.")]


def _redundant(layers: Sequence[Mapping[str, Any]], parameters: int) -> list[Finding]:
    """The layer with the most parameters that its own weights say are not needed."""
    found: list[Finding] = []
    for row in layers:
        seen = row["redundancy"]
        share = row["parameters"] / parameters if parameters and seen else 0.0
        if not seen or share < FAR:
            continue
        if seen["rank"] is not None and seen["rank"] < LOW_RANK * seen["full_rank"]:
            found.append((share * (1 - seen["rank"] / seen["full_rank"]), f"{_name(row)} has {seen['rank']} of {seen['full_rank']} singular values that hold 99 % of its energy."))
        idle = seen["zero_channels"] + seen["duplicate_channels"]
        if idle:
            found.append((share, f"{_name(row)} has {seen['zero_channels']} channels of zeros and {seen['duplicate_channels']} that repeat another."))
    return found


def operators_account(taken: Sequence[OperatorTime], latency_ms: float) -> dict[str, Any]:
    """The same for an artifact without a task: by operator, and by type of operator."""
    inside = sum(median(o.block_ms) for o in taken)
    total = max(inside, latency_ms)
    rows: list[dict[str, Any]] = [
        {"name": o.name, "operator": o.operator, "ms": median(o.block_ms), "share": median(o.block_ms) / total if total else 0.0, "input_bytes": o.input_bytes}
        | {"output_bytes": o.output_bytes}
        for o in taken
    ]
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["operator"]].append(row)
    grouped = [{"operator": k, "count": len(v), **{key: sum(r[key] or 0 for r in v) for key in ("ms", "share", "input_bytes", "output_bytes")}} for k, v in kinds.items()]
    rest = total - inside
    elsewhere = [{"what": BETWEEN, "ms": rest, "share": rest / total if total else 0.0}]
    rows, grouped = (sorted(x, key=lambda r: -r["ms"]) for x in (rows, grouped))
    return {"total_ms": total, "operators": rows, "kinds": grouped, "elsewhere": elsewhere, "findings": _operator_findings(rows, grouped, elsewhere)}


def _operator_findings(rows: Sequence[Mapping[str, Any]], kinds: Sequence[Mapping[str, Any]], elsewhere: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    kind, slowest = kinds[0], rows[0]
    words = [
        f"{kind['operator']} takes {kind['share']:.0%} of the time, in {kind['count']} operators.",
        f"The slowest operator is {slowest['name'] or slowest['operator']} ({slowest['operator']}) with {slowest['share']:.0%}.",
    ]
    counts = Counter(row["operator"] for row in rows)
    converting = sum(row["share"] for row in rows if row["operator"] in ("QuantizeLinear", "DequantizeLinear", "Cast", "Transpose", "ReorderInput", "ReorderOutput"))
    if converting >= FAR:
        words.append(f"{converting:.0%} of the time goes into conversions between types and layouts.")
    elif _outside(elsewhere):
        words.append(_outside(elsewhere)[0][1])
    else:
        words.append(f"There are {sum(counts.values())} operators of {len(counts)} types.")
    return words
