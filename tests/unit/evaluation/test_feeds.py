"""What artifacts are fed: found for files that say little of themselves, read from what a user gives, refused where two want different things."""

import numpy as np
import onnx
import pytest
import torch
from torch.utils.data import TensorDataset

from foreign_onnx import bytes_model, constant, linear, picky, saved, text_in, value, voice
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.evaluation import feeds
from limbeck.intake.metrics import accuracy
from limbeck.runtimes.card import FREE_AXIS
from limbeck.runtimes.onnxruntime import ONNXRUNTIME


def opened(*paths):
    return {p.name: ONNXRUNTIME.load(Artifact(p, "onnxruntime"), 1) for p in paths}


def shapes(fed):
    return {a["name"]: (a["shape"], a.get("value")) for a in fed.summary()["arrays"]}


def test_sizes_states_and_a_sample_rate_are_found(tmp_path):
    sessions = opened(voice(tmp_path))
    fed = feeds.random(sessions, 3)
    assert shapes(fed) == {"x": ([3, 512], None), "state": ([2, 3, 4], None), "sr": ([], 16000)}
    others = list(fed.others())
    assert len(others) == feeds.SEEDS and fed.compared_on == "16 random inputs" and fed.source == "random"
    assert not np.array_equal(others[0]["x"], others[1]["x"]) and all(o["sr"] == 16000 for o in others)
    assert sessions["voice.onnx"](fed.feed)["output"].shape == (3, 4)


def test_whole_numbers_are_ones_that_every_table_has(tmp_path):
    fed = feeds.random(opened(bytes_model(tmp_path, length=None)), 2)
    assert shapes(fed) == {"bytes": ([2, FREE_AXIS], None)} and fed.feed["bytes"].dtype == np.int32 and fed.feed["bytes"].max() <= 1


def test_what_no_random_input_runs_through_says_what_to_give(tmp_path):
    with pytest.raises(ArtifactError) as told:
        feeds.random(opened(picky(tmp_path)), 1)
    for part in ("none of 10 random inputs runs through picky.onnx", "signal float32[1, any]", "--inputs FILE.npz", "--task", "The last try: picky.onnx: ONNX Runtime failed"):
        assert part in str(told.value), told.value
    with pytest.raises(ArtifactError, match=r"input 'words' is object, for which there are no random values"):
        feeds.random(opened(text_in(tmp_path)), 1)


def test_one_feed_for_both_where_one_takes_more_or_fixes_an_axis(tmp_path):
    free, fixed = linear(tmp_path, "free.onnx", features=None), linear(tmp_path, "fixed.onnx")
    assert shapes(feeds.random(opened(free, fixed), 2)) == {"x": ([2, 64], None)}
    otherwise = linear(tmp_path, "named.onnx", x="image")
    fed = feeds.random(opened(fixed, otherwise), 2)
    assert all(s(fed.feed)["y"].shape == (2, 4) for s in opened(fixed, otherwise).values())
    assert shapes(feeds.random(opened(voice(tmp_path), fixed), 1))["x"] == ([1, 64], None), "what one takes is among what the other takes"
    swapped = voice(tmp_path, "swapped.onnx", order=("sr", "x", "state"))
    fed = feeds.random(opened(voice(tmp_path), swapped), 1)
    assert all(s(fed.feed)["output"].shape == (1, 4) for s in opened(voice(tmp_path), swapped).values())


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (lambda f: linear(f), lambda f: linear(f, "b.onnx", features=32), r"x float32\[any, 64\] in the first and x float32\[any, 32\] in the second"),
        (lambda f: bytes_model(f), lambda f: linear(f, x="bytes", features=32), r"bytes int32\[any, 32\] in the first and bytes float32\[any, 32\] in the second"),
        (lambda f: voice(f), lambda f: bytes_model(f), r"takes x float32\[any, any\], state float32\[2, any, 4\], sr int64\[\]; bytes.onnx takes bytes int32\[any, 32\]"),
    ],
    ids=["axis", "dtype", "names"],
)
def test_different_inputs_are_refused_with_the_difference(first, second, says, tmp_path):
    sessions = opened(first(tmp_path), second(tmp_path))
    with pytest.raises(ArtifactError, match=says) as told:
        feeds.random(sessions, 1)
    assert "take different inputs, so they can't be compared on the same" in str(told.value)


