"""Distillation in your own loop: build an objective, bind it to a task and a teacher, and call it where you had a loss."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from limbeck import LiveTeacher, Task, Views, accuracy
from limbeck.mechanics.terms import kd, task_loss

torch.manual_seed(0)
pixels, targets = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(targets)
train, test = TensorDataset(images[:1200], labels[:1200]), TensorDataset(images[1200:], labels[1200:])


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def right(model: nn.Module) -> float:
    return (model.eval()(test.tensors[0]).argmax(1) == test.tensors[1]).float().mean().item()


def fit(model: nn.Module, loss_of, epochs: int = 40) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(epochs):
        for ids in np.random.default_rng(epoch).permutation(len(train)).reshape(-1, 100):
            optimizer.zero_grad()
            loss_of(model.train(), train[ids], ids, epoch).backward()
            optimizer.step()
    return right(model)


teacher = net(256)
print(f"teacher  {fit(teacher, lambda model, batch, ids, epoch: nn.functional.cross_entropy(model(batch[0]), batch[1])):.3f}")

task = Task(metric=accuracy(), splits={"train": train}, views=Views(shift=1, versions=4))
objective = (0.1 * task_loss() + 0.9 * kd(temperature=4)).bind(task, LiveTeacher(task, teacher))
print(f"student  {fit(net(32), lambda model, batch, ids, epoch: objective(model, batch, ids, view=epoch % 4)[0]):.3f}")
