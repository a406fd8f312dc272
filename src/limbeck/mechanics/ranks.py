"""Several processes that train one student: each takes a part of every batch, and together they do what one process would.

With n_r of a batch's N samples in process r, the loss is Σ_r (n_r / N) · L_r, and each process goes back from its own part of that sum. For
a term that is a mean over samples, L_r is its mean over the process's own; one that compares samples sees those of all, gathered with their
gradient, so that L_r is the same everywhere. Either way the gradients, added up, are those of the whole batch. One process imports and
pays nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, StageError, TaskError
from limbeck.mechanics.seen import Seen

RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")  # who a process is: `torchrun` says the first, MPI one of the others
WORLD = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
MOST_AXES = 8  # of a tensor that is gathered
APART = 1e-4  # relative difference of a tensor's sums, above which two processes don't hold the same


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: number `rank` of `count`."""

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def part(self, ids: np.ndarray) -> np.ndarray:
        """This process's samples of a batch: parts follow each other in the batch's order, the first ones larger by one where it doesn't divide.

        Raises: ConfigError for a batch that is smaller than the number of processes.
        """
        if len(ids) < self.count:
            raise ConfigError(f"a batch of {len(ids)} can't be split over {self.count} processes. Raise training.batch_size, or start fewer processes.")
        return np.array_split(ids, self.count)[self.rank]

    def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """The tensors of all processes, joined along the batch in their order; the gradient finds its way back to each.

        counts: samples of each process; a tensor that is the same shape everywhere and isn't one row a sample is given back as it is.
        Raises: TaskError if shapes differ beyond the batch: on all processes alike.
        """
        if tensor.dim() == 0:
            return tensor
        shapes = self._shapes(tensor)
        sizes = tuple(shape[0] for shape in shapes)
        if counts is not None and sizes != tuple(counts):
            if len(set(shapes)) == 1:
                return tensor
            raise TaskError(f"processes hold tensors of shapes {[list(s) for s in shapes]} for {list(counts)} samples, which can't be joined. Put the batch first.")
        if len({shape[1:] for shape in shapes}) > 1:
            raise TaskError(
                f"terms that compare samples join those of all processes, whose shapes differ: {[list(s) for s in shapes]}. "
                "Pad samples to one length for all batches, in Task.collate."
            )
        return _Gather.apply(tensor, sizes, self.rank)  # pyright: ignore[reportReturnType]

    def gathered(self, seen: Seen) -> Seen:
        """A step's outputs, taps, batch and ids as one process would see them; each is fetched when a term first reads it."""
        counts = tuple(shape[0] for shape in self._shapes(torch.zeros(len(seen.ids))))
        ids = self.gather(torch.as_tensor(np.asarray(seen.ids), dtype=torch.int64)).numpy()
        sides = {name: Gathered(getattr(seen, name), self, counts) for name in ("student", "teacher", "inputs")}
        return replace(seen, **sides, batch=self._joined(seen.batch, counts), args=tuple(self._joined(a, counts) for a in seen.args), ids=ids)

    def means(self, values: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Numbers averaged over processes, weighted by their shares of the batch; NaN on one is NaN on all."""
        from torch import distributed

        total = torch.stack([v.detach().double().cpu() for v in values.values()]) * share
        distributed.all_reduce(total)
        return dict(zip(values, total, strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it holds on some process."""
        return bool(self.means({"": torch.tensor(float(flag))}, 1.0)[""])

    def told(self, value: Any) -> Any:
        """What the first process holds."""
        from torch import distributed

        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]

    def align_(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values of the first."""
        from torch import distributed

        with torch.no_grad():
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def add_gradients_(self, parameters: Sequence[nn.Parameter], weight: float = 1.0) -> None:
        """Replace each gradient by its sum over processes, times `weight`; one that no process has stays away."""
        from torch import distributed

        with torch.no_grad():
            there = torch.tensor([float(p.grad is not None) for p in parameters])
            distributed.all_reduce(there)
            taken = [p for p, held in zip(parameters, there.tolist(), strict=True) if held]
            for dtype in sorted({p.dtype for p in taken}, key=str):
                group = [p for p in taken if p.dtype == dtype]
                flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group]) * weight
                distributed.all_reduce(flat)
                for p, summed in zip(group, flat.split([p.numel() for p in group]), strict=True):
                    p.grad = summed.view_as(p).clone()

    def average_norms_(self, model: nn.Module, share: float) -> None:
        """The running statistics of batch norms, averaged; what normalizes a step is each process's own part."""
        from torch import distributed

        for norm in batch_norms(model):
            for buffer in (norm.running_mean, norm.running_var):
                if buffer is not None:
                    buffer *= share
                    distributed.all_reduce(buffer)

    def agree(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Raises StageError, on all processes alike, where they don't hold the same, with the first name."""
        named = {name: t for name, t in tensors.items() if t.numel()}
        sums = torch.stack([torch.stack([t.detach().double().sum(), t.detach().double().abs().sum()]) for t in named.values()])
        rows = self.gather(sums.flatten()[None])
        apart = (rows - rows[:1]).abs().amax(0) > APART * rows[:1].abs().amax(0).clamp(min=1e-12)
        if apart.any():
            name = list(named)[int(apart.nonzero()[0]) // 2]
            raise StageError(
                f"{what}: '{name}' differs between the {self.count} processes: what keeps something of the samples that it saw must see all of them. "
                "A term does with relational=True; train in one process otherwise."
            )

    def generators(self) -> dict[str, Tensor]:
        """The state of each process's random numbers: "rng" of the first, "rng.<rank>" of the others."""
        rows = self.gather(torch.get_rng_state()[None])
        return {f"rng.{rank}" if rank else "rng": row.clone() for rank, row in enumerate(rows)}

    def _shapes(self, tensor: Tensor) -> list[tuple[int, ...]]:
        from torch import distributed

        if tensor.dim() > MOST_AXES:
            raise TaskError(f"a tensor of {tensor.dim()} axes can't be joined over processes; {MOST_AXES} is the most. Tap another module.")
        own = torch.tensor([tensor.dim(), *tensor.shape, *[0] * (MOST_AXES - tensor.dim())])
        found = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(found, own)
        return [tuple(row[1 : 1 + row[0]]) for row in (f.tolist() for f in found)]

    def _joined(self, value: Any, counts: tuple[int, ...]) -> Any:
        """A batch of all processes: tensors and lists of words are joined, what isn't one a sample stays as it is."""
        if isinstance(value, Tensor):
            return self.gather(value, counts)
        if isinstance(value, Mapping):
            return Gathered(value, self, counts)
        if isinstance(value, (tuple, list)) and value and isinstance(value[0], str):
            from torch import distributed

            found: list[Any] = [None] * self.count
            distributed.all_gather_object(found, list(value))
            return [word for part in found for word in part]
        return [self._joined(v, counts) for v in value] if isinstance(value, (tuple, list)) else value


@dataclass(frozen=True)
class Gathered(Mapping[str, Any]):
    """Named tensors of all processes; each is fetched when it is first read, by all processes in the same order."""

    held: Mapping[str, Any]
    ranks: Ranks
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fetched", dict[str, Any]())

    def __getitem__(self, name: str) -> Any:
        fetched: dict[str, Any] = self._fetched  # pyright: ignore[reportAttributeAccessIssue]
        if name not in fetched:
            fetched[name] = self.ranks._joined(self.held[name], self.counts)
        return fetched[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...], rank: int) -> Tensor:
        from torch import distributed

        ctx.sizes, ctx.rank = sizes, rank
        sent = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach()
        padded = sent.new_zeros(max(sizes), *sent.shape[1:])
        padded[: len(sent)] = sent
        found = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)]).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        from torch import distributed

        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        start = sum(ctx.sizes[: ctx.rank])
        return total[start : start + ctx.sizes[ctx.rank]], None, None


