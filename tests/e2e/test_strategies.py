"""Strategies of distillation, each through the public api on a small task, with what must come of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import limbeck
from limbeck import Contract, Gate, Plan, Stage, Task, Training
from limbeck.core.errors import ConfigError, StageError
from limbeck.mechanics.build import teacher_candidate
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.testing import SmallNet, context, small_task

GATE = Gate(pays="bytes", shrink=1.05, retention=0.3)
SHORT = {"epochs": 4, "batch_size": 32, "learning_rate": 5e-3}


def compressed(task: Task, root, *stages: Stage) -> limbeck.Run:
    return limbeck.compress(task, Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=root, timing_seconds=0.05, proof=limbeck.Proof(studies="none"))


def told(run: limbeck.Run) -> dict:
    """Each stage's title and its verdicts' worst."""
    return {s["name"]: s["verdict"] for s in run.summary["stages"]}


def test_a_chain_of_assistants_is_stages_like_any_others(tmp_path):
    config = {"student": "limbeck:convnet", "options": {"width": 6}, "distill": {"training": SHORT}}
    run = compressed(small_task(), tmp_path, Stage(technique="assistant_chain", config=config, gate=GATE))
    assert list(told(run)) == ["assistant_chain-assistant-1", "assistant_chain"] and told(run)["assistant_chain-assistant-1"] == "PASS"
    again = compressed(small_task(), tmp_path, Stage(technique="assistant_chain", config=config, gate=GATE))
    assert again.summary["final"] == run.summary["final"]


def test_generations(tmp_path):
    run = compressed(small_task(), tmp_path, Stage(technique="born_again", config={"student": "small", "generations": 2, "distill": {"training": SHORT}}, gate=GATE))
    assert list(told(run)) == ["born_again-generation-1", "born_again"]


def test_block_by_block(tmp_path):
    config = {"student": "small", "blocks": ["features.2", "features.5"], "block_training": {**SHORT, "epochs": 1}, "distill": {"training": SHORT}}
    run = compressed(small_task(), tmp_path, Stage(technique="block_wise", config=config, gate=GATE))
    assert list(told(run)) == ["block_wise-block-1", "block_wise-block-2", "block_wise"]


@pytest.mark.parametrize("join", ["confidence", "learned", "specialists", "probabilities"])
def test_several_teachers_joined_for_one_student(tmp_path, join):
    task = small_task()
    torch.manual_seed(5)
    task = replace(task, models={**task.models, "teacher": [SmallNet, SmallNet]}, weights={"teacher": [task.weights["teacher"], SmallNet().state_dict()]})
    run = compressed(task, tmp_path, Stage(technique="distill", config={"student": "small", "join": join, "training": SHORT}, gate=GATE))
    assert told(run)["distill"] in ("PASS", "FAIL", "INCONCLUSIVE") and not run.summary["stages"][0]["error"]


def test_another_model_of_the_task_may_teach(tmp_path):
    task = small_task()
    task = replace(task, models={**task.models, "aunt": SmallNet}, weights={**task.weights, "aunt": task.weights["teacher"]})
    config = {"student": "small", "training": SHORT}
    plans = [(task, config), (task, {**config, "teacher": "aunt"})]
    torch.manual_seed(3)
    other = replace(task, weights={**task.weights, "aunt": SmallNet().state_dict()})
    plans.append((other, {**config, "teacher": "aunt"}))
    runs = [compressed(t, tmp_path / str(i), Stage(technique="distill", config=c, gate=GATE)) for i, (t, c) in enumerate(plans)]
    hers, aunts, strangers = ([row["kd"] for row in run.summary["stages"][0]["claims"]["history"]] for run in runs)
    assert hers == aunts != strangers  # the same weights teach alike
    changed = compressed(other, tmp_path / "1", Stage(technique="distill", config={**config, "teacher": "aunt"}, gate=GATE))
    assert [row["kd"] for row in changed.summary["stages"][0]["claims"]["history"]] == strangers  # other weights are another stage, not the one that was kept
    with pytest.raises(ConfigError, match="has no trained weights"):
        compressed(task, tmp_path / "none", Stage(technique="distill", config={**config, "teacher": "small"}, gate=GATE))


def test_few_labels_and_many_samples_without(tmp_path):
    """With 12 labels of 384, a student that also hears the teacher on the rest does far better than one on the labels alone."""
    task = small_task(samples=384)
    images, labels = task.splits["train"].tensors
    few = labels.clone()
    few[12:] = -100
    task = replace(task, splits={**task.splits, "train": TensorDataset(images, few)})
    found = {}
    for weight in (0.0, 0.9):
        config = {"student": "small", "teacher_weight": weight, "training": {**SHORT, "epochs": 6}, "curriculum": {"labelled_share": 0.25}}
        run = compressed(task, tmp_path / str(weight), Stage(technique="distill", config=config, gate=GATE))
        found[weight] = max(row["validation"] for row in run.summary["stages"][0]["claims"]["history"])
    assert found[0.9] > found[0.0] + 0.1


@pytest.mark.parametrize("by", ["confidence", "difficulty"])
def test_a_curriculum(tmp_path, by):
    config = {"student": "small", "training": SHORT, "curriculum": {"by": by, "first": 0.4}}
    run = compressed(small_task(), tmp_path, Stage(technique="distill", config=config, gate=GATE))
    assert not run.summary["stages"][0]["error"]


def test_balanced_by_uncertainty(tmp_path):
    config = {"student": "small", "training": SHORT, "balance": "uncertainty"}
    run = compressed(small_task(), tmp_path, Stage(technique="distill", config=config, gate=GATE))
    rows = run.summary["stages"][0]["claims"]["history"]
    weights = [row["weight of kd"] for row in rows]
    assert np.isfinite(weights).all() and weights[0] != weights[-1]


def test_finetune_goes_on_after_a_cut(tmp_path):
    stages = Stage(technique="prune", config={"ratio": 0.25}, gate=GATE), Stage(technique="finetune", config={"training": {**SHORT, "epochs": 2}}, gate=Gate(retention=0.3))
    run = compressed(small_task(), tmp_path, *stages)
    assert list(told(run)) == ["prune", "finetune"] and told(run)["finetune"] != "FAIL"


def test_a_student_may_begin_with_the_teachers_weights(tmp_path):
    """The teacher's own architecture, begun with its weights, knows at once what it knows."""
    task, training = small_task(), Training(epochs=1, batch_size=32, learning_rate=1e-6)
    reached = {}
    for start in ("fresh", "teacher"):
        outcome = distill(teacher_candidate(task), Distill(student="teacher", start=start, training=training), context(task, tmp_path / start))
        reached[start] = outcome.claims["history"][-1]["validation"]
    assert outcome.claims["inherited"]["share"] == 1.0 and not outcome.claims["inherited"]["unfit"]
    assert reached["teacher"] > 0.9 > reached["fresh"]
    with pytest.raises(StageError, match="no parameter of the student"):
        distill(teacher_candidate(task), Distill(student="limbeck:mlp", start="teacher", training=training), context(task, tmp_path / "mlp"))
