"""vocabulary → blocks with recovery → quantize, as a run: each stage's claims hold on its artifact, and the last model answers."""

import numpy as np

import limbeck
from limbeck import Contract, Gate, Plan, Recovery, Stage, Training
from limbeck.runtimes import runtime
from limbeck.testing import small_text_task


def test_a_text_model_is_cut_shortened_recovered_and_rounded(tmp_path):
    gate, training = Gate(pays="bytes", shrink=1.0, retention=0.0), Training(epochs=4, batch_size=16)
    stages = (
        Stage(technique="vocabulary", config={"unknown": 60}, gate=gate),
        Stage(technique="blocks", recovery=Recovery(training=training), gate=gate),
        Stage(technique="quantize", config={"samples": 64}, gate=gate),
    )
    task = small_text_task()
    result = limbeck.compress(task, Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    summary = result.summary
    first, second, third = summary["stages"]
    assert [s["verdict"] for s in summary["stages"]] == ["PASS"] * 3 and result.verdict == "PASS", summary["stages"]
    assert first["claims"]["rows"] == [41, 61] and summary["baseline"]["parameters"] - first["parameters"] == 20 * 16
    assert second["claims"]["kept"] == {"layers": [0, 2]} and second["claims"]["parameters"] == second["parameters"] and len(second["claims"]["recovery"]) == 4
    assert second["size_bytes"] < 0.7 * first["size_bytes"] and third["size_bytes"] < second["size_bytes"]
    words, labels = task.split("test").tensors
    answers = runtime("onnxruntime").load(result.artifact, 1)({"0": words.numpy()})["logits"]
    assert np.mean(answers.argmax(1) == labels.numpy()) == summary["final"]["metric"]["value"]
