"""Times of modules by hooks, under a clock that the modules themselves advance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.runtimes import torch as torch_runtime
from limbeck.runtimes.torch import time_modules


class Clock:
    now = 0

    def perf_counter_ns(self) -> int:
        return self.now


class Work(nn.Module):
    def __init__(self, clock: Clock, cost: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.clock, self.cost, self.inner = clock, cost, inner

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        self.clock.now += self.cost
        if self.inner is not None:
            x = self.inner(x)
            self.clock.now += self.cost  # functional code after a child is the module's own again
        return x * scale


def test_time_is_exclusive_and_all_of_it_is_charged(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(torch_runtime, "time", clock)
    shared = Work(clock, 5_000_000)
    model = nn.Sequential(Work(clock, 1_000_000, inner=Work(clock, 3_000_000)), shared, shared)
    threads = torch.get_num_threads()
    found = time_modules(model, (torch.zeros(1),), {}, threads, 2, 3)
    assert found == {"": (0.0, 0.0), "0": (2.0, 2.0), "0.inner": (3.0, 3.0), "1": (10.0, 10.0)}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()) and torch.get_num_threads() == threads


def test_hooks_go_when_the_model_raises():
    model = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        time_modules(model, (torch.zeros(1, 4),), {}, 1, 1, 1)
    assert not model._forward_hooks and not model._forward_pre_hooks
