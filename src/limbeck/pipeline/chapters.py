"""The parts of a run's story, each read from what the run kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from limbeck.core.evidence import Latency
from limbeck.evaluation.gates import intervals, percentiles
from limbeck.mechanics.watch import SHARE
from limbeck.pipeline.reading import Past, Product
from limbeck.pipeline.records import read_record
from limbeck.pipeline.store import digest
from limbeck.report.story import Calibration, ClassKept, Curve, Elsewhere, Kept, Layer, Limit, Missing, Model, Part, Profile, Quantile, Reliability, Slices, Step, Timing

NO_LAYERS = "Its layers are not kept in this run; `limbeck analyze` counts those of the task's models."
WATCHED = {
    "agreement": "agreement with the teacher",
    "missed": "missed of the teacher's right answers",
    "forgotten": "forgotten since the best epoch",
    "calibration_error": "calibration error",
}
ENDS = ("kept", "stopped", "diverged_at_step", "rate_scale", "ahead_of_teacher", "classes", "worst_class", "worst_class_kept")
NO_TERM = frozenset(("epoch", "validation", "teacher", *WATCHED, *ENDS))
WORST = 12  # classes that are shown
Data = Mapping[str, Any]


def model(name: str, data: Data, *, split: str) -> Model:
    """A candidate as `summary.json` has it."""
    latency, kernels = data.get("latency_ms") or {}, data.get("kernels") or {}
    return Model(
        name=name,
        split=split,
        metric=data["metric"]["value"],
        kept=kept(data.get("retention")),
        size_bytes=data["size_bytes"],
        download_bytes=data["download_bytes"],
        p50_ms=latency.get("p50"),
        p90_ms=latency.get("p90"),
        memory_bytes=data["peak_memory_bytes"],
        parameters=data["parameters"],
        macs=data["macs"],
        int8=kernels.get("int8"),
        floats=kernels.get("float"),
        operators=kernels.get("operators"),
    )


def kept(data: Data | None) -> Kept | None:
    if not data:
        return None
    return Kept(value=data["value"], bound=data["low"], **{k: data[k] for k in ("kind", "confidence", "samples", "split", "method") if k in data})


def limit(data: Data) -> Limit:
    """A verdict as the summary or the journal has it."""
    return Limit(gate=data["gate"], status=data["status"], reason=data.get("reason", ""), **{k: data.get(k) for k in ("limit", "measured", "low", "high")})


def slices(summary: Data) -> Slices | Missing:
    """Every slice of test, as the summary has it."""
    data = summary.get("behaviour")
    if not data:
        return Missing("This run was judged before slices were kept.")
    if not data["slices"]:
        return Missing(f"No slice is shown: {data['slices_note']}.")
    parts = tuple(Part(name=s["name"], samples=s["samples"], baseline=s["baseline"], final=s["candidate"], kept=kept(s["retention"]), note=s["note"]) for s in data["slices"])
    return Slices(parts=parts, confidence=data["confidence"], whole=kept(summary["retention"]), agreement=data["agreement"])


def calibration(summary: Data) -> Calibration | Missing:
    """Reliability of baseline and final on test, as the summary has it."""
    data = (summary.get("behaviour") or {}).get("calibration")
    if not data:
        return Missing("The rows of this metric don't hold how sure the model was, or this run was judged before they were kept.")
    models = [(n, data[k]) for n, k in (("baseline", "baseline"), ("final", "candidate")) if data[k]]
    told = tuple(_reliability(n, m) for n, m in models)
    increase = data.get("increase") or {}
    return Calibration(models=told, increase=increase.get("value"), increase_high=increase.get("high"))


def _reliability(name: str, data: Data) -> Reliability:
    counts = data.get("histogram") or {}
    bins = tuple((b["confidence"], b["accuracy"], b["count"]) for b in data["bins"])
    return Reliability(name=name, ece=data["ece"], high=data["high"], bins=bins, histogram=tuple(tuple(counts[k]) for k in ("right", "wrong") if k in counts))


def exported(past: Past, mark: str, name: str) -> Model | None:
    """What is known of an artifact without a summary: its bytes and its structure."""
    data = past.exports.get(mark)
    if data is None:
        return None
    size = sum(past.store.path(sha).stat().st_size for sha in data["artifact"]["files"].values() if past.store.path(sha).is_file())
    kernels = data.get("kernels") or {}
    counts = {"parameters": data.get("parameters"), "macs": data.get("macs"), "int8": kernels.get("int8"), "floats": kernels.get("float"), "operators": kernels.get("operators")}
    return Model(name=name, split="validation", size_bytes=size, **counts)


def steps_of_summary(summary: Data) -> tuple[Step, ...]:
    """Every stage of the plan, those that weren't reached too."""
    found = [_step(data) for data in summary["stages"]]
    rest = summary.get("plan", {}).get("stages", ())[len(found) :]
    return (*found, *(_not_reached(stage) for stage in rest))


