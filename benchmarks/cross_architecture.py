"""Do terms teach across architectures: a convolutional teacher of a vision transformer, and the other way round? Which meet maps with tokens at all?

scikit-learn's digits (797 to learn from, 500 to test on); both teachers train on the same 797. Every arm is the same student under the same
schedule, beside cross-entropy of weight 1; three seeds. The published weights are taken as they are, and a hundredth of them where features are matched; none is tuned here.
`python benchmarks/cross_architecture.py` goes on from the arms that its record holds and takes about five minutes on one quiet core; `… terms` asks
again, in seconds, which terms take which shapes. Both write `records/cross_architecture.json`, which `docs/cross-architecture.md` shows.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from limbeck import Task, Training, accuracy
from limbeck.core.errors import LimbeckError
from limbeck.core.fields import fields_of
from limbeck.core.files import write
from limbeck.core.technique import Signals
from limbeck.evaluation import environment
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.objective import Objective, Term
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
from limbeck.mechanics.terms import ALL, cka, dist, hint, kd, rkd, similarity_preserving, task_loss
from limbeck.mechanics.terms.entry import options_of
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.pipeline.store import canonical
from limbeck.stats.bootstrap import bca_lower

RECORD = Path(__file__).parent / "records" / "cross_architecture.json"
SEEDS, EPOCHS, TEACHER_EPOCHS, BATCH, TRAIN, TEST = (0, 1, 2), 20, 25, 32, 797, 500
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: resnet(channels=1, classes=10, widths=(16, 32), blocks=(2, 2)),
    "vit": lambda: vit(channels=1, classes=10, image=(8, 8), patch=2, width=64, depth=3, heads=4),
    "small convnet": lambda: convnet(channels=1, classes=10, width=8, depth=3, size=8),
    "small vit": lambda: vit(channels=1, classes=10, image=(8, 8), patch=2, width=32, depth=2, heads=4),
}
DIRECTIONS = {"CNN → ViT": ("resnet", "small vit"), "ViT → CNN": ("vit", "small convnet")}
LAYER = {"resnet": "stages", "vit": "layers.2", "small convnet": "stages", "small vit": "layers.1"}  # what is tapped: the last map, the last tokens
EARLIER = {"resnet": "stages.0", "vit": "layers.0", "small convnet": "stages.0", "small vit": "layers.0"}


def digits() -> Task:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[: TRAIN + TEST]
    images = torch.tensor(data.images[order], dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target[order])
    return Task(name="digits", metric=accuracy(), splits={"train": TensorDataset(images[:TRAIN], labels[:TRAIN]), "validation": TensorDataset(images[TRAIN:], labels[TRAIN:])})


def arms(student: str, teacher: str) -> dict[str, Objective]:
    """Each arm's objective: the weights of the papers' tables beside a cross-entropy of 1, and of terms on features a hundredth of it too."""
    ends = {"student": LAYER[student], "teacher": LAYER[teacher]}
    labels, logits = 1.0 * task_loss(), 0.1 * task_loss() + 0.9 * kd(temperature=4)
    on_features = {"hint": 100 * hint(**ends), "similarity_preserving": 3000 * similarity_preserving(**ends), "rkd": 1.0 * rkd(**ends)}
    found = {"no teacher": labels, "kd": logits, "dist": labels + 1.0 * dist()}
    for name, pull in on_features.items():
        found |= {name: labels + pull, f"{name} / 100": labels + 0.01 * pull}
    return found | {"cka": labels + 1.0 * cka(**ends), "kd + cka": logits + 1.0 * cka(**ends)}


def trained(model: nn.Module, objective: Objective, task: Task, *, signals: Signals | None = None, epochs: int = EPOCHS, seed: int = 0) -> np.ndarray:
    """Which of the test samples the model gets right after training."""
    bound = objective.bind(task, signals, model, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, bound, Training(epochs=epochs, batch_size=BATCH), seed=seed, checkpoint=FileCheckpoint(Path(folder) / "c"), log=QuietLog())
    images, labels = task.split("validation").tensors
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).numpy()


def made(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]()


def measured(task: Task, record: dict[str, Any], folder: Path) -> None:
    """Every arm that the record doesn't hold yet, written as soon as it is done; the teachers' answers are cached at full precision."""
    teachers = {name: made(name, 100) for name, _ in DIRECTIONS.values()}
    for name, teacher in teachers.items():
        right = trained(teacher, 1.0 * task_loss(), task, epochs=TEACHER_EPOCHS, seed=100)
        record["teachers"][name] = {"accuracy": float(right.mean()), "parameters": sum(p.numel() for p in teacher.parameters())}
    answers = {n: CachedTeacher(folder / n, LiveTeacher(task, t), {"teacher": n}, "float32", features="float32") for n, t in teachers.items()}
    for direction, (teacher, student) in DIRECTIONS.items():
        record["students"][student] = sum(p.numel() for p in made(student, 0).parameters())
        for arm, objective in arms(student, teacher).items():
            for seed in SEEDS:
                key = f"{direction}|{arm}|{seed}"
                if key not in record["right"]:
                    start = time.perf_counter()
                    right = trained(made(student, seed), objective, task, signals=answers[teacher], seed=seed)
                    record["right"][key] = "".join("01"[int(r)] for r in right)
                    record["seconds"][key] = round(time.perf_counter() - start, 1)
                    write(RECORD, canonical(record) + b"\n")
                    print(key, f"{right.mean():.3f}", record["seconds"][key], flush=True)


def compared(record: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Each arm's accuracy, the mean over seeds, and how far above no teacher: 90 % interval over the test samples, seeds held together."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for direction, (teacher, student) in DIRECTIONS.items():
        rows = {arm: np.mean([[int(c) for c in record["right"][f"{direction}|{arm}|{seed}"]] for seed in SEEDS], axis=0) for arm in arms(student, teacher)}
        found[direction] = {}
        for arm, right in rows.items():
            gain = bca_lower({"right": right}, {"right": rows["no teacher"]}, lambda a, b: float(a["right"].mean() - b["right"].mean()))
            spread = [float(np.mean([int(c) for c in record["right"][f"{direction}|{arm}|{seed}"]])) for seed in SEEDS]
            found[direction][arm] = {"accuracy": float(right.mean()), "least": min(spread), "most": max(spread), "gain": gain.value, "low": gain.low, "high": gain.high}
    return found


# --- which terms meet maps with tokens ------------------------------------------------------------------------------------


def between(factory: Callable[..., Term], student: str, teacher: str) -> Term:
    """The term on the last map or tokens of both: whatever option names a layer is given one."""
    places = {"student": LAYER[student], "teacher": LAYER[teacher], "student_from": EARLIER[student], "student_to": LAYER[student]}
    places |= {"teacher_from": EARLIER[teacher], "teacher_to": LAYER[teacher]}
    given: dict[str, Any] = {}
    for option in fields_of(options_of(factory)):
        inner = get_args(option.type)[0] if get_origin(option.type) is tuple else None
        if option.name in places:
            given[option.name] = places[option.name]
        elif dataclasses.is_dataclass(inner):
            given[option.name] = (inner(**{f.name: places[f.name] for f in fields_of(inner) if f.name in places}),)  # type: ignore[operator]
        elif option.required:
            given[option.name] = (LAYER[student],) if inner is str else 2
    return factory(**given)


def tried(factory: Callable[..., Term], task: Task, student: str, teacher: str) -> str:
    """ "" if the term gives the student a gradient, else what it says."""
    models = {name: made(name, 0) for name in (student, teacher)}
    try:
        bound = (1.0 * between(factory, student, teacher)).bind(task, LiveTeacher(task, models[teacher]), models[student], seed=0)
        with torch.no_grad():
            for p in models[student].parameters():
                p += 1e-2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))  # as if it had trained a little
        ids = np.arange(16)
        loss, _ = bound(models[student].train(), (task.split("train").tensors[0][ids], task.split("train").tensors[1][ids]), ids)
        loss.backward()
    except LimbeckError as error:
        return str(error)
    moved = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in models[student].parameters())
    return "" if moved and bool(torch.isfinite(loss)) else f"gives {loss.item()} and {'a' if moved else 'no'} gradient"


def terms(task: Task) -> dict[str, Any]:
    """Each term between a map and tokens, both ways; what it reads of the teacher."""
    small = replace(task, splits={name: TensorDataset(*(t[:64] for t in data.tensors)) for name, data in task.splits.items()})
    found = {}
    for factory in ALL:
        told = {direction: tried(factory, small, student, teacher) for direction, (teacher, student) in DIRECTIONS.items()}
        try:
            term = between(factory, "small vit", "resnet")
            reads = "features" if term.teacher_taps else "outputs" if term.teacher else "nothing"
        except LimbeckError:
            reads = "features"
        found[factory.__name__] = {"reads": reads, **told}
    return found


def main() -> int:
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"teachers": {}, "students": {}, "right": {}, "seconds": {}}
    task = digits()
    record["terms"] = terms(task)
    if sys.argv[1:] != ["terms"]:
        with tempfile.TemporaryDirectory() as folder:
            measured(task, record, Path(folder))
        record["compared"] = compared(record)
        record |= {
            "question": "whether terms teach across architectures, and which take a map on one side and tokens on the other",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
            "machine": {**environment.machine(), "threads": 1},
            "versions": environment.versions(),
            "setting": {"data": "scikit-learn's digits", "train": TRAIN, "test": TEST, "epochs": EPOCHS, "seeds": len(SEEDS), "batch": BATCH},
            "core_hours": round(sum(record["seconds"].values()) / 3600, 3),
        }
    write(RECORD, canonical(record) + b"\n")
    print(json.dumps(record.get("compared"), indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
