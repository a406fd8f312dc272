"""What the user brings: model factories and weights, data splits, the metric, and how they fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.errors import TaskError, near
from limbeck.core.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

Factory = Callable[..., "nn.Module"]
Weights = str | Path | Mapping[str, "Tensor"] | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trained model (or several), the data that it is judged on, and the functions that join them.

    Only `metric` and `splits` are needed to evaluate an artifact; compressing needs `models` with a teacher.

    models: name → factory of an untrained `nn.Module`, or a list of factories: an ensemble, which is one teacher.
    weights: name → safetensors file, state-dict file (`weights_only=True`), state dict, or None if the factory loads them.
        An ensemble takes a list. Relative paths are resolved against `folder`.
    splits: "train" (learning, calibration), "validation" (gates, search), "test" (the verdict); any map-style data sets
        whose `dataset[i]` is deterministic.
    collate: list of samples → batch; default: torch's.
    inputs: batch → (args, kwargs) of the model; default: the first entry of a tuple, or all of a dict but its labels.
    outputs: what the model returns → dict of tensors, batch first; default: {"logits": tensor}, or a dict as it is.
    loss: (outputs, batch) → one loss a sample; None takes cross-entropy or squared error, as the metric's target says.
    views: a recipe of augmentation that can be replayed (`limbeck.Views`); None: samples as they are.
    preprocess: how raw data becomes samples, as data for whoever deploys.
    slices: name → function of a batch that gives one bool a sample; `limbeck.by_label` and `limbeck.by_column` make some.
    features: batch → columns by name, one number, bool or text a sample: what slices that lose most are sought in. None takes
        what a batch offers by itself.
    ensemble: how an ensemble's members are joined: the mean of their outputs, the log of their mean probabilities, or the union
        of the outputs that each names (teachers of several tasks).
    shifts: name → (sample, strength 1 to 5, rng) → sample: what may befall samples in the world (`limbeck.image_shifts` and its like make some);
        None: what the samples plainly allow.
    outside: name → data set of samples that belong to no class, as inputs or as (input, anything).
    """

    metric: Metric
    splits: Mapping[str, Any]
    models: Mapping[str, Factory | Sequence[Factory]] = field(default_factory=dict)
    weights: Mapping[str, Weights | Sequence[Weights]] = field(default_factory=dict)
    teacher: str = "teacher"
    name: str = "task"
    collate: Callable[[list[Any]], Any] | None = None
    inputs: Callable[[Any], tuple[tuple, dict[str, Any]]] | None = None
    outputs: Callable[[Any], Mapping[str, Tensor]] | None = None
    loss: Callable[[Mapping[str, Tensor], Any], Tensor] | None = None
    views: Any = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    shifts: Mapping[str, Callable[[Any, int, Any], Any]] | None = None
    outside: Mapping[str, Any] = field(default_factory=dict)
    features: Callable[[Any], Mapping[str, Any]] | None = None
    ensemble: Literal["outputs", "probabilities", "union"] = "outputs"
    folder: Path = Path()

    def model(self, name: str) -> Factory | Sequence[Factory]:
        """The factory (or factories) of this name. Raises TaskError with near names."""
        if name not in self.models:
            raise TaskError(f"task '{self.name}' has no model '{name}'. {near(name, self.models)} Models are named in Task(models={{…}}).")
        return self.models[name]

    def split(self, name: str) -> Any:
        """The data set of this split. Raises TaskError with the names that there are."""
        if name not in self.splits:
            raise TaskError(f"task '{self.name}' has no split '{name}'. {near(name, self.splits)} Splits are named in Task(splits={{…}}).")
        return self.splits[name]
