"""What becomes of inputs at the edge of what a model takes: empty, constant, extreme, the shortest and the longest.

Each artifact runs in a process of its own: one that an input brings down is a finding, and the next input is asked in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from limbeck.core.errors import ArtifactError
from limbeck.evaluation.edge_answers import CRASHED, DIFFERS, NOT_FINITE, OK, REFUSED, Answer, Asked, Outputs, argmax, comparable, distance, largest, shapes
from limbeck.evaluation.edge_inputs import Case, batch_of_any_size, cases_of, length, samples
from limbeck.evaluation.ranges import ranges_of
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, Data, Setting, Study
from limbeck.intake.fingerprint import spread
from limbeck.runtimes.card import Feed, InputSpec, bind, random_feed

ROWS = 8  # samples of an ordinary batch
LOOKED_AT = 64  # samples from which ranges and lengths are told
FAR = 10.0  # times the ordinary distance of the two models
LEAST_DISTANCE, LEAST_ALONE = 1e-4, 1e-3  # of the largest output: what differs by less is rounding; alone and in a batch, too


def take(setting: Setting) -> Data:
    """What each model makes of each edge, in a word, and how far apart the two are there beside ordinary inputs.

    Raises: ArtifactError if an artifact can't be loaded, or doesn't answer to ordinary inputs; Interrupted.
    """
    asked: dict[str, Asked] = {}
    try:
        for name, side in setting.sides.items():
            asked[name] = Asked(side.artifact, setting)
        base, longest = _ordinary(setting, asked)
        source = "random inputs" if setting.task is None else "samples"
        known = {name: one.answer(base) for name, one in asked.items()}
        if setting.task is None and any(answer.outputs is None for answer in known.values()):  # what is timed is known to run
            base = longest = bind(setting.feed, asked[CANDIDATE].inputs)
            source = "timed inputs"
            known = {name: one.answer(base) for name, one in asked.items()}
        for name, answer in known.items():
            if answer.outputs is None:
                raise ArtifactError(f"the {name} doesn't answer to ordinary inputs, so its edges say nothing: {answer.why}")
        yardstick = _Yardstick.of(known)
        cases = cases_of(asked[CANDIDATE].inputs, base, ranges=ranges_of([longest]), longest={name: v.shape for name, v in longest.items()})
        told = []
        for number, case in enumerate(cases):
            setting.progress(number, len(cases), f"edges: {case.name}")
            told.append(_told(case, {name: one.answer(case.feed) for name, one in asked.items()}, yardstick))
        alone = _each_alone(asked, base, known)
    finally:
        for one in asked.values():
            one.close()
    told = [*alone, *told]
    ordinary = {"samples": length(base), "distance": yardstick.distance, "argmax": yardstick.argmax}
    return {"source": source, "ordinary": ordinary, "cases": told, "red": sum(c["red"] for c in told)}


def _ordinary(setting: Setting, asked: Mapping[str, Asked]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """An ordinary batch that no model finds too large, and one of more samples, under the candidate's names: of the task's split, or random ones."""
    inputs = asked[CANDIDATE].inputs
    fixed = min((size for one in asked.values() if one.inputs and one.inputs[0].shape and (size := one.inputs[0].shape[0])), default=None)
    if setting.task is None:
        base = bind(random_feed(inputs, fixed or ROWS, 0), inputs)
        return base, base
    from limbeck.mechanics.data import batch_of, feed

    task, split = setting.task, setting.split
    ids = spread(len(task.split(split)), min(LOOKED_AT, max(ROWS, setting.samples)))
    few = [ids[i % len(ids)] for i in range(fixed or min(ROWS, len(ids)))]
    free = [spec if not spec.shape else InputSpec(spec.name, spec.dtype, (None, *spec.shape[1:]), spec.axes) for spec in inputs]
    return bind(feed(task, batch_of(task, split, few)), free), bind(feed(task, batch_of(task, split, ids)), free)


@dataclass(frozen=True)
class _Yardstick:
    """How far apart the two models are on ordinary inputs: the largest difference, of the baseline's largest output; None with one model.

    scales: The baseline's (or the only model's) largest output, by its place.
    """

    distance: float | None
    argmax: float | None
    scales: tuple[float, ...]

    @staticmethod
    def of(known: Mapping[str, Answer]) -> _Yardstick:
        first = known.get(BASELINE, known[CANDIDATE]).outputs or {}
        scales = tuple(largest(value) for value in first.values())
        own = known[CANDIDATE].outputs or {}
        if BASELINE not in known or not comparable(own, first) or any(a.word != OK for a in known.values()):
            return _Yardstick(None, None, scales)
        return _Yardstick(distance(own, first, scales), argmax(own, first, None, scales), scales)


def _told(case: Case, answers: Mapping[str, Answer], yardstick: _Yardstick) -> Data:
    """A case in a word, and whether it is red: worse than what the baseline makes of it, or a crash."""
    own, first = answers[CANDIDATE], answers.get(BASELINE)
    found: Data = {"name": case.name, "what": case.what, "word": own.word, "red": False, "baseline": first.word if first else None}
    found |= {"distance": None, "times_ordinary": None, "argmax": None, "note": own.why or (f"baseline: {first.why}" if first and first.why else "")}
    if own.word == OK and first and first.word == OK:
        found |= _compared(own.outputs or {}, first.outputs or {}, yardstick)
    found["red"] = _is_red(found["word"], found["baseline"], endless=case.endless)
    return found


def _compared(own: Outputs, first: Outputs, yardstick: _Yardstick) -> Data:
    """How far apart both are here, beside how far on ordinary inputs. An argmax counts where the baseline is further from another than that."""
    if not comparable(own, first):
        return {"word": DIFFERS, "note": f"outputs of other shapes: {shapes(own)}, the baseline's {shapes(first)}"}
    far = distance(own, first, yardstick.scales)
    usual = max(yardstick.distance or 0.0, LEAST_DISTANCE)
    same = argmax(own, first, usual, yardstick.scales)
    differs = far > FAR * usual or (same is not None and same < 1)
    return {"word": DIFFERS if differs else OK, "distance": far, "times_ordinary": far / usual, "argmax": same}


def _is_red(word: str, baseline: str | None, *, endless: bool) -> bool:
    if word in (CRASHED, DIFFERS):
        return True
    if word == NOT_FINITE:
        return not endless and baseline != NOT_FINITE
    return word == REFUSED and baseline in (OK, NOT_FINITE)


def _each_alone(asked: Mapping[str, Asked], base: Feed, known: Mapping[str, Answer]) -> list[Data]:
    """Whether samples have the same answers alone as in a batch; nothing where the batch is fixed."""
    rows = length(base)
    if rows < 2 or not all(batch_of_any_size(one.inputs) for one in asked.values()):
        return []
    far: dict[str, tuple[str, float | None, str]] = {name: _alone(one, base, known[name]) for name, one in asked.items()}
    word, apart, why = far[CANDIDATE]
    usual = far[BASELINE][1] if BASELINE in far else None
    if word == OK and apart is not None and apart > max(LEAST_ALONE, FAR * (usual or 0.0)):
        word, why = DIFFERS, "a sample's answer depends on what else is in its batch"
    base_word = far[BASELINE][0] if BASELINE in far else None
    found: Data = {"name": "batch of one", "what": f"{rows} samples one by one, beside the same in one batch", "word": word, "baseline": base_word, "distance": apart}
    return [{**found, "times_ordinary": None, "argmax": None, "note": why, "red": _is_red(word, base_word, endless=False)}]


def _alone(asked: Asked, base: Feed, together: Answer) -> tuple[str, float | None, str]:
    """The word, and how far answers to single samples are from those to the batch, of the largest output."""
    whole = together.outputs or {}
    parts = []
    for row in range(length(base)):
        answer = asked.answer(samples(base, row, row + 1))
        if answer.outputs is None or answer.word != OK:
            return answer.word, None, answer.why
        parts.append(answer.outputs)
    if any(value.ndim == 0 or value.shape[:1] != (1,) for part in parts for value in part.values()):
        return OK, None, "outputs have no axis of samples"
    joined = {name: np.concatenate([p[name] for p in parts]) for name in whole if len({p[name].shape for p in parts}) == 1}
    if not comparable(joined, whole):
        return OK, None, "outputs alone have other shapes"
    return OK, distance(joined, whole, tuple(largest(v) for v in whole.values())), ""


EDGES = Study(name="edges", summary="what it makes of empty, constant, extreme, shortest and longest inputs, beside the baseline", take=take)
