"""The proofs that the seams carry: one small task of each kind, all the way from teacher to verdict through the public api."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import limbeck
from limbeck import Contract, Gate, Plan, Recovery, Stage, Task, Training, accuracy, macro_f1, r2
from limbeck.core.errors import ConfigError, TaskError
from limbeck.testing import SmallNet, small_task

BYTES = Gate(pays="bytes", shrink=1.05, retention=0.5)
SHORT = Training(epochs=4, batch_size=32, learning_rate=5e-3)


def stage(technique: str, *, gate: Gate = BYTES, recovery: Recovery | None = None, **config) -> Stage:
    return Stage(technique=technique, config=config, gate=gate, recovery=recovery)


def distill(student: str, *, training: Training = SHORT, **config) -> Stage:
    return stage("distill", student=student, training=vars(training), **config)


def compressed(task: Task, root: Path, *stages: Stage, control: bool = False, **limits: float) -> limbeck.Run:
    contract = Contract(**(limits or {"size_ratio": 1.5}))  # type: ignore[arg-type]
    return limbeck.compress(task, contract, Plan(stages=stages, control=control), root=root, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))


def fitted(make, data, *, loss=nn.functional.cross_entropy, steps: int = 60, rate: float = 1e-2) -> dict[str, torch.Tensor]:
    """A teacher's weights: an ordinary full-batch training."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batch = torch.utils.data.default_collate([data[i] for i in range(len(data))])
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return model.state_dict()


class Words(Dataset):
    """Dict samples: does the sentence hold more words of the first half of the vocabulary than of the second?"""

    def __init__(self, seed: int, count: int):
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(2, 40, (count, 12), generator=generator)
        lengths = torch.randint(6, 13, (count,), generator=generator)
        self.mask = (torch.arange(12)[None] < lengths[:, None]).long()
        self.labels = (((self.ids < 21) & (self.mask > 0)).sum(1) * 2 > lengths).long()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


def bert(layers: int, width: int):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {
        "vocab_size": 40,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 16,
        "num_labels": 2,
    }
    return BertForSequenceClassification(BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"))


def test_dict_batches_and_a_bert(tmp_path):
    """Hugging Face's BERT as teacher and as student, keyword inputs, a ModelOutput mapped by the task."""
    splits = {"train": Words(0, 256), "validation": Words(1, 128), "test": Words(2, 128)}
    teacher = lambda: bert(2, 32)  # noqa: E731
    loss = lambda model, b: nn.functional.cross_entropy(model(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits, b["labels"])  # noqa: E731
    task = Task(
        models={"teacher": teacher, "small": lambda: bert(1, 16)},
        weights={"teacher": fitted(teacher, splits["train"], loss=loss, rate=3e-3)},
        splits=splits,
        metric=accuracy(),
        outputs=lambda raw: {"logits": raw.logits},
    )
    result = compressed(task, tmp_path, distill("small", training=Training(epochs=12, batch_size=32, learning_rate=5e-3)), size_ratio=2, retention=0.6)
    assert result.verdict == "PASS", result.summary
    assert result.summary["stages"][0]["technique"] == "distill" and result.summary["ratios"]["size"] > 2


def test_a_student_of_another_family(tmp_path):
    """A convolutional teacher, a fully connected student of limbeck's own; its features and classes are read off the data."""
    result = compressed(small_task(), tmp_path, distill("limbeck:mlp", options={"widths": [32]}), retention=0.5, size_ratio=2)
    assert result.verdict == "PASS"
    assert result.summary["stages"][0]["claims"]["student"] == {"factory": "limbeck:mlp", "kwargs": {"features": 64, "classes": 4, "widths": [32]}}


class TwoHeads(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.kind, self.size = nn.Linear(width, 4), nn.Linear(width, 1)

    def forward(self, image):
        features = self.body(image).mean((2, 3))
        return self.kind(features), self.size(features)


def test_two_outputs(tmp_path):
    base = small_task()
    task = Task(
        models={"teacher": lambda: TwoHeads(24)},
        weights={"teacher": fitted(lambda: TwoHeads(24), base.splits["train"], loss=lambda m, b: nn.functional.cross_entropy(m(b[0])[0], b[1]))},
        splits=base.splits,
        metric=accuracy(),
        outputs=lambda raw: {"logits": raw[0], "size": raw[1]},
    )
    result = compressed(task, tmp_path, stage("prune", ratio=0.3, round_to=4), stage("quantize"), size_ratio=2)
    assert result.verdict == "PASS", result.summary
    from limbeck.runtimes import runtime

    assert result.artifact is not None
    session = runtime("onnxruntime").load(result.artifact, 1)
    outputs = session({"0": np.zeros((3, 1, 8, 8), np.float32)})
    assert {k: v.shape for k, v in outputs.items()} == {"logits": (3, 4), "size": (3, 1)}


def test_macro_f1_over_rows(tmp_path):
    """A metric that no mean of samples gives: its bound comes from resampling rows."""
    from dataclasses import replace

    result = compressed(
        replace(small_task(), metric=macro_f1()), tmp_path, distill("small", training=Training(epochs=8, batch_size=16, learning_rate=1e-2)), retention=0.5, size_ratio=1.5
    )
    retention = result.summary["retention"]
    assert result.verdict == "PASS" and retention["kind"] == "ratio" and "BCa" in retention["method"] and retention["low"] < retention["value"]
    assert result.summary["final"]["metric"]["name"] == "macro_f1"


def regression(seed: int, count: int) -> TensorDataset:
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs[:, 0] * 2 - inputs[:, 1] + inputs[:, 2].square())[:, None])


def test_r2_is_judged_by_its_drop(tmp_path):
    """R²: a ratio is refused with the way out, a drop is judged; the student learns by squared error on the teacher's outputs."""
    make = lambda: nn.Sequential(nn.Linear(6, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 1))  # noqa: E731
    splits = {"train": regression(0, 512), "validation": regression(1, 256), "test": regression(2, 256)}
    weights = fitted(make, splits["train"], loss=lambda m, b: (m(b[0]) - b[1]).square().mean(), steps=200)
    task = Task(models={"teacher": make, "small": lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))}, weights={"teacher": weights}, splits=splits, metric=r2())
    learning = vars(Training(epochs=40, batch_size=32, learning_rate=1e-2))
    plan = Stage(technique="distill", config={"student": "small", "term": "logit_mse", "training": learning}, gate=Gate(pays="bytes", shrink=2))
    ratio = compressed(task, tmp_path / "ratio", plan, retention=0.9)
    verdict = {v["gate"]: v for v in ratio.summary["contract"]}["retention"]
    assert ratio.verdict == "UNVERIFIED" and ratio.exit_code == 4 and "limit max_drop instead" in verdict["reason"]
    drop = compressed(task, tmp_path / "drop", plan, max_drop=0.15, size_ratio=4)
    assert drop.verdict == "PASS", drop.summary
    assert drop.summary["retention"]["kind"] == "drop" and drop.summary["retention"]["low"] <= 0.15


