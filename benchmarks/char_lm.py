"""Which divergence makes the better small language model: forward KL, reverse KL, or the teacher's judgement of what it writes itself?

A character model of Tiny Shakespeare is trained and teaches a student of a tenth of its size, which has learnt from the text alone before
(the same start for each arm of a seed). Arms of one length: the text alone, forward KL, reverse KL, and on-policy (half of the steps on the
student's own continuations, reverse KL throughout). Judged by perplexity on text that nobody trained on, and by the teacher's likelihood of
what the student writes there. `python benchmarks/char_lm.py FOLDER` does what FOLDER lacks, arm by arm, resumable; `--arm 2-forward` does
one; `--full` is ten times as long. About 12 core-minutes; writes `records/char_lm.json`, which `docs/language-models.md` shows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from limbeck import Task, Training, perplexity
from limbeck.core.files import write
from limbeck.evaluation import environment, quality
from limbeck.mechanics.families.decoder import decoder
from limbeck.mechanics.generate import continued, uniforms
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.on_policy import OnPolicy, writing
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import jsd, task_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.pipeline.store import canonical
from limbeck.stats.bootstrap import bca_lower

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORD = Path(__file__).parent / "records" / "char_lm.json"
LENGTH, PROMPT, TEST_SHARE = 64, 16, 0.1
TEACHER = {"width": 96, "layers": 3, "heads": 4}
STUDENT = {"width": 32, "layers": 2, "heads": 2}
SEEDS = (0, 1, 2)
ARMS: dict[str, Objective] = {"none": 1.0 * task_loss(), "forward": 1.0 * jsd(beta=0), "reverse": 1.0 * jsd(beta=1), "on_policy": 1.0 * jsd(beta=1)}
ON_POLICY = OnPolicy(student_share=0.5, beta=1.0, prompt_tokens=PROMPT)
PROMPTS = 512  # test windows whose beginnings are continued


@dataclass(frozen=True)
class Setting:
    """How long everything is: epochs over windows of the text."""

    teacher: Training
    start: Training
    arm: Training

    @staticmethod
    def of(times: int) -> Setting:
        return Setting(*(Training(epochs=epochs * times, batch_size=32, learning_rate=rate) for epochs, rate in ((6, 3e-3), (2, 3e-3), (1, 2e-3))))


def shakespeare() -> tuple[Task, int]:
    """Windows of 64 characters, each to be followed by the next; the last tenth of the text is test. And the vocabulary's size."""
    text = gzip.decompress((DATA / "lm" / "tinyshakespeare.txt.gz").read_bytes()).decode()
    letters = sorted(set(text))
    ids = torch.tensor([letters.index(c) for c in text])
    cut = int(len(ids) * (1 - TEST_SHARE))
    splits = {}
    for name, part in (("train", ids[:cut]), ("test", ids[cut:])):
        count = (len(part) - 1) // LENGTH
        splits[name] = TensorDataset(part[: count * LENGTH].view(count, LENGTH), part[1 : count * LENGTH + 1].view(count, LENGTH))
    make = lambda: decoder(vocabulary=len(letters), length=LENGTH, **TEACHER)  # noqa: E731
    return Task(name="shakespeare", models={"teacher": make}, splits=splits, metric=perplexity()), len(letters)


def begun(seed: int, vocabulary: int, sizes: Mapping[str, int]) -> nn.Module:
    torch.manual_seed(seed)
    return decoder(vocabulary=vocabulary, length=LENGTH, **sizes)


def kept(path: Path, make: Any) -> dict[str, Any]:
    """A result by its file: made, and written with the processor seconds that it took, if it isn't there."""
    if not path.exists():
        start = time.process_time()
        found = make()
        write(path, canonical(found | {"core_seconds": time.process_time() - start}))
        print(path.stem, {k: v for k, v in found.items() if not isinstance(v, dict)}, flush=True)
    return json.loads(path.read_text())


def trained(model: nn.Module, objective: Objective, training: Training, task: Task, folder: Path, *, seed: int, teacher: LiveTeacher | None = None, own: bool = False) -> nn.Module:
    """`model` trained in place, or the weights that an earlier process left."""
    done = folder / "weights.safetensors"
    if done.exists():
        tensors, _ = FileCheckpoint(done).load() or ({}, {})
        model.load_state_dict(tensors)
        return model.eval()
    bound = objective.bind(task, teacher, model, seed=seed)
    rewrite = writing(ON_POLICY, task, teacher, model, seed=seed) if own and teacher else None
    fit(model, bound, training, seed=seed, checkpoint=FileCheckpoint(folder / "checkpoint.safetensors"), log=QuietLog(), rewrite=rewrite)
    FileCheckpoint(done).save(model.state_dict(), {})
    return model


def judged(model: nn.Module, teacher: nn.Module, task: Task) -> dict[str, Any]:
    """Its perplexity on test, and the teacher's nats a character of what it writes after the first 16 of each window; rows of both."""
    rows = quality.rows_of_module(model, task, "test")
    prompts = task.split("test").tensors[0][:PROMPTS]
    lengths, room = torch.full((PROMPTS,), PROMPT), torch.full((PROMPTS,), LENGTH - PROMPT)
    text, _ = continued(lambda ids, _: model(ids), prompts, lengths, room=room, uniform=uniforms(0, 0, np.arange(PROMPTS), LENGTH - PROMPT), temperature=1.0, end=None)
    written = likelihood(teacher, text)
    return {"perplexity": quality.value(task.metric, rows), "sample_nats": float(written.mean()), "rows": {"nll": rows["nll"].tolist(), "sample_nats": written.tolist()}}


