"""A model somewhere along the way, in one of two forms: rebuilt by torch, or only a file that a runtime loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.errors import ConfigError
from limbeck.core.facts import Fact

if TYPE_CHECKING:
    from torch import Tensor

BLUEPRINT_VERSION = 1


@dataclass(frozen=True)
class Blueprint:
    """How to build an architecture again: a base and the ordered edits made to it. JSON, versioned, no code.

    factory: `task:<name>` (from Task.models) or `limbeck:<family>`; kwargs are plain data.
    edits: each `{"edit": kind, …}`, replayable on a fresh model; see `limbeck.mechanics.edits`.
    """

    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[Mapping[str, Any], ...] = ()

    def edited(self, *edits: Mapping[str, Any]) -> Blueprint:
        return replace(self, edits=(*self.edits, *edits))

    def to_json(self) -> str:
        """Canonical: equal blueprints give equal text."""
        data = {"version": BLUEPRINT_VERSION, "base": {"factory": self.factory, "kwargs": dict(self.kwargs)}, "edits": list(self.edits)}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str, *, where: str = "blueprint") -> Blueprint:
        """Raises ConfigError if the text isn't a blueprint of a version that this limbeck reads."""
        try:
            data = json.loads(text)
            version, base, edits = data["version"], data["base"], data["edits"]
            factory, kwargs = base["factory"], base["kwargs"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{where} is not a blueprint ({type(error).__name__}: {error}). It needs version, base.factory, base.kwargs and edits.") from error
        if version != BLUEPRINT_VERSION:
            raise ConfigError(f"{where}.version must be {BLUEPRINT_VERSION}, got {version!r}. It was written by another limbeck; use that version.")
        if not isinstance(factory, str) or not isinstance(kwargs, dict) or not isinstance(edits, list) or not all(isinstance(e, dict) for e in edits):
            raise ConfigError(f"{where} has a factory that isn't text, or kwargs or edits that aren't tables. Write it again with limbeck.")
        return Blueprint(factory, kwargs, tuple(edits))


@dataclass(frozen=True)
class TorchForm:
    """What torch can rebuild: a blueprint, and a tensor for each key of the rebuilt module's state dict."""

    blueprint: Blueprint
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Artifact:
    """What a runtime loads: a file or a folder.

    beside: Other files that a file loads, as weights that it keeps apart.
    """

    path: Path
    runtime: str
    beside: tuple[Path, ...] = ()

    def files(self) -> tuple[Path, ...]:
        return (self.path, *self.beside) if self.path.is_file() else tuple(sorted(p for p in self.path.rglob("*") if p.is_file()))

    @property
    def size_bytes(self) -> int:
        """The sum of all its files."""
        return sum(p.stat().st_size for p in self.files())


@dataclass(frozen=True)
class ArtifactForm:
    """What torch can't say: a candidate that is only an artifact."""

    artifact: Artifact


@dataclass(frozen=True)
class Candidate:
    """A form, and what is true of it. The evidence on it is kept by the run."""

    form: TorchForm | ArtifactForm
    facts: frozenset[Fact] = frozenset({Fact.TORCH, Fact.FLOAT_WEIGHTS})

    @property
    def torch_form(self) -> TorchForm:
        """The torch form; a technique that declares Fact.TORCH may rely on it."""
        if not isinstance(self.form, TorchForm):
            raise ConfigError(f"this candidate is only an artifact ({self.form.artifact.path.name}); torch can't rebuild it. Use a technique that doesn't need {Fact.TORCH}.")
        return self.form
