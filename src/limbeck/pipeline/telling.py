"""A run folder, finished, refused or under way, read into a story; and the report of it, written beside the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.contract import SETTINGS, flat
from limbeck.core.errors import ConfigError, LimbeckError
from limbeck.core.files import write
from limbeck.core.task import Task
from limbeck.intake.classes import class_names
from limbeck.intake.fingerprint import fingerprint
from limbeck.intake.load import load_task
from limbeck.intake.runfile import read_runfile
from limbeck.pipeline import chapters, flips, samples
from limbeck.pipeline.reading import REPORT, Past, opened
from limbeck.pipeline.records import read_record
from limbeck.report.page import page
from limbeck.report.story import Headline, Limit, Missing, Model, Reproduce, Story
from limbeck.stats.latency import median_ratio

UNCHANGED = "No stage passed its gate, so the final model is the baseline itself, and no sample changed."
NOT_JUDGED = Missing("It is measured at the verdict, and this run has none.")


def report(folder: Path, *, out: Path | None = None, task: Task | None = None, show_samples: bool = True) -> dict[str, Any]:
    """Write the report of a run; by default as report.html in its folder.

    Args:
        task: Whose test samples are shown; by default the one that the run file of the run names, where it is still there.
    Raises: ConfigError if it is no run folder, or `out` is a folder; RunError if the run is damaged; TaskError if the task's code fails.
    """
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out} is a folder. Name a file in it, as in {out / REPORT}.")
    path = out or folder / REPORT
    story = tell(folder, task=task, show_samples=show_samples)
    data = page(story)
    write(path, data)
    why = story.flips.why if isinstance(story.flips, Missing) else story.flips.why_no_samples
    return {
        "schema": 1,
        "run": story.run,
        "state": story.state,
        "file": str(path),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "samples": not why,
        "samples_note": why or None,
    }


def tell(folder: Path, *, task: Task | None = None, show_samples: bool = True) -> Story:
    """All that a report tells of this run. Raises: as `report`."""
    past = opened(folder)
    asked = next((x["data"] for x in reversed(past.lines) if x["event"] == "run"), {})
    if past.finished and past.summary is not None:
        if past.summary["verdict"] == "REFUSED":
            return _refused(past, past.summary, asked)
        return _finished(past, past.summary, asked, task, show_samples)
    return _under_way(past, asked)


def _finished(past: Past, summary: Mapping[str, Any], asked: Mapping[str, Any], task: Task | None, show_samples: bool) -> Story:
    names = ["baseline", "final", *(["control"] if summary["control"] else [])]
    judged = tuple(chapters.model(n, summary[n] | ({"retention": summary["retention"]} if n == "final" else {}), split="test") for n in names)
    marks = {n: chapters.mark_of(past, summary[n]["artifact"]) for n in names}
    known = [m for m in marks.values() if m]
    unchanged = marks["final"] is not None and marks["final"] == marks["baseline"]
    timed = chapters.timings(past, known, names, judged[0].p50_ms) if len(known) == len(names) else None
    data = summary.get("environment", {}).get("data", {})
    rows = [flips.kept_rows(past, marks[n] or "", data.get("test", ""), data.get("code", "")) for n in ("baseline", "final")]
    shower = _shower(past, summary, data.get("test", ""), task) if show_samples else flips.Shower(why="they were left out on request (--no-samples).")
    return Story(
        **_common(past, summary, asked),
        state=summary["verdict"],
        metric_name=summary["baseline"]["metric"]["name"] or "metric",
        headline=_headline(summary, timed, unchanged=unchanged),
        contract=tuple(chapters.limit(v) for v in summary["contract"]),
        steps=chapters.steps_of_summary(summary),
        judged=judged,
        validation=_baseline(past, summary["baseline"], marks["baseline"]),
        timings=timed[0] if timed else Missing("Nothing was timed at the verdict: the target is another device, or the timing is not in this run."),
        flips=Missing(UNCHANGED) if unchanged else flips.flips(rows[0], rows[1], shower),
        confusion=flips.confusion(rows[0], rows[1], shower),
        slices=chapters.slices(summary),
        calibration=chapters.calibration(summary),
        studies=tuple((summary.get("studies") or {}).items()),
        curves=chapters.curves(past, marks.get("control"), shower.names),
        profiles=chapters.profiles(past, [(n, m) for n, m in marks.items() if m and n != "control"]),
        elsewhere=chapters.elsewhere(summary.get("imported") or ()),
        control_note=summary.get("control_note") or "",
        chosen_note="Final is {stage}: {why}.".format(**summary["chosen"]) if summary.get("chosen") else "",
    )


def _headline(summary: Mapping[str, Any], timed: Any, *, unchanged: bool) -> Headline:
    ratios, closest = summary["ratios"], summary["closest"]
    speed = median_ratio(timed[1][0], timed[1][1]) if timed else None
    settled = speed is not None and speed.low > 0  # with too few turns there is no interval
    said = f"Closest to the contract: stage {closest['stage']}, its worst violation {100 * closest['violation']:.1f} %." if closest else ""
    return Headline(
        size_ratio=ratios["size"],
        faster=speed.value if speed else ratios["latency_p50"],
        faster_low=speed.low if speed and settled else None,
        faster_high=speed.high if speed and settled else None,
        kept=chapters.kept(summary["retention"]),
        looks=summary["test_looks"],
        looks_note=(summary.get("look") or {}).get("note", ""),
        reason=UNCHANGED if unchanged else "",
        closest=said,
    )


def _baseline(past: Past, data: Mapping[str, Any] | None, mark: str | None) -> Model | None:
    """The baseline as stages are compared with it: its metric on validation, from the journal; the rest doesn't depend on the split."""
    line = next((x["data"] for x in reversed(past.lines) if x["event"] == "baseline" and (mark is None or x["data"].get("artifact") == mark)), None)
    if line is None:
        return None
    told = chapters.exported(past, line["artifact"], "baseline") or Model(name="baseline", split="validation")
    fields = {**vars(told), "metric": line.get("metric"), "download_bytes": data["download_bytes"] if data else None}
    return Model(**fields)