@torch.no_grad()
def likelihood(teacher: nn.Module, text: torch.Tensor) -> np.ndarray:
    """The teacher's mean −log p of each character after the prompt, by window."""
    logs = teacher.eval()(text[:, :-1]).log_softmax(-1)[:, PROMPT - 1 :]
    return -logs.gather(2, text[:, PROMPT:, None])[:, :, 0].mean(1).double().numpy()


def runs(folder: Path, setting: Setting, only: str | None) -> dict[str, dict[str, Any]]:
    """The teacher, each seed's start, and its arms, by name; those that are asked for and missing are trained."""
    task, vocabulary = shakespeare()
    teacher = begun(1000, vocabulary, TEACHER)
    prepare = lambda: judged(trained(teacher, ARMS["none"], setting.teacher, task, folder / "teacher", seed=1000), teacher, task)  # noqa: E731
    truth = lambda: {"text_nats": float(likelihood(teacher, task.split("test").tensors[0][:PROMPTS]).mean())}  # noqa: E731
    done = {"teacher": kept(folder / "teacher.json", lambda: prepare() | truth())}
    trained(teacher, ARMS["none"], setting.teacher, task, folder / "teacher", seed=1000)
    live = LiveTeacher(task, teacher)
    for seed in SEEDS:
        start = begun(seed, vocabulary, STUDENT)
        begin = lambda start=start, seed=seed: trained(start, ARMS["none"], setting.start, task, folder / f"{seed}-start", seed=seed)  # noqa: E731
        done[f"{seed}-start"] = kept(folder / f"{seed}-start.json", lambda begin=begin: judged(begin(), teacher, task))
        begin()
        for arm, objective in ARMS.items():
            name, path = f"{seed}-{arm}", folder / f"{seed}-{arm}.json"
            if only in (None, name) or path.exists():
                asked = None if arm == "none" else live
                work = lambda start=start, objective=objective, asked=asked, name=name, arm=arm, seed=seed: trained(  # noqa: E731
                    deepcopy(start), objective, setting.arm, task, folder / name, seed=100 + seed, teacher=asked, own=arm == "on_policy"
                )
                done[name] = kept(path, lambda work=work: judged(work(), teacher, task))
    return done


def against(done: Mapping[str, Mapping[str, Any]], arm: str, other: str) -> dict[str, Any]:
    """What `arm` has more than `other`: perplexity (of the mean over seeds of nats) and the teacher's nats of samples.

    Two-sided 95 % BCa over test windows, the seeds' rows averaged: the spread of seeds is not in it, and stands beside.
    """
    a, b = ({k: np.mean([done[f"{seed}-{which}"]["rows"][k] for seed in SEEDS], axis=0) for k in ("nll", "sample_nats")} for which in (arm, other))
    reduces = {"nll": lambda r: float(np.exp(r["x"].mean() / LENGTH)), "sample_nats": lambda r: float(r["x"].mean())}
    found: dict[str, Any] = {}
    for key, reduce in reduces.items():
        bounds = bca_lower({"x": a[key]}, {"x": b[key]}, lambda c, d, reduce=reduce: reduce(c) - reduce(d), confidence=0.975)
        name = "perplexity" if key == "nll" else key
        by_seed = [done[f"{seed}-{arm}"][name] - done[f"{seed}-{other}"][name] for seed in SEEDS]
        found[name] = {"value": bounds.value, "low": bounds.low, "high": bounds.high, "by_seed": by_seed}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arm")
    parser.add_argument("--full", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting.of(10 if asked.full else 1)
    done = runs(asked.folder, setting, asked.arm)
    if missing := [f"{seed}-{arm}" for seed in SEEDS for arm in ARMS if f"{seed}-{arm}" not in done]:
        print("still to do:", *missing)
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip()
    task, vocabulary = shakespeare()
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": environment.machine(),
        "versions": environment.versions(),
        "setting": {
            "seeds": list(SEEDS),
            "windows": {name: len(split) for name, split in task.splits.items()},
            "length": LENGTH,
            "prompt": PROMPT,
            "prompts": PROMPTS,
            "teacher": {**TEACHER, "parameters": parameters(begun(0, vocabulary, TEACHER)), "epochs": setting.teacher.epochs},
            "student": {**STUDENT, "parameters": parameters(begun(0, vocabulary, STUDENT)), "epochs": [setting.start.epochs, setting.arm.epochs]},
            "on_policy": {"student_share": ON_POLICY.student_share, "beta": ON_POLICY.beta},
            "full": asked.full,
        },
        "core_hours": sum(one["core_seconds"] for one in done.values()) / 3600,
        "runs": {name: {k: v for k, v in one.items() if k != "rows"} for name, one in done.items()},
        "against": {f"{arm} − {other}": against(done, arm, other) for other, arm in combinations(ARMS, 2)},
        "rows": {name: {k: np.round(v, 4).tolist() for k, v in one["rows"].items()} for name, one in done.items()},
    }
    write(RECORD, (json.dumps(record) + "\n").encode())
    for name, one in record["runs"].items():
        print(f"{name}: perplexity {one['perplexity']:.3f}, the teacher's nats of its samples {one['sample_nats']:.3f}, {one['core_seconds']:.0f} s")


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    main()
