"""Do five teachers make a better student than the best of them, and than no teacher? Fashion-MNIST, ResNet-8s into a smaller ResNet-8.

Five ResNet-8s (w 16) that differ in their seed, each alone and joined in five ways, teach a ResNet-8 (w 4); all on the same 10,000 images.
`python benchmarks/ensemble.py [--full] [--seeds 0,1,2] [--folder runs/benchmarks]` resumes, one arm and seed a file, and writes
`records/ensemble.json`; `--full` (55,000 images, 60 epochs) is kept apart. Needs LIMBECK_DATA.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from arms import Ledger, about, collected, trained
from images import Images, Kept, fashion_mnist, right
from limbeck import Task, Training, Views, accuracy
from limbeck.core.files import write
from limbeck.core.technique import Signals
from limbeck.mechanics.build import Ensemble
from limbeck.mechanics.committee import Committee, Join
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.live import LiveTeacher, members_of
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.terms import kd, task_loss
from limbeck.pipeline.context import FileCheckpoint

RECORD = Path(__file__).parent / "records" / "ensemble.json"
TEACHER, STUDENT = {"channels": 1, "classes": 10, "widths": [16, 32, 64]}, {"channels": 1, "classes": 10, "widths": [4, 8, 16]}
TEACHERS = (100, 101, 102, 103, 104)  # their seeds
JOINS: dict[str, Join] = {
    "mean of probabilities": "probabilities",
    "mean of logits": "outputs",
    "confidence-weighted": "confidence",
    "learned weights": "learned",
    "specialists": "specialists",
}
SINGLES = tuple(f"teacher {number} alone" for number in range(len(TEACHERS)))
ARMS = ("none", *SINGLES, *JOINS)


@dataclass(frozen=True)
class Budget:
    """What teachers and students may spend; all see the same images."""

    images: int = 10_000
    teacher_epochs: int = 5
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.1  # of SGD with momentum
    weight_decay: float = 5e-4
    views: int = 5

    def training(self, epochs: int) -> Training:
        return Training(epochs=epochs, batch_size=self.batch_size, optimizer="sgd", learning_rate=self.learning_rate, weight_decay=self.weight_decay)


FULL = Budget(images=55_000, teacher_epochs=30, epochs=60, views=10)


@dataclass(frozen=True)
class Alone:
    """One member's answers."""

    source: Kept
    member: int

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        raise SystemExit(f"the members' layers aren't kept, {paths} neither")

    def layers(self) -> Sequence[Any]:
        return self.source.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        return members_of(self.source.teacher(ids, view, args, kwargs))[self.member]


def task_of(budget: Budget) -> Task:
    """So many of the training images by a fixed permutation, under crop and flip; 1,000 others to weigh teachers by."""
    (x, y), order = fashion_mnist("train"), np.random.default_rng(0).permutation(60_000)
    splits = {"train": TensorDataset(*(part[order[: budget.images]] for part in (x, y))), "validation": TensorDataset(*(part[order[-1000:]] for part in (x, y)))}
    return Task(name="fashion", metric=accuracy(), splits=splits, views=Views(crop=2, flip=True, versions=budget.views))


def teachers(task: Task, budget: Budget, ledger: Ledger, test: Images) -> list[nn.Module]:
    """The five, trained on the labels; their accuracy stands in the ledger."""
    made = []
    for number, seed in enumerate(TEACHERS):
        place = ledger.folder / f"teacher-{seed}.weights.safetensors"

        def work(checkpoint: FileCheckpoint, seed: int = seed, place: Path = place) -> tuple[np.ndarray, dict[str, Any]]:
            model, _ = trained(TEACHER, 1.0 * task_loss(), None, task=task, training=budget.training(budget.teacher_epochs), seed=seed, checkpoint=checkpoint)
            place.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, place)
            return right(model, test), {}

        ledger.run(f"teacher {number}", 0, work)
        model = resnet(**TEACHER)
        model.load_state_dict(load_file(place))
        made.append(model.to(memory_format=torch.channels_last).eval())
    return made


def arm(name: str, kept: Kept, ensemble: Ensemble, task: Task) -> tuple[Objective, Signals | None]:
    """What this arm's student is pulled towards, and who answers."""
    if name == "none":
        return 1.0 * task_loss(), None
    objective = 0.1 * task_loss() + 0.9 * kd(temperature=4.0)
    return objective, Alone(kept, SINGLES.index(name)) if name in SINGLES else Committee(task, ensemble, kept, JOINS[name])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--full", action="store_true", help="55,000 images, 60 epochs")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    asked = options.parse_args()
    torch.set_num_threads(1)
    budget, seeds = FULL if asked.full else Budget(), [int(s) for s in asked.seeds.split(",")]
    task, test = task_of(budget), fashion_mnist("t10k")
    setting = {"data": "Fashion-MNIST", "teacher": TEACHER, "teacher_seeds": list(TEACHERS), "student": STUDENT, **asdict(budget)}
    ledger = Ledger.at(asked.folder, "ensemble", setting)
    members = teachers(task, budget, ledger, test)
    ensemble = Ensemble(members, "outputs")
    joined = {join: float(right(Ensemble(members, join), test).mean()) for join in ("outputs", "probabilities")}
    kept = Kept.of(LiveTeacher(task, ensemble, apart=True), ledger.folder / "answers")
    for name in ARMS:
        for seed in seeds:

            def work(checkpoint: FileCheckpoint, name: str = name, seed: int = seed) -> tuple[np.ndarray, dict[str, Any]]:
                student, _ = trained(STUDENT, *arm(name, kept, ensemble, task), task=task, training=budget.training(budget.epochs), seed=seed, checkpoint=checkpoint)
                return right(student, test), {}

            ledger.run(name, seed, work)
        finish(RECORD.with_name("ensemble_full.json") if asked.full else RECORD, ledger, setting, joined)


def finish(record: Path, ledger: Ledger, setting: Mapping[str, Any], joined: Mapping[str, float]) -> None:
    """The record of all that is finished."""
    runs = collected(ARMS, range(100), ledger)
    own = collected([f"teacher {n}" for n in range(len(TEACHERS))], [0], ledger)
    told = about(__doc__.splitlines()[0] if __doc__ else "", {**setting, "test_images": 10_000}, runs)
    told["core_hours"] = round(told["core_hours"] + sum(run["0"]["core_seconds"] for run in own.values()) / 3600, 3)
    accuracies = [run["0"]["accuracy"] for run in own.values()]
    write(record, (json.dumps({**told, "teacher_accuracy": accuracies, "ensemble_accuracy": joined}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
