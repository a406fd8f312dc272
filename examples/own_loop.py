"""Distillation in your own loop, in three lines: attach an objective, train what it trains, and call it where you had a loss."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Views
from limbeck.adapters import Numbered, attach
from limbeck.mechanics.terms import hint, kd, task_loss

torch.manual_seed(0)
pixels, targets = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(targets)
train, test = TensorDataset(images[:1200], labels[:1200]), TensorDataset(images[1200:], labels[1200:])
numbered = Numbered(train)  # batches that carry their samples' numbers
loader = DataLoader(numbered, batch_size=100, shuffle=True, collate_fn=numbered.collate)


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def right(model: nn.Module) -> float:
    return (model.eval()(test.tensors[0]).argmax(1) == test.tensors[1]).float().mean().item()


teacher, student = net(256), net(32)
optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
for _ in range(40):
    for _, (x, y) in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher(x), y).backward()
        optimizer.step()
print(f"teacher  {right(teacher):.3f}")

terms = 0.1 * task_loss() + 0.9 * kd(temperature=4) + 0.1 * hint(student="2", teacher="2")
objective = attach(terms, student, data=train, teacher=teacher, views=Views(shift=1, versions=4))  # 1
optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=5e-3)  # 2: the hint's projector learns, too
for epoch in range(40):
    student.train()
    for ids, batch in loader:
        optimizer.zero_grad()
        loss, parts = objective(student, batch, ids.numpy(), view=epoch % 4)  # 3
        loss.backward()
        optimizer.step()
print(f"student  {right(student):.3f}", {name: round(value.item(), 4) for name, value in parts.items()})
