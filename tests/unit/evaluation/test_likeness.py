"""How near outputs are: by name or in order, the greatest difference kept, NaN and other shapes told."""

import numpy as np
import pytest
from foreign_onnx import linear, voice

from limbeck.core.candidate import Artifact
from limbeck.evaluation import feeds
from limbeck.evaluation.feeds import Fed
from limbeck.evaluation.likeness import likeness, matched
from limbeck.runtimes.card import InputSpec
from limbeck.runtimes.onnxruntime import ONNXRUNTIME


class Fake:
    """A session that answers what it is told."""

    inputs, outputs = (InputSpec("x", "float32", (None,)),), ()

    def __init__(self, *answers):
        self.answers = list(answers)

    def __call__(self, feed):
        return {k: np.asarray(v) for k, v in self.answers[int(feed["x"])].items()}


def over(count: int) -> Fed:
    return Fed({"x": np.array(0)}, "given", lambda: ({"x": np.array(i)} for i in range(count)), "some inputs")


def test_the_greatest_difference_over_all_inputs_and_the_share_of_rows_that_agree():
    a = Fake({"y": [[1.0, 2.0], [3.0, 4.0]]}, {"y": [[1.0, 2.0]]})
    b = Fake({"y": [[1.0, 2.5], [4.5, 4.0]]}, {"y": [[1.0, 2.0]]})
    found, notes = likeness(a, b, over(2))
    assert found and not notes and found["max_abs"] == 1.5 and found["max_rel"] == pytest.approx(1.5 / 4) and found["argmax_agreement"] == pytest.approx(2 / 3)
    assert found["inputs"] == "some inputs" and [(o["name"], o["max_abs"]) for o in found["outputs"]] == [("y", 1.5)]


def test_outputs_are_matched_by_name_then_in_order():
    one, two = np.zeros(1), np.ones(1)
    assert matched({"a": one, "b": two, "c": one}, {"x": one, "b": two, "z": two}) == [("b", "b"), ("a", "x"), ("c", "z")]
    found, notes = likeness(Fake({"p": [1.0], "q": [5]}), Fake({"first": [1.5], "second": [5]}), over(1))
    assert found and not notes and [(o["name"], o["other"], o["max_abs"]) for o in found["outputs"]] == [("p", "first", 0.5), ("q", "second", 0.0)]


def test_other_shapes_fewer_outputs_and_text_are_told_or_left_out():
    found, notes = likeness(Fake({"y": np.zeros((2, 4)), "s": ["a"]}), Fake({"y": np.zeros((2, 5))}), over(1))
    assert found is None and notes == ["outputs can't be compared: 'y' [2, 4] in the baseline and 'y' [2, 5] in the candidate", "the candidate gives 1 fewer outputs"]


def test_nan_on_one_side_is_told_and_never_a_number():
    found, notes = likeness(Fake({"y": [[1.0, np.nan]]}), Fake({"y": [[1.0, 2.0]]}), over(1))
    assert found and found["max_abs"] is None and notes == ["one of the two gives NaN or infinity where the other doesn't"]
    same, notes = likeness(Fake({"y": [np.nan]}), Fake({"y": [np.nan]}), over(1))
    assert same and same["max_abs"] == 0 and not notes


def test_two_files_of_the_same_weights_agree_under_other_names(tmp_path):
    files = (voice(tmp_path), voice(tmp_path, "b.onnx", outputs=("heard", "next")), voice(tmp_path, "c.onnx", scale=0.02))
    a, b, c = (ONNXRUNTIME.load(Artifact(p, "onnxruntime"), 1) for p in files)
    fed = feeds.random({"a": a, "b": b, "c": c}, 2)
    same, other = likeness(a, b, fed)[0], likeness(a, c, fed)[0]
    assert same and same["max_abs"] == 0 and [o["other"] for o in same["outputs"]] == ["heard", "next"]
    assert other and 0 < other["outputs"][0]["max_abs"] < 1 and other["outputs"][1]["max_abs"] == 0
    assert likeness(*(ONNXRUNTIME.load(Artifact(linear(tmp_path, f"{s}.onnx", seed=s), "onnxruntime"), 1) for s in (0, 1)), over_linear())[0]["argmax_agreement"] < 1


def over_linear() -> Fed:
    feed = {"x": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    return Fed(feed, "given", lambda: iter([feed]), "64 inputs")
