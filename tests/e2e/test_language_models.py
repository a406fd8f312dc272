"""A small causal language model through a whole run: off-policy and on-policy, judged by perplexity, packaged as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from limbeck import Contract, Gate, Plan, Proof, Stage, Task, compress, perplexity
from limbeck.evaluation import quality
from limbeck.mechanics.families.decoder import decoder
from limbeck.runtimes import runtime

V, T, EXACT = 12, 16, 2.0  # each token has two successors, equally likely: the best perplexity there is
TRAINING = {"epochs": 6, "batch_size": 16, "learning_rate": 2e-2}


def text(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, V, (count, 1), generator=generator)]
    for _ in range(T):
        ids.append((ids[-1] * 5 + 1 + torch.randint(0, 2, (count, 1), generator=generator)) % V)
    whole = torch.cat(ids, 1)
    return TensorDataset(whole[:, :-1], whole[:, 1:])


def teacher() -> torch.nn.Module:
    return decoder(vocabulary=V, width=32, layers=2, heads=2, length=T)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model, data = teacher(), text(256, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    ids, labels = data.tensors
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    splits = {"train": data, "validation": text(128, 1), "test": text(128, 2)}
    return Task(name="chain", models={"teacher": teacher}, weights={"teacher": model.state_dict()}, splits=splits, metric=perplexity())


def run(task: Task, root: Path, **config: Any) -> tuple[Any, list[dict[str, Any]]]:
    student = {"student": "limbeck:decoder", "options": {"width": 16, "heads": 2, "layers": 1}, "training": TRAINING}
    plan = Plan(stages=(Stage(technique="distill", config=student | config, gate=Gate(pays="bytes", shrink=2)),), control=False)
    done = compress(task, Contract(max_drop=1.0, size_ratio=2), plan, name="run", root=root, proof=Proof(studies="none"))
    return done, [json.loads(line) for line in (root / "run" / "journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("beta", [pytest.param(0.0, id="forward"), pytest.param(1.0, id="reverse", marks=pytest.mark.slow)])
def test_off_policy_by_token_logits_alone(task, tmp_path, beta):
    """No label is used; the artifact itself is near the best that can be reached, and its drop is bounded over sequences."""
    done, journal = run(task, tmp_path, terms=[{"name": "jsd", "options": {"beta": beta}}])
    assert done.verdict == "PASS", done.summary
    limit = next(v for v in done.summary["contract"] if v["gate"] == "max_drop")
    assert "128 samples of test" in limit["why"] if "why" in limit else limit["status"] == "PASS"
    assert EXACT * 0.95 < done.summary["final"]["metric"]["value"] < EXACT * 1.25
    assert not any(line["event"] == "teacher's answers" and line["data"]["outputs"] == "live" for line in journal), "its answers were cached"


def test_on_policy_with_a_live_teacher(task, tmp_path):
    done, journal = run(task, tmp_path, terms=[{"name": "jsd", "options": {"beta": 0}}], on_policy={"student_share": 0.5, "beta": 1.0, "prompt_tokens": 4})
    assert done.verdict == "PASS", done.summary
    live = [line["data"] for line in journal if line["event"] == "teacher's answers"]
    assert [x["outputs"] for x in live] == ["live"] and "isn't in the training split" in live[0]["why"]
    assert 'on_policy": 0.' in (tmp_path / "run" / "journal.jsonl").read_text() or any("on_policy" in p.read_text() for p in (tmp_path / "run" / "stages").glob("*.json"))
    artifact = done.artifact
    assert artifact is not None
    rows = quality.rows_of(runtime("onnxruntime").load(artifact, 1), task, "test")
    assert np.isclose(quality.value(task.metric, rows), done.summary["final"]["metric"]["value"])


def test_a_student_with_another_vocabulary_is_refused_with_both_sizes(task, tmp_path):
    from limbeck.core.errors import TaskError

    wider = Task(**{**vars(task), "models": {**task.models, "wide": lambda: decoder(vocabulary=15, width=16, layers=1, heads=2, length=T)}})
    plan = Plan(stages=(Stage(technique="distill", config={"student": "wide", "training": TRAINING, "on_policy": {"prompt_tokens": 4}}),), control=False)
    with pytest.raises(TaskError, match="teacher's vocabulary has 12 tokens, the student's 15"):
        compress(wider, Contract(max_drop=1.0, size_ratio=1.5), plan, root=tmp_path, proof=Proof(studies="none"))
