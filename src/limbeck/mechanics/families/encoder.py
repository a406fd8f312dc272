"""A small text encoder of BERT's kind. Devlin et al. 2018, arXiv:1810.04805; norms before each branch, as arXiv:2002.04745 has them, train without care."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.families.sizes import check_sizes

MASKED = -1e4  # added to the scores of padding: far below any score, and still a number in fp16


class Attention(nn.Module):
    """Scaled dot-product attention over `heads` heads, written out in matrix products; `bias` is added to the scores."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.head_size = width // heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2) for part in (self.query(x), self.key(x), self.value(x)))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size)
        scores = scores if bias is None else scores + bias
        return self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then two linear layers, each beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.activation, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), bias)
        return x + self.down(self.activation(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Token and position embeddings, layers, the mean over tokens that aren't padding, one linear layer."""

    def __init__(self, vocabulary: int, classes: int, width: int, *, layers: int, heads: int, length: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary + 1, width)  # the last row is the unknown token
        self.positions = nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        place = torch.arange(input_ids.shape[1], device=input_ids.device).clamp(max=self.positions.num_embeddings - 1)
        x = self.tokens(input_ids.clamp(max=self.tokens.num_embeddings - 1)) + self.positions(place)
        kept = mask.to(x.dtype)
        bias = (1 - kept)[:, None, None, :] * MASKED
        for layer in self.layers:
            x = layer(x, bias)
        pooled = (self.norm(x) * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)
        return self.head(pooled)


def encoder(*, vocabulary: int, classes: int, width: int = 128, layers: int = 2, heads: int = 4, length: int = 128) -> nn.Module:
    """Takes `input_ids` and `attention_mask` (1 = token, 0 = padding; left out: all are tokens), each [batch, tokens].

    Args:
        vocabulary: Token ids below it have an embedding of their own; those at or above it share one, the unknown token's.
        classes: Numbers that come out.
        width: Size of a token's vector; the inner linear layers are four times as wide.
        length: Positions that are learned; tokens beyond share the last one's.
    Raises: ConfigError for a size below 1, or heads that don't divide the width.
    """
    check_sizes("encoder", vocabulary=vocabulary, classes=classes, width=width, layers=layers, heads=heads, length=length)
    if width % heads:
        raise ConfigError(f"encoder.heads must divide encoder.width, got {heads} and {width}. Take a width of {math.ceil(width / heads) * heads}, or other heads.")
    return Encoder(vocabulary, classes, width, layers=layers, heads=heads, length=length)
