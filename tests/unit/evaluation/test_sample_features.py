"""What is known of samples without being told: labels, scalars, text, statistics of inputs; or what the task says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.core.errors import TaskError
from limbeck.core.task import Task
from limbeck.evaluation.features import SURE, columns_of
from limbeck.evaluation.scores import scores_of
from limbeck.intake.metrics import accuracy, macro_f1, mae, r2, roc_auc, top_k
from limbeck.testing import small_task, small_text_task

COUNT = 20


class Made:
    def __init__(self, make, classes=()):
        self.make, self.classes = make, list(classes)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return self.make(i)


def columns(make, *, classes=(), **task: Any) -> dict[str, Any]:
    made = Task(name="made", metric=accuracy(), splits={"test": Made(make, classes)}, **task)
    rows = {"target": np.arange(COUNT) % 10, "correct": np.ones(COUNT, dtype=np.int8), "confidence": np.linspace(0.2, 1, COUNT)}
    found = columns_of(made, "test", range(COUNT), rows, rows | {"confidence": np.linspace(0.4, 1, COUNT)})
    return {c.name: c for c in found}


def test_an_image_has_label_confidence_mean_and_contrast():
    found = columns(lambda i: (torch.full((1, 4, 4), float(i)) + torch.arange(16.0).reshape(1, 4, 4) * i, i % 10))
    assert list(found) == ["label", SURE, "mean of input", "contrast of input"]
    assert found["label"].names == tuple(map(str, range(10))) and found["mean of input"].values[2] == pytest.approx(2 + 15)
    assert found[SURE].values[0] == pytest.approx(0.3)


def test_a_row_of_a_table_is_its_numbers():
    assert list(columns(lambda i: (torch.tensor([float(i), 1.0, -float(i)]), 0)))[2:] == ["input[0]", "input[2]"]  # the second never varies


def test_tokens_have_a_length():
    mask = columns(lambda i: {"ids": torch.ones(8, dtype=torch.long), "attention_mask": (torch.arange(8) < 1 + i % 5).long(), "label": 0})
    zeros = columns(lambda i: (torch.tensor([5] * (1 + i % 5) + [0] * (7 - i % 5)), 0))
    assert mask["length of input"].values.tolist() == zeros["length of input"].values.tolist() == [1 + i % 5 for i in range(COUNT)]


def test_what_stands_beside_the_inputs_is_known_too():
    found = columns(lambda i: {"x": torch.zeros(1, 4, 4), "site": "ab"[i % 2], "night": i % 3 == 0, "text": "a" * i + str(i), "label": 0}, inputs=lambda b: ((b["x"],), {}))
    assert found["site"].names == ("a", "b") and found["night"].names == ("false", "true")
    assert found["length of text"].values[9] == 10 and "mean of input" not in found
    assert columns(lambda i: (torch.zeros(1, 4, 4), float(i), 0))["column 1"].values.tolist() == list(range(COUNT))


def test_classes_bear_their_names():
    assert columns(lambda i: (torch.zeros(1, 2, 2), i % 10), classes="abcdefghij")["label"].names == tuple("abcdefghij")


def test_the_tasks_own_features_stand_in_place_of_what_a_batch_offers():
    own = lambda batch: {"weight": batch[0].sum((1, 2, 3)), "label": ["x", "y"] * (len(batch[0]) // 2)}  # noqa: E731
    found = columns(lambda i: (torch.full((1, 2, 2), float(i)), i % 10), features=own)
    assert set(found) == {SURE, "weight", "label"} and found["label"].names == ("x", "y")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda batch: {"odd": batch[0]}, "feature 'odd' .* must give one number"),
        (lambda batch: {"odd": [1.0]}, "for 20 samples"),
        (lambda batch: batch["nothing"], "features of task 'made'"),
    ],
)
def test_features_that_are_none_are_named(own, message: str):
    with pytest.raises(TaskError, match=message):
        columns(lambda i: (torch.zeros(1, 2, 2), i % 10), features=own)


@pytest.mark.parametrize("task", [small_task(samples=24), small_text_task(samples=24)], ids=lambda t: t.name)
def test_tasks_as_they_are(task: Task):
    rows = {"target": np.arange(24) % 3, "correct": np.ones(24, dtype=np.int8)}
    assert "label" in {c.name for c in columns_of(task, "test", range(24), rows, rows)}


def test_scores_are_of_samples():
    rows = {"predicted": np.array([0, 1, 1]), "target": np.array([0, 1, 0])}
    other = rows | {"predicted": np.array([1, 1, 0])}
    for metric, extra in ((accuracy(), {"correct": rows["predicted"] == rows["target"]}), (macro_f1(), {}), (top_k(1), {})):
        found = scores_of(metric, rows | extra, other | ({"correct": other["predicted"] == other["target"]} if extra else {}))
        assert found is not None and found.binary and found.harm.tolist() == [1, 0, -1]
    errors = scores_of(mae(), {"error": np.array([1.0, 2.0])}, {"error": np.array([1.5, 1.0])})
    assert errors is not None and not errors.binary and errors.harm.tolist() == [0.5, -1.0]
    squared = scores_of(
        r2(), {"predicted": np.array([[1.0], [3.0]]), "target": np.array([[1.0], [2.0]])}, {"predicted": np.array([[2.0], [2.0]]), "target": np.array([[1.0], [2.0]])}
    )
    assert squared is not None and squared.name == "squared error" and squared.harm.tolist() == [1.0, -1.0]
    area = {"score": np.array([0.1, 0.9]), "target": np.array([0, 1])}
    assert scores_of(roc_auc(), area, area) is None
    assert replace(errors, rising=True).harm.tolist() == [-0.5, 1.0]
