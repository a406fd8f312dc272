"""Memory and disk: estimated before training, watched during it."""

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

import limbeck
from limbeck import Contract, Gate, Plan, Stage, Training
from limbeck.core.errors import RunError
from limbeck.pipeline import guard
from limbeck.pipeline.guard import Structure, Watch, needs, refusal
from limbeck.testing import small_task

Free = namedtuple("Free", ("available",))
Disk = namedtuple("Disk", ("free",))
PLAN = Plan(
    stages=(
        Stage(
            technique="distill", config={"student": "small", "training": {"epochs": 4, "batch_size": 16, "checkpoint_steps": 3}}, gate=Gate(pays="bytes", shrink=1.0, retention=0.0)
        ),
    ),
    control=False,
)


def test_an_estimate_grows_with_what_it_depends_on():
    teacher, small, large = Structure(1000, 500), Structure(10, 20), Structure(100, 200)
    base = needs(small, Training(batch_size=8), teacher=teacher, answers_bytes=0)
    assert base["memory"] == 7 * 40 + 2 * 8 * 20 * 4 + (1000 + 8 * 500) * 4
    assert needs(large, Training(batch_size=8), teacher=teacher, answers_bytes=0)["memory"] > base["memory"]
    assert needs(small, Training(batch_size=16), teacher=teacher, answers_bytes=0)["memory"] > base["memory"]
    assert needs(small, Training(batch_size=8), teacher=teacher, answers_bytes=77)["disk"] == base["disk"] + 77
    assert needs(small, None, teacher=teacher, answers_bytes=0)["memory"] < base["memory"]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_cannot_fit_is_refused_with_the_figures(tmp_path, kind):
    wanted = {"memory": 1, "disk": 1} | {kind: 1 << 50}
    answer = refusal([(Stage(technique="distill"), wanted)], tmp_path)
    assert answer is not None and f"stage 'distill' needs about 1048576.00 GiB of {kind}" in answer.reason and "are free. Nothing was trained" in answer.reason
    assert refusal([(Stage(technique="distill"), {"memory": 1, "disk": 1})], tmp_path) is None


def test_a_run_that_cannot_fit_is_refused_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(guard.LEAST_FREE_BYTES + 1000))
    result = limbeck.compress(small_task(), Contract(size_ratio=1.5), PLAN, root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    assert result.exit_code == 5 and "of memory" in result.summary["refusal"]["reason"] and "batch_size" in result.summary["refusal"]["fix"]
    assert not (result.folder / "stages").exists()


def test_memory_that_runs_out_stops_with_a_checkpoint_and_the_run_goes_on(tmp_path, monkeypatch):
    """Free at the estimate, short once training runs: the reason is said, and the same call goes on to the end."""
    monkeypatch.setattr(guard, "WATCH_SECONDS", 0.0)
    real, short = psutil.virtual_memory, lambda: Free(1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: short() if list(tmp_path.glob("run/checkpoints/*")) else real())
    with pytest.raises(RunError, match=r"only 1 MiB of memory are free; close other programs. What was done is on disk; run the same command again"):
        limbeck.compress(small_task(), Contract(size_ratio=1.5), PLAN, root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    monkeypatch.setattr(psutil, "virtual_memory", real)
    assert limbeck.compress(small_task(), Contract(size_ratio=1.5), PLAN, root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none")).verdict == "PASS"


def test_the_watch_asks_seldom_and_passes_a_stop_on(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(guard, "_shortage", lambda folder: asked.append(folder) or "")
    watch = Watch(lambda: False, Path(tmp_path))
    assert not any(watch() for _ in range(100)) and len(asked) == 1
    assert Watch(lambda: True, Path(tmp_path))()
