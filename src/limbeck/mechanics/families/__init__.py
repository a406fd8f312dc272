"""Architectures that limbeck brings as students: `limbeck:<family>`. Each is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from limbeck.core.errors import ConfigError, near
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.families.decoder import decoder
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.families.mlp import mlp
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.families.vit import vit

ALL: tuple[Callable[..., nn.Module], ...] = (convnet, decoder, encoder, mlp, resnet, vit)


def family(name: str) -> Callable[..., nn.Module]:
    """The family of this name. Raises ConfigError with near names."""
    known = {f.__name__: f for f in ALL}
    if name not in known:
        raise ConfigError(f"limbeck has no family '{name}'. {near(name, known)}")
    return known[name]
