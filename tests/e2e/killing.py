"""Kills a run at every write, starts it again, and compares what comes of it with a run that nobody killed.

    python killing.py PROJECT WORK --interval STEPS --walk all --kill every:12
    python killing.py PROJECT WORK --interval STEPS --walk open:journal:0 --kill step:recovery:3

The writes enumerate themselves: an audit hook sees every file that Python opens to write, renames, removes or truncates below the
project, every process that is started, and every step of training. What was written past it (by a library's own C code) is found
by comparing the folder before and after, and reported: a write that can't be killed at is no write that is covered.

A kill changes nothing on disk. So the walk lets one run go its way, and copies the project before each event: that is what kill −9
at that point leaves. Where a file grew between two events, a copy with half of the growth stands for a kill in mid-write. From each
copy the run is started again. Copies that look the same once the started run has tidied up have the same future, and are walked
once. `--kill` does the real thing, in a process that kills itself; it also holds that the copies are what a kill leaves.

All is done by forks of one process that has its libraries loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.utime"}
TIDYING = {"os.remove", "os.rmdir", "os.mkdir", "os.truncate", "step", "subprocess.Popen"}  # what leaves no file that the next start would read
MEASURED = ("latency", "memory", "twin", "study")  # what a clock or the machine says: kept as records, never equal twice
IN_A_CHILD_S = 0.4  # from starting a measuring process to a kill while it works
Files = dict[str, tuple[int, int, int]]  # path → inode, size, time of change


# ---- what a project holds ----
# what another sitting of the same run measures otherwise
TIMED = frozenset({"time", "seconds", "latency_ms", "latency_interval_ms", "latency_note", "peak_memory_bytes", "journal_head", "ratios", "sha256"})
OF_THE_MACHINE = frozenset({"kernels", "cold_start", "throughput", "memory", "energy"})  # studies of it


def files_of(project: Path) -> Files:
    found: Files = {}
    for path in sorted(project.rglob("*")):
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            found[str(path.relative_to(project))] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def state_of(project: Path) -> str:
    """A hash of all that is on disk, less who holds it."""
    state = hashlib.sha256()
    for name in files_of(project):
        if Path(name).name not in ("lock", ".looks.lock"):
            state.update(name.encode() + b"\0" + hashlib.sha256((project / name).read_bytes()).digest())
    return state.hexdigest()


def outcome(project: Path, run: str) -> dict[str, Any]:
    """What must be the same, however often the run was killed: journal, hashes, verdicts. Times and measured figures are left out."""
    folder = project / "runs" / run
    read = lambda path: json.loads(path.read_text())  # noqa: E731
    measurements = {p.name: read(p)["object"] for p in (folder / "measurements").iterdir() if not p.name.startswith(MEASURED)}
    clocked = {p.name: read(p)["object"] for p in (folder / "measurements").iterdir() if p.name.startswith(MEASURED)}
    objects = {p.name: p for p in (folder / "objects").rglob("*") if p.is_file()}
    odd = sorted(n for n, p in objects.items() if hashlib.sha256(p.read_bytes()).hexdigest() != n)
    made = sorted(n for n, p in objects.items() if n not in clocked.values() and not _is_measured(p))
    return {
        "journal": [[line["event"], line["data"]] for line in map(json.loads, (folder / "journal.jsonl").read_text().splitlines())],
        "stages": {p.name: {k: v for k, v in read(p).items() if k not in ("seconds", "sha256")} for p in (folder / "stages").iterdir()},
        "head": read(folder / "HEAD.json"),
        "measurements": measurements,
        "measured": sorted(clocked),
        "missing": sorted({*measurements.values(), *clocked.values()} - objects.keys()),
        "objects": made,
        "odd objects": odd,
        "artifacts": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in files_of(folder) if n.startswith(("artifacts/", "cache/")) for n in [n]},
        "left over": [n for n in files_of(project) if n.endswith(".tmp") or "/checkpoints/" in n or "/scratch/" in n],
        "looks": [[x["fingerprint"], x["run"], x["artifact"]] for x in map(json.loads, (project / "runs" / "looks.jsonl").read_text().splitlines())],
        "summary": _steady(read(folder / "summary.json")),
    }


def _is_measured(path: Path) -> bool:
    """A figure that was taken and not recorded before the kill: plain JSON of blocks, a number, or the twin's verdicts."""
    raw = path.read_bytes()
    return raw[:1] in b"[{0123456789" and (raw[:1].isdigit() or raw.startswith((b'[{"blocks"', b'{"structures"')))


