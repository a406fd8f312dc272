"""Evidence from another device: recorded in the run as a measurement, and used where the target says `host = "imported"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, RunError
from limbeck.core.evidence import Latency, Status, Verdict, exit_code, worst
from limbeck.core.files import write
from limbeck.core.seal import sealed
from limbeck.evaluation.gates import LATENCIES, Examined, at_most, intervals, percentile_at_most, percentiles, speedup
from limbeck.package.evidence import Elsewhere, parsed, read_evidence
from limbeck.package.manifest import artifact_hash
from limbeck.pipeline.journal import FIRST, Journal, line_hash
from limbeck.pipeline.lock import locked
from limbeck.pipeline.reading import AFTER, Past, opened
from limbeck.pipeline.records import record
from limbeck.pipeline.store import Store, digest

EVENT = "evidence"
WAITING = "not measured on the device yet: `limbeck package`, `predict.py --measure` there, then `limbeck evidence import`"
NO_BASELINE = "the evidence has no baseline to compare with: package with --with-baseline and measure again"


def import_evidence(folder: Path, file: Path) -> dict[str, Any]:
    """Record what `predict.py --measure` wrote as a measurement of this run, and judge the contract again where it counts.

    It counts for the final artifact of a run whose target has `host = "imported"`; else it is kept and shown, and says why.

    Returns: verdict, exit_code, contract, `used`, notes.
    Raises: ConfigError if it is no evidence, of another artifact, or for other threads or batch; RunError if the run isn't at its end or was changed.
    """
    measured, data = read_evidence(file)
    opened(folder)
    with locked(folder):
        run = opened(folder)
        if run.summary is None or run.summary["verdict"] == "REFUSED" or not _ended(run):
            raise RunError(f"{folder} has no verdict yet that evidence could change ({run.state}). Start its command again until it has one.")
        mark = _mark_of(run, measured.artifact, file, "artifact")
        baseline = _baseline_mark(run, measured, file)
        _fits(run, measured, file)
        final = next(x["data"]["final"] for x in reversed(run.lines) if x["event"] == "verdict")
        used = run.summary["target"]["host"] == "imported" and mark == final
        key = {"artifact": mark, "baseline": baseline, "evidence": digest(data)}
        sha = run.store.put_json(data)
        write(folder / "measurements" / f"imported-{digest(['imported', key])[:32]}.json", record({"kind": "imported", "key": key, "object": sha}))
        journal = Journal(folder / "journal.jsonl")
        again = any(line["event"] == EVENT and line["data"]["object"] == sha for line in journal.lines)
        journal.record(EVENT, artifact=mark, baseline=baseline, object=sha, machine=dict(measured.machine), used=used)
        summary = _judged_again(run, journal, used=used)
        raw = sealed(summary)
        write(folder / "summary.json", raw)
    notes = _notes(run, measured, mark=mark, final=final, again=again)
    shown = {k: summary[k] for k in ("run", "verdict", "exit_code", "contract")}
    return {"schema": 1, **shown, "used": used, "artifact": measured.artifact, "machine": dict(measured.machine), "latency_ms": percentiles(measured.latency), "notes": notes}


def _ended(run: Past) -> bool:
    """Whether the run has its verdict; an import that was killed may have left lines after it."""
    heads = [FIRST, *map(line_hash, run.lines)]
    anchor = (run.summary or {}).get("journal_head")
    return anchor in heads and all(line["event"] in {*AFTER, EVENT, "verdict"} for line in run.lines[heads.index(anchor) :])


def _mark_of(run: Past, sha: str, file: Path, what: str) -> str:
    """The mark under which the run knows the artifact of this hash. Raises ConfigError."""
    found = {artifact_hash(data["artifact"]["files"]): mark for mark, data in run.exports.items()}
    if sha not in found:
        known = ", ".join(f"{p.stage} {h[:12]}" for p in run.products for h, m in found.items() if m == p.mark)
        raise ConfigError(f"{file} is of {what} {sha[:12]}, which is no artifact of {run.folder} ({known}). Import it into the run that the package was made from.")
    return found[sha]


def _baseline_mark(run: Past, measured: Elsewhere, file: Path) -> str | None:
    if measured.baseline is None:
        return None
    mark = _mark_of(run, measured.baseline, file, "baseline")
    if mark != run.baseline.mark:
        raise ConfigError(f"{file} was timed in turn with {measured.baseline[:12]}, which is not the baseline of {run.folder}. Measure with a package of this run.")
    return mark


def _fits(run: Past, measured: Elsewhere, file: Path) -> None:
    """Raises ConfigError if it was measured otherwise than the run's target says."""
    target = (run.summary or {})["target"]
    for name in ("runtime", "threads", "batch"):
        if getattr(measured, name) != target[name]:
            raise ConfigError(f"{file} was measured with {name} {getattr(measured, name)}, and the run's target has {target[name]}. Measure with the package as it is.")


def found(store: Store, lines: Iterable[Mapping[str, Any]], mark: str) -> Elsewhere | None:
    """The last evidence that was imported for the artifact of this mark, or None."""
    sha = next((x["data"]["object"] for x in reversed(list(lines)) if x["event"] == EVENT and x["data"]["artifact"] == mark), None)
    return parsed(store.get_json(sha), where=f"object {sha[:12]}") if sha else None


