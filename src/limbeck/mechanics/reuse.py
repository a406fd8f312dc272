"""A student that answers through its teacher's classifier: the edit `reuse_head`, which places a projector and a head of the teacher's sizes.

`{"edit": "reuse_head", "head": path, "features": tap or "", "own": channels, "width": channels, "classes": n, "bias": …, "pool": [h, w],
"factor": r, "depthwise": …, "rectified": …}`. Weights come with the candidate's, so that no teacher is needed to build it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from limbeck.core.errors import ReplayError, near
from limbeck.mechanics.taps import INTO

Edit = Mapping[str, Any]
KIND = "reuse_head"
SIZES = ("own", "width", "classes", "factor")
MOST_ELEMENTS = 1 << 28  # numbers that a projector and a head may have: 1 GiB in float32


class Projected(nn.Module):
    """A module, and a projector on the map that it gives (or takes, if `first`)."""

    def __init__(self, body: nn.Module, projector: nn.Module, *, first: bool):
        super().__init__()
        self.body, self.projector, self.first = body, projector, first

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.projector(x)) if self.first else self.projector(self.body(x))


def projector(edit: Edit) -> nn.Module:
    """From the student's features to the teacher's: 1×1, 3×3 and 1×1 convolutions, each with batch norm, at width / factor; a linear layer on vectors.

    Source: Chen et al. 2022, arXiv:2203.14001, §3.2 (the bottleneck projector; its 3×3 convolution may be depthwise). Differs: the last ReLU
    is left out where the teacher's features can be negative; on vectors there is no bottleneck.
    """
    own, width = edit["own"], edit["width"]
    if not edit["features"]:
        return nn.Linear(own, width)
    inner = max(1, width // edit["factor"])
    layers: list[nn.Module] = [nn.AvgPool2d(tuple(edit["pool"]))] if list(edit["pool"]) != [1, 1] else []
    for before, after, kernel, groups in ((own, inner, 1, 1), (inner, inner, 3, inner if edit["depthwise"] else 1), (inner, width, 1, 1)):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*(layers if edit["rectified"] else layers[:-1]))


def reuse_head_edits(model: nn.Module, edits: list[Edit]) -> None:
    """Replay. Raises ReplayError for a module that isn't there, or a size that can't be."""
    for edit in edits:
        _check(edit)
        made, head = projector(edit), nn.Linear(edit["width"], edit["classes"], bias=edit["bias"])
        if edit["features"]:
            path = edit["features"].removeprefix(INTO)
            _place(model, path, Projected(_module(model, path), made, first=edit["features"].startswith(INTO)))
            _place(model, edit["head"], head)
        else:
            _place(model, edit["head"], nn.Sequential(OrderedDict(projector=made, head=head)))


def projector_path(edit: Edit) -> str:
    """Where the projector stands in a model that was edited so."""
    return f"{edit['features'].removeprefix(INTO) or edit['head']}.projector"


def head_path(edit: Edit) -> str:
    """Where the teacher's classifier stands in it."""
    return edit["head"] if edit["features"] else f"{edit['head']}.head"


def _check(edit: Edit) -> None:
    for name, value in {**{k: edit[k] for k in SIZES}, "pool[0]": edit["pool"][0], "pool[1]": edit["pool"][1]}.items():
        if type(value) is not int or value < 1:
            raise ReplayError(f"{KIND}.{name} must be a whole number ≥ 1, got {str(value)[:80]}. The blueprint was damaged or written by another version.")
    own, width, classes, factor = (edit[k] for k in SIZES)
    asked = own * width + width * classes + 9 * (width // factor) ** 2
    if asked > MOST_ELEMENTS:  # memory would be taken before the weights could show that they are of other sizes
        raise ReplayError(f"{KIND} asks for {asked:,} numbers, more than {MOST_ELEMENTS:,}. The blueprint was damaged or written by another version.")


def _module(model: nn.Module, path: str) -> nn.Module:
    known = dict(model.named_modules())
    if not path or path not in known:
        raise ReplayError(f"there is no module '{path}' in {type(model).__name__} for {KIND}. {near(path, (n for n in known if n))}")
    return known[path]


def _place(model: nn.Module, path: str, module: nn.Module) -> None:
    _module(model, path)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
