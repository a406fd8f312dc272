"""ema_teacher: the student's own moving average (mean teacher)."""

import math

import numpy as np
import pytest
import torch
from said import quarters, some_tokens
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck import Views
from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.terms import ALL, ema_teacher, task_loss
from limbeck.mechanics.terms.ema_teacher import Average, risen
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term

IDS = np.arange(8)


def viewed() -> Task:
    return Task(**{**vars(quarters()), "views": Views(flip=True, crop=2)})


def moved(model: nn.Module, by: float = 0.05) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))


def test_it_keeps_the_contract_and_needs_neither_teacher_nor_labels():
    check_term(ema_teacher(), task=quarters())
    check_term(ema_teacher(measure="kl", view="other"), task=viewed())
    assert not ema_teacher().teacher and not ema_teacher().labels and not ema_teacher().relational


def test_the_average_follows_by_the_papers_rule():
    """θ'_t = α θ'_{t−1} + (1 − α) θ_t with α = min(1 − 1/(t + 1), decay): the plain mean of θ_0 … θ_t until that is slower."""
    model = nn.Linear(3, 2).double()
    average, passed, expected = Average(model), [], torch.zeros(2, 3).double()
    moved(model)  # before the first call: it begins with what the weights are then
    for t in range(8):
        average.follow(model, 0.75)
        passed.append(model.weight.detach().clone())
        expected = passed[0] if t == 0 else expected * (a := min(1 - 1 / (t + 1), 0.75)) + (1 - a) * passed[-1]
        assert torch.allclose(average.model.weight, expected, atol=1e-12)
        if t <= 3:
            assert torch.allclose(expected, torch.stack(passed).mean(0), atol=1e-12)
        moved(model)


def test_it_follows_once_a_step_however_often_it_is_asked():
    """Batches that a step accumulates find the same weights."""
    task, student = quarters(), SmallNet(8).train()
    bound = (1.0 * ema_teacher()).bind(task, None, student)
    average, ask = bound.module["ema_teacher"], lambda: bound(student, batch_of(task, "train", IDS), IDS)
    ask()
    ask()
    assert average.steps.item() == 0
    moved(student)
    ask()
    kept = average.model.head.weight.clone()
    ask()
    assert average.steps.item() == 1 and torch.equal(kept, average.model.head.weight)
    moved(student)
    with torch.no_grad():
        ask()
    assert average.steps.item() == 1, "looking without training leaves no trace"


def test_the_decay_is_gentler_while_the_weight_rises():
    task, kept = quarters(), {}
    for done in (0.1, 0.9):
        torch.manual_seed(0)
        student = SmallNet(8).eval()
        bound = (1.0 * ema_teacher(decay=0.9999)).bind(task, None, student)
        average = bound.module["ema_teacher"]
        bound(student, batch_of(task, "train", IDS), IDS, done=done)
        average.steps.fill_(10**6)
        before = average.model.head.weight.clone()
        moved(student)
        bound(student, batch_of(task, "train", IDS), IDS, done=done)
        kept[done] = ((average.model.head.weight - before) / (student.head.weight - before)).mean().item()
    assert kept[0.1] == pytest.approx(1 - 0.99, rel=1e-2) and kept[0.9] == pytest.approx(1 - 0.9999, rel=0.2)


def test_batch_norms_statistics_are_averaged_and_counters_copied():
    model = nn.BatchNorm1d(2)
    average = Average(model)
    average.follow(model, 0.9)
    model.running_mean += 4
    model.num_batches_tracked += 3
    with torch.no_grad():
        model.weight += 1
    average.follow(model, 0.9)
    assert average.model.running_mean.tolist() == [2.0, 2.0] and average.model.num_batches_tracked.item() == 3


@pytest.mark.parametrize("measure", ["mse", "kl"])
def test_the_value_is_the_measure_written_out_times_the_risen_weight(measure):
    task, student = quarters(), SmallNet(8).eval()
    bound = (1.0 * ema_teacher(measure=measure, ramp=0.5)).bind(task, None, student)
    batch = batch_of(task, "train", IDS)
    assert bound(student, batch, IDS, done=1.0)[0].item() == pytest.approx(0, abs=1e-9), "zero at agreement"
    moved(student, 0.2)
    value, parts = bound(student, batch, IDS, done=0.25)
    mine, theirs = student(batch[0]), bound.module["ema_teacher"].model(batch[0])
    expected = (mine.softmax(1) - theirs.softmax(1)).square().mean() if measure == "mse" else F.kl_div(mine.log_softmax(1), theirs.softmax(1), reduction="batchmean")
    assert value.item() == pytest.approx(expected.item() * math.exp(-5 * 0.25), rel=1e-4)
    assert parts["ramp of ema_teacher"].item() == pytest.approx(math.exp(-1.25))


