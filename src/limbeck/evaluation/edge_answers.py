"""What artifacts answer to an input, each in a process of its own, and how far apart two answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.evaluation.feeds import in_whole_batches
from limbeck.evaluation.processes.apart import Apart
from limbeck.runtimes.card import Feed, InputSpec

if TYPE_CHECKING:
    from limbeck.evaluation.studies.study import Setting

TIMEOUT_S = 120.0  # for loading, and for one answer: longer counts as a crash
OK, DIFFERS, NOT_FINITE, REFUSED, CRASHED = "ok", "differs", "not finite", "refused", "crashed"
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Answer:
    """What an artifact said to an input: its outputs, or the word for what it did instead and why."""

    outputs: Outputs | None
    word: str = OK
    why: str = ""


class Asked:
    """An artifact that is asked input by input, each time in the process that is still there, or in a new one."""

    def __init__(self, artifact: Artifact, setting: Setting):
        self._artifact, self._setting = artifact, setting
        self._session = self._opened()
        self.inputs: tuple[InputSpec, ...] = self._session.inputs

    def _opened(self) -> Apart:
        return Apart(self._artifact, threads=self._setting.target.threads, timeout_s=TIMEOUT_S, stop=self._setting.stop)

    def answer(self, feed: Feed) -> Answer:
        """Its outputs; `refused` where it says no, `crashed` where its process ended, `not finite` where outputs are NaN or infinite."""
        self._setting.go_on()
        if self._session.closed:
            self._session = self._opened()
        try:
            outputs = in_whole_batches(self._session)(feed)
        except ArtifactError as error:
            return Answer(None, CRASHED if self._session.closed else REFUSED, str(error))
        wrong = next((name for name, value in outputs.items() if value.dtype.kind == "f" and not np.isfinite(value).all()), None)
        return Answer(outputs, NOT_FINITE, f"output '{wrong}' holds NaN or infinities") if wrong else Answer(outputs)

    def close(self) -> None:
        self._session.close()


def comparable(own: Outputs, first: Outputs) -> bool:
    """Whether outputs are numbers of the same shapes, in the same order."""
    return len(own) == len(first) and all(a.shape == b.shape and a.dtype.kind in "iufb" for a, b in zip(own.values(), first.values(), strict=True))


def shapes(outputs: Outputs) -> str:
    """Names and shapes, for people."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())


def largest(value: np.ndarray) -> float:
    """The largest magnitude that is finite; 0 where there is none."""
    finite = value[np.isfinite(value)].astype(np.float64) if value.dtype.kind in "iufb" else np.zeros(0)
    return float(np.abs(finite).max(initial=0.0))


def distance(own: Outputs, first: Outputs, scales: Sequence[float]) -> float:
    """The largest difference of an output, of the largest that the baseline gives here or to ordinary inputs."""
    most = 0.0
    for a, b, scale in zip(own.values(), first.values(), scales, strict=True):
        gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))
        most = max(most, gap / (max(scale, largest(b)) or 1.0))
    return most


def argmax(own: Outputs, first: Outputs, usual: float | None, scales: Sequence[float]) -> float | None:
    """The share of rows with the baseline's argmax; with `usual`, rows whose first and second are closer than that count as the same."""
    same = rows = 0
    for a, b, scale in zip(own.values(), first.values(), scales, strict=True):
        if b.dtype.kind != "f" or b.ndim < 2 or b.shape[-1] < 2 or not b.size:
            continue
        agree = a.argmax(-1) == b.argmax(-1)
        if usual is not None:
            ordered = np.sort(b.astype(np.float64), axis=-1)
            agree |= ordered[..., -1] - ordered[..., -2] <= 2 * usual * max(scale, largest(b))
        same, rows = same + int(agree.sum()), rows + agree.size
    return same / rows if rows else None
