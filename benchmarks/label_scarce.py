"""What do 9,000 images without labels add to 1,000 with? Fashion-MNIST; a teacher that knows no more labels, and one given from outside.

The teacher, a ResNet-8 (w 16), sees the same 1,000 labels as the student, a ResNet-8 (w 4), and nothing else; so what the student gains over
the same student without a teacher comes from images alone. In a row apart: a ResNet-18 that learned from 55,000 labels.
`python benchmarks/label_scarce.py [--full] [--seeds 0,1,2] [--folder runs/benchmarks]` resumes, one arm and seed a file, and writes
`records/label_scarce.json`; `--full` (all 55,000 images) is kept apart. Needs LIMBECK_DATA.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

from arms import Ledger, Work, about, collected, trained
from images import Images, Kept, fashion_mnist, given, right
from limbeck import Task, Training, Views, accuracy
from limbeck.core.files import write
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.terms import hard_label, kd, task_loss
from limbeck.pipeline.context import FileCheckpoint

RECORD = Path(__file__).parent / "records" / "label_scarce.json"
TEACHER, STUDENT = {"channels": 1, "classes": 10, "widths": [16, 32, 64]}, {"channels": 1, "classes": 10, "widths": [4, 8, 16]}
TEACHER_SEED, NO_LABEL = 100, -100


@dataclass(frozen=True)
class Budget:
    """What teacher and students may spend. Every student takes as many steps: `epochs` over all images, more over the labelled ones alone."""

    images: int = 10_000
    labels: int = 1000
    epochs: int = 5
    teacher_epochs: int = 50  # over the labelled images
    batch_size: int = 64
    learning_rate: float = 0.1  # of SGD with momentum
    weight_decay: float = 5e-4

    def training(self, epochs: int) -> Training:
        return Training(epochs=epochs, batch_size=self.batch_size, optimizer="sgd", learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    @property
    def repeats(self) -> int:
        """How many epochs over the labelled images cost one over all."""
        return self.images // self.labels


FULL = Budget(images=55_000, epochs=30, teacher_epochs=200)


@dataclass(frozen=True)
class Arm:
    """What a student learns from: which images, which labels of them, which teacher, by which objective."""

    images: str  # "labelled" or "all"
    labels: str  # "some" (1,000) or "all"
    teacher: str = ""  # "", "own" or "outside"
    hard: bool = False

    def objective(self) -> Objective:
        """A batch of all images has a label for one in ten: `task_loss`, a mean over the batch, then weighs a tenth by itself."""
        if not self.teacher:
            return 1.0 * task_loss()
        labels = 1.0 if self.images == "all" else 0.1
        return labels * task_loss() + 0.9 * (hard_label() if self.hard else kd(temperature=4.0))


ARMS = {
    "none, 1,000 labels": Arm("labelled", "some"),
    "same labels' teacher, labelled images": Arm("labelled", "some", "own"),
    "same labels' teacher, all images": Arm("all", "some", "own"),
    "same labels' teacher's hard labels, all images": Arm("all", "some", "own", hard=True),
    "outside teacher, labelled images": Arm("labelled", "some", "outside"),
    "outside teacher, all images": Arm("all", "some", "outside"),
    "none, all 10,000 labels": Arm("all", "all"),
}


def tasks(budget: Budget) -> dict[tuple[str, str], Task]:
    """The same images, all or the labelled ones, with all labels or some; under as many views as epochs, so that no epoch sees one twice."""
    (x, y), chosen = fashion_mnist("train"), np.random.default_rng(0).permutation(60_000)[: budget.images]
    x, y = x[chosen], y[chosen]
    hidden = torch.where(torch.arange(len(y)) < budget.labels, y, NO_LABEL)
    made = {}
    for images, labels in {(arm.images, arm.labels) for arm in ARMS.values()}:
        count, target = (budget.labels if images == "labelled" else budget.images), hidden if labels == "some" else y
        versions = budget.epochs * (budget.repeats if images == "labelled" else 1)
        made[images, labels] = Task(
            name="fashion", metric=accuracy(), splits={"train": TensorDataset(x[:count], target[:count])}, views=Views(crop=2, flip=True, versions=versions)
        )
    return made


def own_teacher(task: Task, budget: Budget, ledger: Ledger, test: Images) -> nn.Module:
    """The teacher of the same 1,000 labels; its accuracy stands in the ledger."""
    place = ledger.folder / "teacher.weights.safetensors"

    def work(checkpoint: FileCheckpoint) -> tuple[np.ndarray, dict[str, Any]]:
        model, _ = trained(TEACHER, 1.0 * task_loss(), None, task=task, training=budget.training(budget.teacher_epochs), seed=TEACHER_SEED, checkpoint=checkpoint)
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, place)
        return right(model, test), {}

    ledger.run("teacher own", 0, work)
    model = resnet(**TEACHER)
    model.load_state_dict(load_file(place))
    return model.to(memory_format=torch.channels_last).eval()


def work_of(arm: Arm, seed: int, task: Task, *, teachers: Mapping[str, nn.Module], folder: Path, budget: Budget, test: Images) -> Work:
    """The student of this arm and seed: its answers on test after the last epoch."""
    training = budget.training(budget.epochs * (budget.repeats if arm.images == "labelled" else 1))

    def work(checkpoint: FileCheckpoint) -> tuple[np.ndarray, dict[str, Any]]:
        signals = Kept.of(LiveTeacher(task, teachers[arm.teacher]), folder / f"answers-{arm.teacher}-{arm.images}") if arm.teacher else None
        student, _ = trained(STUDENT, arm.objective(), signals, task=task, training=training, seed=seed, checkpoint=checkpoint)
        return right(student, test), {}

    return work


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--full", action="store_true", help="all 55,000 images")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    asked = options.parse_args()
    torch.set_num_threads(1)
    budget, seeds = FULL if asked.full else Budget(), [int(s) for s in asked.seeds.split(",")]
    test, made = fashion_mnist("t10k"), tasks(budget)
    setting = {"data": "Fashion-MNIST", "teacher": TEACHER, "outside": "fashion_resnet18", "student": STUDENT, **asdict(budget)}
    ledger = Ledger.at(asked.folder, "label_scarce", setting)
    teachers = {"own": own_teacher(made["labelled", "some"], budget, ledger, test), "outside": given("fashion_resnet18")}
    ledger.run("teacher outside", 0, lambda _: (right(teachers["outside"], test), {}))
    for name, arm in ARMS.items():
        for seed in seeds:
            task = made[arm.images, arm.labels]
            ledger.run(name, seed, work_of(arm, seed, task, teachers=teachers, folder=ledger.folder, budget=budget, test=test))
        finish(RECORD.with_name("label_scarce_full.json") if asked.full else RECORD, ledger, setting)


def finish(record: Path, ledger: Ledger, setting: Mapping[str, Any]) -> None:
    """The record of all that is finished."""
    runs, own = collected(tuple(ARMS), range(100), ledger), collected(["teacher own", "teacher outside"], [0], ledger)
    told = about(__doc__.splitlines()[0] if __doc__ else "", {**setting, "test_images": 10_000}, runs)
    told["core_hours"] = round(told["core_hours"] + sum(run["0"]["core_seconds"] for run in own.values()) / 3600, 3)
    accuracies = {name.removeprefix("teacher "): run["0"]["accuracy"] for name, run in own.items()}
    write(record, (json.dumps({**told, "arms": {name: asdict(ARMS[name]) for name in runs}, "teacher_accuracy": accuracies}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
