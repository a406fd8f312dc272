"""What does each term do for one small student at one small budget, beside the same student without a teacher?

CIFAR-10 (JPEG), a ResNet-8 (w 8), a ResNet-56 as the teacher, every term at its published weight. The teacher runs once: all terms read the
same kept answers. `python benchmarks/replication.py [--full] [--only 'kd;dkd'] [--seeds 0,1,2] [--folder runs/benchmarks]` resumes, one arm
and seed a file, and writes `records/replication.json` after each arm; `--full` (all images, 240 epochs, a teacher that is asked live) is
for a machine with many cores or a GPU, and is kept apart. Needs LIMBECK_DATA.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from arms import Ledger, Work, about, collected, trained
from images import Images, Kept, cifar10_jpeg, given, right
from limbeck import Task, Training, Views, accuracy
from limbeck.core.files import write
from limbeck.core.technique import Signals
from limbeck.mechanics import terms
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.terms import Pair, task_loss
from limbeck.pipeline.context import FileCheckpoint
from limbeck.techniques.distill.simkd import SimKD, simkd
from limbeck.testing import context

RECORD = Path(__file__).parent / "records" / "replication.json"
MAPS = (("stages.0", "layer1"), ("stages.1", "layer2"), ("stages.2", "layer3"))
LAST, VECTOR = {"student": "stages.2", "teacher": "layer3"}, {"student": "in:head", "teacher": "in:linear"}
SUMS = (("stages.1.0.bn2", "layer2.8.bn2"), ("stages.2.0.bn2", "layer3.8.bn2"))  # the last before a stage's final ReLU
TAPS = ("layer1", "layer2", "layer3", "in:linear", "layer2.8.bn2", "layer3.8.bn2")
STUDENT = {"channels": 3, "classes": 10, "widths": [8, 16, 32], "blocks": [1, 1, 1]}


def pairs(found: tuple[tuple[str, str], ...]) -> tuple[Pair, ...]:
    return tuple(Pair(student=s, teacher=t) for s, t in found)


@dataclass(frozen=True)
class Arm:
    """An objective: the labels' weight, a term with its weight and options, and where these come from."""

    term: str
    weight: float
    labels: float = 1.0
    options: Mapping[str, Any] | None = None
    source: str = "the paper's"

    def objective(self) -> Objective:
        factory = {t.__name__: t for t in terms.ALL}[self.term]
        own = self.weight * factory(**(self.options or {}))
        return self.labels * task_loss() + own if self.labels else own


