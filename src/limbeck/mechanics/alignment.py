"""How alike what layers of two models hold: centred kernel alignment over training samples, to match layers by what they know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.taps import INTO, first_tensor

SAMPLES = 256  # training samples that layers are compared on, evenly spaced over the split
FEWEST = 16  # below, the estimate says nothing
BATCH = 32
GROUP_BYTES = 64 << 20  # of vectors that are held at once: more layers are read in several passes

Calls = Sequence[tuple[tuple, Mapping[str, Any]]]  # what a model is called with, batch by batch


def linear_cka(a: Float[Tensor, "samples one"], b: Float[Tensor, "samples other"]) -> float:
    """HSIC(A·Aᵀ, B·Bᵀ) / √(HSIC(A·Aᵀ, A·Aᵀ) · HSIC(B·Bᵀ, B·Bᵀ)), each HSIC estimated without bias.

    Returns: About 1 where one side is a rotation, shift and positive scaling of the other, about 0 where they are unrelated (a little below
        0 is noise); 0 for a side that tells no sample from another.
    Raises: ConfigError for fewer than 4 samples, or another number of them.
    Source: Kornblith et al. 2019, arXiv:1905.00414, eq. 4, linear kernel. Differs: HSIC is Song et al.'s unbiased estimate, as in Nguyen et al.
    2020, arXiv:2010.15327, eq. 3, for the biased one grows with the width of the layers.
    """
    if len(a) != len(b) or len(a) < 4:
        raise ConfigError(f"CKA compares the same samples in both layers and needs at least 4, got {len(a)} and {len(b)}. Give more training samples.")
    k, l = _hollow(a), _hollow(b)  # noqa: E741
    own = _hsic(k, k) * _hsic(l, l)
    return float(_hsic(k, l) / own.sqrt()) if own > 0 else 0.0


def _hollow(features: Tensor) -> Float[Tensor, "samples samples"]:
    """Inner products of what is centred and of mean square 1, their diagonal 0."""
    centred = features.double() - features.double().mean(0)
    scale = centred.square().sum(1).mean().sqrt()
    centred = centred / scale if scale > 1e-12 * features.double().abs().max() else torch.zeros_like(centred)
    gram = centred @ centred.T
    return gram.fill_diagonal_(0)


def _hsic(k: Float[Tensor, "n n"], l: Float[Tensor, "n n"]) -> Float[Tensor, ""]:  # noqa: E741
    """Song et al. 2012, JMLR 13, eq. 4; symmetric matrices of zero diagonal."""
    n = len(k)
    return ((k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ l.sum(0))) / (n * (n - 3))


def calls(task: Task) -> Calls:
    """The training samples that layers are compared on, as they are, in batches. Raises ConfigError for a split of fewer than 16."""
    count = len(task.split("train"))
    if count < FEWEST:
        raise ConfigError(f'teacher = "auto:cka" compares layers on training samples and needs at least {FEWEST}, got {count}. Take "auto", or name the layer.')
    ids = np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int)
    return [arguments(task, batch_of(task, "train", ids[start : start + BATCH])) for start in range(0, len(ids), BATCH)]


def vectors(model: nn.Module, widths: Mapping[str, int], given: Calls) -> Iterator[tuple[str, Float[Tensor, "samples width"]]]:
    """For each tap, one vector a sample: a map's mean over places, the mean over tokens that aren't padding, a vector as it is.

    Taps that give no floating-point numbers are left out. The model's modes stay as they are, and no hook stays.

    Args:
        widths: By tap, how wide its vectors are: as many as fit are read in one pass.
    """
    samples = sum(_count(call) for call in given)
    group: list[str] = []
    for tap in (*widths, ""):
        if group and (not tap or sum(widths[t] for t in (*group, tap)) * samples * 4 > GROUP_BYTES):
            yield from _read(model, group, given).items()
            group = []
        group.append(tap)


def _count(call: tuple[tuple, Mapping[str, Any]]) -> int:
    return next(len(value) for value in (*call[0], *call[1].values()) if isinstance(value, Tensor))


def _read(model: nn.Module, taps: Sequence[str], given: Calls) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for args, kwargs in given:
            with torch.no_grad(), _pooling(model, taps, kwargs.get("attention_mask")) as seen:
                model(*args, **kwargs)
            for tap, value in seen.items():
                parts[tap].append(value)
    finally:
        for module, training in modes.items():
            module.training = training
    return {tap: torch.cat(values) for tap, values in parts.items() if len(values) == len(given)}


@contextmanager
def _pooling(model: nn.Module, taps: Sequence[str], mask: Any) -> Iterator[dict[str, Tensor]]:
    """Inside, a forward pass leaves each tap's vectors in the dict, pooled at once so that no map is held, and unseen by what counts the model's own operators."""
    seen: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def hook(tap: str) -> Any:
        def record(module: nn.Module, args: tuple, output: Any) -> None:
            tensor = first_tensor(args if tap.startswith(INTO) else output)
            if tensor is not None and tensor.is_floating_point() and tensor.dim() in (2, 3, 4):
                with torch._C.DisableTorchFunction():
                    seen[tap] = _pooled(tensor, mask).float().cpu()

        return record

    handles = [modules[tap.removeprefix(INTO)].register_forward_hook(hook(tap)) for tap in taps]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _pooled(tensor: Tensor, mask: Any) -> Float[Tensor, "batch width"]:
    if tensor.dim() == 2:
        return tensor
    if tensor.dim() == 4:
        return tensor.mean((2, 3))
    if not isinstance(mask, Tensor) or mask.shape != tensor.shape[:2]:
        return tensor.mean(1)
    kept = mask.to(tensor.dtype)[:, :, None]
    return (tensor * kept).sum(1) / kept.sum(1).clamp(min=1)
