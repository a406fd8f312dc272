"""Objectives that need no teacher, on handwritten digits: none is asked for, and what they are worth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from limbeck import Task, Views, accuracy
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import predict
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.terms.entry import Entry
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.testing import context

NO_TEACHER = {
    "mutual": (Entry(name="task_loss"), Entry(name="mutual", options={"peers": 2})),
    "ema_teacher": (Entry(name="task_loss"), Entry(name="ema_teacher", weight=10)),
    "deep_supervision": (Entry(name="task_loss"), Entry(name="deep_supervision")),
}


def digits(*, samples: int, labelled: int | None = None, **more) -> Task:
    """Eight by eight pixels, ten classes; of the training samples only the first `labelled` keep their label."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = torch.from_numpy(found.images[order]).float()[:, None] / 16
    target = torch.from_numpy(found.target[order]).long()
    train = target[:samples].clone()
    if labelled is not None:
        train[labelled:] = -100
    splits = {"train": TensorDataset(images[:samples], train), "validation": TensorDataset(images[800:1000], target[800:1000]), "test": TensorDataset(images[1000:], target[1000:])}
    make = lambda: convnet(channels=1, classes=10, width=8)  # noqa: E731
    torch.manual_seed(0)
    return Task(name="digits", models={"teacher": make, "small": make}, weights={"teacher": make().state_dict()}, splits=splits, metric=accuracy(), **more)


class Silent:
    """A teacher that fails the test when it is asked."""

    def teacher(self, *_):
        raise AssertionError("the teacher was asked")

    tapped = layers = serving = teacher


def trained(task: Task, terms, folder, *, seed: int = 0, epochs: int = 1):
    for left in folder.glob("checkpoint-*"):
        left.unlink()
    config = Distill(student="small", terms=terms, training=Training(epochs=epochs, batch_size=32, learning_rate=5e-3))
    outcome = distill(teacher_candidate(task), config, replace(context(task, folder, seed=seed), signals=Silent()))
    return rebuild(outcome.candidate.torch_form, task), outcome.claims["history"]


def score(task: Task, model) -> float:
    images, target = task.splits["test"].tensors
    with torch.no_grad():
        return (predict(task, model.eval(), (images, target))["logits"].argmax(1) == target).float().mean().item()


@pytest.mark.parametrize("name", NO_TEACHER)
def test_no_teacher_is_asked_for(name, tmp_path):
    model, history = trained(digits(samples=96), NO_TEACHER[name], tmp_path)
    assert history[0].keys() >= {"task_loss", name, "loss", "validation"}
    assert set(model.state_dict()) == set(convnet(channels=1, classes=10, width=8).state_dict()), "nothing that a term keeps is in the student"


def paired(task: Task, terms, folder, seeds: int, epochs: int) -> np.ndarray:
    """What the terms give beyond the labels alone, in points, seed by seed."""
    alone = (Entry(name="task_loss"),)
    return np.array(
        [100 * (score(task, trained(task, terms, folder, seed=s, epochs=epochs)[0]) - score(task, trained(task, alone, folder, seed=s, epochs=epochs)[0])) for s in range(seeds)]
    )


def not_worse(gains: np.ndarray) -> bool:
    """Whether the mean isn't below 0 by more than two standard errors."""
    return bool(gains.mean() >= -2 * gains.std(ddof=1) / len(gains) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mutual", "deep_supervision"])
def test_it_is_no_worse_than_labels_alone(name, tmp_path):
    gains = paired(digits(samples=200), NO_TEACHER[name], tmp_path, seeds=4, epochs=25)
    assert not_worse(gains), gains


@pytest.mark.slow
def test_an_average_of_itself_learns_from_samples_without_a_label(tmp_path):
    """60 labels, 740 samples without one, seen under views that move them a little."""
    task = digits(samples=800, labelled=60, views=Views(shift=1))
    gains = paired(task, (Entry(name="task_loss", weight=13), Entry(name="ema_teacher", weight=10, options={"ramp": 0.5, "decay": 0.99})), tmp_path, seeds=3, epochs=12)
    assert not_worse(gains), gains
