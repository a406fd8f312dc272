"""What a kind of data and a kind of model each bring to the files that are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MODEL_FILE = "teacher.safetensors"
Shape = Literal["image", "tokens", "numbers", "other"]


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """A kind of data as source text, and what is known of it.

    kind: classes or values. classes: their names in order; empty where they have none, or there are values.
    shape, figures: what one sample is: an image (channels, size), tokens (vocabulary, length), numbers (features).
    constants, code: what stands before the task. splits: split → expression. more: further keywords of the task, with comments.
    count: samples in each split. spread: standard deviation of the values, where limits on an error are set by it.
    files: others that are written, name → text.
    """

    kind: Literal["class", "value"]
    shape: Shape
    imports: tuple[str, ...]
    splits: Mapping[str, str]
    count: Mapping[str, int]
    constants: str = ""
    code: str = ""
    more: tuple[tuple[str, str, str], ...] = ()
    classes: tuple[str, ...] = ()
    figures: Mapping[str, int] = field(default_factory=dict)
    spread: float = 1.0
    files: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Numbers that a model for it gives."""
        return len(self.classes) if self.kind == "class" else 1


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """A kind of model as source text.

    factory: what builds the teacher, as an expression. weights: a path for Task.weights, or None if the factory loads them.
    trained: False where train_teacher.py must make the weights first.
    torch: whether torch can change it (an ONNX file it can't).
    outputs: source for Task.outputs, where the model's own names aren't read by default. output: the one that is judged.
    """

    factory: str
    imports: tuple[str, ...] = ()
    constants: str = ""
    code: str = ""
    weights: str | None = None
    trained: bool = True
    torch: bool = True
    outputs: str = ""
    output: str | None = None
