"""Confidence outside of the classes: what is fed, what is read from it, and which model is surer."""

import json

import numpy as np
import pytest
import torch
from edge_models import FLOAT, INT64, linear, model, setting_of
from onnx import helper

import limbeck
from limbeck.core.errors import Interrupted, TaskError
from limbeck.evaluation.ranges import counting, ranges_of, stays
from limbeck.evaluation.studies.outside import MADE, OUTSIDE, confidence_of
from limbeck.intake.metrics import accuracy, mse


def task(count: int = 40, **more):
    generator = torch.Generator().manual_seed(0)
    splits = {"test": [(torch.randn(4, generator=generator), i % 3) for i in range(count)]}
    return limbeck.Task(**{"splits": splits, "metric": accuracy()} | more)


def told(setting) -> dict:
    found = OUTSIDE.take(setting)
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture
def models(tmp_path):
    """A candidate with logits three times as large: always surer."""
    return linear(tmp_path / "sure.onnx", scale=3), linear(tmp_path / "plain.onnx")


def test_a_surer_candidate_is_found(models):
    far, near = ([(torch.randn(4, generator=torch.Generator().manual_seed(9)) * scale, 0) for _ in range(30)] for scale in (8, 0.05))
    found = told(setting_of(*models, task=task(outside={"far": far, "near": near})))
    sets = {one["name"]: one for one in found["sets"]}
    assert list(sets) == ["far", "near", "noise", "shuffled", "constant"] and [s["made"] for s in found["sets"]] == [False, False, True, True, True]
    assert all(one["surer"]["which"] == "candidate" and one["surer"]["low"] > 0 for one in sets.values())
    assert sets["far"]["candidate"]["auroc"]["value"] < 0.2 < 0.9 < sets["near"]["baseline"]["auroc"]["value"], "sure of what is far, unsure of what is near nothing"
    assert found["samples"] == 40 and sum(found["inside"]["baseline"]["histogram"]) == 40 and sum(sets["far"]["candidate"]["histogram"]) == 30
    assert sets["near"]["auroc_change"]["low"] <= sets["near"]["auroc_change"]["value"] <= sets["near"]["auroc_change"]["high"]
    turned = told(setting_of(models[1], models[0], task=task(outside={"far": far})))
    assert {one["surer"]["which"] for one in turned["sets"]} == {"baseline"}
    same = told(setting_of(models[0], models[0], task=task()))
    assert {one["surer"]["which"] for one in same["sets"]} == {None} and all(one["auroc_change"]["value"] == 0 for one in same["sets"])


def test_samples_are_shared_among_the_sets(models):
    found = told(setting_of(*models, task=task(200, outside={"more": [torch.randn(4) for _ in range(100)]}), samples=100))
    assert [found["samples"], *(one["samples"] for one in found["sets"])] == [20] * 5


def test_an_artifact_of_a_fixed_batch_is_asked_for_what_doesnt_fill_it(models, tmp_path):
    """40 samples and 30 of a set, sixteen at once: as confident as with a free batch."""
    far = [(torch.randn(4, generator=torch.Generator().manual_seed(9)), 0) for _ in range(30)]
    fixed = linear(tmp_path / "s16.onnx", scale=3, batch=16), linear(tmp_path / "p16.onnx", batch=16)
    found, free = (told(setting_of(*pair, task=task(outside={"far": far}))) for pair in (fixed, models))
    assert found["samples"] == 40 and [one["samples"] for one in found["sets"]] == [30, 40, 40, 40]
    assert [one["candidate"]["mean"] for one in found["sets"]] == pytest.approx([one["candidate"]["mean"] for one in free["sets"]])


def test_one_model_alone_is_not_compared(models):
    found = told(setting_of(models[0], task=task()))
    assert all(one["surer"] is None and one["auroc_change"] is None and one["baseline"] is None for one in found["sets"]) and list(found["inside"]) == ["candidate"]


def images() -> dict[str, np.ndarray]:
    return {"0": np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32)}


