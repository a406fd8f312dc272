"""What each of several processes runs; the test runs the same alone: `accelerate launch --cpu --num_processes 2 two_processes.py FOLDER`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from limbeck.core.errors import Interrupted, LimbeckError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy, perplexity
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.objective import Term
from limbeck.mechanics.ranks import current
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import crd, dist, hint, kd, rkd, similarity_preserving, task_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog

IDS = np.array([3, 17, 4, 20, 11, 0, 9])  # seven: parts of four and three


class Net(nn.Module):
    """No batch norm: what a sample gives doesn't depend on its neighbours."""

    def __init__(self, width: int, *, dropout: float = 0.0, norm: bool = False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width) if norm else nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


class Tokens(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(11, width), nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(input_ids)).tanh())


class Sentences(Dataset):
    """Of several lengths, padded; only some tokens are labelled."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(i)
        kept = torch.arange(9) < rng.integers(2, 10)
        labels = torch.from_numpy(rng.integers(0, 5, 9)).masked_fill(~kept | torch.from_numpy(rng.random(9) < 0.4), -100)
        return {"input_ids": torch.from_numpy(rng.integers(0, 11, 9)), "attention_mask": kept.long(), "labels": labels}


@dataclass(frozen=True)
class Case:
    task: Task
    teacher: nn.Module
    student: nn.Module


def made(factory, *options) -> nn.Module:
    torch.manual_seed(len(options))
    return factory(*options)


def vectors() -> Case:
    torch.manual_seed(7)
    data = TensorDataset(torch.randn(24, 6), torch.arange(24) % 3)
    return Case(Task(metric=accuracy(), splits={"train": data, "validation": data}), made(lambda: Net(12)), made(lambda: Net(8)))


def sentences() -> Case:
    return Case(Task(metric=perplexity(), splits={"train": Sentences()}), made(lambda: Tokens(12)), made(lambda: Tokens(8)))


PAIR = {"student": "body", "teacher": "body"}
OBJECTIVES = {
    "kd": lambda: 1.0 * kd(),
    "hint": lambda: 0.3 * task_loss() + 2 * hint(**PAIR),
    "similarity_preserving": lambda: kd() + 3.0 * similarity_preserving(**PAIR),
    "rkd": lambda: 0.1 * rkd(**PAIR) + kd(),
    "crd": lambda: task_loss() + crd(**PAIR, queue=16, dim=4),
}
CASES = {**{f"vectors {name}": (vectors, make) for name, make in OBJECTIVES.items()}, **{f"sentences {name}": (sentences, make) for name, make in OBJECTIVES.items()}}
CASES["vectors dist"] = (vectors, lambda: 1.0 * dist())


def one_step(case: Case, objective) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Every value, and every gradient, of one batch."""
    bound = objective.bind(case.task, LiveTeacher(case.task, case.teacher), case.student, seed=5)
    ids = bound.ranks.part(IDS) if bound.ranks else IDS
    loss, parts = bound(case.student, batch_of(case.task, "train", ids), ids)
    told = {"loss": loss.detach(), **parts}
    (loss * (len(ids) / len(IDS))).backward()
    if bound.ranks:
        told = bound.ranks.means(told, len(ids) / len(IDS))
        bound.ranks.add_gradients_([*case.student.parameters(), *bound.parameters()])
    both = [*case.student.named_parameters(), *((f"own.{k}", p) for k, p in bound.module.named_parameters())]
    return {k: float(v) for k, v in told.items()}, {**{k: p.grad for k, p in both if p.grad is not None}, **{f"own.{k}": b for k, b in bound.module.named_buffers()}}


def wrapped() -> dict[str, torch.Tensor]:
    """The gradients of a loop of one's own, under DistributedDataParallel where there are several processes."""
    case, ranks = vectors(), current()
    bound = (kd() + rkd(**PAIR) + hint(**PAIR)).bind(case.task, LiveTeacher(case.task, case.teacher), case.student, seed=5)
    ids = ranks.part(IDS[:6]) if ranks else IDS[:6]
    student = nn.parallel.DistributedDataParallel(case.student) if ranks else case.student
    loss, _ = bound(student, batch_of(case.task, "train", ids), ids)
    loss.backward()
    bound.share_gradients()
    return {k: p.grad for k, p in [*case.student.named_parameters(), *bound.module.named_parameters()] if p.grad is not None}


class StopAt:
    def __init__(self, step: int):
        self.left = step

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def trained(path: Path, *, dropout: float = 0.0, norm: bool = False, stop=lambda: False, term: Term | None = None) -> tuple[nn.Module, list, QuietLog]:
    case, log = vectors(), QuietLog()
    torch.manual_seed(current().rank if current() else 0)  # each process would begin with weights of its own, if nothing saw to it
    student = Net(8, dropout=dropout, norm=norm)
    objective = task_loss() + kd() + 0.5 * hint(**PAIR) + 0.1 * rkd(**PAIR)
    if term:
        objective = objective + 1.0 * term
    bound = objective.bind(case.task, LiveTeacher(case.task, case.teacher), student, seed=5)

    def monitor(model: nn.Module) -> float:
        log.event("judged")
        return float(model.head.bias.detach().sum())

    history = fit(student, bound, Training(epochs=3, batch_size=7, checkpoint_steps=2), seed=3, checkpoint=FileCheckpoint(path, stop), log=log, monitor=monitor)
    return student, history, log


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))


def keeping() -> Term:
    """A term that remembers what it saw, and doesn't say that it compares samples."""

    def function(seen):
        seen.own.mean += seen.student["logits"].detach().mean(0)
        return seen.student["logits"].square().mean()

    return Term("keeping", function, builds=lambda wiring: Memory(), agrees=False)


def main(folder: Path) -> None:
    ranks = current(start=True)
    first = ranks is None or ranks.first
    told = {}
    for name, (case, make) in CASES.items():
        values, tensors = one_step(case(), make())
        told[name] = values
        if first:
            save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors")
    gradients = wrapped()
    if first:
        save_file(gradients, folder / "wrapped.safetensors")
    for name, options in {"plain": {}, "dropout": {"dropout": 0.3}, "norm": {"norm": True}}.items():
        net, told[name], log = trained(folder / f"checkpoint-{name}-{ranks.rank if ranks else 0}", **options)
        told[f"events {name}"] = [event for event, _ in log.events]
        if first:
            save_file(net.state_dict(), folder / f"{name}.safetensors")
    try:
        trained(folder / "stopped", dropout=0.3, stop=StopAt(4) if not first else lambda: False)  # the signal reaches one process alone
    except Interrupted:
        net, told["resumed"], _ = trained(folder / "stopped", dropout=0.3)
        if first:
            save_file(net.state_dict(), folder / "resumed.safetensors")
    for name, refused in {"memory": lambda: trained(folder / "refused", term=keeping()), "small": lambda: ranks and ranks.part(IDS[:1])}.items():
        try:
            refused()
        except LimbeckError as error:
            told[name] = str(error)
    (folder / f"told-{ranks.rank if ranks else 0}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