@pytest.mark.parametrize("join", ["outputs", "probabilities"])
def test_an_ensemble_of_three_is_one_teacher(tmp_path, join):
    base = small_task()
    loss = lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1])  # noqa: E731
    weights = [fitted(lambda w=w: SmallNet(w), base.splits["train"], loss=loss, steps=12) for w in (8, 12, 16)]
    task = Task(
        models={"teacher": [lambda w=w: SmallNet(w) for w in (8, 12, 16)], "small": lambda: SmallNet(8)},
        weights={"teacher": weights},
        splits=base.splits,
        metric=accuracy(),
        ensemble=join,
    )
    result = compressed(task, tmp_path, distill("small", training=Training(epochs=10, batch_size=16, learning_rate=5e-3)), size_ratio=3, retention=0.5)
    assert result.verdict == "PASS", result.summary
    members = [
        limbeck.evaluate(
            Task(models={"teacher": lambda w=w: SmallNet(w)}, weights={"teacher": s}, splits=base.splits, metric=accuracy()),
            split="validation",
            proof=limbeck.Proof(studies="none"),
        )["subjects"][0]["size_bytes"]
        for w, s in zip((8, 12, 16), weights, strict=True)
    ]
    assert result.summary["baseline"]["size_bytes"] > 0.9 * sum(members)  # the baseline is all three
    with pytest.raises(TaskError, match="3 models in 'teacher' but 2 weights"):
        compressed(limbeck.Task(models=task.models, weights={"teacher": weights[:2]}, splits=base.splits, metric=accuracy()), tmp_path / "two", distill("small"))


def test_the_whole_way_with_its_control(tmp_path):
    """distill → prune with recovery → quantize: every field of summary.json, and a second call that only reads."""
    task = small_task()
    stages = (
        distill("limbeck:convnet", options={"width": 16}),
        stage("prune", ratio=0.3, round_to=4, recovery=Recovery(training=Training(epochs=2, batch_size=32))),
        stage("quantize"),
    )
    result = compressed(task, tmp_path, *stages, control=True, retention=0.5, size_ratio=1.5)
    summary = result.summary
    assert result.verdict == "PASS" and summary["exit_code"] == 0 and summary["schema"] == 2, summary
    fields = {"metric", "size_bytes", "download_bytes", "latency_ms", "peak_memory_bytes", "parameters", "macs", "artifact", "runtime", "threads"}
    for model in ("baseline", "final", "control"):
        assert fields <= summary[model].keys() and all(summary[model][k] is not None for k in fields), model
        assert (result.folder / summary[model]["artifact"]).exists()
    assert summary["final"]["macs"] == summary["control"]["macs"], "the control has the final shape"
    assert summary["control"]["kernels"]["int8"] == 0 < summary["final"]["kernels"]["int8"]
    assert [s["technique"] for s in summary["stages"]] == ["distill", "prune", "quantize"] and summary["test_looks"] == 1
    assert all({"name", "verdict", "retention", "size_bytes", "latency_ms", "seconds"} <= s.keys() for s in summary["stages"])
    assert {"versions", "machine", "seed", "data"} <= summary["environment"].keys()
    journal = (result.folder / "journal.jsonl").read_bytes()
    again = compressed(task, tmp_path, *stages, control=True, retention=0.5, size_ratio=1.5)
    assert (result.folder / "journal.jsonl").read_bytes() == journal
    same = ("verdict", "baseline", "final", "control", "retention", "contract", "stages", "test_looks", "journal_head")
    assert {k: again.summary[k] for k in same} == {k: json.loads(json.dumps(summary))[k] for k in same}