def current(*, start: bool = False) -> Ranks | None:
    """This process among those that train together; None if it is alone.

    start: join the others first, if this process was launched as one of several (`torchrun`, `accelerate launch`, `mpirun`) and hasn't yet.
    Raises: ConfigError if it isn't said where the first one is, or if the launcher started fewer than it was asked for.
    """
    from torch import distributed

    if not distributed.is_available():
        return None
    if start and _told(RANK) is None and "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "`accelerate launch --cpu` was asked for several processes and started one: on CPUs it leaves that to mpirun. "
            "Start them with `torchrun --nproc_per_node 2`, or `accelerate launch --multi_gpu --num_processes 2`, which need no GPU here."
        )
    if start and not distributed.is_initialized() and (rank := _told(RANK)) is not None and (count := _told(WORLD) or 1) > 1:
        if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
            raise ConfigError(f"process {rank} of {count} isn't told where the first one is. Start them with torchrun, or set MASTER_ADDR and MASTER_PORT.")
        distributed.init_process_group("gloo", rank=rank, world_size=count)
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return None
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def processes() -> int:
    """As how many this process was launched with the others."""
    return 1 if _told(RANK) is None else _told(WORLD) or 1


def _told(names: Sequence[str]) -> int | None:
    return next((int(os.environ[name]) for name in names if name in os.environ), None)


def seed_of(*parts: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_norms(model: nn.Module) -> list[Any]:
    """Its batch norms that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]


def inner(model: nn.Module) -> nn.Module:
    """The model itself, where DistributedDataParallel holds it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