def test_the_weight_rises_to_one_and_stays():
    assert [risen(d, 0.5) for d in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1]) and risen(0.0, 0.0) == 1


def test_the_average_gets_no_gradient_stays_in_eval_and_out_of_the_student():
    task, student = quarters(), SmallNet(8)
    bound = (1.0 * ema_teacher()).bind(task, None, student)
    assert bound.parameters() == []
    bound.module.train()
    bound(student.train(), batch_of(task, "train", IDS), IDS)[0].backward()
    average = bound.module["ema_teacher"]
    assert not any(m.training for m in average.modules()) and all(p.grad is None for p in average.parameters())
    assert set(student.state_dict()) == set(SmallNet(8).state_dict())


def test_it_sees_the_next_view_or_the_same():
    task, batch = viewed(), batch_of(viewed(), "train", IDS)
    for view, shown in (("other", 6), ("auto", 6), ("same", 5)):
        student = SmallNet(8).eval()
        bound = (1.0 * ema_teacher(view=view)).bind(task, None, student)
        got = []
        bound.module["ema_teacher"].model.register_forward_pre_hook(lambda module, args, got=got: got.append(args[0]))
        bound(student, batch, IDS, 5)
        assert torch.equal(got[-1], task.views.apply(batch[0], IDS, shown)), view


def test_views_that_are_not_of_one_sample_alone_are_not_compared():
    mixed = Task(**{**vars(quarters()), "views": Views(mixup=0.4)})
    for task in (quarters(), mixed, Task(**{**vars(quarters()), "views": Views(flip=True, versions=1)})):
        with pytest.raises(ConfigError, match='ema_teacher.view = "other" needs a task with at least 2 views'):
            (1.0 * ema_teacher(view="other")).bind(task, None, SmallNet(8))
    student = SmallNet(8).eval()
    bound = (1.0 * ema_teacher()).bind(mixed, None, student)
    assert bound(student, batch_of(mixed, "train", IDS), IDS, 3, done=1.0)[0].item() == pytest.approx(0, abs=1e-9), "auto: the same view"


class Tokens(nn.Module):
    """Logits as they are put in, plus what it learned."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def forward(self, x):
        return x + self.bias


def test_tokens_without_a_label_are_left_out_one_sample_is_a_batch_and_values_are_refused():
    s, _, label = some_tokens()
    task = Task(metric=accuracy(), splits={"train": TensorDataset(s, label)}, models={"teacher": Tokens}, views=Views(noise=0.5))
    student = Tokens()
    bound = (1.0 * ema_teacher()).bind(task, None, student)
    assert bound(student, [s, label], np.arange(4), done=1.0)[0].item() == 0, "auto: tokens may stand elsewhere in another view, so it is the same one"
    with torch.no_grad():
        student.bias += torch.tensor([1.0, 0, 0, 0, -1])
    with torch.no_grad():
        values = [bound(student, [x, label], np.arange(4), done=1.0)[0].item() for x in (s, torch.where((label == -100)[..., None], 7.0, s))]
    assert values[0] > 0 and values[0] == pytest.approx(values[1], rel=1e-12)
    bound(student, [s[:1], label[:1]], np.arange(1), done=1.0)[0].backward()
    assert torch.isfinite(student.bias.grad).all()
    values = Task(metric=accuracy(), splits={"train": TensorDataset(s[..., :1], label)}, models={"teacher": Tokens})
    with pytest.raises(TaskError, match="ema_teacher needs class logits"):
        bound = (1.0 * ema_teacher()).bind(values, None, nn.Linear(1, 1).double())
        bound(nn.Linear(1, 1).double(), [s[..., :1], label], np.arange(4))


def test_a_training_that_is_stopped_and_resumed_ends_with_the_same_bits(tmp_path):
    task = viewed()

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (1.0 * task_loss() + 5.0 * ema_teacher()).bind(task, None, student, seed=1)
        fit(student, bound, Training(epochs=2, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict() | bound.module.state_dict()

    straight = trained(tmp_path / "a")
    asked = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed = trained(tmp_path / "b")
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items())
    assert straight["ema_teacher.steps"].item() == 5, "six steps, of which the last is not looked at"
    assert not torch.equal(straight["ema_teacher.model.head.weight"], straight["head.weight"])


def test_bad_options_are_refused():
    for options, message in (({"decay": 1.0}, r"decay must be in \[0, 1\)"), ({"ramp": 2}, r"ramp must be in \[0, 1\]"), ({"measure": "l1"}, "measure must be one of")):
        with pytest.raises(ConfigError, match=message):
            objective_of([Entry(name="ema_teacher", options=options)], ALL)
    with pytest.raises(ConfigError, match="ema_teacher needs decay in"):
        ema_teacher(decay=1.0)