LOCAL = "none published for this form"
ARMS = {
    "none": Arm("task_loss", 1, 0),
    "kd": Arm("kd", 0.9, 0.1, {"temperature": 4.0}, "RepDistiller"),
    "dkd": Arm("dkd", 1, 1, {"alpha": 1.0, "beta": 2.0, "temperature": 4.0, "warm_up": 0.083}),
    "label_smoothing": Arm("label_smoothing", 1, 0, {"smoothing": 0.1}, "usual; no teacher"),
    "kd, standardized": Arm("kd", 9, 0.1, {"temperature": 2.0, "standardize": True}, "Sun et al."),
    "logit_mse": Arm("logit_mse", 0.9, 0.1, None, "kd's; " + LOCAL),
    "hard_label": Arm("hard_label", 0.5, 0.5),
    "dist": Arm("dist", 1, 1),
    "hint": Arm("hint", 100, 1, {"student": "stages.1", "teacher": "layer2"}, "RepDistiller"),
    "attention_transfer": Arm("attention_transfer", 1000, 1, {"pairs": pairs(MAPS)}, "RepDistiller"),
    "similarity_preserving": Arm("similarity_preserving", 3000, 1, LAST, "RepDistiller"),
    "rkd": Arm("rkd", 1, 1, {**VECTOR, "distance": 25.0, "angle": 50.0}, "RepDistiller"),
    "crd": Arm("crd", 0.8, 1, {**VECTOR, "queue": 4096}, "RepDistiller"),
    "vid": Arm("vid", 1, 1, {"pairs": pairs(MAPS)}, "RepDistiller"),
    "review": Arm("review", 1, 1, {"pairs": pairs((*MAPS, ("in:head", "in:linear")))}, "the paper's 0.6 to 8, without warm-up"),
    "pearson": Arm("pearson", 1, 1, LAST, LOCAL),
    "jsd": Arm("jsd", 0.9, 0.1, {"beta": 0.5, "temperature": 4.0}, "kd's; " + LOCAL),
    "cosine": Arm("cosine", 1, 1, VECTOR, LOCAL),
    "nkd": Arm("nkd", 1, 1),
    "ttm": Arm("ttm", 1, 1, {"temperature": 4.0}, LOCAL),
    "nst": Arm("nst", 50, 1, {"pairs": pairs(MAPS)}, "RepDistiller"),
    "factor_transfer": Arm("factor_transfer", 200, 1, LAST, "RepDistiller"),
    "overhaul": Arm("overhaul", 4, 1, {"pairs": pairs(SUMS)}, "the paper's 1/1000 of a sum, as a mean"),
    "mgd": Arm("mgd", 0.29, 1, {**LAST, "masked": 0.15}, "the paper's 7e-5 of a sum, as a mean"),
    "channel_wise": Arm("channel_wise", 50, 1, LAST),
    "srd": Arm("srd", 2, 1, VECTOR, "the authors', without the kd beside it"),
    "vkd": Arm("vkd", 1, 1, VECTOR, LOCAL),
    "correlation_congruence": Arm("correlation_congruence", 0.02, 1, VECTOR, "RepDistiller, for another form of the term"),
    "pkt": Arm("pkt", 30000, 1, VECTOR, "RepDistiller"),
    "cka": Arm("cka", 1, 1, LAST, LOCAL),
    "ctkd": Arm("ctkd", 0.9, 0.1),
    "seed": Arm("seed", 1, 1, VECTOR, LOCAL + ": there, without labels"),
    "mutual": Arm("mutual", 1, 1, None, "the paper's; no teacher"),
    "deep_supervision": Arm("deep_supervision", 1, 1, {"layers": ("stages.0", "stages.1")}, "the paper's; no teacher"),
    "ema_teacher": Arm("ema_teacher", 100, 1, None, "the authors'; no teacher"),
}
LEFT_OUT = {
    "attention_maps": "compares attention heads; neither net has any",
    "minilm_relations": "relates queries, keys and values; neither net has any",
    "hidden_states": "is `hint` for tokens, without a bias; on maps it is that term again",
    "margin_mse": "compares a positive's score with its negatives'; ten classes aren't candidates of one query",
    "fsp": "needs as many channels on both sides; the student has half (8, 16, 32 against 16, 32, 64)",
    "retain": "is about forgetting: it holds a student to its own start, which is random here",
    "l2_sp": "is about forgetting: it holds a student's weights to its start, which is random here",
    "ewc": "is about forgetting: it holds a student's weights to its start, which is random here",
}


@dataclass(frozen=True)
class Budget:
    """What each arm may spend."""

    images: int = 5000
    epochs: int = 8
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "sgd"  # the papers': what their weights were found with
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    views: int = 4
    live: bool = False

    @property
    def training(self) -> Training:
        return Training(epochs=self.epochs, batch_size=self.batch_size, optimizer=self.optimizer, learning_rate=self.learning_rate, weight_decay=self.weight_decay)


FULL = Budget(images=50_000, epochs=240, views=240, live=True)


ADAMW, UNCLIPPED = {"optimizer": "adamw", "learning_rate": 0.02, "weight_decay": 0.01}, {"clip_norm": 0.0}
ASIDES: dict[str, tuple[str, dict[str, Any]]] = {  # an arm under another training: limbeck's own optimizer at the better of two rates; no clipping
    "none, AdamW": ("none", ADAMW),
    "kd, AdamW": ("kd", ADAMW),
    "none, unclipped": ("none", UNCLIPPED),
    "attention_transfer, unclipped": ("attention_transfer", UNCLIPPED),
    "rkd, unclipped": ("rkd", UNCLIPPED),
    "crd, unclipped": ("crd", UNCLIPPED),
}
SIMKD = "simkd"  # a technique: its student answers through the teacher's classifier, behind a projector that stays


def task_of(budget: Budget) -> Task:
    """So many of the training images, chosen by a fixed permutation, under crop and flip; 250 others for what looks at validation."""
    order, views = np.random.default_rng(0).permutation(50_000), Views(crop=4, flip=True, versions=budget.views)
    splits = {"train": TensorDataset(*cifar10_jpeg("train", order[: budget.images])), "validation": TensorDataset(*cifar10_jpeg("train", order[-250:]))}
    return Task(name="cifar", models={"teacher": lambda: given("cifar_resnet56")}, metric=accuracy(), splits=splits, views=views)


