"""What a training shows of itself: shares of the gradient and figures on validation, which change no bit of what is trained."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ConfigError, Interrupted
from limbeck.core.plan import Training
from limbeck.intake.metrics import accuracy, mse
from limbeck.mechanics import train
from limbeck.mechanics.build import captured
from limbeck.mechanics.objective import Term
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import kd, task_loss
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import CLASSES, Watch, Watcher, shares, watching
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import context, small_task


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))

    def forward(self, x):
        return self.body(x)


TRAINING = Training(epochs=3, batch_size=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def task():
    task = small_task()
    return dataclasses.replace(task, models={**task.models, "dropping": Dropping})


def trained(task, folder, *, watch, training=TRAINING, stop=lambda: False, log=None):
    surroundings = context(task, folder)
    torch.manual_seed(3)
    net = Dropping()
    bound = (0.3 * task_loss() + 0.7 * kd()).bind(task, LiveTeacher(task, teacher_of(task)), net)
    blueprint = dataclasses.replace(Candidate_of(task), factory="task:dropping")
    monitor = watching(surroundings, lambda m: Candidate(TorchForm(blueprint, captured(m)))) if watch else None
    history = fit(net, bound, training, seed=5, checkpoint=FileCheckpoint(folder / "c", stop), log=log or QuietLog(), monitor=monitor)
    return net, history


def teacher_of(task):
    from limbeck.mechanics.build import rebuild, teacher_candidate

    return rebuild(teacher_candidate(task).torch_form, task)


def Candidate_of(task):
    from limbeck.mechanics.build import teacher_candidate

    return teacher_candidate(task).torch_form.blueprint


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_watching_changes_no_bit(task, tmp_path, monkeypatch):
    """Dropout draws from the generator and batch norm counts batches: neither notices. Without it, no share and no figure is taken."""
    watched, history = trained(task, tmp_path / "a", watch=True)
    monkeypatch.setattr(train, "shares", lambda pulls, model: {})
    alone, bare = trained(task, tmp_path / "b", watch=False)
    assert same(watched, alone)
    assert [row["loss"] for row in history] == [row["loss"] for row in bare] and "share of kd" not in bare[0]
    for row in history:
        assert row["share of kd"] + row["share of task_loss"] == pytest.approx(1) and 0 < row["share of kd"] < 1
        assert {"validation", "teacher", "agreement", "missed", "calibration_error", "worst_class"} <= row.keys()
    assert "forgotten" not in history[0] and "forgotten" in history[-1]


def test_shares_are_the_norms_of_each_terms_own_gradient():
    torch.manual_seed(0)
    net, x = nn.Linear(3, 2), torch.randn(5, 3)
    out = net(x)
    pulls = {"a": 0.5 * out.square().mean(), "b": 2 * out.abs().mean(), "c": torch.zeros(())}
    found = shares(pulls, net)
    norms = {}
    for label in ("a", "b"):
        grads = torch.autograd.grad(pulls[label], list(net.parameters()), retain_graph=True)
        norms[label] = torch.cat([g.flatten() for g in grads]).norm().item()
    total = sum(norms.values())
    assert found == pytest.approx({"a": norms["a"] / total, "b": norms["b"] / total, "c": 0.0})
    assert all(p.grad is None for p in net.parameters()), "it leaves no gradient behind"
    assert shares({"a": pulls["c"]}, net) == {"a": 0.0} and shares({"a": float("inf") * out.sum()}, net) == {}


def rows_of(predicted, target, confidence=None):
    predicted, target = np.array(predicted), np.array(target)
    found = {"predicted": predicted, "target": target, "correct": (predicted == target).astype(np.int8)}
    return found | ({} if confidence is None else {"confidence": np.array(confidence)})


TRUTH = [0, 0, 0, 0, 1, 1, 1, 1]


def look(epochs, teacher=None, metric=None):
    """A watcher after these epochs' rows, and what it found in each."""
    rest = iter(epochs)
    watcher = Watcher(Watch(lambda model: next(rest), (lambda: teacher) if teacher else None), metric or accuracy())
    return watcher, [watcher.look(nn.Identity()) for _ in epochs]


