"""What does distillation cost beside plain training, with a cache and without? How much of a step are views? How many bytes is a token?

Steps of the real loop's objective, all kinds in turn in one process on one thread; whole runs of 16 epochs through the real loop. Inputs
are random: time doesn't depend on them. `python benchmarks/distillation_speed.py` takes about eight minutes; writes
`records/distillation_speed.json`, which `docs/cache.md` shows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from limbeck import Task, Training, Views, accuracy
from limbeck.core.files import write
from limbeck.evaluation import environment
from limbeck.mechanics.data import Reader
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.objective import BoundObjective
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher, SparseTeacher
from limbeck.mechanics.terms import kd, task_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.pipeline.store import canonical
from limbeck.stats.latency import median_ratio

RECORD = Path(__file__).parent / "records" / "distillation_speed.json"
SAMPLES, BATCH, EPOCHS, VERSIONS = 256, 128, 16, 4
TURNS, STEPS, RUNS = 10, 2, 3  # each turn times every kind for so many steps; each whole run is taken so often
TEACHERS = {"ResNet-32": (5, 5, 5), "ResNet-56": (9, 9, 9)}
NEAR, HEAVY = "ResNet-32", "ResNet-56"  # of whole runs: the nearer to the least that the bar speaks of (three times the cost), and a usual gap
VOCABULARY, TOKENS, SEQUENCES, K = 8192, 64, 256, 10
BARS = {"cached_step": 1.10, "whole_run": 0.60, "views_share": 0.05, "bytes_a_token": 44}


def images() -> Task:
    """256 random images of CIFAR's shape, under crop and flip."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(SAMPLES, 3, 32, 32, generator=generator), torch.randint(0, 10, (SAMPLES,), generator=generator))
    return Task(metric=accuracy(), splits={"train": data}, views=Views(crop=4, flip=True, versions=VERSIONS))


