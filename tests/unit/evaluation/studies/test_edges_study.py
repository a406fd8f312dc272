"""Edges: each word where it belongs, a crash is a finding, and what is red is what the baseline does better."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_models import divider, linear, model, positions, setting_of
from onnx import helper

sys.path.insert(0, str(Path(__file__).parents[3]))
import limbeck
from foreign_onnx import voice
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, Interrupted
from limbeck.evaluation.studies.edges import EDGES
from limbeck.intake.metrics import accuracy


def told(setting) -> dict[str, dict]:
    found = EDGES.take(setting)
    json.dumps(found, allow_nan=False)
    assert found["red"] == sum(c["red"] for c in found["cases"])
    return {c["name"]: c for c in found["cases"]}


def words(setting) -> dict[str, tuple[str, bool]]:
    return {name: (case["word"], case["red"]) for name, case in told(setting).items()}


def floats(count: int = 8, **more: object) -> limbeck.Task:
    """A task of four numbers between 1 and 2."""
    generator = torch.Generator().manual_seed(0)
    samples = [(1 + torch.rand(4, generator=generator), i % 3) for i in range(count)]
    return limbeck.Task(splits={"test": samples}, metric=accuracy(), **more)


def test_an_artifact_beside_itself_is_as_it_should_be(tmp_path):
    same = linear(tmp_path / "same.onnx")
    found = words(setting_of(same, same, task=floats()))
    assert set(found) == {
        *("batch of one", "empty batch", "all zero", "all least", "all largest", "10 × range", "1000 × range", "float16's largest", "subnormal", "+ infinity", "− infinity")
    }
    assert not any(red for _, red in found.values())
    assert {word for name, (word, _) in found.items() if "infinity" not in name} == {"ok"} and found["+ infinity"][0] == "not finite"


def test_what_is_not_finite_where_the_baseline_is(tmp_path):
    found = told(setting_of(linear(tmp_path / "log.onnx", "Log"), linear(tmp_path / "plain.onnx"), task=floats()))
    assert (found["all zero"]["word"], found["all zero"]["red"]) == ("not finite", True) and "logits" in found["all zero"]["note"]
    assert found["all largest"]["word"] != "not finite"
    both = words(setting_of(linear(tmp_path / "log.onnx", "Log"), linear(tmp_path / "log2.onnx", "Log"), task=floats()))
    assert both["all zero"] == ("not finite", False), "the baseline does the same"


def test_what_saturates_differs_beyond_the_range(tmp_path):
    found = told(setting_of(linear(tmp_path / "clip.onnx", "Clip"), linear(tmp_path / "plain.onnx"), task=floats()))
    assert [found[n]["word"] for n in ("all largest", "10 × range", "1000 × range")] == ["ok", "differs", "differs"]
    assert found["10 × range"]["red"] and found["1000 × range"]["distance"] > found["10 × range"]["distance"] > 0.1
    assert found["10 × range"]["times_ordinary"] > 100


def test_the_same_class_with_outputs_far_away_differs(tmp_path):
    ordered = np.array([[3, 2, 1], *[[0, 0, 0]] * 3], np.float32)
    found = told(setting_of(linear(tmp_path / "clip.onnx", "Clip", weights=ordered), linear(tmp_path / "plain.onnx", weights=ordered), task=floats()))
    assert (found["10 × range"]["word"], found["10 × range"]["argmax"]) == ("differs", 1.0) and found["10 × range"]["times_ordinary"] > 10


def test_a_sample_whose_answer_depends_on_its_batch(tmp_path):
    found = words(setting_of(linear(tmp_path / "centre.onnx", "Centre"), linear(tmp_path / "plain.onnx"), task=floats()))
    assert found["batch of one"] == ("differs", True)


def test_a_batch_that_only_the_baseline_takes(tmp_path):
    found = words(setting_of(linear(tmp_path / "four.onnx", "One"), linear(tmp_path / "plain.onnx"), task=floats()))
    assert found["batch of one"] == ("refused", True) and found["empty batch"] == ("refused", True)
    alone = words(setting_of(linear(tmp_path / "four.onnx", "One"), task=floats()))
    assert alone["empty batch"] == ("refused", False), "nobody says that it should take it"


@pytest.mark.parametrize(("own", "first"), [("batch", 1), (1, "batch"), (4, 2)])
def test_models_of_other_batches_are_asked_alike(tmp_path, own, first):
    """A file that takes one sample at once, as many do, beside a candidate that takes any number."""
    models = linear(tmp_path / "own.onnx", batch=own), linear(tmp_path / "first.onnx", batch=first)
    found = told(setting_of(*models, task=floats()))
    assert not any(case["red"] for case in found.values()) and found["10 × range"]["word"] == found["10 × range"]["baseline"] == "ok"
    assert found["10 × range"]["distance"] == pytest.approx(0, abs=1e-6)
    worse = told(setting_of(linear(tmp_path / "clip.onnx", "Clip", batch=own), models[1], task=floats()))
    assert worse["10 × range"]["red"]


def test_a_fixed_batch_has_no_empty_one(tmp_path):
    found = words(setting_of(linear(tmp_path / "fixed.onnx", batch=2), linear(tmp_path / "fixed2.onnx", batch=2), task=floats()))
    assert "empty batch" not in found and "batch of one" not in found and found["all zero"] == ("ok", False)


def test_a_crash_is_a_finding_and_not_the_end(tmp_path):
    samples = [(torch.arange(2, 7) + i, 0) for i in range(8)]
    task = limbeck.Task(splits={"test": samples}, metric=accuracy())
    found = told(setting_of(divider(tmp_path / "divide.onnx"), divider(tmp_path / "also.onnx"), task=task))
    assert (found["all zero"]["word"], found["all zero"]["red"], found["all zero"]["baseline"]) == ("crashed", True, "crashed")
    assert "SIGFPE" in found["all zero"]["note"]
    assert found["all largest"]["word"] == found["twice the longest"]["word"] == found["shortest"]["word"] == "ok", "those after it were asked in a new process"


def test_lengths_and_padding_of_sequences(tmp_path):
    def collate(samples):
        most = max(len(s) for s, _ in samples)
        ids = torch.stack([torch.cat([s, torch.zeros(most - len(s), dtype=torch.long)]) for s, _ in samples])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.tensor([y for _, y in samples])}

    samples = [(torch.arange(1, 4 + i), 0) for i in range(9)]
    task = limbeck.Task(splits={"test": samples}, metric=accuracy(), collate=collate)
    found = told(setting_of(positions(tmp_path / "p.onnx"), positions(tmp_path / "long.onnx", 100), task=task))
    assert (found["shortest"]["word"], found["longest seen"]["word"]) == ("ok", "ok") and "(11)" in found["longest seen"]["what"]
    assert (found["twice the longest"]["word"], found["twice the longest"]["red"]) == ("refused", True), "22 tokens don't go into 20 places"
    assert (found["all padding"]["word"], found["all padding"]["red"]) == ("not finite", False)
    assert "10 × range" not in found, "token ids have no range to go beyond"


def test_without_a_task_inputs_are_random_and_nothing_is_compared(tmp_path):
    found = EDGES.take(setting_of(linear(tmp_path / "x.onnx")))
    assert found["source"] == "random inputs" and found["ordinary"]["distance"] is None and found["red"] == 0
    assert all((c["baseline"] is None and c["distance"] is None) or c["name"] == "batch of one" for c in found["cases"])
    assert EDGES.why_not(setting_of(linear(tmp_path / "x.onnx"))) == ""


def test_where_random_rows_do_not_run_it_starts_from_what_was_timed(tmp_path):
    """A sound of 60, a state and a sample rate: a random rate is none that the file knows."""
    timed = {"x": np.ones((1, 60), np.float32), "state": np.zeros((2, 1, 4), np.float32), "sr": np.array(16000)}
    files = {name: Artifact(voice(tmp_path, f"{name}.onnx"), "onnxruntime") for name in ("a", "b")}
    setting = replace(setting_of(files["a"], files["b"]), feed=timed)
    found = EDGES.take(setting)
    assert found["source"] == "timed inputs" and found["ordinary"]["distance"] == 0 and found["red"] == 0
    assert {c["name"]: c["word"] for c in found["cases"]}["shortest"] == "refused", "a sound of 1 has no window of 40"
    with pytest.raises(ArtifactError, match="ordinary inputs"):
        EDGES.take(replace(setting, feed=timed | {"sr": np.array(44100)}))


def test_an_input_without_axes_belongs_to_all_samples(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "gain"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["logits"])]
    gained = model(tmp_path / "gain.onnx", nodes, {"gain": (1, ()), "x": (1, ("batch", 4))}, constants={"w": np.eye(4, 3, dtype=np.float32)})
    task = floats(inputs=lambda batch: ((), {"gain": torch.tensor(2.0), "x": batch[0]}))
    found = words(setting_of(gained, gained, task=task))
    assert found["batch of one"] == found["empty batch"] == ("ok", False)


def test_outputs_of_other_shapes_differ(tmp_path):
    wide = linear(tmp_path / "wide.onnx", weights=np.ones((4, 5), np.float32))
    assert words(setting_of(wide, linear(tmp_path / "plain.onnx"), task=floats()))["all largest"] == ("differs", True)


def test_a_tie_is_no_other_answer(tmp_path):
    """The baseline's first and second are nearer than what the models differ by: which is first says nothing."""
    first, second = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)
    first[:, 0], first[:, 1], second[:, 0], second[:, 1] = 1.0, 1.0001, 1.0001, 1.0
    found = told(setting_of(linear(tmp_path / "a.onnx", weights=first), linear(tmp_path / "b.onnx", weights=second), task=floats()))
    assert (found["all largest"]["word"], found["all largest"]["argmax"]) == ("ok", 1.0) and found["all largest"]["distance"] > 0


def test_an_artifact_without_an_ordinary_answer_says_so(tmp_path):
    broken = model(tmp_path / "r.onnx", [helper.make_node("Reshape", ["x", "shape"], ["logits"])], {"x": (1, ("batch", 4))}, constants={"shape": np.array([7, 3])})
    with pytest.raises(ArtifactError, match="ordinary inputs"):
        EDGES.take(setting_of(broken, task=floats()))


def test_a_stop_ends_it(tmp_path):
    with pytest.raises(Interrupted):
        EDGES.take(setting_of(linear(tmp_path / "x.onnx"), stop=lambda: True))