def _step(data: Data) -> Step:
    made = model(data["name"], data, split="validation") if "size_bytes" in data else None
    gates = tuple(limit(v) for v in data["verdicts"])
    return Step(
        name=data["name"],
        technique=data["technique"],
        status=data["verdict"],
        model=made,
        gates=gates,
        seconds=data["seconds"],
        tries=data["tries"],
        error=data.get("error") or "",
    )


def _not_reached(stage: Data) -> Step:
    return Step(name=stage.get("name") or stage["technique"], technique=stage["technique"], status="not reached")


def steps_of_journal(past: Past, plan: Data) -> tuple[Step, ...]:
    """What the journal says so far of each stage of the plan that the run was last started with."""
    tried: dict[str, list[Data]] = {}
    for line in past.lines:
        data = line["data"]
        if line["event"] in ("stage", "stage broke"):
            tries = tried.setdefault(data["stage"], [])
            if data.get("attempt", 1) > 1 and tries:
                tries.pop()  # a gentler try takes the place of the one before
            tries.append(data)
    titles = [s.get("name") or s["technique"] for s in plan.get("stages", ())]
    left = {title: tried.get(title, [])[-titles.count(title) :] for title in titles}
    return tuple(_step_so_far(past, stage, left[title]) for stage, title in zip(plan.get("stages", ()), titles, strict=True))


def _step_so_far(past: Past, stage: Data, left: list[Data]) -> Step:
    if not left:
        return _not_reached(stage)
    data = left.pop(0)
    title, tries = data["stage"], data.get("attempt", 1)
    if "status" not in data:
        return Step(name=title, technique=stage["technique"], status="FAIL", error=data.get("error", ""), tries=tries)
    made = exported(past, data["artifact"], title)
    return Step(name=title, technique=stage["technique"], status=data["status"], model=made, gates=tuple(limit(v) for v in data["verdicts"]), tries=tries)


def timings(past: Past, marks: Sequence[str], names: Sequence[str], p50: float | None) -> tuple[tuple[Timing, ...], list[Any]] | None:
    """What was timed in turn at the verdict, and its blocks; where several timings fit, the one of this median of the baseline."""
    found = []
    for path in sorted((past.folder / "measurements").glob("latency-*.json")):
        record = read_record(path)
        if list(record["key"]["artifacts"]) == list(marks):
            data = past.store.get_json(record["object"])
            told = tuple(_timing(n, one) for n, one in zip(names, data, strict=True))
            found.append((abs(_median(told[0].samples_ms) - (p50 or 0.0)), told, [one["blocks"] for one in data]))
    return min(found, key=lambda f: f[0])[1:] if found else None


def _timing(name: str, data: Data) -> Timing:
    latency = Latency.of(data)
    shown, bounds, warm = percentiles(latency) or {}, intervals(latency) or {}, latency.warm_up
    quantiles = {n: Quantile(value_ms=value, low_ms=(bounds[n] or (None, None))[0], high_ms=(bounds[n] or (None, None))[1]) for n, value in shown.items() if value is not None}
    warm_up = f"{warm.inferences:,} in {warm.seconds:.2g} s" if warm else ""
    samples = tuple(float(s) for s in latency.samples)
    return Timing(name=name, samples_ms=samples, turns=len(latency.blocks), quantiles=quantiles, note=latency.note or "", anytime=latency.anytime, warm_up=warm_up)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


def curves(past: Past, control: str | None, names: Sequence[str] = ()) -> tuple[Curve, ...] | Missing:
    """Every training: of each stage and its recovery, of stages that broke, and of the control."""
    found = [*_of_stages(past, names), *_of_control(past, control, names)]
    return tuple(found) or Missing("Nothing was trained in this run, or nothing yet: no stage keeps a training.")


def _of_stages(past: Past, names: Sequence[str]) -> Iterator[Curve]:
    for line in past.lines:
        data = line["data"]
        if line["event"] == "stage broke" and data.get("curve"):
            yield curve(f"{data['stage']}: training that broke", data["curve"], note=data.get("error", ""))
        elif line["event"] == "stage":
            path = past.folder / "stages" / f"{past.store.path(data['key']).name}.json"
            claims = read_record(path)["claims"] if path.exists() else {}
            attempt = f", try {data['attempt']}" if data["attempt"] > 1 else ""
            left_out = "" if data["status"] == "PASS" else f"The stage came to {data['status']}; the run didn't go on from it."
            for name, rows in claims.items():
                if _is_history(rows):
                    yield curve(f"{data['stage']}{attempt}: {'training' if name == 'history' else name}", rows, note=left_out, names=names)


def _is_history(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(r, dict) and "epoch" in r for r in rows)


def _of_control(past: Past, control: str | None, names: Sequence[str]) -> Iterator[Curve]:
    if control is None:
        return
    made = {r["key"]["candidate"] for r in _measured(past, "export") if digest(past.store.get_json(r["object"])["artifact"]) == control}
    for path in sorted((past.folder / "stages").glob("*.json")):
        record = read_record(path)
        if record.get("stage") == "control" and record["candidate"] in made and _is_history(record["claims"].get("history")):
            yield curve("control: training without a teacher", record["claims"]["history"], names=names)
            return


def _measured(past: Past, kind: str) -> Iterator[Data]:
    for path in sorted((past.folder / "measurements").glob(f"{kind}-*.json")):
        yield read_record(path)