@dataclass(frozen=True)
class Bench:
    """What all arms share."""

    budget: Budget
    task: Task
    signals: Signals
    test: Images
    folder: Path

    def setting(self, name: str) -> dict[str, Any]:
        """All that decides what an arm gives."""
        of, other = ASIDES.get(name, (name, {}))
        told = {"data": "CIFAR-10 (JPEG)", "student": STUDENT, "teacher": "cifar_resnet56", **asdict(self.budget), **other}
        return {**told, "arm": json.loads(json.dumps(asdict(ARMS[of]))) if of in ARMS else of}

    def ledger(self, name: str) -> Ledger:
        """An arm's own: what is changed in one arm leaves the others finished."""
        return Ledger.at(self.folder / "replication", name, self.setting(name))

    def work(self, name: str, seed: int) -> Work:
        """The student of this arm and seed: its answers on test after the last epoch, and its curve."""

        def work(checkpoint: FileCheckpoint) -> tuple[np.ndarray, dict[str, Any]]:
            if name == SIMKD:
                student, history = self.through_the_teachers_head(seed, checkpoint)
            else:
                of, other = ASIDES.get(name, (name, {}))
                training = replace(self.budget.training, **other)
                student, history = trained(STUDENT, ARMS[of].objective(), self.signals, task=self.task, training=training, seed=seed, checkpoint=checkpoint)
            more = {"parameters": sum(p.numel() for p in student.parameters())} if name == SIMKD else {}
            curve = [{k: round(v, 5) for k, v in row.items() if isinstance(v, float) and not k.startswith("share of ")} for row in history]
            return right(student, self.test), {"curve": curve, **more}

        return work

    def through_the_teachers_head(self, seed: int, checkpoint: FileCheckpoint) -> tuple[nn.Module, list[dict[str, float]]]:
        sizes = {k: v for k, v in STUDENT.items() if k in ("widths", "blocks")}
        seen = replace(context(self.task, checkpoint.path.parent, seed=seed), signals=self.signals, checkpoint=checkpoint)
        outcome = simkd(teacher_candidate(self.task), SimKD(student="limbeck:resnet", options=sizes, training=self.budget.training), seen)
        return rebuild(outcome.candidate.torch_form, self.task), outcome.claims["history"]

    def finish(self, record: Path) -> None:
        """The record of all that is finished."""
        runs: dict[str, Any] = {}
        teacher = collected(["teacher"], [0], self.teachers)["teacher"]["0"]["accuracy"]
        for name in (*ARMS, SIMKD, *ASIDES):
            runs |= collected([name], range(100), self.ledger(name))
        arms = {name: self.setting(name)["arm"] for name in runs}
        setting = {**self.setting("none"), "test_images": len(self.test[1]), "teacher_accuracy": teacher}
        told = about(__doc__.splitlines()[0] if __doc__ else "", {k: v for k, v in setting.items() if k != "arm"}, runs)
        write(record, (json.dumps({**told, "arms": arms, "asides": ASIDES, "left_out": LEFT_OUT}, indent=1) + "\n").encode())

    @property
    def teachers(self) -> Ledger:
        return Ledger.at(self.folder / "replication", "teacher", {"teacher": "cifar_resnet56"})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--full", action="store_true", help="all images, 240 epochs")
    options.add_argument("--only", default="", help="arms, by semicolon")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    asked = options.parse_args()
    torch.set_num_threads(1)
    budget = FULL if asked.full else Budget()
    task, teacher = task_of(budget), given("cifar_resnet56")
    live = LiveTeacher(task, teacher)
    signals = live if budget.live else Kept.of(live.tapped(TAPS), asked.folder / f"replication-answers-{budget.images}-{budget.views}")
    bench = Bench(budget, task, signals, cifar10_jpeg("test"), asked.folder)
    bench.teachers.run("teacher", 0, lambda _: (right(teacher, bench.test), {}))
    for name in asked.only.split(";") if asked.only else (*ARMS, SIMKD, *ASIDES):
        for seed in [int(s) for s in asked.seeds.split(",")]:
            bench.ledger(name).run(name, seed, bench.work(name, seed))
        bench.finish(RECORD.with_name("replication_full.json") if asked.full else RECORD)


if __name__ == "__main__":
    main()