def shown(store: Store, lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All evidence that was imported, in order, for the summary."""
    rows = []
    for line in lines:
        if line["event"] == EVENT:
            one = parsed(store.get_json(line["data"]["object"]), where=f"object {line['data']['object'][:12]}")
            figures = {"latency_ms": percentiles(one.latency), "peak_memory_bytes": one.peak_memory_bytes, "disturbed": one.latency.disturbed}
            rows.append({"artifact": line["data"]["artifact"], "used": line["data"]["used"], "machine": dict(one.machine), "time": one.time, **figures})
    return rows


def applied(measured: Elsewhere | None, *, baseline: Examined, final: Examined, verdicts: Sequence[Verdict]) -> tuple[Examined, Examined, tuple[Verdict, ...]]:
    """Baseline, final and the contract's verdicts with what was measured elsewhere; without any, the verdicts that wait for it say so."""
    if measured is not None:
        final = _with(final, measured.latency, measured.peak_memory_bytes)
        baseline = _with(baseline, measured.baseline_latency, measured.baseline_memory_bytes)
    return baseline, final, judged(verdicts, measured)


def _with(examined: Examined, latency: Latency | None, memory: int | None) -> Examined:
    figures = {"latency_ms": percentiles(latency), "latency_interval_ms": intervals(latency), "latency_note": latency.note if latency else None}
    return replace(examined, latency=latency, evidence=replace(examined.evidence, **figures, peak_memory_bytes=memory))


def judged(verdicts: Iterable[Verdict], measured: Elsewhere | None) -> tuple[Verdict, ...]:
    """The verdicts on what only the device can tell, from its evidence; the others as they are."""
    return tuple(_one(v, measured) for v in verdicts)


def _one(verdict: Verdict, measured: Elsewhere | None) -> Verdict:
    gate, limit = verdict.gate, verdict.limit
    if gate not in (*LATENCIES, "speedup_p50", "peak_memory_bytes") or limit is None:
        return verdict
    if measured is None:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason=WAITING)
    if gate == "peak_memory_bytes":
        return at_most(measured.peak_memory_bytes, limit, gate=gate)
    if gate == "speedup_p50":
        if measured.baseline_latency is None:
            return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason=NO_BASELINE)
        return speedup(measured.baseline_latency, measured.latency, limit, gate=gate)
    return percentile_at_most(measured.latency, limit, q=LATENCIES[gate], gate=gate)


def _judged_again(run: Past, journal: Journal, *, used: bool) -> dict[str, Any]:
    """The summary with the evidence in it: the same that the run's own command would write now."""
    summary = dict(run.summary or {})
    last = next(x["data"] for x in reversed(run.lines) if x["event"] == "verdict")
    if used:
        measured = found(run.store, journal.lines, last["final"])
        verdicts = judged([Verdict(**{**v, "status": Status(v["status"])}) for v in summary["contract"]], measured)
        status = worst(verdicts)
        data = [{k: v for k, v in vars(one).items() if v is not None} for one in verdicts]
        journal.record("verdict", final=last["final"], control=last["control"], status=status, verdicts=data)
        final = summary["final"] | _figures(measured.latency, measured.peak_memory_bytes) if measured else summary["final"]
        baseline = summary["baseline"] | _figures(measured.baseline_latency, measured.baseline_memory_bytes) if measured else summary["baseline"]
        summary |= {"verdict": str(status), "exit_code": exit_code(status), "contract": data, "final": final, "baseline": baseline}
        summary |= {"ratios": summary["ratios"] | {f"latency_{p}": _ratio(baseline, final, p) for p in ("p50", "p90")}}
        summary |= {"closest": None if status is Status.PASS else summary["closest"]}
    return summary | {"imported": shown(run.store, journal.lines), "journal_head": journal.head}


def _figures(latency: Latency | None, memory: int | None) -> dict[str, Any]:
    shown = {name: list(bounds) if bounds else None for name, bounds in (intervals(latency) or {}).items()} or None
    return {"latency_ms": percentiles(latency), "latency_interval_ms": shown, "latency_note": latency.note if latency else None, "peak_memory_bytes": memory}


def _ratio(baseline: Mapping[str, Any], final: Mapping[str, Any], percentile: str) -> float | None:
    slow, fast = ((e["latency_ms"] or {}).get(percentile) for e in (baseline, final))
    return slow / fast if slow and fast else None


def _notes(run: Past, measured: Elsewhere, *, mark: str, final: str, again: bool) -> list[str]:
    """What a reader should know of how this evidence counts."""
    notes = []
    target = (run.summary or {})["target"]
    if target["host"] != "imported":
        notes.append('kept and shown; the verdicts stay those measured here, because the target has host = "local"')
    elif mark != final:
        stage = next((p.stage for p in run.products if p.mark == mark), "the baseline's twin")
        notes.append(f"kept and shown; it is of stage '{stage}', and the contract is judged on the final artifact")
    if measured.baseline_latency is None:
        notes.append(f"speedup: {NO_BASELINE}")
    if measured.latency.disturbed:
        notes.append("other work on that machine, or a pause of it, is in the figures; consider measuring again")
    if again:
        notes.append("this evidence was imported before")
    return notes
