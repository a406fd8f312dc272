"""The guard against forgetting: what ends a training, what is drawn more often, and that a stop changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from limbeck.core.errors import ConfigError, Interrupted
from limbeck.core.plan import Training
from limbeck.mechanics.forgetting import class_weights, classes_of, redrawn
from limbeck.mechanics.order import Curriculum, Order
from limbeck.mechanics.terms import task_loss
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import LABELS, LEARNED, Watch
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import small_task

TARGET = np.arange(40) % 4


def rows(wrong: list[int]):
    """A student that is wrong on these samples of 40, of four classes in turn."""
    predicted = TARGET.copy()
    predicted[wrong] = (predicted[wrong] + 1) % 4
    return {"predicted": predicted, "target": TARGET, "correct": (predicted == TARGET).astype(np.int8)}


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))


@dataclasses.dataclass
class Looked:
    """A monitor that shows these rows, one set an epoch, and keeps the weights that it saw."""

    epochs: list
    seen: list = dataclasses.field(default_factory=list)

    def __call__(self, model):
        self.seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return self.epochs[len(self.seen) - 1]


def trained(folder, training, epochs, *, stop=lambda: False, order=None):
    model, log, looked = net(), QuietLog(), Looked(epochs)
    bound = (1.0 * task_loss()).bind(small_task())
    history = fit(model, bound, training, seed=5, checkpoint=FileCheckpoint(folder / "c", stop), log=log, monitor=Watch(looked), order=order)
    return model, history, log, looked


LOST = [rows([0, 1, 2, 3]), rows([4]), rows([0, 1, 4]), rows([0, 1, 2, 3, 4]), rows([])]  # best in the second epoch, then 5 % and 10 % of it are lost


@pytest.mark.parametrize(("limit", "keep", "rows_left", "epoch"), [(0.04, "last", 3, 1), (0.06, "last", 4, 1), (0.5, "last", 5, 4), (0.06, "best", 4, 1), (0.5, "best", 5, 4)])
def test_stop_ends_with_the_weights_of_the_best_epoch(tmp_path, limit, keep, rows_left, epoch):
    training = Training(epochs=5, batch_size=16, forgetting="stop", forgetting_limit=limit, keep=keep)
    model, history, log, looked = trained(tmp_path, training, LOST)
    assert len(history) == rows_left and history[2]["forgotten"] == pytest.approx(2 / 39)
    assert all(torch.equal(v, looked.seen[epoch][k]) for k, v in model.state_dict().items())
    told = [data for event, data in log.events if event == "training stopped"]
    if rows_left < 5:
        assert history[-1]["stopped"] and told == [{"note": "training", "forgotten": history[-1]["forgotten"], "limit": limit, "epoch": rows_left, "back_to_epoch": 2}]
    else:
        assert not told and not any("stopped" in row for row in history)


def test_off_lets_it_forget(tmp_path):
    model, history, _, looked = trained(tmp_path, Training(epochs=5, batch_size=16), LOST)
    assert len(history) == 5 and all(torch.equal(v, looked.seen[4][k]) for k, v in model.state_dict().items())


def test_a_new_best_never_ends_it(tmp_path):
    """Half of what was right is wrong, but more is right than ever."""
    swapped = [rows(list(range(20, 40))), rows(list(range(10))), rows([])]
    _, history, _, _ = trained(tmp_path, Training(epochs=3, batch_size=16, forgetting="stop", forgetting_limit=0.1), swapped)
    assert len(history) == 3 and history[1]["forgotten"] == 0.5


def test_weights_by_hand():
    """Class 0 keeps 5 of 10, class 1 nine of 10, class 2 none, class 3 all."""
    memory = {LABELS: np.arange(4), LEARNED: np.full(4, 10)}
    now = rows([0, 4, 8, 12, 16, 1, *range(2, 40, 4)])
    assert class_weights(memory, now, 0.1) == {0: 2.0, 2: 4.0}
    assert class_weights(memory, now, 0.05) == {0: 2.0, 1: pytest.approx(10 / 9), 2: 4.0}
    assert class_weights({}, now, 0.1) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_a_sample_stands_as_often_as_its_weight_says(count, seed):
    rng = np.random.default_rng(seed)
    weights = rng.choice([1.0, 2.0, 4.0, 1.3], count)
    order = redrawn(np.arange(count), weights, seed=seed, epoch=3)
    expected = count * weights / weights.sum()
    found = np.bincount(order, minlength=count)
    assert len(order) == count and np.all(found >= np.floor(expected - 1e-9)) and np.all(found <= np.ceil(expected + 1e-9))
    assert np.array_equal(order, redrawn(np.arange(count), weights, seed=seed, epoch=3))


def test_the_mean_over_epochs_is_exact():
    weights = np.where(np.arange(30) < 10, 2.5, 1.0)
    drawn = np.concatenate([redrawn(Order(0, 30, 8, 1).epoch(e), weights, seed=0, epoch=e) for e in range(4000)])
    mean = np.bincount(drawn, minlength=30) / 4000
    assert mean == pytest.approx(30 * weights / weights.sum(), abs=0.04)


def test_equal_weights_leave_the_order_as_it_is():
    order = Order(0, 30, 8, 1).epoch(2)
    assert redrawn(order, np.full(30, 2.0), seed=0, epoch=2) is order


FELL = [rows([]), rows([0, 4, 8, 12, 16]), rows([]), rows([])]  # class 0 loses half of its recall in the second epoch, and regains it


def test_weight_draws_the_class_that_fell_in_the_next_epoch_alone(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("limbeck.mechanics.data.Reader.batch", spying(seen))
    _, history, log, _ = trained(tmp_path, Training(epochs=4, batch_size=16, forgetting="weight"), FELL)
    assert [data for event, data in log.events if event == "classes drawn more often"] == [
        {"note": "training", "epoch": 3, "times": {0: 2.0}},
        {"note": "training", "epoch": 4, "times": {}},
    ]
    classes = classes_of(small_task())
    counts = [np.bincount(classes[np.concatenate(seen[6 * e : 6 * e + 6])], minlength=4).tolist() for e in range(4)]
    assert counts[0] == counts[1] == counts[3] == [24, 24, 24, 24] and len(history) == 4
    assert counts[2][0] in (38, 39) and sum(counts[2]) == 96, "96 · 2·24 / (96 + 24) = 38.4"


def spying(seen):
    from limbeck.mechanics.data import Reader

    real = Reader.batch

    def batch(self, ids):
        seen.append(np.asarray(ids))
        return real(self, ids)

    return batch


@pytest.mark.parametrize("guard", ["weight", "stop"])
@pytest.mark.parametrize("stop_at", [7, 13, 16, 20])
def test_a_stop_changes_nothing(tmp_path, guard, stop_at):
    training = Training(epochs=4, batch_size=16, forgetting=guard, forgetting_limit=0.2, learning_rate=1e-2)
    straight, history, _, _ = trained(tmp_path / "a", training, FELL if guard == "weight" else [*FELL[:2], rows([4]), rows(list(range(20)))])
    epochs = FELL if guard == "weight" else [*FELL[:2], rows([4]), rows(list(range(20)))]

    class After:
        left = stop_at

        def __call__(self):
            self.left -= 1
            return self.left == 0

    with pytest.raises(Interrupted):
        trained(tmp_path / "b", training, epochs, stop=After())
    resumed, again, _, _ = trained(tmp_path / "b", training, epochs[(stop_at - 1) // 6 :])
    assert again == history and all(torch.equal(v, resumed.state_dict()[k]) for k, v in straight.state_dict().items())


def test_what_has_no_class_is_refused(tmp_path):
    task = small_task()
    data = task.splits["train"]
    two = torch.utils.data.TensorDataset(data.tensors[0], torch.nn.functional.one_hot(data.tensors[1]).float())
    with pytest.raises(ConfigError, match=r"draws samples by their class, and the labels of split 'train'.*torch.float32 of shape \[96, 4\].*'stop' or 'off'"):
        classes_of(dataclasses.replace(task, splits={**task.splits, "train": two}))
    with pytest.raises(ConfigError, match="labels of split 'train' of task 'quarters' have none"):
        classes_of(dataclasses.replace(task, splits={**task.splits, "train": list(data.tensors[0])}))
    order = Order(0, 96, 16, 1, Curriculum(labelled_share=0.5), labelled=np.arange(96) % 2 == 0)
    with pytest.raises(ConfigError, match="both say which samples a batch holds"):
        trained(tmp_path, Training(epochs=1, forgetting="weight"), LOST, order=order)
