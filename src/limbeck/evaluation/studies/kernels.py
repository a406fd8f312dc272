"""What really runs in int8, by the runtime's own profile: how much of the time, what stayed float in silence, and the bytes that were saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from limbeck.core.candidate import Artifact
from limbeck.evaluation import measure
from limbeck.evaluation.studies.study import Data, Setting, Study
from limbeck.runtimes import runtime
from limbeck.runtimes.card import Node, OperatorTime, Sources
from limbeck.runtimes.onnxruntime import FLOAT, INT8
from limbeck.runtimes.profiling import LAYOUT

INTEGER, FLOATING, CONVERT, PACK, OTHER = "int8", "float", "convert", "layout", "other"
KINDS = {
    INTEGER: "computes in 8-bit integers",
    FLOATING: "multiplies in floating point",
    CONVERT: "quantizes or dequantizes",
    PACK: "changes the layout, put in by the runtime",
    OTHER: "all else",
}
CONVERTS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
MOST = 100  # kernels that are listed, the slowest
FEWEST_RUNS, MOST_RUNS, MOST_EVENTS = 2, 20, 40_000  # inferences in a block; operators in one profile, so that its file stays small
MOSTLY = 0.5  # of the time of products, below which a quantized model computes mostly in float


def take(setting: Setting) -> Data:
    """Figures: see docs/studies/kernels.md."""
    artifact = setting.candidate.artifact
    card = runtime(artifact.runtime)
    if card.operators is None:
        return {}
    runs = _runs(setting, (setting.candidate.kernels or card.describe(artifact))["operators"])
    taken, disturbed = measure.operators(artifact, setting.feed, threads=setting.target.threads, runs=runs, stop=setting.stop)
    rows = _rows(artifact, taken)
    total = sum(r["ms"] for r in rows)
    for row in rows:
        row["share"] = row["ms"] / total if total else 0.0
    rows.sort(key=lambda r: (-r["ms"], r["name"]))
    weights = _weights(setting)
    silent = [r for r in rows if r["kind"] == FLOATING and r["quantized"]]
    told = {
        "runtime": artifact.runtime,
        "inferences": measure.BLOCKS * runs,
        "disturbed": disturbed,
        "total_ms": total,
        "kinds": _kinds(rows, total),
        "kernels": rows[:MOST],
        "silently_float": silent,
        "silently_float_share": sum(r["share"] for r in silent),
        "weights": weights,
    }
    return told | _finding(told)


def _runs(setting: Setting, operators: Mapping[str, int]) -> int:
    """Inferences a block, so that the profile takes about the seconds that there are, and its file stays small."""
    latency = setting.candidate.latency
    by_time = setting.seconds * 1e3 / max(median(latency.samples), 1e-3) / measure.BLOCKS if latency else FEWEST_RUNS
    by_size = MOST_EVENTS / max(1, sum(operators.values())) / measure.BLOCKS
    return int(min(max(min(by_time, by_size), FEWEST_RUNS), MOST_RUNS))


def _rows(artifact: Artifact, taken: Sequence[OperatorTime]) -> list[dict[str, Any]]:
    """Each kernel that ran, with the module (else the node) that it came from, and whether that node's weights are stored as integers."""
    from limbeck.evaluation.graph.inside import inside, path_of
    from limbeck.runtimes.onnxruntime import modules

    found = inside(artifact)
    nodes = tuple(Node(n.name or n.output[0], n.op_type, tuple(n.input), tuple(n.output), n.name or n.output[0]) for n in found.model.graph.node if n.output)
    products = {p.node: p for p in found.products}
    rows = []
    for operator, origin in zip(taken, modules(artifact, Sources(nodes, {}, {}), taken), strict=True):
        product = products.get(origin or "")
        module = path_of(product.weight, product.node) if product else origin
        quantized = bool(product and product.quantized)
        rows.append(
            {"name": operator.name, "operator": operator.operator, "kind": kind(operator.operator), "module": module, "quantized": quantized, "ms": median(operator.block_ms)}
        )
    return rows


def kind(operator: str) -> str:
    """To which of `KINDS` an operator of the runtime's graph belongs."""
    if operator in INT8 or operator.startswith("QLinear"):
        return INTEGER
    return FLOATING if operator in FLOAT else CONVERT if operator in CONVERTS else PACK if operator in LAYOUT else OTHER


def _kinds(rows: Sequence[Mapping[str, Any]], total: float) -> list[Data]:
    spent: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        spent[row["kind"]].append(row["ms"])
    return [{"kind": k, "what": what, "kernels": len(spent[k]), "ms": sum(spent[k]), "share": sum(spent[k]) / total if total else 0.0} for k, what in KINDS.items()]


def _weights(setting: Setting) -> Data:
    """Bytes of the file's constants, those stored as 8-bit integers or less, and what they were in the baseline."""
    from limbeck.evaluation.graph.inside import weight_bytes

    whole, integers = weight_bytes(setting.candidate.artifact)
    before = setting.baseline.artifact if setting.baseline else None
    other = weight_bytes(before)[0] if before is not None and before.runtime == setting.candidate.artifact.runtime else None
    saved = None if other is None else other - whole
    return {"bytes": whole, "integer_bytes": integers, "baseline_bytes": other, "saved_bytes": saved, "saved_share": saved / other if saved is not None and other else None}


def _finding(told: Mapping[str, Any]) -> Data:
    """The sentence that matters, and whether it is a warning."""
    share = {k["kind"]: k for k in told["kinds"]}
    products = share[INTEGER]["ms"] + share[FLOATING]["ms"]
    integer = share[INTEGER]["ms"] / products if products else None
    quantized = bool(told["weights"]["integer_bytes"]) or share[INTEGER]["kernels"] > 0
    warning = bool(quantized and (told["silently_float"] or integer is None or integer < MOSTLY))
    if not quantized:
        text = "nothing in this file is quantized, and no kernel runs in int8"
    elif integer is None:
        text = "weights are stored as integers, but no kernel multiplies"
    else:
        text = f"{integer:.0%} of the time of kernels that compute is in int8"
        if told["silently_float"]:
            text += f"; {len(told['silently_float'])} stayed float though their weights are quantized, {told['silently_float_share']:.0%} of all time"
        if integer < MOSTLY:
            text += ": this model computes mostly in float"
    return {"quantized": quantized, "int8_share": integer, "warning": warning, "finding": text}


def why_not(setting: Setting) -> str:
    """Why it can't be made; empty where it can."""
    name = setting.candidate.artifact.runtime
    return "" if runtime(name).operators else f"'{name}' has no profiler that tells its kernels apart"


KERNELS = Study(
    name="kernels",
    summary="which kernels run in int8, what stayed float, and the bytes saved",
    take=take,
    why_not=why_not,
    here=True,
)