def test_a_half_precision_copy_takes_what_its_original_takes(tmp_path):
    x, y = value("x", onnx.TensorProto.FLOAT16, ["batch", 64]), value("y", onnx.TensorProto.FLOAT16, ["batch", 4])
    half = saved(tmp_path, "half.onnx", [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [constant("w", np.ones((64, 4), np.float16))])
    sessions = opened(linear(tmp_path), half)
    fed = feeds.random(sessions, 2)
    assert fed.feed["x"].dtype == np.float32 and [s(fed.feed)["y"].dtype for s in sessions.values()] == [np.float32, np.float16]


# ---- what a user gives ----


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_number_that_is_none_is_null_in_json(odd):
    assert [a["value"] for a in feeds.of_inputs({"x": np.float32(odd), "n": np.array(3)}).summary()["arrays"]] == [None, 3]


def test_inputs_are_a_tensor_a_tuple_a_dict_or_a_file(tmp_path):
    x, sr = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(16000)
    assert feeds.as_arguments(x)[0][0].tolist() == x.tolist() and feeds.as_arguments(torch.ones(2))[1] == {}
    args, kwargs = feeds.as_arguments((x, {"a": [sr]}))
    assert args[1]["a"][0] == 16000 and not kwargs
    assert feeds.as_arguments({"x": x, "sr": sr})[1]["sr"] == 16000
    assert {k: v.shape for k, v in feeds.of_inputs({"x": x.T, "sr": sr}).feed.items()} == {"x": (3, 2), "sr": ()}
    np.savez(tmp_path / "named.npz", x=x, sr=sr)
    np.savez(tmp_path / "plain.npz", x, sr)
    np.save(tmp_path / "one.npy", x)
    assert list(feeds.of_inputs(tmp_path / "named.npz").feed) == ["x", "sr"]
    assert list(feeds.of_inputs(str(tmp_path / "plain.npz")).feed) == ["0", "1"]
    assert feeds.of_inputs(tmp_path / "one.npy").feed["0"].shape == (2, 3)
    fed = feeds.of_inputs((x,))
    assert fed.source == "given" and [list(f) for f in fed.others()] == [["0"]] and fed.compared_on == "the given inputs"


def test_a_file_that_is_none_and_inputs_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file of inputs .*none\.npz\. Write one with numpy\.savez\('none\.npz'"):
        feeds.of_inputs(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "objects.npz", x=np.array([None]))
    for name in ("text", "objects"):
        with pytest.raises(ConfigError, match=rf"{name}\.npz is no file of plain arrays"):
            feeds.of_inputs(tmp_path / f"{name}.npz")
    for nothing in ((), {}, {"a": 3}):
        with pytest.raises(ConfigError, match="must hold at least one tensor or array"):
            feeds.of_inputs(nothing)
    with pytest.raises(ConfigError, match="inputs must be numbers, got an array of <U1"):
        feeds.of_inputs(np.array(["a"]))


# ---- a task's samples ----


def rows(count: int) -> Task:
    data = TensorDataset(torch.arange(count * 64, dtype=torch.float32).reshape(count, 64), torch.zeros(count, dtype=torch.long))
    return Task(name="rows", splits={"test": data}, metric=accuracy())


def test_samples_of_a_task_are_timed_and_spread_for_comparing(tmp_path):
    fed = feeds.of_task(rows(200), "test", list(opened(linear(tmp_path)).values()), 3)
    assert fed.feed["0"].shape == (3, 64) and fed.feed["0"][1, 0] == 64 and fed.source == "samples of test"
    (others,) = fed.others()
    assert others["0"].shape == (64, 64) and others["0"][-1, 0] == 196 * 64 and fed.compared_on == "64 samples of test"
    with pytest.raises(TaskError, match="split 'test' has no samples to evaluate on"):
        feeds.of_task(rows(0), "test", [], 1)


def test_an_artifact_of_a_fixed_batch_is_fed_whole_batches(tmp_path):
    from onnx import TensorProto, helper

    from foreign_onnx import saved, value

    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    ports = [value(name, TensorProto.FLOAT, [8, 2]) for name in "xy"]
    path = saved(tmp_path, "eight.onnx", [node], ports[:1], ports[1:], [helper.make_tensor("axis", TensorProto.INT64, [], [1])])
    (session,) = opened(path).values()
    whole = feeds.in_whole_batches(session)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert whole({"x": x})["y"].tolist() == [[0, 1], [2, 5], [4, 9]]
    assert whole({"x": np.ones((8, 2), np.float32)})["y"].shape == (8, 2)
    assert feeds.in_whole_batches(free := next(iter(opened(linear(tmp_path)).values()))) is free
    assert [len(f["0"]) for f in feeds.of_task(rows(20), "test", [session], 1).others()] == [8, 8]
