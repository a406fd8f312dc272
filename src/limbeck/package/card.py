"""The model card: what the model is, what was measured of it and how, where it ends. From the manifest alone; nothing is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from limbeck.package.manifest import Manifest

NAME = "MODEL_CARD.md"
HEADLINES = {
    "PASS": "It honours its contract.",
    "FAIL": "**It does not honour its contract.** What fails stands below.",
    "INCONCLUSIVE": "**Its contract is not decided:** the samples are too few. What is open stands below.",
    "ANOMALOUS": "**Something is too good to be true.** Look at it before you deploy this.",
    "UNVERIFIED": "**Its contract is not decided:** something was not measured where it is promised. What is open stands below.",
}


def model_card(manifest: Manifest) -> bytes:
    """The card as Markdown."""
    parts = [
        f"# {_plain(manifest.name)}",
        HEADLINES.get(manifest.verdict, "") if manifest.lineage["final"] else _of_stage(manifest),
        _what(manifest),
        "## How good",
        _quality(manifest.figures, manifest.lineage["final"]),
        "## Contract" if manifest.lineage["final"] else "## The stage's gate",
        _verdicts(manifest.verdicts),
        "## How it was measured",
        _how(manifest),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(manifest)),
        "## Use",
        _use(manifest),
        "## Where it comes from",
        _origin(manifest),
    ]
    return ("\n\n".join(p for p in parts if p) + "\n").encode()


def _of_stage(manifest: Manifest) -> str:
    stage = _plain(manifest.lineage["stage"])
    return f"**An intermediate model:** what stage '{stage}' made, judged on validation by its gate ({manifest.verdict}). The contract was not judged for it."


def _what(manifest: Manifest) -> str:
    figures, base = manifest.figures, manifest.figures.get("baseline") or {}
    kernels, size = figures.get("kernels") or {}, manifest.artifact.size_bytes
    smaller = f" ({base['size_bytes'] / size:.1f}× smaller than the baseline)" if base else ""
    rows = [
        ("artifact", f"`{manifest.artifact.path}`, {size:,} bytes{smaller}"),
        ("download", f"{figures['download_bytes']:,} bytes, compressed" if figures.get("download_bytes") else "not measured"),
        ("runtime", f"{manifest.runtime}, {manifest.target.get('threads')} thread(s), batch {manifest.target.get('batch')}"),
        ("parameters", f"{figures['parameters']:,}" if figures.get("parameters") else "not counted"),
        ("multiply-accumulates of one sample", f"{figures['macs']:,}" if figures.get("macs") else "not counted"),
        ("kernels", f"{kernels['int8']} in int8, {kernels['float']} in float" if "int8" in kernels else "not counted"),
        ("inputs", "; ".join(f"`{p.name}` {p.dtype} [{', '.join('any' if s is None else str(s) for s in p.shape)}]" for p in manifest.inputs)),
        ("outputs", ", ".join(f"`{o}`" for o in manifest.outputs)),
    ]
    return _table(("", ""), rows)


def _quality(figures: Mapping[str, Any], final: bool) -> str:
    metric, kept, base = figures.get("metric") or {}, figures.get("retention"), (figures.get("baseline") or {}).get("metric") or {}
    if metric.get("value") is None:
        return "It was not measured."
    split = kept["split"] if kept and "split" in kept else "test" if final else "validation"
    lines = [f"{metric['name']} {metric['value']:.4f} on the {split} split" + (f"; the baseline has {base['value']:.4f}." if final and base.get("value") is not None else ".")]
    if kept:
        ratio = kept["kind"] == "ratio"
        what = f"It keeps {kept['value']:.4f} of the baseline, at least {kept['low']:.4f}" if ratio else f"It loses {kept['value']:.4f}, at most {kept['low']:.4f}"
        lines.append(f"{what} ({kept['confidence']:.0%} bound, {kept['method']}, {kept['samples']:,} samples).")
    return "\n".join(lines)


def _verdicts(verdicts: Iterable[Mapping[str, Any]]) -> str:
    rows = [(_within(v["gate"]), f"{v['limit']:g}" if v.get("limit") is not None else "", v["status"], _within(v["reason"])) for v in verdicts]
    return _table(("limit", "", "verdict", "why"), rows) if rows else "No limit was judged."


def _how(manifest: Manifest) -> str:
    figures, where = manifest.figures, manifest.machine
    latency, base = figures.get("latency_ms") or {}, (figures.get("baseline") or {}).get("latency_ms") or {}
    lines = ["The artifact itself was judged, in its runtime" + ("; latency in turn with the baseline." if latency and base else "." if latency else "; latency was not measured.")]
    for name in ("p50", "p90"):
        if latency.get(name) is not None:
            lines.append(f"- {name}: {latency[name]:.3f} ms" + (f" (baseline {base[name]:.3f} ms)" if base.get(name) is not None else ""))
    if figures.get("peak_memory_bytes") is not None:
        lines.append(f"- peak memory above an empty session: {figures['peak_memory_bytes']:,} bytes")
    timed = "measured" if latency and not figures.get("imported") else "quality was measured"
    lines.append(f"- {timed} on {_plain(str(where.get('processor')))}, {where.get('cores')} cores, {_plain(str(where.get('system')))}")
    for one in figures.get("imported") or ():
        lines.append(f"- evidence from another device ({'used' if one['used'] else 'kept, not used'}): {_plain(str(one['machine'].get('processor')))}, {one['time']}")
    lines.append("- versions: " + ", ".join(f"{n} {v}" for n, v in manifest.versions.items()))
    return "\n".join(lines[:1]) + "\n\n" + "\n".join(lines[1:])


def _limits(manifest: Manifest) -> list[str]:
    lines = ["Quality was measured on the data of the fingerprint below; on other data nothing is claimed."]
    if manifest.figures.get("latency_ms"):
        lines.append("Latency and memory hold for the machine on which they were measured; `predict.py --measure` takes them elsewhere.")
    if manifest.golden:
        lines.append(f"`golden/` holds {manifest.golden.samples} samples of the validation data as they are, and the model's answers. {manifest.golden.why}")
    lines += [f"{name}: {why}." for name, why in manifest.absent.items()]
    looks = manifest.lineage.get("test_looks")
    if looks:
        lines.append(f"The test split was looked at {looks} time(s); a split that is looked at often is a validation split.")
    lines.append("The hashes in this package find damage; they are no signature.")
    return lines


def _use(manifest: Manifest) -> str:
    call = ", ".join(f"{p.name}=…" if p.name.isidentifier() else f'**{{"{p.name}": …}}' for p in manifest.inputs)
    code = f"```python\nfrom predict import Model\n\noutputs = Model().predict({call})\n```"
    return f"{code}\n\n`python predict.py --self-test` checks this package here. Inputs are what `preprocess.json` says."


def _origin(manifest: Manifest) -> str:
    lineage = manifest.lineage
    stages = " → ".join(f"{_plain(s.get('name') or s['technique'])}" for s in lineage["plan"].get("stages", ())) or "none"
    data = lineage["data"]
    rows = [("run", _plain(lineage["run"])), ("stage", _plain(lineage["stage"])), ("plan", stages), ("seed", str(lineage["seed"]))]
    rows += [(name, f"`{lineage[name]}`") for name in ("candidate", "teacher", "journal_head")]
    rows += [(f"data: {_plain(n)}", f"`{sha}`") for n, sha in data.items()]
    return _table(("", ""), [("artifact", f"`{manifest.artifact.sha256}`"), *rows])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _within(text: str) -> str:
    """Text of which a part may come from outside (the name of a slice), for a cell, which escapes its own bars."""
    return "".join(f"\\{c}" if c in "\\`*[]<>#" else c for c in text)


def _plain(text: str) -> str:
    """Names come from outside: they stay text in Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in text.replace("\n", " "))