def _refused(past: Past, summary: Mapping[str, Any], asked: Mapping[str, Any]) -> Story:
    why = Missing("The run was refused before anything was trained.")
    refusal = summary["refusal"]
    return Story(
        **_common(past, summary, asked),
        state="REFUSED",
        metric_name="metric",
        headline=Headline(reason=refusal["reason"], fix=refusal["fix"]),
        **_limits_so_far(past, summary.get("limits", {})),
        steps=chapters.steps_of_summary(summary),
        judged=(),
        validation=_baseline(past, None, None),
        timings=why,
        flips=why,
        confusion=why,
        curves=chapters.curves(past, None),
        profiles=chapters.profiles(past, [(p.stage, p.mark) for p in past.products[:1]]),
    )


def _under_way(past: Past, asked: Mapping[str, Any]) -> Story:
    last = chapters.last_passed(past)
    marks = [(p.stage, p.mark) for p in (*past.products[:1], *([last] if last else []))]
    broke = next((x["data"]["error"] for x in reversed(past.lines[-1:]) if x["event"] == "broke"), "")
    return Story(
        **_common(past, {}, asked),
        state=past.state,
        metric_name="metric",
        headline=Headline(reason=broke, fix="Start the run's command again to go on." if past.state == "interrupted" else ""),
        **_limits_so_far(past, flat(asked.get("contract", {}))),
        steps=chapters.steps_of_journal(past, asked.get("plan", {})),
        judged=(),
        validation=_baseline(past, None, None),
        timings=NOT_JUDGED,
        flips=NOT_JUDGED,
        confusion=NOT_JUDGED,
        curves=chapters.curves(past, None),
        profiles=chapters.profiles(past, marks),
    )


def _limits_so_far(past: Past, limits: Mapping[str, Any]) -> dict[str, Any]:
    """What the contract asks, with what the untrained twin has shown of it."""
    twin = next((x["data"].get("verdicts", []) for x in reversed(past.lines) if x["event"] == "twin"), [])
    shown = {v["gate"]: v for v in twin}
    note = "Bytes and latency depend on shapes alone, so they were measured on the plan's final shape with untrained weights." if shown else ""
    told = [
        chapters.limit({"reason": "measured on the untrained twin", **shown[gate]}) if gate in shown else Limit(gate=gate, status="not judged", reason="", limit=value)
        for gate, value in limits.items()
        if gate not in SETTINGS
    ]
    return {"contract": tuple(told), "contract_note": note}