def stepping(bound: BoundObjective, student: nn.Module, batch_size: int) -> Callable[[], None]:
    """One step of training as the loop makes it: batch, view, forward, backward, clipping, optimizer."""
    reader, optimizer = Reader(bound.task, "train"), torch.optim.AdamW([*student.parameters(), *bound.parameters()], lr=1e-3)
    rng, count = np.random.default_rng(0), len(bound.task.split("train"))
    versions = bound.task.views.versions if bound.task.views else 1

    def step() -> None:
        ids = rng.choice(count, batch_size, replace=False)
        loss, _ = bound(student.train(), reader.batch(ids), ids, int(rng.integers(versions)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()

    return step


def in_turn(kinds: Mapping[str, Callable[[], Any]], turns: int = TURNS) -> dict[str, list[list[float]]]:
    """Milliseconds: each kind once a turn, for so many steps, after one turn that isn't counted."""
    found: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for turn in range(turns + 1):
        for name, work in kinds.items():
            block = []
            for _ in range(STEPS):
                start = time.perf_counter()
                work()
                block.append((time.perf_counter() - start) * 1e3)
            if turn:
                found[name].append(block)
    return found


def ratio(taken: Mapping[str, Sequence[Sequence[float]]], a: str, b: str) -> dict[str, float]:
    """How many times as long a takes as b, with its 99 % interval."""
    found = median_ratio(taken[a], taken[b])
    return {"value": found.value, "low": found.low, "high": found.high}


def steps(task: Task, folder: Path) -> dict[str, Any]:
    """Plain, cached and live steps of a ResNet-8 (w 16), forward passes alone, and views alone."""
    student = resnet(channels=3, classes=10)
    batch, ids = Reader(task, "train").batch(np.arange(BATCH)), np.arange(BATCH)
    objective, kinds, built = 0.1 * task_loss() + 0.9 * kd(), dict[str, Callable[[], Any]](), dict[str, float]()
    kinds["plain"] = stepping((1.0 * task_loss()).bind(task), student, BATCH)
    kinds["plain_w8"] = stepping((1.0 * task_loss()).bind(task), resnet(channels=3, classes=10, widths=[8, 16, 32]), BATCH)
    kinds["views"] = lambda: task.views.apply_to(task, batch, ids, 1)
    kinds["student_forward"] = lambda: forward(student, batch[0])
    for name, blocks in TEACHERS.items():
        teacher = resnet(channels=3, classes=10, blocks=blocks)
        live = LiveTeacher(task, teacher)
        cached = CachedTeacher(folder / name, live, {})
        start = time.perf_counter()
        for view in range(VERSIONS):
            cached.teacher(ids, view, (), {})
        built[name] = (time.perf_counter() - start) / VERSIONS / SAMPLES * 1e3
        kinds[f"{name}_cached"] = stepping(objective.bind(task, cached), student, BATCH)
        kinds[f"{name}_live"] = stepping(objective.bind(task, live), student, BATCH)
        kinds[f"{name}_forward"] = lambda teacher=teacher: forward(teacher, batch[0])
        kinds[f"{name}_read"] = lambda cached=cached: cached.teacher(np.random.default_rng(0).permutation(SAMPLES)[:BATCH], 1, (), {})
    taken = in_turn(kinds)
    return {"build_ms_a_sample_and_view": built, "ms": taken, **step_ratios(taken, built)}


def forward(model: nn.Module, batch: torch.Tensor) -> None:
    with torch.no_grad():
        model.eval()(batch)


def step_ratios(taken: Mapping[str, Sequence[Sequence[float]]], built: Mapping[str, float]) -> dict[str, Any]:
    """What is read off the steps; whole runs of 16 epochs computed from steps and building, without what both share."""
    median = {name: float(np.median(blocks)) for name, blocks in taken.items()}
    found: dict[str, Any] = {"median_ms": median, "views_share": {s: ratio(taken, "views", s) for s in ("plain", "plain_w8")}, "teachers": {}}
    for name in built:
        whole = {v: (EPOCHS * median[f"{name}_cached"] + v * built[name] * BATCH) / (EPOCHS * median[f"{name}_live"]) for v in (1, 2, 4, 8)}
        cost = ratio(taken, f"{name}_forward", "student_forward")
        found["teachers"][name] = {
            "cost": cost,
            "cached_step": ratio(taken, f"{name}_cached", "plain"),
            "live_step": ratio(taken, f"{name}_live", "plain"),
            "whole_run_computed": whole,
        }
    return found


def whole_runs(task: Task, folder: Path, name: str, views: Sequence[int]) -> dict[str, Any]:
    """Seconds of whole runs of 16 epochs through the real loop, cache building included; each run has a cache of its own."""
    teacher, training = resnet(channels=3, classes=10, blocks=TEACHERS[name]), Training(epochs=EPOCHS, batch_size=BATCH)
    seconds: dict[str, list[float]] = {}
    for versions in views:
        under = replace(task, views=replace(task.views, versions=versions))
        for turn in range(RUNS):
            for kind in ("cached", "live"):
                live = LiveTeacher(under, teacher)
                place = folder / f"{name}-{kind}-{versions}-{turn}"
                start = time.perf_counter()
                bound = (0.1 * task_loss() + 0.9 * kd()).bind(under, CachedTeacher(place / "cache", live, {}) if kind == "cached" else live)
                fit(resnet(channels=3, classes=10), bound, training, seed=turn, checkpoint=FileCheckpoint(place / "c"), log=QuietLog())
                seconds.setdefault(f"{kind}_{versions}", []).append(time.perf_counter() - start)
    ratios = {str(v): {"value": float(np.median(r := np.divide(seconds[f"cached_{v}"], seconds[f"live_{v}"]))), "low": min(r), "high": max(r)} for v in views}
    return {"teacher": name, "epochs": EPOCHS, "seconds": seconds, "ratio_by_views": ratios}


class Words(nn.Module):
    """A causal language model: embedding, transformer layers, head."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.table, self.body, self.head = nn.Embedding(VOCABULARY, width), nn.TransformerEncoder(layer, depth, enable_nested_tensor=False), nn.Linear(width, VOCABULARY)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(TOKENS), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.table(ids), mask=self.mask, is_causal=True))


def tokens(folder: Path) -> dict[str, Any]:
    """Bytes a token of the sparse cache, all its files counted; its step beside the plain one and the live teacher's."""
    ids = torch.randint(0, VOCABULARY, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
    task = Task(metric=replace(accuracy(), target="token"), splits={"train": TensorDataset(ids, ids)})
    live, student = LiveTeacher(task, Words(256, 4)), Words(128, 2)
    sparse = SparseTeacher(folder / "words", live, {}, k=K, temperatures=(1.0,))
    start = time.perf_counter()
    sparse.teacher(np.array([0]), 0, (), {})
    seconds = time.perf_counter() - start
    size = sum(p.stat().st_size for p in (folder / "words").rglob("*") if p.is_file())
    objective = 0.1 * task_loss() + 0.9 * kd(temperature=1)
    bound = {"plain": (1.0 * task_loss()).bind(task), "sparse": objective.bind(task, sparse), "live": objective.bind(task, live)}
    taken = in_turn({name: stepping(b, student, 16) for name, b in bound.items()}, turns=10)
    ratios = {f"{name}_step": ratio(taken, name, "plain") for name in ("sparse", "live")}
    told = {"vocabulary": VOCABULARY, "k": K, "tokens": SEQUENCES * TOKENS, "files_bytes": size, "bytes_a_token": size / (SEQUENCES * TOKENS), "row_bytes": sparse.layout.row_bytes}
    return {**told, "dense_fp16_bytes_a_token": 2 * VOCABULARY, "build_seconds": seconds, "ms": taken, **ratios}


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = images()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"steps": steps(task, folder), "whole_runs": whole_runs(task, folder, NEAR, (1, VERSIONS)), "tokens": tokens(folder)}
        found["whole_runs_heavy"] = whole_runs(task, folder, HEAVY, (VERSIONS,))
    nearest = found["steps"]["teachers"][NEAR]
    met = {
        "cached_step": max(t["cached_step"]["value"] for t in found["steps"]["teachers"].values()) <= BARS["cached_step"],
        "whole_run": {v: r["value"] <= BARS["whole_run"] for v, r in found["whole_runs"]["ratio_by_views"].items()},
        "whole_run_heavy": {v: r["value"] <= BARS["whole_run"] for v, r in found["whole_runs_heavy"]["ratio_by_views"].items()},
        "views_share": {s: r["value"] <= BARS["views_share"] for s, r in found["steps"]["views_share"].items()},
        "bytes_a_token": found["tokens"]["bytes_a_token"] <= BARS["bytes_a_token"],
    }
    record = {
        "question": "what distillation costs beside plain training, with a cache and with the teacher live; views' share of a step; bytes a token of a sparse cache",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
        "machine": {**environment.machine(), "threads": 1},
        "versions": environment.versions(),
        "setting": {"student": "ResNet-8 (w 16)", "batch": BATCH, "samples": SAMPLES, "views": VERSIONS, "turns": TURNS, "steps_a_turn": STEPS},
        "bars": BARS,
        "met": met,
        **found,
    }
    write(RECORD, canonical(record) + b"\n")
    print(f"cost {nearest['cost']['value']:.2f}, cached step {nearest['cached_step']}, whole {[found[w]['ratio_by_views'] for w in ('whole_runs', 'whole_runs_heavy')]}, met {met}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
