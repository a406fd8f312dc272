"""Two models that can't be compared, or only half: told in words, with the figures that there are, and never a traceback."""

from __future__ import annotations

import pytest
from judging import data, said, write_rows  # noqa: F401 - a fixture

from foreign_onnx import bytes_model, linear, text_in, voice

TASK = ("--task", "task.py:task")


@pytest.fixture
def folder(tmp_path):
    """A task whose labels are what linear(folder) answers."""
    return write_rows(tmp_path)


def verdicts(found, number: int = -1):
    return {v["gate"]: v["status"] for v in found["subjects"][number]["verdicts"]}


def test_the_task_itself_passes(folder, said):  # noqa: F811
    linear(folder)
    found = data(said("compare", "linear.onnx", "linear.onnx", *TASK, "--json"))
    assert found["verdict"] == "PASS" and found["subjects"][0]["metric"]["value"] == 1.0 and found["subjects"][1]["notes"] == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda f: linear(f, "other.onnx", features=32), "x float32[any, 64] in the first and x float32[any, 32] in the second"),
        (lambda f: bytes_model(f, "other.onnx"), "x float32[any, 64] in the first and bytes int32[any, 32] in the second"),
        (lambda f: text_in(f, "other.onnx"), "x float32[any, 64] in the first and words object[any] in the second"),
    ],
    ids=["shape", "names", "text"],
)
def test_other_inputs_are_refused_with_the_difference(other, says, folder, said):  # noqa: F811
    linear(folder)
    other(folder)
    code, out, error = said("compare", "linear.onnx", "other.onnx")
    assert code == 2 and not out and f"linear.onnx and other.onnx take different inputs, so they can't be compared on the same: {says}" in error, error


def test_inputs_that_a_task_does_not_give(folder, said):  # noqa: F811
    linear(folder)
    voice(folder)
    linear(folder, "short.onnx", features=32)
    code, _, error = said("compare", "linear.onnx", "voice.onnx", *TASK)
    assert code == 2 and "voice.onnx, fed with samples of test: the artifact takes 3 inputs (x, state, sr), got 1 (0)" in error, error
    code, _, error = said("compare", "linear.onnx", "short.onnx", *TASK)
    assert code == 2 and "short.onnx, fed with samples of test: input 'x' must have the shape [any, 32], got [1, 64]" in error, error
    assert not (folder / "runs").exists(), "no look at test is counted for what wasn't judged"


def test_another_order_of_the_labels_is_seen_and_named(folder, said):  # noqa: F811
    linear(folder)
    linear(folder, "turned.onnx", order=[1, 2, 3, 0])
    code, out, _ = said("compare", "linear.onnx", "turned.onnx", *TASK)
    assert code == 3 and out.startswith("FAIL turned.onnx")
    told = " ".join(out.split())
    assert "note: it numbers its classes otherwise than the labels do: on 200 samples of test 0 of its answers are right as they stand, and 200 if" in told
    assert "(0 → 1, 1 → 2, 2 → 3, 3 → 0)" in told
    swapped = data(said("compare", "turned.onnx", "linear.onnx", *TASK, "--json"))
    assert "numbers its classes otherwise" in swapped["subjects"][0]["notes"][0] and swapped["subjects"][1]["notes"] == []
    assert swapped["verdict"] != "PASS", "a baseline that is never right proves nothing"


def test_another_number_of_classes(folder, said):  # noqa: F811
    linear(folder)
    linear(folder, "five.onnx", classes=5, seed=1)
    linear(folder, "three.onnx", classes=3, seed=1)
    code, out, error = said("compare", "linear.onnx", "five.onnx", *TASK)
    told = " ".join((out + error).split())
    assert code == 3 and "note: outputs can't be compared: 'y' [64, 4] in the baseline and 'y' [64, 5] in the candidate" in told, told
    code, out, error = said("compare", "linear.onnx", "three.onnx", *TASK)
    assert code == 2 and not out and "three.onnx, on test: metric 'accuracy': labels must be in [0, 3), got 3" in error, error


def test_too_few_samples_for_the_claim(tmp_path, said):  # noqa: F811
    write_rows(tmp_path, rows=12)
    linear(tmp_path)
    code, out, _ = said("compare", "linear.onnx", "linear.onnx", *TASK)
    told = " ".join(out.split())
    assert code == 4 and out.startswith("INCONCLUSIVE") and "12 samples" in told
    found = data(said("compare", "linear.onnx", "linear.onnx", *TASK, "--json"))
    (verdict,) = found["subjects"][1]["verdicts"]
    assert verdict["status"] == "INCONCLUSIVE" and verdict["samples_needed"] > 12


def test_a_baseline_without_anything_right(folder, said):  # noqa: F811
    linear(folder)
    code, out, _ = said("compare", "linear.onnx", "linear.onnx", "--task", "task.py:guess")
    assert code == 4 and out.startswith("UNVERIFIED") and "a ratio means nothing" in " ".join(out.split()) and "drop 0.0000" in out
    code, out, _ = said("compare", "linear.onnx", "linear.onnx", "--task", "task.py:guess", "--limit", "max_drop=0.05")
    assert code == 0 and out.startswith("PASS")


def test_a_slice_with_three_samples(folder, said):  # noqa: F811
    linear(folder)
    answer = said("compare", "linear.onnx", "linear.onnx", *TASK, "--limit", "slice_retention.three=0.9", "--json")
    found = data(answer)
    (three,) = found["subjects"][1]["behaviour"]["slices"]
    assert answer[0] == 4 and three["samples"] == 3 and three["retention"] is None and verdicts(found) == {"slice_retention.three": "INCONCLUSIVE"}
    assert "has 3 samples of test, and fewer than" in found["subjects"][1]["verdicts"][0]["reason"]
    code, out, _ = said("compare", "linear.onnx", "linear.onnx", *TASK)
    assert code == 0 and "too few or undefined" in out