def _common(past: Past, summary: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What every story says: names, place, data, and the way to do it again."""
    where = summary.get("environment") or _environment(past, asked)
    target = summary.get("target") or asked.get("target") or {}
    machine = where.get("machine", {})
    runtime = " ".join(filter(None, (str(target.get("runtime", "")), where.get("versions", {}).get(target.get("runtime")))))
    facts = [("seed", where.get("seed")), ("target", _target(target)), *((k, machine.get(k)) for k in ("processor", "cores", "system", "python"))]
    facts += list(where.get("versions", {}).items())
    source = summary.get("task") or asked.get("task") or {}
    return {
        "run": past.folder.resolve().name,
        "teacher_note": next((str(x["data"].get("why", "")) for x in reversed(past.lines) if x["event"] == "weak teacher"), ""),
        "task": str(source.get("name") or ""),
        "when": str(where.get("time") or past.lines[-1]["time"])[:16].replace("T", " ") + " UTC",
        "target": f"{runtime}, {target.get('threads', 1)} thread(s), batch {target.get('batch', 1)}",
        "environment": tuple((str(k), str(v)) for k, v in facts if v is not None),
        "fingerprints": tuple((str(k), str(v)) for k, v in where.get("data", {}).items()),
        "reproduce": _reproduce(past, summary, asked, source, where),
    }


def _target(target: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in target.items())


def _environment(past: Past, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Where a run without a summary was carried out, as its last measurement says."""
    keys = [read for read in (read_record(p)["key"] for p in sorted((past.folder / "measurements").glob("*.json"))) if "versions" in read]
    machine = next((k["machine"] for k in keys if "machine" in k), {})
    return {"seed": asked.get("seed"), "data": asked.get("data", {}), "versions": keys[-1]["versions"] if keys else {}, "machine": machine}


def _reproduce(past: Past, summary: Mapping[str, Any], asked: Mapping[str, Any], source: Mapping[str, Any], where: Mapping[str, Any]) -> Reproduce:
    name, file = past.folder.resolve().name, source.get("run_file")
    versions = where.get("versions", {})
    pins = " ".join(f"'{k}=={v.partition('+')[0]}'" for k, v in versions.items() if k != "limbeck")  # +cpu and its like name a build, which no index lists by it
    install = [f"pip install 'limbeck=={versions['limbeck']}' {pins}".rstrip()] if "limbeck" in versions else []
    look = [f"limbeck verify runs/{name}", f"limbeck report runs/{name}"]
    plan, contract = summary.get("plan") or asked.get("plan"), asked.get("contract") or summary.get("limits")
    contract = {k: v for k, v in contract.items() if v is not None} if contract else None
    if file:
        note = "In the folder of the run file; with its folder of runs in place of runs/. A run that stands there is read from its records; under another name it is made anew."
        return Reproduce(commands=(*install, f"limbeck run {Path(str(file)).name} --name {name}", *look), note=note, plan=plan, contract=contract)
    seed = f", seed={where['seed']}" if where.get("seed") is not None else ""
    call = f'python -c "from limbeck import *; from task import task; compress(task, Contract(…), Plan(…), name={name!r}{seed})"'
    note = "The run was not started from a run file that is recorded: give your own task, and the contract and plan below, to limbeck.compress."
    return Reproduce(commands=(*install, call, *look), note=note, plan=plan, contract=contract)


def _shower(past: Past, summary: Mapping[str, Any], wanted: str, task: Task | None) -> flips.Shower:
    """How test samples are shown: from the task that was given, or the run file's, if its test data is that of the run."""
    why = ""
    if task is None:
        task, why = _own_task(past, summary.get("task") or {})
    if task is None:
        return flips.Shower(why=why)
    if "test" not in task.splits or fingerprint(task.split("test")) != wanted:
        return flips.Shower(why="the task's test data isn't that of the run (its fingerprint differs).")
    owner = task
    return flips.Shower(show=lambda index: samples.sample(owner, "test", index), names=class_names(task, "test"), count=len(task.split("test")))


def _own_task(past: Past, source: Mapping[str, Any]) -> tuple[Task | None, str]:
    """The task that the run file names today; None and the reason if it isn't there.

    Only the user's own run file may name code: it says itself that its runs are kept here, and it doesn't lie in a run's folder,
    where an imported zip could have put it.
    """
    way = "name the task with --task file.py:name."
    file = source.get("run_file")
    if not isinstance(file, str) or not file:
        return None, f"the run doesn't say which run file it came from; {way}"
    root = past.folder.resolve().parent
    path = (past.folder.resolve() / file).resolve()
    inside = path.is_relative_to(root) and path.parent != root
    if Path(file).is_absolute() or inside or not path.is_file():
        return None, f"its run file is not where it was; {way}"
    try:
        settings = read_runfile(path)
        if (path.parent / settings.run.root).resolve() != root:
            return None, f"the run file that it came from keeps its runs elsewhere; {way}"
        return load_task(settings.task.entry, base=path.parent), ""
    except LimbeckError as error:
        return None, f"its task can't be loaded any more ({type(error).__name__}); {way}"
