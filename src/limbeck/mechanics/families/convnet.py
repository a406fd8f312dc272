"""A plain stack of 3×3 convolutions for images."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.mechanics.families.sizes import check_sizes

SMALLEST_SIDE = 4  # a map is halved only while it keeps at least this many pixels a side


class ConvNet(nn.Module):
    """Convolutions, the mean over all places, one linear layer: any image size goes in."""

    def __init__(self, stages: list[nn.Module], last_width: int, classes: int):
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(last_width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(image))))


def convnet(*, channels: int, classes: int, width: int = 32, depth: int = 3, size: int = 32) -> nn.Module:
    """`depth` times Conv-BN-ReLU. Every layer but the first halves the map and doubles the channels, while the map allows it.

    Args:
        channels: Channels of the image.
        classes: Numbers that come out (for a regression: values).
        width: Channels of the first layer.
        size: The shorter side of the images in pixels. It decides how often the map is halved, not what may go in.
    Raises: ConfigError for a size below 1.
    """
    check_sizes("convnet", channels=channels, classes=classes, width=width, depth=depth, size=size)
    stages: list[nn.Module] = []
    before, now, side = channels, width, size
    for layer in range(depth):
        halve = layer > 0 and (side + 1) // 2 >= SMALLEST_SIDE
        now, side = (2 * now, (side + 1) // 2) if halve else (now, side)
        convolution = nn.Conv2d(before, now, 3, stride=2 if halve else 1, padding=1, bias=False)
        stages.append(nn.Sequential(convolution, nn.BatchNorm2d(now), nn.ReLU()))
        before = now
    return ConvNet(stages, now, classes)
