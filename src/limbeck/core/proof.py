"""What is measured of the final artifact beside what its contract limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from limbeck.core.fields import Range, validate


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Studies at the verdict. One that answers a limit of the contract is always made, whatever is said here."""

    studies: Annotated[str, "`all`, `none`, or names separated by commas, as in `energy, throughput`; a study that can't be made says why"] = "all"
    samples: Annotated[int, Range(1, None), "of the split that a study looks at, at most; they are spread evenly over it"] = 1000
    seconds: Annotated[float, Range(0, 600, closed="right"), "for which a study that times things does so, about, for each artifact"] = 2.0

    def __post_init__(self) -> None:
        validate(self, where="proof")
