"""What machines do to a run: a full disk, a closed folder, a second process, a crash beside it, a clock that jumps, a signal."""

import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from project import limbeck as command_line
from project import write_project

import limbeck
from limbeck import Contract, Gate, Plan, Stage
from limbeck.core import files
from limbeck.core.contract import Target
from limbeck.core.errors import ArtifactError, Interrupted, RunError, StageError
from limbeck.core.evidence import Latency
from limbeck.evaluation import measure
from limbeck.pipeline import journal as journals
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.pipeline.crash import Crashes
from limbeck.pipeline.examiner import Examiner, Kept
from limbeck.pipeline.folder import held
from limbeck.pipeline.journal import Journal
from limbeck.pipeline.leaving import Leaving
from limbeck.pipeline.looks import Looked, count_look
from limbeck.pipeline.store import Store, write
from limbeck.testing import small_task

QUANTIZE = '[[stage]]\ntechnique = "quantize"\nconfig = { samples = 64 }\ngate = { pays = "bytes", shrink = 1.05, retention = 0.3 }\n'
MAIN = "from limbeck.cli.main import main; main()"


# ---- a full disk ----


class Full:
    """`os.fsync` of a disk that has no room from the n-th time on."""

    def __init__(self, after: int):
        self.left, self.sync = after, os.fsync

    def __call__(self, handle: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(handle)


def test_a_full_disk_leaves_the_old_file_and_says_how_much_is_free(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write(path, b"the old one")
    monkeypatch.setattr(files.os, "fsync", Full(0))
    with pytest.raises(RunError, match=r"summary\.json can't be written: No space left on device; [\d.]+ [kMG]?B are free there.*make room and run the same command again"):
        write(path, b"the new one")
    assert path.read_bytes() == b"the old one" and [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_full_disk_leaves_the_journal_as_long_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.record("first", number=1)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", Full(0))
        with pytest.raises(RunError, match=r"journal\.jsonl can't be written"):
            journal.record("second", number=2)
    assert path.read_bytes() == before
    journal.record("second", number=2)
    assert [line["event"] for line in Journal(path).lines] == ["first", "second"]


def test_a_run_on_a_disk_that_fills_goes_on_when_there_is_room(tmp_path):
    """A real process whose files may grow to 20 kB: the teacher's weights don't fit. Then the same command with room."""
    project = write_project(tmp_path, plan=QUANTIZE, run="control = false\n")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    full = subprocess.run([sys.executable, "-c", MAIN, "run"], cwd=project, env=os.environ | {"COLUMNS": "300"}, preexec_fn=small, capture_output=True, text=True)
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert "runs/run/objects" in full.stderr and "can't be written: File too large" in full.stderr and "are free there" in full.stderr
    assert not list((project / "runs").rglob("*.tmp"))
    done = command_line("run", cwd=project)
    assert done.returncode == 0, done.stderr


# ---- a closed folder, a second process ----


def without_override() -> None:
    """Root, too, keeps to permissions: take the right to pass over them from this process and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@pytest.mark.skipif(sys.platform != "linux" and os.getuid() == 0, reason="root writes everywhere, and only Linux can take that from it")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    project = write_project(tmp_path, plan=QUANTIZE)
    closed = project / "runs" / "run"
    closed.mkdir(parents=True)
    (closed / "lock").touch()  # which may still be opened
    closed.chmod(0o555)
    options: dict[str, Any] = {"preexec_fn": without_override} if sys.platform == "linux" else {}
    done = subprocess.run([sys.executable, "-c", MAIN, "run"], cwd=project, env=os.environ | {"COLUMNS": "300"}, capture_output=True, text=True, **options)
    closed.chmod(0o755)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "runs/run/" in done.stderr and "can't be written: Permission denied" in done.stderr and "run.root" in done.stderr
    assert [p.name for p in closed.iterdir()] == ["lock"]


HOLDS = """
import sys, time
from pathlib import Path
from limbeck.pipeline.folder import held
with held(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(300)
"""


def test_two_processes_never_mix_and_a_dead_one_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "runs")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    try:
        second = command_line("run", cwd=write_project(tmp_path, plan=QUANTIZE))
        assert second.returncode == 2 and f"is held by process {holder.pid}" in second.stderr and "Wait until it ends" in second.stderr
        assert [p.name for p in (tmp_path / "runs" / "run").iterdir()] == ["lock"], "the second wrote nothing"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with held(tmp_path / "runs", "run") as folder:
        assert (folder / "lock").read_text() == str(os.getpid())


def test_looks_that_are_counted_at_once_are_all_counted(tmp_path):
    code = "import sys; from pathlib import Path; from limbeck.pipeline.looks import Looked, count_look\n"
    code += "for i in range(20): count_look(Path(sys.argv[1]), Looked(fingerprint='f'), run=sys.argv[2], artifact=str(i))"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [r.wait() for r in runs] == [0, 0]
    assert count_look(tmp_path, Looked(fingerprint="f"), run="c", artifact="last").number == 41


# ---- a crash beside the run ----

CRASHES = """#!/bin/sh
case "$*" in *limbeck.evaluation.processes.child*) echo >> "{folder}/calls";; *) exec "{python}" "$@";; esac
if [ "$(wc -l < "{folder}/calls")" -eq {at} ]; then kill -{signal} $$; fi
exec "{python}" "$@"
"""


def crashing(folder: Path, *, at: int, name: str) -> str:
    """A Python that dies by a signal when it is started for the `at`-th time to measure something."""
    path = folder / f"python-{name}-{at}"
    path.write_text(CRASHES.format(folder=folder, at=at, signal=name, python=sys.executable))
    path.chmod(0o755)
    (folder / "calls").write_text("")
    return str(path)


def test_a_runtime_that_crashes_fails_its_stage_and_the_run_goes_on(tmp_path, monkeypatch):
    """The child that times the pruned network is killed as by the kernel without memory; later the one that times the final segfaults."""
    task, contract = small_task(), Contract(size_ratio=1.5)
    stages = (Stage(technique="prune", config={"ratio": 0.3, "round_to": 4}, gate=Gate(pays="either", shrink=1.05, retention=0.0)),)
    stages += (Stage(technique="quantize", config={"samples": 64}, gate=Gate(pays="bytes", shrink=1.05, retention=0.0)),)
    run = lambda: limbeck.compress(task, contract, Plan(stages=stages, control=False), root=tmp_path / "runs", timing_seconds=0.05, proof=limbeck.Proof(studies="none"))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(measure.sys, "executable", crashing(tmp_path, at=1, name="KILL"))
        first = run().summary
    pruned, quantized = first["stages"]
    assert (pruned["verdict"], quantized["verdict"], first["verdict"]) == ("FAIL", "PASS", "PASS")
    assert "brought its process down: SIGKILL (memory may have run out)" in pruned["error"]
    events = lambda: [json.loads(line) for line in (tmp_path / "runs" / "run" / "journal.jsonl").read_text().splitlines()]  # noqa: E731
    broke = [e["data"] for e in events() if e["event"] == "stage broke"]
    assert len(broke) == 1 and broke[0]["stage"] == "prune" and "SIGKILL" in broke[0]["error"]
    for record in (tmp_path / "runs" / "run" / "measurements").glob("latency-*"):
        record.unlink()
    with monkeypatch.context() as patch:  # the failure wasn't kept: prune is timed again; then the final crashes
        patch.setattr(measure.sys, "executable", crashing(tmp_path, at=2, name="SEGV"))
        patch.setattr(measure, "DISTURBED", 2.0)
        patch.setattr(measure, "PAUSE_MS", 1e9)  # a busy machine would be timed twice: the second start must be the final's
        with pytest.raises(ArtifactError, match="brought its process down: SIGSEGV"):
            run()
    assert events()[-1]["event"] == "broke" and "SIGSEGV" in events()[-1]["data"]["error"]
    last = run().summary
    assert [s["error"] for s in last["stages"]] == [None, None] and last["verdict"] == "PASS"


CRASHER = """
import ctypes, os, sys
from dataclasses import replace
from torch import nn
import limbeck
from limbeck import Contract, Gate, Plan, Stage
from limbeck.testing import small_task

class Crashing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    def forward(self, x):
        if self.training and not os.path.exists(sys.argv[2]):
            ctypes.string_at(0)
        return self.net(x)

task = small_task()
task = replace(task, models={**task.models, "crashing": Crashing})
gate = Gate(pays="bytes", shrink=1.05, retention=0.0)
stages = (
    Stage(technique="distill", config={"student": "crashing", "training": {"epochs": 1}}, gate=gate),
    Stage(technique="quantize", config={"samples": 64}, gate=gate),
)
found = limbeck.compress(task, Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=sys.argv[1], timing_seconds=0.05, proof=limbeck.Proof(studies="none"))
print([(s["verdict"], s["error"]) for s in found.summary["stages"]])
"""


def test_a_library_that_crashes_the_run_fails_its_stage_at_the_next_start(tmp_path):
    """A segmentation fault in training: the first start ends with it, the second leaves that stage out; after a verdict it is tried again."""
    (tmp_path / "crasher.py").write_text(CRASHER)

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "crasher.py", "runs", "mended"], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    first = start()
    assert first.returncode == -signal.SIGSEGV and not first.stdout
    second = start()
    assert second.returncode == 0, second.stderr
    assert "('FAIL', 'distill brought the process down when it was last tried: Segmentation fault, File " in second.stdout and "('PASS', None)" in second.stdout
    (tmp_path / "mended").touch()
    assert start().stdout.startswith("[('PASS', None), ")


def test_what_was_killed_is_not_taken_for_a_crash(tmp_path):
    (tmp_path / "crash.txt").write_text('{"key": "k"}\n')
    assert Crashes(tmp_path).known == {}
    (tmp_path / "crash.txt").write_text('{"key": "k"}\nFatal Python error: Aborted\n\nCurrent thread:\n  File "x.py", line 3 in f\n')
    assert Crashes(tmp_path).known == {"k": 'Aborted, File "x.py", line 3 in f'}
    (tmp_path / "crash.txt").write_text('{"key": "other"}\nFatal Python error: Bus error\n')
    again = Crashes(tmp_path)
    assert list(again.known) == ["k", "other"], "one crash after the other: both stand in the way"
    with pytest.raises(StageError, match="prune brought the process down when it was last tried: Bus error"), again.work("other", "prune"):
        pass
    again.forget()
    (tmp_path / "crash.txt").write_bytes(b"\xff\x00")
    assert Crashes(tmp_path).known == {}


def test_no_process_for_a_measurement_is_said(tmp_path, monkeypatch):
    def none_left(*words: Any, **options: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    from limbeck.runtimes.onnxruntime import ONNXRUNTIME

    monkeypatch.setattr(measure.subprocess, "Popen", none_left)
    with pytest.raises(ArtifactError, match="no process to measure in can be started: Resource temporarily unavailable"):
        measure.latency([ONNXRUNTIME.empty(tmp_path)], {"x": np.zeros(1, np.float32)}, threads=1)


def test_a_checkpoint_that_was_cut_off_is_named(tmp_path):
    checkpoint = FileCheckpoint(tmp_path / "c.safetensors")
    checkpoint.save({"w": torch.ones(8)}, {"version": 1})
    whole = checkpoint.path.read_bytes()
    assert checkpoint.load()[1] == {"version": 1}
    for damaged in (whole[:-5], whole[:20], b"", whole[:8] + b"x" + whole[9:]):
        checkpoint.path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"the checkpoint .*c\.safetensors can't be read .* Delete it and run again: this training starts anew"):
            checkpoint.load()


# ---- clocks ----


class Backwards(datetime):
    """A clock that is set back an hour each time that it is read."""

    hours = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        cls.hours += 1
        return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(hours=cls.hours)


def test_a_clock_that_jumps_changes_nothing_but_times(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    monkeypatch.setattr(journals, "datetime", Backwards)
    for number in range(3):
        Journal(path).record("e", number=number)
    again = Journal(path)
    again.record("e", number=1)
    times = [line["time"] for line in again.lines]
    assert [line["data"]["number"] for line in again.lines] == [0, 1, 2] and times == sorted(times, reverse=True)


def test_a_pause_of_the_machine_is_a_disturbance(tmp_path, monkeypatch):
    """One inference of three seconds among those of 2 ms: the machine slept. Long ones alone are no pause."""
    from limbeck.core.candidate import Artifact

    calm, slept, slow = [[2.0] * 5] * 20, [*[[2.0] * 5] * 19, [2.0, 2.0, 3000.0, 2.0, 2.0]], [[900.0, 1100.0]] * 10
    warm = {"inferences": 16, "seconds": 0.1, "steady": True}
    answer = {"blocks": [calm, slept, slow], "waited": [0.0, 0.0, 0.0], "warm_up": [warm] * 3, "reasons": [], "company": ""}
    monkeypatch.setattr(measure, "asked", lambda *args, **options: answer)
    taken = measure.latency([Artifact(tmp_path / "a.onnx", "onnxruntime")] * 3, {}, threads=1)
    assert [one.why for one in taken] == ["", "it stood still for 3000 ms", ""] and [one.disturbed for one in taken] == [False, True, False]


SHAKEN = Latency(blocks=((1.0, 4.0), (1.0, 9.0)), disturbed=True, why="another process had the CPU for 12% of the time", waited=0.12)


def test_a_timing_is_kept_with_what_disturbed_it_and_told(tmp_path, monkeypatch):
    taken, log = [], QuietLog()
    prints = dict.fromkeys(("train", "validation", "test", "code"), "f")
    examiner = Examiner(tmp_path, Store(tmp_path), small_task(), Target(), prints, log, seconds=0.1, confidence=0.95, stop=lambda: False)
    monkeypatch.setattr(examiner, "artifact", lambda one: None)

    def latency(*args: Any, told: Any, **options: Any) -> list[Latency]:
        told("timing again", SHAKEN.why)
        taken.append(SHAKEN)
        return [SHAKEN]

    monkeypatch.setattr(measure, "latency", latency)
    one = Kept(candidate="c", artifact={"runtime": "onnxruntime", "name": "a", "files": {}}, parameters=None, macs=None, kernels={}, download_bytes=1, parity=None)
    assert examiner.latencies([one]) == [SHAKEN] and len(taken) == 1
    assert examiner.latencies([one]) == [SHAKEN] and len(taken) == 1, "what is kept isn't taken again"
    assert [data["why"] for event, data in log.events if event == "timing again"] == [SHAKEN.why]
    examiner.latencies([one], {"latency_p90_ms": 5.0})
    assert len(taken) == 2, "what was timed until a limit was settled is another measurement"


# ---- signals ----


@pytest.fixture
def interruptible():
    """Ctrl-C as it is in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_cannot_ask_is_left_when_it_must_stop(interruptible):
    """As an export is: nothing in it looks at `stop`."""
    stop = threading.Event()
    leaving = Leaving(stop.is_set)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted, match="stopped in an export; what was done before is on disk. Run the same command again"):
        with leaving("an export"), leaving("what is inside"):
            time.sleep(30)
            pytest.fail("it went on for half a minute")
    with pytest.raises(Interrupted), leaving("an export"):
        pytest.fail("begun although it must stop")


def test_ctrl_c_of_somebody_else_stays_what_it_is():
    with pytest.raises(KeyboardInterrupt), Leaving(lambda: False)("an export"):
        raise KeyboardInterrupt


SLOW_MODEL = """
from dataclasses import replace
from limbeck.testing import SmallNet, small_task
wide = lambda: SmallNet(320)
task = replace(small_task(), models={"teacher": wide}, weights={"teacher": wide().state_dict()})
"""
SLOW_METRIC = """
import time
from dataclasses import replace
from limbeck.testing import small_task
task = small_task()
rows = task.metric.rows
def slow(outputs, batch):
    print("evaluating", flush=True)
    time.sleep(300)
    return rows(outputs, batch)
task = replace(task, metric=replace(task.metric, rows=slow))
"""


def started(project: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "run"], cwd=project, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def measuring(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [c for c in psutil.Process(pid).children() if "limbeck.evaluation.processes.child" in c.cmdline()]
    return []


def test_ctrl_c_in_a_measurement_ends_it_and_its_process(tmp_path):
    project = write_project(tmp_path, plan=QUANTIZE, contract="retention = 0.3\nspeedup_p50 = 1.01", task=SLOW_MODEL)
    (project / "limbeck.toml").write_text((project / "limbeck.toml").read_text().replace("timing_seconds = 0.1", "timing_seconds = 300"))
    process = started(project)
    deadline = time.monotonic() + 120
    exported = lambda: any((project / "runs" / "run" / "measurements").glob("export-*"))  # noqa: E731 - before, a child only asks for answers
    while not (exported() and (children := measuring(process.pid))) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children, process.communicate()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped in a " in error and "Run the same command again" in error, error
    assert not psutil.wait_procs(children, timeout=10)[1]
    kept = [p.name for p in (project / "runs" / "run" / "measurements").iterdir() if p.name.startswith("latency")]
    assert kept == [], "half a timing was kept"


def test_a_sigterm_in_an_evaluation_ends_it(tmp_path):
    process = started(write_project(tmp_path, plan=QUANTIZE, task=SLOW_METRIC))
    assert process.stdout and "evaluating" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Run the same command again" in error and "Traceback" not in error, error
