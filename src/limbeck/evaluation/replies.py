"""What two artifacts answer to the same samples, batch by batch: outputs, where a metric's rows say too little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.errors import ArtifactError, TaskError
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.quality import BATCH
from limbeck.mechanics.data import batches, feed, labels
from limbeck.runtimes.card import Session, fixed_batch
from limbeck.stats.distances import Compared, are_probabilities, compared, joined, log_probabilities

if TYPE_CHECKING:
    from limbeck.evaluation.studies.study import Setting, Side

TOKEN_BATCH = 8  # sequences asked at once: each position has a logit for every word
IGNORED = -100  # the label of a position that isn't judged


@dataclass(frozen=True)
class Reply:
    """One batch: which samples, the batch as it was collated, what was fed, and each side's outputs in the order of the sides."""

    ids: np.ndarray
    batch: Any
    fed: Mapping[str, np.ndarray]
    outputs: tuple[Mapping[str, np.ndarray], ...]


def replies(setting: Setting, ids: Sequence[int], *, size: int = BATCH) -> Iterator[Reply]:
    """Each batch of these samples of the setting's split, asked of every side; outputs that are floating-point numbers alone.

    Samples that don't fill the last batch of an artifact of a fixed batch are left out.

    Raises: ArtifactError if an artifact fails, gives NaN, or they take batches of different sizes; Interrupted when `stop` says so.
    """
    if setting.task is None:
        raise TaskError("answers are compared on the samples of a task, and there is none.")
    sides = tuple(setting.sides.values())
    sessions = [Apart(side.artifact, threads=setting.target.threads, stop=setting.stop) for side in sides]
    size, total = _batch(sessions, size), len(ids)
    fixed = any(fixed_batch(s) is not None for s in sessions)
    asked = ids[: total // size * size] if fixed else ids
    if not len(asked):
        raise ArtifactError(f"the artifact takes {size} samples at once, and there are {total}. Export it with a free batch, or add samples.")
    done = 0
    for part, batch in batches(setting.task, setting.split, size=size, ids=np.asarray(asked)):
        setting.go_on()
        fed = feed(setting.task, batch)
        yield Reply(part, batch, fed, tuple(_floats(session(fed), side) for session, side in zip(sessions, sides, strict=True)))
        done += len(part)
        setting.progress(float(done), float(len(asked)), "study: answers of both")


def _batch(sessions: Sequence[Session], size: int) -> int:
    fixed = {found for s in sessions if (found := fixed_batch(s)) is not None}
    if len(fixed) > 1:
        raise ArtifactError(f"the artifacts take batches of different sizes ({', '.join(map(str, sorted(fixed)))}), so they can't be asked together. Export both for one size.")
    return fixed.pop() if fixed else size


def _floats(outputs: Mapping[str, np.ndarray], side: Side) -> dict[str, np.ndarray]:
    found = {name: values for name, values in outputs.items() if np.asarray(values).dtype.kind == "f" and np.asarray(values).ndim}
    bad = next((name for name, values in found.items() if np.isnan(values).any()), None)
    if bad is not None:
        raise ArtifactError(f"output '{bad}' of {side.artifact.path.name} holds NaN, so answers can't be compared. Look for an overflow, or a sample that holds NaN itself.")
    return found


def paired(outputs: Sequence[Mapping[str, np.ndarray]]) -> tuple[str, list[np.ndarray]]:
    """The output by which models are compared, and its values of each: the one called "logits", else the first. The sides' names may differ.

    Raises: ArtifactError if a side has none, or shapes differ.
    """
    if not all(outputs):
        raise ArtifactError("an artifact gives no floating-point output, so there is no distance between answers. Compare their metric instead.")
    names = [("logits" if "logits" in given else next(iter(given))) for given in outputs]
    values = [np.asarray(given[name]) for given, name in zip(outputs, names, strict=True)]
    if len({v.shape for v in values}) > 1:
        raise ArtifactError(
            f"output '{names[0]}' has the shape {list(values[0].shape)} in one artifact and {list(values[-1].shape)} in the other. Compare models of the same outputs."
        )
    return names[0], values


@dataclass(frozen=True)
class ClassAnswers:
    """Both models' answers as distributions over classes: one entry a sample, or a position of one; `owner` says of which sample."""

    output: str
    classes: int
    found: Compared
    owner: np.ndarray


def class_answers(setting: Setting, ids: Sequence[int], *, tokens: bool = False) -> ClassAnswers:
    """Ask baseline and candidate for classes: of samples, or of every position that is judged.

    Raises: as `replies`; TaskError if the outputs aren't logits of that shape, or no position is judged.
    """
    parts: list[Compared] = []
    owners: list[np.ndarray] = []
    name, classes, given = "", 0, None
    for reply in replies(setting, ids, size=TOKEN_BATCH if tokens else BATCH):
        name, values = paired(reply.outputs)
        flat, owner = _flat(values, reply, tokens=tokens)
        if len(owner):
            given = given or [are_probabilities(v) for v in flat]
            parts.append(compared(*(log_probabilities(v, given=g) for v, g in zip(flat, given, strict=True))))
        owners.append(owner)
        classes = max(2, flat[0].shape[1])
    if not parts:
        raise TaskError("no position of these samples is judged, so there is no answer to compare.")
    return ClassAnswers(name, classes, joined(parts), np.concatenate(owners))


def _flat(values: list[np.ndarray], reply: Reply, *, tokens: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of logits, and which sample each is of."""
    if not tokens:
        values = [v[:, None] if v.ndim == 1 else v for v in values]
        if values[0].ndim != 2 or len(values[0]) != len(reply.ids):
            raise TaskError(
                f"the output holds {list(values[0].shape)} for {len(reply.ids)} samples, and a class takes one row of logits a sample. Name it 'logits' in the task's outputs."
            )
        return values, reply.ids
    if values[0].ndim != 3 or len(values[0]) != len(reply.ids):
        raise TaskError(
            f"the output holds {list(values[0].shape)} for {len(reply.ids)} samples, and tokens take logits [batch, tokens, words]. Name it 'logits' in the task's outputs."
        )
    judged = _judged(reply, values[0].shape[:2])
    return [v[judged] for v in values], np.repeat(reply.ids, judged.sum(axis=1))


def _judged(reply: Reply, shape: tuple[int, ...]) -> np.ndarray:
    """Which positions count: those that have a label, and aren't padding."""
    judged = np.ones(shape, dtype=bool)
    found = labels(reply.batch)
    if found is not None and np.shape(found) == shape:
        judged &= np.asarray(found) != IGNORED
    for name, mask in reply.fed.items():
        if name.endswith("attention_mask") and mask.shape == shape:
            judged &= mask.astype(bool)
    return judged
