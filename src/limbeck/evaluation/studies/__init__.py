"""Studies of a candidate, each one file and one line here, in the order in which they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from limbeck.core.contract import Contract
from limbeck.core.errors import ConfigError, Interrupted, LimbeckError, near
from limbeck.core.evidence import Status, Verdict
from limbeck.core.proof import Proof
from limbeck.evaluation.studies.answers import ANSWERS
from limbeck.evaluation.studies.cold_start import COLD_START
from limbeck.evaluation.studies.columns import COLUMNS
from limbeck.evaluation.studies.edges import EDGES
from limbeck.evaluation.studies.energy import ENERGY
from limbeck.evaluation.studies.forgotten import FORGOTTEN
from limbeck.evaluation.studies.found_slices import FOUND_SLICES
from limbeck.evaluation.studies.kernels import KERNELS
from limbeck.evaluation.studies.layers import LAYERS
from limbeck.evaluation.studies.memory import MEMORY
from limbeck.evaluation.studies.outside import OUTSIDE
from limbeck.evaluation.studies.saturation import SATURATION
from limbeck.evaluation.studies.shift import SHIFT
from limbeck.evaluation.studies.study import MISSING, Data, Setting, Side, Study
from limbeck.evaluation.studies.throughput import THROUGHPUT

__all__ = ["ALL", "MISSING", "Data", "Setting", "Side", "Study", "answering", "chosen", "taken", "verdict"]

ALL: tuple[Study, ...] = (COLUMNS, ANSWERS, FORGOTTEN, FOUND_SLICES, LAYERS, SHIFT, OUTSIDE, EDGES, KERNELS, SATURATION, COLD_START, THROUGHPUT, MEMORY, ENERGY)
Keeping = Callable[[Study, Callable[[], Data]], Data]


def chosen(proof: Proof, contract: Contract | None, studies: Iterable[Study] | None = None) -> tuple[Study, ...]:
    """What is asked for, and what the contract limits. Raises ConfigError with near names for a study that there isn't."""
    known = {study.name: study for study in (ALL if studies is None else studies)}
    words = [w.strip() for w in proof.studies.split(",") if w.strip()]
    for word in words:
        if word not in known and (word not in ("all", "none") or len(words) > 1):
            raise ConfigError(f"proof.studies: there is no study '{word}'. {near(word, known)} Write `all`, `none`, or names separated by commas.", path=("proof", "studies"))
    asked = set(known if words == ["all"] else words)
    limited = {name for name, study in known.items() if contract and study.limits.keys() & contract.limits().keys()}
    return tuple(study for name, study in known.items() if name in asked | limited)


def taken(setting: Setting, asked: Iterable[Study], *, here: bool = True, keep: Keeping = lambda study, take: take()) -> dict[str, Data]:
    """The figures of each study by its name, or `{"missing": why}`. Raises Interrupted alone.

    Args:
        here: Whether this machine is the target.
        keep: What holds on to figures: asked with a study, and what takes them now.
    """
    found: dict[str, Data] = {}
    for study in asked:
        why = "it is measured on the target, which is another device" if study.here and not here else study.why_not(setting)
        if why:
            found[study.name] = {MISSING: why}
            continue
        try:
            found[study.name] = keep(study, lambda study=study: _plain(study, setting))
        except Interrupted:
            raise
        except LimbeckError as error:
            found[study.name] = {MISSING: str(error)}
    return found


def _plain(study: Study, setting: Setting) -> Data:
    """Figures as they will be read again: no NaN, no tuples, no keys but text."""
    setting.progress(0, 0, f"study: {study.summary}")
    return json.loads(json.dumps(study.take(setting), allow_nan=False))


def answering(limit: str, studies: Iterable[Study] | None = None) -> Study | None:
    """The study that answers a limit of the contract; None if that is no study's business."""
    return next((study for study in (ALL if studies is None else studies) if limit in study.limits), None)


def verdict(study: Study, name: str, limit: float, found: Mapping[str, Any] | None) -> Verdict:
    """What a study's figures say to a limit; UNVERIFIED where it wasn't made."""
    if found is None or MISSING in found:
        why = found[MISSING] if found else f"the study '{study.name}' was not made"
        return Verdict(gate=name, status=Status.UNVERIFIED, limit=limit, reason=why)
    return study.limits[name](found, limit)