def curve(title: str, rows: Iterable[Data], *, note: str = "", names: Sequence[str] = ()) -> Curve:
    """Rows of one training, by column. Rows after a divergence hold the epoch in which it came. `names` are those of the classes."""
    rows = list(rows)
    fell = [r for r in rows if "diverged_at_step" in r]
    kept_rows = [r for r in rows if "diverged_at_step" not in r] or rows

    def column(name: str) -> tuple[float | None, ...]:
        return tuple(_finite(r.get(name)) for r in kept_rows) if any(name in r for r in kept_rows) else ()

    found = [n for n in dict.fromkeys(k for r in rows for k in r) if n not in NO_TERM]
    terms = sorted((n for n in found if " of " not in n), key=lambda n: n != "loss")  # the sum first, then its terms
    if len(terms) == 2 and all(r.get(terms[0]) == r.get(terms[1]) for r in rows):
        terms = terms[1:]  # a sum of one term is that term
    ended = next((r for r in reversed(kept_rows) if "kept" in r), {})
    classes = classes_kept(ended.get("classes") or (), names)
    return Curve(
        title=title,
        epochs=tuple(float(r["epoch"]) for r in kept_rows),
        terms={n: column(n) for n in terms},
        validation=column("validation"),
        teacher=column("teacher"),
        shares={n.removeprefix(SHARE): column(n) for n in found if n.startswith(SHARE)},
        watched={shown: column(name) for name, shown in WATCHED.items() if column(name)},
        others={n: column(n) for n in found if " of " in n and not n.startswith(SHARE)},
        classes=classes[:WORST],
        classes_total=len(classes),
        note=" ".join([*([note] if note else []), *(f"Diverged at step {r['diverged_at_step']:.0f}." for r in fell), *_told(kept_rows, ended)]),
    )


def _told(rows: Sequence[Data], ended: Data) -> Iterator[str]:
    """What is to be said of how a training ended."""
    if rows and "stopped" in rows[-1]:
        yield f"The guard ended it after epoch {rows[-1]['epoch']:.0f}, which had forgotten {rows[-1]['forgotten']:.1%} of what was right after epoch {ended['epoch']:.0f}."
    elif ended and ended is not rows[-1]:
        yield f"The weights are those of epoch {ended['epoch']:.0f}, the best on validation."
    if "ahead_of_teacher" in ended:
        yield f"The teacher is worse on validation ({ended['teacher']:.4g}) than the student ({ended['validation']:.4g}): its answers may hold the student back."


def classes_kept(rows: Iterable[Sequence[int]], names: Sequence[str] = ()) -> tuple[ClassKept, ...]:
    """Classes as a training's rows hold them, the one that lost most first; those of which the teacher has none right come last."""
    found = [ClassKept(name=names[k] if 0 <= k < len(names) else str(k), samples=n, teacher=before, student=own) for k, n, before, own in rows]
    return tuple(sorted(found, key=lambda c: (c.teacher == 0, c.student / c.teacher if c.teacher else 0)))


def _finite(value: Any) -> float | None:
    """A number, or None for what isn't one: NaN and Inf have no place on an axis."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < float("inf") else None


def profiles(past: Past, marks: Sequence[tuple[str, str]]) -> tuple[Profile, ...] | Missing:
    """The layers of these artifacts (name, mark), as they were counted at their export."""
    found = []
    for name, mark in marks:
        data = past.exports.get(mark)
        if data is not None:
            layers = data.get("layers")
            told = tuple(_layer(x) for x in layers) if layers else Missing(NO_LAYERS)
            found.append(Profile(name=name, layers=told, parameters=data.get("parameters"), macs=data.get("macs")))
    return tuple(found) or Missing("Nothing was exported yet, so there is nothing to profile.")


def _layer(data: Data) -> Layer:
    return Layer(path=data["path"], kind=data["kind"], parameters=data["parameters"], macs=data["macs"], shape=tuple(data.get("output_shape") or ()))


def elsewhere(rows: Iterable[Data]) -> tuple[Elsewhere, ...]:
    """Evidence from other devices, as the summary lists it."""
    found = []
    for row in rows:
        latency = row.get("latency_ms") or {}
        machine = ", ".join(str(v) for v in row.get("machine", {}).values())
        found.append(
            Elsewhere(
                machine=machine, p50_ms=latency.get("p50"), p90_ms=latency.get("p90"), memory_bytes=row.get("peak_memory_bytes"), used=row["used"], when=str(row.get("time") or "")
            )
        )
    return tuple(found)


def mark_of(past: Past, artifact: str) -> str | None:
    """The mark of an artifact from the folder in which it is laid out, as in artifacts/<16 digits>/model.onnx."""
    parts = artifact.split("/")
    return next((m for m in sorted(past.exports) if len(parts) > 1 and m[:16] == parts[1]), None)


def last_passed(past: Past) -> Product | None:
    """The last product that passed its gate, but for the baseline."""
    return next((p for p in reversed(past.products) if p.status == "PASS" and p.stage != "baseline"), None)
