"""Residual networks of basic blocks, for images. He et al. 2015, arXiv:1512.03385, §4.2, with projection shortcuts (option B)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.families.sizes import check_sizes


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; their sum goes through a ReLU."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        projected = stride != 1 or before != width
        self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)) if projected else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(branch + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks, the mean over all places, one linear layer: any image size goes in."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int], blocks: Sequence[int]):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        stages, before = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [2 if number else 1] + [1] * (count - 1)
            stages.append(nn.Sequential(*(BasicBlock(before if i == 0 else width, width, stride) for i, stride in enumerate(strides))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(image)))))


def resnet(*, channels: int, classes: int, widths: Sequence[int] = (16, 32, 64), blocks: Sequence[int] = (1, 1, 1)) -> nn.Module:
    """Stages of `blocks[i]` basic blocks, `widths[i]` channels wide; each stage but the first halves the map.

    `blocks = [1, 1, 1]` is ResNet-8, `[3, 3, 3]` ResNet-20 of the paper's CIFAR kind.

    Args:
        channels: Channels of the image.
        classes: Numbers that come out.
    Raises: ConfigError for a size below 1, or widths and blocks of different lengths.
    """
    check_sizes("resnet", channels=channels, classes=classes, widths=widths, blocks=blocks)
    if len(widths) != len(blocks):
        raise ConfigError(f"resnet.widths and resnet.blocks must be of one length, got {list(widths)} and {list(blocks)}. Give one of each for every stage.")
    return ResNet(channels, classes, widths, blocks)
