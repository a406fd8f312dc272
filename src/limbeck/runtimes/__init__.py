"""Runtimes that limbeck exports to and measures on. Each is one file and one line here; importing this loads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError, MissingLibrary, near
from limbeck.runtimes.card import Feed, InputSpec, Runtime, Session, bind, random_feed
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.runtimes.torch import TORCH

if TYPE_CHECKING:
    from limbeck.mechanics.data import Example

__all__ = ["ALL", "Feed", "InputSpec", "Runtime", "Session", "bind", "export", "installed", "of_file", "parity", "random_feed", "runtime"]

ALL: tuple[Runtime, ...] = (ONNXRUNTIME, TORCH)


def runtime(name: str) -> Runtime:
    """The runtime of this name. Raises ConfigError with near names."""
    known = {r.name: r for r in ALL}
    if name not in known:
        raise ConfigError(f"limbeck has no runtime '{name}'. {near(name, known)}")
    return known[name]


def installed(name: str) -> Runtime:
    """The runtime of this name, which is there to be used. Raises ConfigError with near names, MissingLibrary with the pip line."""
    found = runtime(name)
    if found.available() is None:
        raise MissingLibrary(f"the runtime '{name}' must be installed for this, and isn't. Install it: pip install {name}")
    return found


def of_file(path: str | Path) -> Runtime:
    """The runtime that loads this file, or a folder that holds one such file, by suffix. Raises ArtifactError."""
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"there is no artifact {path}. Check the path.")
    suffixes = {p.suffix for p in path.iterdir()} if path.is_dir() else {path.suffix}
    found = [r for r in ALL if r.suffix in suffixes]
    if len(found) != 1:
        raise ArtifactError(f"{path} must be for one runtime, by its suffix, got {', '.join(sorted(suffixes)) or 'nothing'}. {near(path.suffix, (r.suffix for r in ALL))}")
    return found[0]


def export(name: str, example: Example, folder: Path) -> Artifact:
    """The example's module as an artifact of the runtime of this name, in `folder`."""
    return runtime(name).export(example, folder)


def parity(model_outputs: Mapping[str, Any], session_outputs: Mapping[str, Any]) -> dict[str, float | None]:
    """How far a session's outputs are from the model's, over all outputs together.

    Returns: max_abs: the largest difference; max_rel: the largest difference of an output over that output's largest
        magnitude; argmax_agreement: the share of rows with the same argmax over the last axis, None if no output has classes.
        A NaN on one side only is an infinite difference.
    Raises: ArtifactError if names or shapes differ.
    """
    if model_outputs.keys() != session_outputs.keys():
        raise ArtifactError(f"the artifact must give {sorted(model_outputs)}, got {sorted(session_outputs)}. Export it again from this model.")
    max_abs = max_rel = 0.0
    same = rows = 0
    for name, value in model_outputs.items():
        expected, got = np.asarray(value), np.asarray(session_outputs[name])
        if expected.shape != got.shape:
            raise ArtifactError(f"output '{name}' must have the shape {list(expected.shape)}, got {list(got.shape)}. Export it again from this model.")
        absolute = _distance(expected.astype(np.float64), got.astype(np.float64))
        scale = float(np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=0.0))
        max_abs = max(max_abs, absolute)
        max_rel = max(max_rel, absolute / scale if scale else float("inf") if absolute else 0.0)
        if expected.dtype.kind == "f" and expected.ndim > 1 and expected.shape[-1] > 1 and expected.size:
            agree = expected.argmax(-1) == got.argmax(-1)
            same, rows = same + int(agree.sum()), rows + agree.size
    return {"max_abs": max_abs, "max_rel": max_rel, "argmax_agreement": same / rows if rows else None}


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not differ.any():
        return 0.0
    gap = np.abs(a[differ] - b[differ])
    return float("inf") if np.isnan(gap).any() else float(gap.max())
