"""A task: scikit-learn's 1,797 scanned digits of 8×8 pixels, and a convolutional teacher of a million parameters."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from limbeck import Task, Views, accuracy

FOLDER = Path(__file__).parent


class Teacher(nn.Module):
    """Five convolutions, the mean over all places, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 64, 1), (64, 128, 2), (128, 192, 1), (192, 256, 2), (256, 128, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pool(self.features(image)).flatten(1))


def splits() -> dict[str, TensorDataset]:
    """797 digits to learn from, 500 to steer by, 500 for the verdict."""
    with np.load(FOLDER / "digits.npz") as file:
        pixels, targets = file["pixels"], file["targets"]
    order = np.random.default_rng(0).permutation(len(targets))
    images = torch.tensor(pixels[order], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(targets[order])
    parts = {"train": slice(0, 797), "validation": slice(797, 1297), "test": slice(1297, 1797)}
    return {name: TensorDataset(images[part], labels[part]) for name, part in parts.items()}


def train_teacher(path: Path, *, epochs: int = 12) -> None:
    """What the user has done before limbeck comes: an ordinary training, its weights saved."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model, (images, labels) = Teacher(), splits()["train"].tensors
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=epochs * (len(images) // 64))
    model.train()
    for _ in range(epochs):
        for ids in torch.randperm(len(images))[: len(images) // 64 * 64].view(-1, 64):
            rows, columns = torch.randint(-1, 2, (2,)).tolist()
            loss = nn.functional.cross_entropy(model(torch.roll(images[ids], (rows, columns), (2, 3))), labels[ids], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.step()
    save_file(model.state_dict(), path)


task = Task(
    name="digits",
    models={"teacher": Teacher},
    weights={"teacher": "teacher.safetensors"},
    splits=splits(),
    metric=accuracy(),
    views=Views(shift=1, versions=4),
    preprocess={"divide_by": 16, "layout": "NCHW"},
)
