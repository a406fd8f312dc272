"""An image classifier of the timm library, by `timm:<name>`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, near
from limbeck.core.require import require
from limbeck.intake.starting.own_module import weights_of
from limbeck.intake.starting.parts import DataPart, ModelPart
from limbeck.intake.starting.questions import Interview
from limbeck.intake.starting.source import quoted


def wanted(entry: str) -> Mapping[str, Any]:
    """What the model wants of its images. Raises MissingLibrary without timm; ConfigError for a name that it doesn't know."""
    timm = require("timm")
    name = entry.removeprefix("timm:")
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model '{name}'. {near(name, timm.list_models())[:200]}")
    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else 224
    return {"channels": 3, "size": size, "normalise": "imagenet"}


def part(entry: str, folder: Path, interview: Interview, data: DataPart) -> ModelPart:
    """The model with as many classes as the data, and weights that were trained for them.

    Raises: as `weights_of`.
    """
    timm, name, classes = require("timm"), entry.removeprefix("timm:"), data.outputs
    weights, trained = weights_of(lambda: timm.create_model(name, num_classes=classes), folder, interview)
    code = f'''
def teacher() -> nn.Module:
    """The network of timm; with pretrained=True training starts from public weights, which are fetched."""
    return timm.create_model({quoted(name)}, num_classes={classes})
'''
    return ModelPart(factory="teacher", imports=("import timm", "from torch import nn"), code=code, weights=weights, trained=trained)
