"""A small vision transformer. Dosovitskiy et al. 2020, arXiv:2010.11929, §3.1; with a distillation token: Touvron et al. 2020, arXiv:2012.12877, §4."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.families.encoder import Layer
from limbeck.mechanics.families.sizes import check_sizes


class ViT(nn.Module):
    """Patches as tokens behind a class token, learned positions, encoder layers, a norm, one linear layer on the class token.

    Distilled: a second token with a linear layer of its own. In train mode it gives {"logits": the class token's, "distilled": the second's},
    so that each has its own targets; in eval mode, as it is deployed, {"logits": their mean}.
    """

    def __init__(self, channels: int, classes: int, image: Sequence[int], patch: int, *, width: int, depth: int, heads: int, distilled: bool):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width)) if distilled else None
        self.positions = nn.Parameter(torch.zeros(1, (image[0] // patch) * (image[1] // patch) + 1 + distilled, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.distillation_head = nn.Linear(width, classes) if distilled else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New tokens and positions, as they begin."""
        for tokens in (self.class_token, self.distillation_token, self.positions):
            if tokens is not None:
                nn.init.trunc_normal_(tokens, std=0.02)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.patches(image).flatten(2).transpose(1, 2)
        first = [token.expand(x.shape[0], -1, -1) for token in (self.class_token, self.distillation_token) if token is not None]
        x = torch.cat([*first, x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        if self.distillation_head is None:
            return self.head(x[:, 0])
        logits, distilled = self.head(x[:, 0]), self.distillation_head(x[:, 1])
        return {"logits": logits, "distilled": distilled} if self.training else {"logits": (logits + distilled) / 2}


def vit(*, channels: int, classes: int, image: Sequence[int], patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4, distilled: bool = False) -> nn.Module:
    """Takes images of one size; each square of `patch` pixels a side becomes a token.

    Args:
        channels: Channels of the image.
        classes: Numbers that come out.
        image: Height and width of the images in pixels: positions are learned, so no other size goes in.
        patch: Side of a patch in pixels; it divides both sides of the image.
        width: Size of a token's vector; the inner linear layers are four times as wide.
        depth: Layers.
        distilled: A second token with a head of its own, for a teacher's targets: terms address it by `output = "distilled"`.
    Raises: ConfigError for a size below 1, a patch that doesn't divide the image, or heads that don't divide the width.
    """
    check_sizes("vit", channels=channels, classes=classes, image=image, patch=patch, width=width, depth=depth, heads=heads)
    if len(image) != 2:
        raise ConfigError(f"vit.image must be height and width, got {list(image)}. Write it as in [32, 32].")
    if any(side % patch for side in image):
        fits = [str(p) for p in range(1, min(image) + 1) if not any(side % p for side in image)]
        raise ConfigError(f"vit.patch must divide both sides of the images, got {patch} for {image[0]} × {image[1]}. Take one of {', '.join(fits)}.")
    if width % heads:
        raise ConfigError(f"vit.heads must divide vit.width, got {heads} and {width}. Take a width of {math.ceil(width / heads) * heads}, or other heads.")
    if not isinstance(distilled, bool):
        raise ConfigError(f"vit.distilled must be true or false, got {distilled!r}.")
    return ViT(channels, classes, image, patch, width=width, depth=depth, heads=heads, distilled=distilled)
