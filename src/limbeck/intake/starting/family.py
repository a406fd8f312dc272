"""No model yet: a network of limbeck's own families, sized by the data, that train_teacher.py trains."""

from __future__ import annotations

from typing import Any

from limbeck.core.errors import ConfigError
from limbeck.intake.starting.parts import MODEL_FILE, DataPart, ModelPart
from limbeck.intake.starting.questions import TRAIN, Interview, yes
from limbeck.intake.starting.source import literal

MANY = 5_000  # training samples from which a larger teacher has something to learn from


def part(data: DataPart, interview: Interview) -> ModelPart:
    """A teacher to be trained. Raises ConfigError if that isn't wanted, or the data has a shape that no family takes."""
    if data.shape == "other":
        raise ConfigError("--model none: limbeck has no network for samples of this kind. Name your trained model, as in --model my_module.py:MyNet.")
    interview.note("limbeck compresses trained models; there is none yet, so train_teacher.py trains one on your data.")
    if not interview.settle(TRAIN, yes):
        raise ConfigError("--train-teacher: limbeck compresses trained models, so it needs one. Name it with --model, or let train_teacher.py train one.")
    name, options = teacher(data)
    arguments = ", ".join(f"{key}={literal(value)}" for key, value in options.items())
    code = f'''
def teacher() -> nn.Module:
    """The network that train_teacher.py trains, and limbeck makes small."""
    return family("{name}")({arguments})
'''
    return ModelPart(factory="teacher", imports=("from limbeck import family", "from torch import nn"), code=code, weights=MODEL_FILE, trained=False)


def teacher(data: DataPart) -> tuple[str, dict[str, Any]]:
    """The family of a teacher for this data, and its sizes."""
    large = data.count["train"] >= MANY
    if data.shape == "image":
        blocks = (2, 2, 2) if large else (1, 1, 1)
        return "resnet", {"channels": data.figures["channels"], "classes": data.outputs, "widths": (32, 64, 128), "blocks": blocks}
    if data.shape == "tokens":
        size = {"vocabulary": data.figures["vocabulary"], "length": data.figures["length"]}
        return "encoder", {**size, "classes": data.outputs, "width": 128, "layers": 4 if large else 2, "heads": 4}
    return "mlp", {"features": data.figures["features"], "classes": data.outputs, "widths": (512, 256) if large else (256, 128)}


def student(data: DataPart) -> tuple[str, dict[str, Any]] | None:
    """A family for a student, about a tenth of the teacher above; None for data of another shape."""
    if data.shape == "image":
        return "resnet", {"widths": [8, 16, 32], "blocks": [1, 1, 1]} if data.count["train"] < MANY else {"widths": [16, 32, 64], "blocks": [1, 1, 1]}
    if data.shape == "tokens":
        return "encoder", {"vocabulary": data.figures["vocabulary"], "width": 32, "layers": 1, "heads": 2}
    if data.shape == "numbers":
        return "mlp", {"widths": [32, 16] if data.count["train"] < MANY else [64, 32]}
    return None