def tokens() -> dict[str, np.ndarray]:
    ids = np.array([[101, 7, 8, 9, 102, 0], [101, 5, 6, 102, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}


def test_what_is_made_is_of_the_range_of_the_data():
    fed, rng = images(), np.random.default_rng(1)
    ranges = ranges_of([fed])
    made = {name: make(fed, ranges, rng)["0"] for name, make in MADE.items()}
    for seen in made.values():
        assert seen.dtype == np.float32 and seen.shape == fed["0"].shape and seen.min() >= fed["0"].min() - 1e-6 and seen.max() <= fed["0"].max() + 1e-6
    assert all(len(np.unique(one)) == 1 for one in made["constant"]) and len(np.unique(made["constant"])) == 5
    for before, after in zip(fed["0"].reshape(5, 3, 36), made["shuffled"].reshape(5, 3, 36), strict=True):
        assert not np.array_equal(before, after)
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist())), "the channels of a pixel stay together"


def test_masks_stay_and_padding_too():
    fed = tokens()
    ranges = ranges_of([fed])
    for make in MADE.values():
        made = make(fed, ranges, np.random.default_rng(1))
        assert np.array_equal(made["attention_mask"], fed["attention_mask"]) and np.array_equal(made["token_type_ids"], fed["token_type_ids"])
        assert (made["input_ids"][fed["attention_mask"] == 0] == 0).all() and made["input_ids"].dtype == np.int64 and made["input_ids"].max() <= 102
    shuffled = MADE["shuffled"](fed, ranges, np.random.default_rng(1))["input_ids"]
    assert sorted(shuffled[0].tolist()) == sorted(fed["input_ids"][0].tolist()) and not np.array_equal(shuffled, fed["input_ids"])
    assert stays("attention_mask", fed["attention_mask"], ranges) and not stays("input_ids", fed["input_ids"], ranges)
    assert counting(fed, "input_ids", ranges).sum() == 9
    alone = {"0": np.array([[0, 1], [1, 0]])}
    assert not stays("0", alone["0"], ranges_of([alone])), "the only input is read by itself, whatever it holds"


def test_an_input_of_one_number_a_sample_has_no_other_order(tmp_path):
    """A number of a row in a table, beside a rate that is for all samples: neither can be shuffled, and the rate isn't drawn."""
    nodes = [helper.make_node("Gather", ["table", "id"], ["row"]), helper.make_node("Mul", ["row", "rate"], ["logits"])]
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    artifact = model(tmp_path / "table.onnx", nodes, {"id": (INT64, ("batch",)), "rate": (FLOAT, ())}, constants={"table": rows}, output=("logits", FLOAT, ("batch", 3)))
    splits = {"test": [(torch.tensor(i), i % 3) for i in range(50)]}
    found = told(setting_of(artifact, task=task(splits=splits, inputs=lambda batch: ((), {"id": batch[0], "rate": torch.tensor(2.0)}))))
    assert [(one["name"], one["samples"]) for one in found["sets"]] == [("noise", 50), ("constant", 50)]


def test_confidence_of_logits_and_of_probabilities():
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = soft.max(1)
    assert confidence_of({"logits": logits}, task()) == pytest.approx(expected)
    assert confidence_of({"probabilities": soft}, task()) == pytest.approx(expected)
    assert confidence_of({"logits": np.array([[0.0], [4.0], [-4.0]])}, task()) == pytest.approx([0.5, 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-4))])
    assert confidence_of({"logits": np.array([[np.inf, 0.0]])}, task()) == pytest.approx([1.0])


@pytest.mark.parametrize(
    "outputs, words",
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, "no output of classes"),
        ({"boxes": np.zeros((2, 3, 4))}, "no output of classes"),
        ({"ids": np.zeros((2, 3), np.int64)}, "no output of classes"),
        ({"logits": np.array([[np.nan, 1.0]])}, "NaN"),
    ],
)
def test_what_has_no_classes_is_said(outputs, words):
    with pytest.raises(TaskError, match=words):
        confidence_of(outputs, task())


def test_when_it_is_not_made(models):
    assert "--task" in OUTSIDE.why_not(setting_of(*models))
    assert "classifiers" in OUTSIDE.why_not(setting_of(*models, task=task(metric=mse()))) and OUTSIDE.why_not(setting_of(*models, task=task())) == ""
    for wrong, words in (
        ({"noise": [torch.zeros(4)] * 3}, "uses itself"),
        ({"few": [torch.zeros(4)]}, "at least 2"),
        ({"odd": [torch.zeros(4), torch.zeros(5)]}, r"outside\['odd'\]"),
    ):
        with pytest.raises(TaskError, match=words):
            OUTSIDE.take(setting_of(*models, task=task(outside=wrong)))
    with pytest.raises(Interrupted):
        OUTSIDE.take(setting_of(*models, task=task(), stop=lambda: True))
