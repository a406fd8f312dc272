"""The linear map between two widths, where one is needed."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import nn

from limbeck.core.errors import ConfigError

Project = Annotated[
    Literal["auto", "always", "never"], "a linear map from the student's width to the teacher's, trained with the student and thrown away: `auto` where they differ"
]


def projection(name: str, own: int, theirs: int, project: str) -> nn.Module:
    """The map, or identity where none is needed. Raises ConfigError if widths differ and none is allowed."""
    if project == "always" or (own != theirs and project == "auto"):
        return nn.Linear(own, theirs, bias=False)
    if own != theirs:
        raise ConfigError(f'{name}.project must be "auto" or "always" where widths differ, got "never" with student {own} and teacher {theirs}. Or tap layers of one width.')
    return nn.Identity()