def test_a_stage_that_cannot_keep_its_gate_is_skipped_and_the_last_that_passed_goes_on(tmp_path):
    impossible = Gate(pays="bytes", shrink=1000.0, retention=0.5)
    result = compressed(small_task(), tmp_path, stage("prune", ratio=0.5, round_to=4, gate=impossible), stage("quantize"), size_ratio=1.5)
    assert [s["verdict"] for s in result.summary["stages"]] == ["FAIL", "PASS"]
    assert result.summary["final"]["parameters"] > result.summary["stages"][0]["parameters"], "the pruned candidate was left behind"


def test_refine_tries_gentler_and_corrects_its_confidence(tmp_path):
    """Untrained pruning this strong ruins the net; with refinement a milder one passes, at a stricter confidence."""
    plan = Stage(technique="prune", config={"ratio": 0.75, "round_to": 4}, gate=Gate(pays="bytes", shrink=1.05, retention=0.8), on_fail="refine", refinements=3)
    result = compressed(small_task(), tmp_path, plan, size_ratio=1.05)
    (only,) = result.summary["stages"]
    assert only["tries"] > 1
    assert only["retention"]["confidence"] == pytest.approx(1 - 0.05 / 4)


def test_stop_ends_the_run(tmp_path):
    bad = Stage(technique="prune", config={"ratio": 0.5, "round_to": 4}, gate=Gate(pays="bytes", shrink=1000.0), on_fail="stop")
    result = compressed(small_task(), tmp_path, bad, stage("quantize"), size_ratio=2, retention=0.5)
    assert [s["name"] for s in result.summary["stages"]] == ["prune"] and result.verdict == "FAIL" and result.exit_code == 3
    assert result.summary["closest"]["stage"] == "prune"


def test_without_a_plan_limbeck_plans(tmp_path):
    result = limbeck.compress(small_task(), Contract(size_ratio=1.5, retention=0.3), root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    assert [s["technique"] for s in result.summary["plan"]["stages"]] == ["distill", "quantize"]
    assert any("student of the task's own" in r for r in result.summary["plan"]["reasons"])


def test_an_unknown_technique_or_option_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="no technique 'prunne'. Did you mean 'prune'"):
        compressed(small_task(), tmp_path, stage("prunne"))
    with pytest.raises(ConfigError, match=r"prune.config.ratio must be in \[0, 1\), got 1.2"):
        compressed(small_task(), tmp_path, stage("prune", ratio=1.2))
    assert not list(tmp_path.iterdir())


def test_what_another_device_must_show_is_unverified_here(tmp_path):
    contract = Contract(size_ratio=1.5, latency_p90_ms=1e-6)
    result = limbeck.compress(
        small_task(),
        contract,
        Plan(stages=(stage("quantize"),), control=False),
        target=limbeck.Target(host="imported"),
        root=tmp_path,
        timing_seconds=0.1,
        proof=limbeck.Proof(studies="none"),
    )
    assert {v["gate"]: v["status"] for v in result.summary["contract"]} == {"size_ratio": "PASS", "latency_p90_ms": "UNVERIFIED"}
    assert result.exit_code == 4 and result.summary["final"]["latency_ms"] is None


def test_a_candidate_that_keeps_the_contract_is_final_though_its_own_gate_asked_for_more(tmp_path):
    """distill keeps the contract and misses its gate; quantize of the teacher passes its gate and misses the contract."""
    strict = Gate(pays="bytes", shrink=1.05, retention=1.04)
    run = compressed(
        small_task(),
        tmp_path,
        stage("distill", gate=strict, student="small", training=vars(Training(epochs=15, batch_size=16))),
        stage("quantize", samples=64),
        control=True,
        retention=0.5,
        size_ratio=3.5,
    )
    summary = run.summary
    first, second = summary["stages"]
    assert first["verdict"] != "PASS" and second["verdict"] == "PASS" and summary["baseline"]["size_bytes"] / second["size_bytes"] < 3.5, "the case that is meant"
    assert summary["chosen"]["stage"] == "distill" and "quantize misses size_ratio" in summary["chosen"]["why"] and run.verdict == "PASS"
    assert summary["final"]["artifact"] == first["artifact"] and summary["control"]["size_bytes"] == summary["final"]["size_bytes"]
    assert json.loads((run.folder / "HEAD.json").read_text())["onnxruntime"]["stage"] == "distill"
    again = limbeck.Run.open(run.folder)
    assert again.summary == summary
    assert run.verify()["clean"] and "Final is distill" in run.report().read_text()