def test_figures_by_hand():
    """The teacher has 6 of 8 right; after the second epoch, the best, come two that forget."""
    teacher = rows_of([0, 0, 0, 1, 1, 1, 1, 0], TRUTH)
    epochs = [
        rows_of([0, 0, 1, 1, 0, 0, 1, 1], TRUTH, [0.5] * 8),  # 4 right
        rows_of([0, 0, 1, 0, 1, 0, 1, 1], TRUTH, [0.75] * 8),  # 6 right
        rows_of([1, 0, 1, 0, 1, 1, 1, 1], TRUTH, [1.0] * 8),  # 6 right: one of the best epoch's is lost, one is won
        rows_of([1, 1, 1, 0, 1, 0, 0, 1], TRUTH, [1.0] * 8),  # 3 of the 6 are lost
    ]
    _, found = look(epochs, teacher)
    (one, first), (two, second), (three, third), (four, fourth) = found
    assert (first, second, third, fourth) == (True, True, False, False), "of equally good epochs the first is the best"
    assert (one["validation"], one["teacher"], one["agreement"], one["missed"], one["calibration_error"]) == (0.5, 0.75, 4 / 8, 3 / 6, 0.0)
    assert "forgotten" not in one and two["forgotten"] == 0.0 and two["calibration_error"] == 0.0
    assert three["forgotten"] == pytest.approx(1 / 6) and four["forgotten"] == pytest.approx(3 / 6) and three["calibration_error"] == pytest.approx(0.25)
    assert one[CLASSES] == [[0, 4, 3, 2], [1, 4, 3, 2]] and four[CLASSES] == [[0, 4, 3, 1], [1, 4, 3, 2]]
    assert (four["worst_class"], four["worst_class_kept"]) == (0, pytest.approx(1 / 3))


def test_a_student_that_passes_its_teacher_is_told_with_the_bound():
    truth = [0, 1] * 200
    teacher, student = [0] * 100 + truth[100:], truth
    _, [(found, _)] = look([rows_of(student, truth)], rows_of(teacher, truth))
    assert 0 < found["ahead_of_teacher"] < found["validation"] - found["teacher"]
    close = [1 - truth[0], *truth[1:]]
    _, [(found, _)] = look([rows_of(student, truth)], rows_of(close, truth))
    assert "ahead_of_teacher" not in found, "one sample of 400 proves nothing"


def test_a_metric_of_values_shows_what_it_can():
    own, theirs = ({"error": np.array([e, e])} for e in (1.0, 2.0))
    _, [(found, best)] = look([own], theirs, metric=mse())
    assert best and found == {"validation": 1.0, "teacher": 2.0, "ahead_of_teacher": 1.0}


def test_classes_stay_with_the_last_and_the_best_epoch(task, tmp_path):
    _, history = trained(task, tmp_path, watch=True, training=dataclasses.replace(TRAINING, epochs=5))
    scores = [row["validation"] for row in history]
    assert [i for i, row in enumerate(history) if CLASSES in row] == sorted({scores.index(max(scores)), len(history) - 1})
    assert sum(samples for _, samples, _, _ in history[-1][CLASSES]) == 96


@pytest.mark.parametrize("stop_at", [1, 6, 13])
def test_what_is_watched_survives_a_stop(task, tmp_path, stop_at):
    straight, history = trained(task, tmp_path / "a", watch=True)
    with pytest.raises(Interrupted):
        trained(task, tmp_path / "b", watch=True, stop=After(stop_at))
    resumed, again = trained(task, tmp_path / "b", watch=True)
    assert again == history and same(straight, resumed)


class After:
    def __init__(self, left: int):
        self.left = left

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_a_graph_that_gives_no_gradient_twice_is_not_watched_and_training_goes_on(task, tmp_path):
    asked = []

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            asked.append(1)
            if len(asked) == 1:
                raise RuntimeError("only once")
            return grad

    once = Term("once", lambda seen: Once.apply(seen.student["logits"]).square().mean())
    log, net = QuietLog(), Dropping()
    history = fit(net, (1.0 * task_loss() + 1.0 * once).bind(task), Training(epochs=1, batch_size=48), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=log)
    assert "only once" in next(data["text"] for event, data in log.events if event == "note") and "share of once" not in history[0]


def test_a_guard_that_sees_nothing_is_refused(task, tmp_path):
    with pytest.raises(ConfigError, match=r"training.forgetting = 'stop' needs the rows of validation.*set it to 'off'"):
        fit(Dropping(), (1.0 * task_loss()).bind(task), Training(forgetting="stop"), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog(), monitor=lambda m: 1.0)