# ---- NaN ----


def test_a_candidate_that_answers_nan_fails_and_the_rest_is_shown(folder, said):  # noqa: F811
    linear(folder)
    linear(folder, "nan.onnx", nan="large")
    answer = said("compare", "linear.onnx", "nan.onnx", *TASK, "--limit", "retention=0.5", "--limit", "size_ratio=0.1", "--json")
    found = data(answer)
    assert answer[0] == 3 and verdicts(found) == {"retention": "FAIL", "size_ratio": "PASS"}
    (why, *_) = found["subjects"][1]["notes"]
    assert why.startswith("output 'y' is NaN for sample ") and "of split 'test'" in why and found["subjects"][1]["verdicts"][0]["reason"] == why
    assert found["subjects"][1]["latency_ms"]["p50"] > 0 and found["subjects"][1]["metric"]["value"] is None and found["subjects"][0]["metric"]["value"] == 1.0
    code, out, _ = said("evaluate", "nan.onnx", *TASK)
    assert code == 3 and out.startswith("FAIL nan.onnx") and "outputs" in out and "p50 ms" in out, out
    assert said("evaluate", "nan.onnx", *TASK, "--limit", "size_bytes=1MB")[0] == 3, "a limit that it keeps is no pass"


OWN = """
def own(rows):
    return float("nan") if rows["correct"].mean() < 0.9 else float(rows["correct"].mean())
odd = replace(task, metric=replace(accuracy(), name="own", reduce=own, proportion=None), slices={})
"""


def test_a_metric_that_means_nothing_of_the_candidates_answers_fails_it(folder, said):  # noqa: F811
    """As a correlation of one answer to everything is NaN. Of the baseline's answers, or of the only ones, it is the task's fault."""
    (folder / "task.py").write_text((folder / "task.py").read_text() + OWN)
    linear(folder)
    linear(folder, "turned.onnx", order=[1, 2, 3, 0])
    odd = ("--task", "task.py:odd", "--limit", "metric=0.5", "--limit", "size_bytes=1MB")
    answer = said("compare", "linear.onnx", "turned.onnx", *odd, "--json")
    found = data(answer)
    assert answer[0] == 3 and verdicts(found) == {"metric": "FAIL", "size_bytes": "PASS"}
    assert "metric 'own' is nan of these answers, and 1 of the baseline's to the same 400" in found["subjects"][1]["verdicts"][0]["reason"]
    for words in (("compare", "turned.onnx", "linear.onnx"), ("evaluate", "turned.onnx")):
        code, out, error = said(*words, *odd)
        assert code == 2 and not out and "metric 'own' is undefined (NaN) on these 400 rows" in error, error


def test_a_baseline_that_answers_nan_proves_nothing(folder, said):  # noqa: F811
    linear(folder)
    linear(folder, "nan.onnx", nan="large")
    answer = said("compare", "nan.onnx", "linear.onnx", *TASK, "--limit", "retention=0.5", "--limit", "metric=0.9", "--json")
    found = data(answer)
    assert answer[0] == 4 and verdicts(found) == {"retention": "UNVERIFIED", "metric": "PASS"}
    assert "the baseline can't be judged: output 'y' is NaN" in found["subjects"][1]["verdicts"][0]["reason"] and found["subjects"][0]["notes"]


def test_nan_without_a_task_is_a_note(folder, said):  # noqa: F811
    linear(folder)
    linear(folder, "nan.onnx", nan="always")
    found = data(said("compare", "linear.onnx", "nan.onnx", "--json"))
    assert "one of the two gives NaN or infinity where the other doesn't" in found["subjects"][1]["notes"] and found["subjects"][1]["agreement"]["max_abs"] is None
    code, out, _ = said("compare", "linear.onnx", "nan.onnx")
    assert code in (3, 4) and "outputs differ by NaN or infinity" in out  # 3 if it is slower, too
    found = data(said("evaluate", "nan.onnx", "--json"))
    assert found["subjects"][0]["notes"] == ["output 'y' is NaN or infinite on random inputs"]


# ---- data and files ----


def test_an_empty_split(folder, said):  # noqa: F811
    linear(folder)
    code, _, error = said("compare", "linear.onnx", "linear.onnx", *TASK, "--split", "none")
    assert code == 2 and error == "TaskError: task 'rows' split 'none' has no samples to evaluate on. Add samples, or name another split."
    code, _, error = said("evaluate", "linear.onnx", *TASK, "--split", "nonne")
    assert code == 2 and "Did you mean 'none'" in error


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.onnx", b"PK\x03\x04 a zip in truth", "x.onnx can't be loaded by ONNX Runtime"),
        ("x.pt2", b"\x08\x0a an onnx in truth", "x.pt2 is not a .pt2 archive"),
        ("x.zip", b"plain text", "x.zip: x.zip is no zip that `limbeck package` wrote"),
        ("x.tflite", b"", "x.tflite must be for one runtime, by its suffix, got .tflite"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says(name, content, says, folder, said):  # noqa: F811
    linear(folder)
    (folder / name).write_bytes(content)
    for words in (("evaluate", name), ("compare", "linear.onnx", name), ("compare", name, "linear.onnx")):
        code, out, error = said(*words)
        assert code == 2 and not out and says in error, error


def test_a_folder_that_is_no_run(folder, said):  # noqa: F811
    (folder / "runs").mkdir()
    for name, says in (("runs", "must be for one runtime, by its suffix, got nothing"), ("runs/x", "there is no artifact runs/x")):
        code, _, error = said("evaluate", name)
        assert code == 2 and says in error, error
