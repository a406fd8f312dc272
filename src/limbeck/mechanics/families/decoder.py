"""A small causal language model of GPT's kind. Radford et al. 2019 (GPT-2): norms before each branch, learned positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.families.encoder import MASKED, Layer
from limbeck.mechanics.families.sizes import check_sizes


class Decoder(nn.Module):
    """Token and position embeddings, layers that look back alone, one linear layer to the next token's logits."""

    def __init__(self, vocabulary: int, width: int, *, layers: int, heads: int, length: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.positions(place.clamp(max=self.positions.num_embeddings - 1))
        bias = (place[None, :] > place[:, None]).to(x.dtype)[None, None] * MASKED
        if attention_mask is not None:
            bias = bias + (1 - attention_mask.to(x.dtype))[:, None, None, :] * MASKED
        for layer in self.layers:
            x = layer(x, bias)
        return self.head(self.norm(x))


def decoder(*, vocabulary: int, width: int = 128, layers: int = 2, heads: int = 4, length: int = 128) -> nn.Module:
    """Takes `input_ids` and, if batches are padded, `attention_mask` (1 = token, 0 = padding), each [batch, tokens].

    Gives logits [batch, tokens, vocabulary]: those at t are of the token at t + 1.

    Args:
        vocabulary: Token ids lie below it.
        width: Size of a token's vector; the inner linear layers are four times as wide.
        length: Positions that are learned; tokens beyond share the last one's.
    Raises: ConfigError for a size below 1, or heads that don't divide the width.
    """
    check_sizes("decoder", vocabulary=vocabulary, width=width, layers=layers, heads=heads, length=length)
    if width % heads:
        raise ConfigError(f"decoder.heads must divide decoder.width, got {heads} and {width}. Take a width of {math.ceil(width / heads) * heads}, or other heads.")
    return Decoder(vocabulary, width, layers=layers, heads=heads, length=length)
