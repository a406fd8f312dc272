"""ewc: the weights that answers depend on stay near where they began."""

import numpy as np
import pytest
import torch
from said import quarters
from torch import nn
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy, mse
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.terms import ALL, ewc
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.ewc import fisher
from limbeck.testing import SmallNet, check_term


def of(inputs: torch.Tensor, *, metric=None) -> Task:
    return Task(metric=metric or accuracy(), splits={"train": TensorDataset(inputs, torch.zeros(len(inputs), dtype=torch.long))})


def test_it_keeps_the_contract():
    check_term(ewc(samples=16), task=quarters())


def test_the_fisher_information_of_an_even_logistic_model_by_hand():
    """At W = 0 each class has ½: whatever is drawn, (∂ log p/∂w)² = ¼ x², exactly."""
    inputs = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    weight, bias = fisher(of(inputs), model, samples=32)
    assert torch.allclose(weight, 0.25 * inputs.square().mean(0).expand(2, 3), rtol=1e-5)
    assert torch.allclose(bias, torch.full((2,), 0.25))


def test_the_fisher_information_of_a_softmax_and_of_a_value_in_the_mean():
    """F = p (1 − p) x² for the weights of class k, x² for a value of unit variance."""
    inputs = torch.tensor([[1.0, 2.0]]).expand(4000, 2)
    model = nn.Linear(2, 3)
    torch.manual_seed(0)
    p = model(inputs[:1]).softmax(1)[0].detach()
    assert torch.allclose(fisher(of(inputs), model, samples=4000)[0], (p * (1 - p))[:, None] * inputs[0].square(), rtol=0.1)
    line = nn.Linear(2, 1)
    assert torch.allclose(fisher(of(inputs, metric=mse()), line, samples=4000)[0], inputs[:1].square(), rtol=0.1)


def test_it_is_the_weighted_squared_distance():
    task, student = quarters(), SmallNet(8)
    bound = (1.0 * ewc(samples=12)).bind(task, None, student, seed=7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        importance = fisher(task, student, samples=12)
    call = lambda: bound(student, batch_of(task, "train", range(4)), np.arange(4))[0]  # noqa: E731
    assert call().item() == 0 and sum(f.sum() for f in importance) > 0 and all((f >= 0).all() for f in importance)
    with torch.no_grad():
        for p in student.parameters():
            p += 0.1
    loss = call()
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 0.01 * sum(f.sum().item() for f in importance), rel=1e-4)
    assert all(torch.allclose(p.grad, 0.1 * f, atol=1e-6) for p, f in zip(student.parameters(), importance, strict=True))


def test_the_pass_leaves_modes_buffers_gradients_and_the_generator_alone():
    task, student = quarters(), SmallNet(8).train()
    student.features[1].eval()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    state = torch.get_rng_state()
    (1.0 * ewc(samples=5)).bind(task, None, student)
    assert student.training and not student.features[1].training and student.features[4].training
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items()) and all(p.grad is None for p in student.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_weights_that_no_answer_depends_on_are_free_and_a_bad_option_is_refused():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    found = fisher(of(torch.randn(8, 3)), Spare(), samples=100)
    assert found[0].sum() > 0 and found[2].sum() == 0
    with pytest.raises(ConfigError, match="options.samples must be ≥ 1, got 0"):
        objective_of([Entry(name="ewc", options={"samples": 0})], ALL)