def _steady(data: Any) -> Any:
    """A summary without what a clock or the machine says."""
    if isinstance(data, dict):
        kept = {k: v for k, v in data.items() if k not in TIMED}
        if "studies" in kept:
            kept["studies"] = {k: v for k, v in kept["studies"].items() if k not in OF_THE_MACHINE}
        return {k: _steady(v) for k, v in kept.items()}
    return [_steady(v) for v in data] if isinstance(data, list) else data


# ---- what a run does ----


@dataclass
class Steps:
    """A log that counts: how far each loop came, and where it began. Those of training are the ones that have epochs."""

    on_step: Callable[[str], None] = lambda note: None
    last: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    loops: set[str] = field(default_factory=set)

    def event(self, event: str, **data: Any) -> None:
        if event == "epoch":
            self.loops.add(data["note"])

    def progress(self, done: float, total: float, note: str) -> None:
        self.on_step(note)
        self.last[note] = int(done)
        self.first.setdefault(note, int(done))


def carried_out(steps: Steps) -> None:
    """The command of the project in the working folder."""
    from limbeck import api

    path = Path("limbeck.toml")
    if Path("demo").exists():
        from limbeck.demo.prepare import prepare

        path = prepare(Path(), quick=True, log=steps)
    api.run(path, log=steps)


class Audit:
    """Calls `before` ahead of every write below a project, with its number, its kind and the path."""

    def __init__(self, project: Path, before: Callable[[int, str, str], None]):
        self.project, self.count, self._before, self._busy = project, 0, before, False
        self.named: set[str] = set()
        sys.addaudithook(self._hook)

    def step(self, note: str) -> None:
        self._event("step", note)

    def _hook(self, event: str, args: tuple) -> None:
        if self._busy or event not in NAMED | {"open", "subprocess.Popen"}:
            return
        if event == "subprocess.Popen":
            self._event(event, "")
            return
        if event == "open" and (args[2] is None or not args[2] & WRITING):
            return
        paths = [self._inside(a, args) for a in args[: 2 if event == "os.rename" else 1]]
        if any(paths):
            self.named |= {p for p in paths if p}
            self._event(event, next(p for p in paths if p))

    def _inside(self, path: Any, args: tuple) -> str | None:
        """The path below the project; None if it is elsewhere. One that is only a number is taken for one of ours."""
        if isinstance(path, int):
            return f"file {path}"
        folder = next((a for a in args[1:] if isinstance(a, int) and a > 2), None) if not os.path.isabs(os.fsdecode(path)) else None
        base = os.readlink(f"/proc/self/fd/{folder}") if folder and os.path.islink(f"/proc/self/fd/{folder}") else os.getcwd()
        whole = os.path.normpath(os.path.join(base, os.fsdecode(path)))
        return os.path.relpath(whole, self.project) if whole.startswith(f"{self.project}{os.sep}") else None

    def _event(self, event: str, path: str) -> None:
        self._busy = True
        try:
            self.count += 1
            self._before(self.count, event, path)
        finally:
            self._busy = False


# ---- forks ----


@contextmanager
def alone(project: Path) -> Iterator[None]:
    """A fork's own world: the project is the working folder."""
    os.chdir(project)
    sys.dont_write_bytecode = True
    yield


def forked(work: Callable[[], Any], answer: Path) -> int:
    """Do the work in a fork, which writes what it gives as JSON; the fork's number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        data = work()
        answer.write_text(json.dumps(data))
        code = 0
    finally:  # whatever it is: a fork must never go on as its parent would
        if code:
            answer.with_suffix(".error").write_text(traceback.format_exc())
        os._exit(code)


def all_of(jobs: list[tuple[str, Callable[[], Any]]], folder: Path, *, at_once: int) -> dict[str, Any]:
    """Each job's answer by its name; an error's text, or how it was killed, where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[int, str] = {}
    codes: dict[str, int] = {}
    waiting = list(jobs)
    while waiting or running:
        while waiting and len(running) < at_once:
            name, work = waiting.pop(0)
            running[forked(work, folder / f"{name}.json")] = name
        number, status = os.wait()
        codes[running.pop(number)] = os.waitstatus_to_exitcode(status)
    answers: dict[str, Any] = {}
    for name, code in codes.items():
        path, error = folder / f"{name}.json", folder / f"{name}.error"
        answers[name] = json.loads(path.read_text()) if code == 0 else {"code": code, "error": error.read_text() if error.exists() else ""}
    return answers


# ---- one run, watched ----


