"""An ONNX file as teacher: nobody has to find the code that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError
from limbeck.intake.starting.parts import ModelPart
from limbeck.intake.starting.questions import Interview, Question
from limbeck.intake.starting.source import place, quoted
from limbeck.mechanics.onnx import OnnxModel

OUTPUT = Question(key="output", text="Which output is judged?", consequence="the file has several; the student learns this one", kind="choice")


def wanted(path: Path) -> Mapping[str, Any]:
    """What the file says of its images, where it takes one: channels and size, as far as they are fixed."""
    shapes = list(OnnxModel(path, 1).input_shapes.values())
    shape = shapes[0] if len(shapes) == 1 and len(shapes[0]) == 4 else ()
    return {key: shape[axis] for key, axis in (("channels", 1), ("size", 2)) if shape and isinstance(shape[axis], int)}


def part(path: Path, folder: Path, interview: Interview) -> ModelPart:
    """Raises: ConfigError for weights beside the file or another runtime; TaskError for a file that can't be run."""
    if interview.given.get("weights") not in (None, "none"):
        raise ConfigError("--weights: an ONNX file holds its own weights. Leave it out.")
    names = OnnxModel(path, 1).output_names
    output = names[0] if len(names) == 1 else interview.settle(OUTPUT, str, default="logits" if "logits" in names else None, choices=names)
    code = '''
def teacher() -> nn.Module:
    """The file itself: it answers, and is the baseline byte for byte. A student learns from it."""
    return onnx_model(MODEL)
'''
    named = ""
    if len(names) > 1 or output != "logits":
        code += f'''

def outputs(raw: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What is judged, under the file's own name for it."""
    return {{{quoted(output)}: raw if isinstance(raw, Tensor) else raw[{quoted(output)}]}}
'''
        named = "outputs"
    imports = ("from limbeck import onnx_model", "from torch import nn", *(("from torch import Tensor",) if named else ()))
    return ModelPart(
        factory="teacher", imports=imports, constants=f"MODEL = {place(path, folder)}\n", code=code, torch=False, outputs=named, output=output if len(names) > 1 else None
    )
