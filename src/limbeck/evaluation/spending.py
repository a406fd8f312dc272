"""Error spent over looks at one test split: at what confidence each verdict stands, and what no look may pass any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from limbeck.core.contract import QUALITY, Contract
from limbeck.core.evidence import Status, Verdict

CONFIDENCE = 0.95  # of a look that no contract judges
ROUNDING = 1e-9


@dataclass(frozen=True)
class Look:
    """One look at a test split among all that were taken at it."""

    number: int  # from 1, in the order in which they were taken
    before: float = 0.0  # error that the looks before it spent, as a probability

    def exhausted(self, contract: Contract) -> bool:
        """Whether the looks before it left nothing of the error that was planned; never where no looks are planned."""
        if contract.looks is None:
            return False
        return self.number > contract.looks or self.before + error(contract) > 1 - contract.confidence + ROUNDING


def error(contract: Contract | None) -> float:
    """The probability with which one look under this contract may pass what doesn't hold."""
    return 1 - (contract.at_each_look if contract else CONFIDENCE)


def spent(verdicts: Sequence[Verdict], contract: Contract, look: Look) -> tuple[Verdict, ...]:
    """Verdicts on quality as they stand after the looks before this one.

    Where looks are planned and their error is spent, a PASS becomes UNVERIFIED. Where none are planned each verdict is for itself, and
    from the second look on a PASS says how often all of them together may be wrong. Other statuses and other limits stay as they are.
    """
    said = note(contract, look)
    return tuple(_spent(v, said, look.exhausted(contract)) if v.gate.partition(".")[0] in QUALITY and v.status is Status.PASS else v for v in verdicts) if said else tuple(verdicts)


def _spent(verdict: Verdict, said: str, exhausted: bool) -> Verdict:
    return replace(verdict, status=Status.UNVERIFIED if exhausted else verdict.status, reason=f"{verdict.reason}; {said}")


def note(contract: Contract | None, look: Look) -> str:
    """What a reader must know of this look's verdicts on quality; empty for the first of a split where no others are planned."""
    if contract is None or contract.looks is None:
        together = percent(min(look.before + error(contract), 1.0))
        said = f"look {look.number} at this test split, each judged for itself: together they may pass what doesn't hold in up to {together} of cases"
        return said if look.number > 1 else ""
    if look.exhausted(contract):
        why = f"{contract.looks} were planned" if look.number > contract.looks else f"those before were judged at less than {percent(contract.at_each_look)}"
        return f"look {look.number} at this test split, but {why}: the error is spent, so it can't pass. Add fresh test samples, or plan more looks before the first"
    if contract.looks == 1:
        return ""
    return f"look {look.number} of {contract.looks} planned, each judged at {percent(contract.at_each_look)}, so that all together hold at {percent(contract.confidence)}"


def summary(contract: Contract | None, look: Look, samples: int | None) -> dict[str, Any]:
    """The look as `summary.json`, `evaluate` and `compare` show it."""
    return {
        "number": look.number,
        "planned": contract.looks if contract else None,
        "confidence": 1 - error(contract),
        "error_before": look.before,
        "samples": samples,
        "note": note(contract, look),
    }


def percent(share: float) -> str:
    """A share in percent, to a tenth where it isn't whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
