"""Is this teacher too strong for this student, would an assistant help, which temperature and weight: asked of short trainings.

Each setting trains the same student from the same first weights on the same order of samples, for a few epochs, under several seeds;
what is compared is validation, in torch. The answers hold for that length of training: they rank settings, they don't predict retention.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError
from limbeck.core.fields import parse
from limbeck.core.metric import Metric, Rows
from limbeck.core.plan import Stage
from limbeck.evaluation import quality
from limbeck.mechanics.build import rebuild, runnable
from limbeck.mechanics.data import Reader, arguments
from limbeck.mechanics.terms.task_loss import main_output
from limbeck.pipeline.folder import Run
from limbeck.pipeline.recipes import TaskSizes
from limbeck.pipeline.stage import product, stage_key
from limbeck.planner.advice import Arm, Compared, Gap, answers, arms
from limbeck.stats.multiplicity import shared
from limbeck.stats.seeds import Spread, mean_and_spread, over_seeds
from limbeck.techniques import card

LOOKED_AT = 512  # training samples on which the teacher's sureness is measured
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class _Tried:
    """An arm's trainings: its rows on validation and the seconds, a seed each."""

    rows: tuple[Rows, ...]
    seconds: tuple[float, ...]


def advise(run: Run, stage: Stage, *, epochs: int, seeds: int) -> dict[str, Any]:
    """Advice on how to distil as `stage` asks, from short trainings of its student; kept in the run's folder, so that it goes on after a kill.

    Args:
        stage: A `distill` into the student that is asked about; of its options, student, options and training are taken.
        epochs: Of each training. seeds: How often each setting is tried.
    Raises: ConfigError if the stage distils into nothing.
    """
    if stage.technique != "distill" or "student" not in stage.config:
        raise ConfigError(f"advice is on a student to distil into; stage '{stage.title}' is {stage.technique}. Name one with a distill stage, or give --student.")
    metric, gap = run.task.metric, _gap(run, stage)
    tried: dict[str, _Tried] = {}
    asked = arms(stage, metric=metric, gap=gap, epochs=epochs)
    for number, arm in enumerate(asked):
        run.log.event("probe", arm=arm.name, number=number + 1, of=len(asked))
        tried[arm.name] = _tried(run, arm, range(seeds))
    pairs = [(arm.name, arm.against) for arm in asked if arm.against]
    compared = {name: _compared(metric, tried[name], tried[other], other, confidence=shared(0.95, len(pairs))) for name, other in pairs}
    values = {name: mean_and_spread([quality.value(metric, rows) for rows in one.rows]) for name, one in tried.items()}
    gap = replace(gap, student_metric=values["no teacher"][0])
    found = answers(gap, compared, metric=metric)
    shown = [_shown(arm, tried[arm.name], values[arm.name], compared.get(arm.name)) for arm in asked]
    run.journal.record("advice", stage=stage.title, epochs=epochs, seeds=seeds, arms=shown, answers=[asdict(a) for a in found])
    return {
        "schema": 1,
        "task": run.task.name,
        "student": {"factory": stage.config["student"], "options": dict(stage.config.get("options", {}))},
        "metric": {"name": metric.name, "direction": metric.direction},
        "epochs": epochs,
        "seeds": seeds,
        "gap": asdict(gap),
        "arms": shown,
        "answers": [asdict(a) for a in found],
    }


def _shown(arm: Arm, one: _Tried, value: tuple[float, float | None], compared: Compared | None) -> dict[str, Any]:
    return {"arm": arm.name, "validation": value[0], "spread": value[1], "seconds": sum(one.seconds) / len(one.seconds), "compared": asdict(compared) if compared else None}


def _tried(run: Run, arm: Arm, seeds: Sequence[int]) -> _Tried:
    rows, seconds = [], []
    for seed in seeds:
        start, before = 0.0, run.teacher_object
        candidate: Candidate = run.teacher
        for number, one in enumerate(arm.stages):
            named = replace(one, name=f"probe-{seed}-{len(arm.stages) - number}")  # the last training of every arm draws the same numbers
            config = parse(card(named.technique).config, named.config, where=f"{arm.name}.config")
            key = stage_key(run, named, card(named.technique), config, before)
            candidate, _, spent = product(run, named, card(named.technique), config, before=before, key=key)
            before, start = run.store.put_candidate(candidate), start + spent
        began = time.monotonic()
        rows.append(quality.rows_of_module(rebuild(candidate.torch_form, run.task), run.task, "validation"))
        seconds.append(start + time.monotonic() - began)
    return _Tried(tuple(rows), tuple(seconds))


def _compared(metric: Metric, one: _Tried, other: _Tried, against: str, *, confidence: float) -> Compared:
    """How much better, in the metric's own direction."""
    found: Spread = over_seeds(one.rows, other.rows, lambda a, b: -metric.drop(metric.number(a), metric.number(b)), units=metric.unit, confidence=confidence)
    return Compared(against, found.value, found.low, found.high, confidence)


def _gap(run: Run, stage: Stage) -> Gap:
    """What is known of teacher and student before anything is trained."""
    sizes = TaskSizes(run.task)
    student = sizes.parameters(stage.config["student"], stage.config.get("options", {}))
    scalable = str(stage.config["student"]).startswith("limbeck:") and student < sizes.teacher
    middle = sizes.scaled(stage.config["student"], stage.config.get("options", {}), parameters=round((student * sizes.teacher) ** 0.5)) if scalable else None
    teacher = quality.value(run.task.metric, quality.rows_of_module(runnable(run.teacher.form, run.task), run.task, "validation"))
    return Gap(sizes.teacher, student, teacher, None, _sureness(run), middle)


def _sureness(run: Run) -> Mapping[str, float]:
    """By temperature, what the teacher's softened answers leave open: their mean entropy as a share of that of knowing nothing; {} without classes."""
    if run.task.metric.target == "value":
        return {}
    count = len(run.task.split("train"))
    ids = np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int)
    source = run.signals
    batch = Reader(run.task, "train").batch(ids)
    args, kwargs = run.task.views.apply_to(run.task, batch, ids, np.zeros(len(ids), np.int64)) if run.task.views else arguments(run.task, batch)
    logits = main_output(run.task, source.teacher(ids, 0, args, kwargs)).float()
    if logits.dim() < 2 or logits.shape[-1] < 2:
        return {}
    found = {}
    for temperature in TEMPERATURES:
        logs = (logits / temperature).log_softmax(-1)
        found[f"{temperature:g}"] = float(-(logs.exp() * logs).sum(-1).mean() / torch.log(torch.tensor(float(logits.shape[-1]))))
    return found
