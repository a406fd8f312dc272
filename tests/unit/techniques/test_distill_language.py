"""Language models of several lengths: padded batches, an end token, off-policy and on-policy, and an artifact that takes any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from limbeck import Task, Training, perplexity
from limbeck.core.errors import TaskError
from limbeck.evaluation import quality
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, feed, predict
from limbeck.mechanics.families.decoder import decoder
from limbeck.mechanics.on_policy import OnPolicy
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.testing import context

V, END, LONGEST = 9, 8, 10


def texts(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """A number counts up, mod 8, and may end at each step; the first two tokens are a prompt."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        first, more = int(rng.integers(8)), int(rng.integers(1, LONGEST - 3))
        ids = torch.tensor([(first + k) % 8 for k in range(more + 2)] + [END])
        labels = torch.cat([ids[1:], torch.tensor([-100])])
        labels[0] = -100
        found.append({"input_ids": ids, "labels": labels})
    return found


def collate(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    width = max(len(s["input_ids"]) for s in samples)

    def padded(values: list[torch.Tensor], fill: int) -> torch.Tensor:
        return torch.stack([F.pad(v, (0, width - len(v)), value=fill) for v in values])

    ids = [s["input_ids"] for s in samples]
    return {"input_ids": padded(ids, 0), "attention_mask": padded([torch.ones_like(v) for v in ids], 0), "labels": padded([s["labels"] for s in samples], -100)}


def teacher() -> torch.nn.Module:
    return decoder(vocabulary=V, width=24, layers=1, heads=2, length=LONGEST)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model, data = teacher(), texts(128, 0)
    optimizer, batch = torch.optim.AdamW(model.parameters(), lr=1e-2), collate(data)
    for _ in range(60):
        logits = model(batch["input_ids"], batch["attention_mask"])
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    splits = {"train": data, "validation": texts(48, 1), "test": texts(48, 2)}
    return Task(name="counting", models={"teacher": teacher}, weights={"teacher": model.state_dict()}, splits=splits, collate=collate, metric=perplexity())


def student_of(task: Task, folder: Any, **config: Any) -> tuple[Any, float]:
    asked = Distill(
        student="limbeck:decoder", options={"width": 16, "heads": 2, "layers": 1, "length": LONGEST}, training=Training(epochs=10, batch_size=16, learning_rate=2e-2), **config
    )
    outcome = distill(teacher_candidate(task), asked, context(task, folder))
    score = quality.value(task.metric, quality.rows_of_module(rebuild(outcome.candidate.torch_form, task), task, "test"))
    return outcome, score


def test_padded_texts_teach_and_the_artifact_takes_any_length(task, tmp_path):
    outcome, score = student_of(task, tmp_path, teacher_weight=1.0, temperature=1.0)
    truth = quality.value(task.metric, quality.rows_of_module(rebuild(teacher_candidate(task).torch_form, task), task, "test"))
    assert score < 1.15 * truth < 2.5, "by the teacher's token logits alone"
    model = rebuild(outcome.candidate.torch_form, task)
    artifact = ONNXRUNTIME.export(example(task, model), tmp_path / "model")
    session = ONNXRUNTIME.load(artifact, 1)
    for ids in ([0], [1, 2, 3], list(range(20))):
        batch = batch_of(task, "test", ids)
        with torch.no_grad():
            np.testing.assert_allclose(session(feed(task, batch))["logits"], predict(task, model, batch)["logits"].numpy(), atol=1e-4)


def test_on_policy_learns_from_prompts_alone_to_count_and_to_end(task, tmp_path):
    """The data's continuations are never seen: the student writes them all, from the two tokens that aren't labelled."""
    outcome, score = student_of(task, tmp_path, on_policy=OnPolicy(student_share=1.0, beta=0.0, end_token=END))
    assert score < V / 3, "an untrained one is as perplexed as there are tokens"
    history = outcome.claims["history"]
    assert history[-1]["on_policy"] < history[0]["on_policy"] / 3 and "task_loss" not in history[0]


def test_a_teacher_of_another_vocabulary_is_refused_off_policy(task, tmp_path):
    wide = Task(**{**vars(task), "models": {**task.models, "wide": lambda: decoder(vocabulary=V + 3, width=16, layers=1, heads=2, length=LONGEST)}})
    with pytest.raises(TaskError, match=r"student \(64, \d+, 12\) and teacher \(64, \d+, 9\).*give the student 9"):
        distill(teacher_candidate(wide), Distill(student="wide", training=Training(epochs=1)), context(wide, tmp_path))
