"""The training loop: it learns, it resumes exactly, it survives divergence."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.errors import Interrupted, StageError
from limbeck.core.plan import Training
from limbeck.mechanics.objective import Term
from limbeck.mechanics.order import Order
from limbeck.mechanics.terms import task_loss
from limbeck.mechanics.train import fit, rate_at
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import small_task


@dataclass
class StopAfter:
    """Asks for a stop at the nth question."""

    left: int
    asked: list[int] = field(default_factory=list)

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))

    def forward(self, x):
        return self.body(x)


def model() -> nn.Module:
    torch.manual_seed(3)
    return Dropping()


def trained(path, training: Training, *, stop=lambda: False, objective=None, net=None):
    net = net or model()
    bound = (objective or 1.0 * task_loss()).bind(small_task())
    history = fit(net, bound, training, seed=5, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
    return net, history


def test_it_learns(tmp_path):
    net, history = trained(tmp_path / "c", Training(epochs=15, batch_size=16, learning_rate=5e-3))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and len(history) == 15
    assert not net.training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stop_at", [1, 5, 9, 14])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, optimizer, stop_at):
    """6 batches an epoch: stops in mid-epoch, at an epoch's end and after it, with dropout and batch norm on."""
    training = Training(epochs=3, batch_size=16, optimizer=optimizer, learning_rate=1e-2)
    straight, history = trained(tmp_path / "straight", training)
    with pytest.raises(Interrupted, match="a checkpoint is on disk. Run the same command again"):
        trained(tmp_path / "broken", training, stop=StopAfter(stop_at))
    torch.manual_seed(99)  # whatever the global generator holds must not matter
    resumed, again = trained(tmp_path / "broken", training)
    assert again == history
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_the_global_generator_is_left_as_it_was(tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    net = Dropping.__new__(Dropping)
    nn.Module.__init__(net)
    net.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))
    state = torch.get_rng_state()
    trained(tmp_path / "c", Training(epochs=1), net=net)
    assert torch.equal(torch.get_rng_state(), state) and not torch.equal(before, state)


def exploding(steps: set[int]) -> Term:
    count = [0]

    def term(seen):
        count[0] += 1
        return seen.student["logits"].square().mean() * (float("nan") if count[0] in steps else 1.0)

    return Term("exploding", term)


def test_a_nan_rolls_back_and_halves_the_rate(tmp_path):
    log = QuietLog()
    net = model()
    fit(net, (1.0 * exploding({4})).bind(small_task()), Training(epochs=2, batch_size=16), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=log)
    diverged = [data for event, data in log.events if event == "training diverged"]
    assert [d["rate_scale"] for d in diverged] == [0.5]
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_loss_that_stays_nan_fails_the_stage_with_the_way_out(tmp_path):
    with pytest.raises(StageError, match="diverged.*halved 3 times.*Lower learning_rate") as error:
        trained(tmp_path / "c", Training(epochs=1, batch_size=16), objective=1.0 * exploding(set(range(6, 1000))))
    assert [row["rate_scale"] for row in error.value.curve] == [1.0, 0.5, 0.25, 0.125] and error.value.curve[0]["loss"] > 0, "its curve is kept"


def test_clipping_bounds_the_step(tmp_path):
    """With SGD's first step, |Δw| = rate × clipped norm: the norm over all parameters together is what is clipped."""
    training = Training(epochs=1, batch_size=96, optimizer="sgd", learning_rate=0.1, warmup=1.0, clip_norm=0.01, weight_decay=0.0)
    before = model()
    start = {k: p.detach().clone() for k, p in before.named_parameters()}
    net, _ = trained(tmp_path / "c", training, net=before)
    moved = torch.cat([(p - start[k]).flatten() for k, p in net.named_parameters()]).norm().item()
    assert moved == pytest.approx(0.1 * 1.9 * 0.01, rel=1e-3)  # Nesterov's first step is (1 + 0.9) gradients


def test_orders_are_permutations_that_differ_by_epoch_and_seed():
    orders = [Order(s, 50, 8, 2).epoch(e) for s in (0, 1) for e in (0, 1)]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4 and np.array_equal(orders[0], np.random.default_rng([0, 0]).permutation(50))


def test_the_rate_rises_then_falls_to_nothing():
    training = Training(learning_rate=1.0, warmup=0.1)
    rates = [rate_at(s, 100, training) for s in range(100)]
    assert rates[9] == pytest.approx(1.0) and max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 1e-3


def score_of(scores):
    """A monitor that gives these numbers, one an epoch, and keeps the weights that it saw."""
    seen = []

    def monitor(net):
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        return scores[len(seen) - 1]

    return monitor, seen


@pytest.mark.parametrize(("keep", "scores", "epoch"), [("best", [0.1, 0.7, 0.7, 0.4], 1), ("best", [0.9, 0.1, 0.2, 0.3], 0), ("last", [0.9, 0.1, 0.2, 0.3], 3)])
def test_the_best_epoch_on_validation_is_kept_if_asked_for(tmp_path, keep, scores, epoch):
    training = Training(epochs=4, batch_size=16, keep=keep)
    monitor, seen = score_of(scores)
    net = model()
    fit(net, (1.0 * task_loss()).bind(small_task()), training, seed=5, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog(), monitor=monitor)
    assert all(torch.equal(value, seen[epoch][key]) for key, value in net.state_dict().items())


def test_the_best_so_far_survives_a_stop(tmp_path):
    """Best in the first epoch, stopped in the third: the resumed training still ends with the weights of the first."""
    training, scores = Training(epochs=4, batch_size=16, keep="best"), [0.9, 0.1, 0.2, 0.3]
    bound = (1.0 * task_loss()).bind(small_task())
    monitor, seen = score_of(scores)
    with pytest.raises(Interrupted):
        fit(model(), bound, training, seed=5, checkpoint=FileCheckpoint(tmp_path / "c", StopAfter(14)), log=QuietLog(), monitor=monitor)
    rest, _ = score_of(scores[2:])
    net = model()
    fit(net, bound, training, seed=5, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog(), monitor=rest)
    assert all(torch.equal(value, seen[0][key]) for key, value in net.state_dict().items())
