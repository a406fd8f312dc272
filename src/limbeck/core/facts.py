"""What is true of a candidate. Techniques say what they need, give and break; legality of an order follows from that alone."""

from __future__ import annotations

from enum import StrEnum


class Fact(StrEnum):
    """A statement about a candidate that a technique can need, give or break."""

    TORCH = "torch"  # blueprint + weights rebuild it as a torch module
    FLOAT_WEIGHTS = "float-weights"  # no weight has been rounded to a grid
    NARROWER = "narrower"  # channels, heads, units, blocks or rows of an embedding were removed
    QUANTIZED = "quantized"  # weights and activations lie on an integer grid


class Data(StrEnum):
    """How much of the training split a technique reads."""

    NONE = "none"
    INPUTS = "inputs"  # samples without labels
    LABELS = "labels"