def watched(project: Path, copies: Path | None) -> dict[str, Any]:
    """Let the run go its way; with `copies`, keep the project as it stands before each event. Answers events, states, unseen writes."""
    steps, events, states = Steps(), [], {}
    unseen: set[str] = set()
    before: list[Files] = [files_of(project)]

    def keep(name: str, event: str, source: Path) -> None:
        state = state_of(source)
        if state not in states and copies:
            shutil.copytree(source, copies / name)
        entry = states.setdefault(state, {"name": name, "event": event, "steps": {}, "numbers": []})
        entry["numbers"].append(name)
        entry["steps"] = dict(steps.last)  # as far as memory had come when the disk last looked like this

    def look(number: int, event: str, path: str) -> None:
        now = files_of(project)
        inodes = {inode for inode, *_ in before[0].values()}
        grown = [n for n, (inode, size, at) in now.items() if inode not in inodes or (n in before[0] and before[0][n][0] == inode and before[0][n] != (inode, size, at))]
        unseen.update(n for n in grown if n not in audit.named and Path(n).name != "lock")
        for name in grown if copies else ():
            size = before[0].get(name, (0, 0, 0))[1] if before[0].get(name, (0,))[0] == now[name][0] else 0
            if now[name][1] > size + 1:
                torn = Path(shutil.copytree(project, copies.parent / "torn"))
                os.truncate(torn / name, (size + now[name][1]) // 2)
                keep(f"{number}-torn", f"in mid-write of {name}", torn)
                shutil.rmtree(torn)
        keep(str(number), f"{event} {path}", project)
        events.append([number, event, path, dict(steps.last)])
        before[0] = now

    audit = Audit(project, look)
    steps.on_step = audit.step
    with alone(project):
        carried_out(steps)
    audit._before = lambda *_: None
    return {"events": events, "states": list(states.values()), "unseen": sorted(unseen), "loops": sorted(steps.loops), "count": audit.count}


def killed(project: Path, number: int) -> dict[str, Any]:
    """Run until an event, and die there by SIGKILL (at the start of a process: while it works)."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def look(count: int, event: str, path: str) -> None:
        if count == number and event == "subprocess.Popen":
            threading.Timer(IN_A_CHILD_S, die).start()
        elif count == number:
            die()

    steps = Steps()
    audit = Audit(project, look)
    steps.on_step = audit.step
    with alone(project):
        carried_out(steps)
    return {"count": audit.count}


def resumed(project: Path, run: str, seen: Path | None) -> dict[str, Any]:
    """Start the run again. With `seen`, leave ahead of its first write if another, tidied up, was in this state before."""
    tidy = threading.Event()

    def look(count: int, event: str, path: str) -> None:
        if seen is None or tidy.is_set() or event in TIDYING or Path(path).name == "lock":
            return
        tidy.set()
        try:
            (seen / state_of(project)).mkdir()
        except FileExistsError:
            sys.stdout.flush()
            raise SameState from None

    steps = Steps()
    audit = Audit(project, look)
    steps.on_step = audit.step
    try:
        with alone(project):
            carried_out(steps)
    except SameState:
        return {"same": True}
    audit._before = lambda *_: None
    return {"same": False, "first": steps.first, "outcome": outcome(project, run)}


class SameState(BaseException):
    """From here on all is known."""


def judged(answer: dict[str, Any], reference: dict[str, Any], steps: dict[str, int], interval: int) -> list[str]:
    """What is wrong with a run that was killed when training had come to `steps`, and was started again."""
    if "outcome" not in answer:
        return [f"ended with {answer['code']}: {answer['error'].strip().splitlines()[-1] if answer['error'] else 'killed'}\n{answer['error']}"]
    wrong = [f"{k} differs: {_difference(reference[k], answer['outcome'][k])}" for k in reference if reference[k] != answer["outcome"][k]]
    for note, came in steps.items():
        repeated = came - (answer["first"].get(note, came + 1) - 1)
        if repeated > interval:
            wrong.append(f"{note}: {repeated} steps were repeated, at most {interval} may be")
    return wrong


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        return "; ".join(f"{k}: {_difference(a.get(k), b.get(k))}" for k in sorted({*a, *b}) if a.get(k) != b.get(k))[:400]
    if isinstance(a, list) and isinstance(b, list):
        return f"only uninterrupted {[x for x in a if x not in b]}, only resumed {[x for x in b if x not in a]}"[:600]
    return f"{a!r}, now {b!r}"[:300]


# ---- from the command line ----


def warmed() -> None:
    """Load in this process what each fork would load by itself, an export's machinery before all."""
    import importlib
    import pkgutil
    import tempfile

    import torch

    torch.set_num_threads(1)
    import limbeck

    for module in pkgutil.walk_packages(limbeck.__path__, "limbeck."):
        if ".digits" not in module.name:  # the demo's task is data here: it is copied, and loaded from the copy
            importlib.import_module(module.name)
    from limbeck.evaluation import measure
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.data import example
    from limbeck.runtimes import runtime
    from limbeck.testing import small_task

    measure.DISTURBED, measure.PAUSE_MS = 2.0, float("inf")  # a busy machine would be timed twice: every run must have the same events
    task = small_task()
    with tempfile.TemporaryDirectory() as folder:
        runtime("onnxruntime").export(example(task, rebuild(teacher_candidate(task).torch_form, task)), Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", default="run")
    parser.add_argument("--interval", type=int, required=True, help="steps between two checkpoints")
    parser.add_argument("--walk", nargs="*", default=[], help="copies to start again from: all, every:N, or KIND:PATTERN:NTH (torn: in mid-write)")
    parser.add_argument("--kill", nargs="*", default=[], help="events to kill at for real: every:N, or KIND:PATTERN:NTH")
    parser.add_argument("--at-once", type=int, default=1)
    asked = parser.parse_args()
    start = time.monotonic()
    asked.project, asked.work = asked.project.resolve(), asked.work.resolve()
    asked.work.mkdir(parents=True)
    warmed()
    print(json.dumps({**_all(asked), "seconds": round(time.monotonic() - start, 1)}))


def _all(asked: argparse.Namespace) -> dict[str, Any]:
    work, answers = asked.work, asked.work / "answers"
    whole = work / "whole"
    shutil.copytree(asked.project, whole)
    seen = all_of([("whole", lambda: watched(whole, work / "copies" if asked.walk else None))], answers, at_once=1)["whole"]
    if "events" not in seen:
        return {"broken": [f"the run that nobody killed: {seen}"]}
    events = [[number, event, path, {n: s for n, s in steps.items() if n in seen["loops"]}] for number, event, path, steps in seen["events"]]
    reference = outcome(whole, asked.run)
    torn = [["torn", s["name"], s["event"]] for s in seen["states"] if s["name"].endswith("-torn")]
    names = {str(n) for n in chosen(asked.walk, [*events, *([name, kind, path] for kind, name, path in torn)])} if asked.walk != ["all"] else {s["name"] for s in seen["states"]}
    states = [s for s in seen["states"] if names & set(s["numbers"])]
    walked, broken = _walked(states, asked, answers), []
    for state in states:
        steps = {n: s for n, s in state["steps"].items() if n in seen["loops"]}
        if not walked[state["name"]].get("same"):
            broken += [f"{state['name']} ({state['event']}): {w}" for w in judged(walked[state["name"]], reference, steps, asked.interval)]
    points = chosen(asked.kill, events)
    broken += _really_killed(points, events, reference, asked)
    futures = sum(not a.get("same") for a in walked.values())
    verdicts = [d["status"] for e, d in reference["journal"] if "status" in d]
    return {"events": seen["count"], "unseen": seen["unseen"], "states": len(states), "futures": futures, "kills": points, "broken": broken, "verdicts": verdicts}


def _walked(states: list[dict[str, Any]], asked: argparse.Namespace, answers: Path) -> dict[str, Any]:
    known = asked.work / "seen"
    known.mkdir()
    jobs = [(s["name"], lambda s=s: resumed(asked.work / "copies" / s["name"], asked.run, known)) for s in states]
    return all_of(jobs, answers, at_once=asked.at_once)


def chosen(words: list[str], events: list[list[Any]]) -> list[Any]:
    """The numbers of events: `every:N`, or `KIND:PATTERN:NTH` with NTH from 0, negative from the end."""
    numbers: list[int] = []
    for word in words:
        if word.startswith("every:"):
            numbers += [e[0] for e in events[:: int(word.removeprefix("every:"))]]
            continue
        kind, pattern, nth = word.split(":")  # no path or note has a colon
        numbers.append([e[0] for e in events if e[1] == kind and pattern in e[2]][int(nth)])
    return numbers


def _really_killed(points: list[int], events: list[list[Any]], reference: dict[str, Any], asked: argparse.Namespace) -> list[str]:
    """Kill for real at these events, start again, compare."""
    folders = {n: asked.work / f"killed-{n}" for n in points}
    for folder in folders.values():
        shutil.copytree(asked.project, folder)
    ends = all_of([(f"kill-{n}", lambda n=n: killed(folders[n], n)) for n in points], asked.work / "answers", at_once=asked.at_once)
    broken = [f"event {n} was not reached, or the kill came too late" for n in points if ends[f"kill-{n}"].get("code") != -signal.SIGKILL]
    again = all_of([(f"again-{n}", lambda n=n: resumed(folders[n], asked.run, None)) for n in points], asked.work / "answers", at_once=asked.at_once)
    for number in points:
        _, event, path, steps = events[number - 1]
        broken += [f"killed at {number} ({event} {path}): {w}" for w in judged(again[f"again-{number}"], reference, steps, asked.interval)]
    return broken


if __name__ == "__main__":
    main()
