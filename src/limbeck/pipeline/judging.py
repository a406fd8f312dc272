"""What a user names judged, and the data of it that `evaluate` and `compare` give."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ConfigError
from limbeck.core.evidence import exit_code, worst
from limbeck.core.foreign import users_code
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.evaluation import behaviour, spending
from limbeck.evaluation.judging import Judged, judge
from limbeck.evaluation.spending import Look
from limbeck.intake.fingerprint import fingerprint
from limbeck.intake.load import load_task
from limbeck.intake.runfile import read_runfile
from limbeck.pipeline.looks import count_look, looked
from limbeck.pipeline.store import digest
from limbeck.pipeline.subjects import Named, is_task, named_task, own_task, subject_of
from limbeck.pipeline.suspicion import relabelled
from limbeck.pipeline.verify import file_hash

LONGEST_S = 600.0  # of timing, as in a run file


def analyzed(subject: str | Path | Task) -> tuple[Task | None, Target]:
    """The task that a subject names, and where it will run; no task if the subject is an artifact."""
    if isinstance(subject, Task):
        return subject, Target()
    if Path(subject).suffix == ".toml":
        file = read_runfile(Path(subject))
        return load_task(file.task.entry, base=Path(subject).parent), file.target
    return (named_task(subject) if is_task(subject) else None), Target()


def judged(
    named: Sequence[Named],
    *,
    task: Task | str | None,
    split: str,
    model: str | None,
    contract: Contract | None,
    target: Target | None,
    proof: Proof | None,
    inputs: Any,
    seconds: float,
    root: Path,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """What `evaluate` (one subject) and `compare` (two) say, as plain data; a look at test is counted in `root`."""
    target = target or Target()
    if not 0 < seconds <= LONGEST_S:
        raise ConfigError(f"timing_seconds must be in (0, {LONGEST_S:g}], got {seconds!r}. 2 serve most models; a limit that is INCONCLUSIVE takes more.")
    with users_code("the task"), tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        own = [own_task(one) for one in named]
        judging = named_task(task) or next((t for t in own if t is not None), None)
        if judging is not None:
            judging.split(split)
        places = [Path(folder) / str(number) for number in range(len(named))]
        found = [subject_of(one, task=judging, own=mine, model=model, inputs=inputs, target=target, folder=at) for one, mine, at in zip(named, own, places, strict=True)]
        if contract is None and len(found) > 1 and judging is not None and judging.metric.ratio:
            contract = Contract(retention=0.97)
        on_test = judging is not None and split == "test"
        stated = replace(contract, confidence=contract.at_each_look, looks=None) if contract and on_test else contract
        each, fed = judge(found, task=judging, target=target, split=split, contract=stated, proof=proof or Proof(), inputs=inputs, seconds=seconds, stop=stop)
        look = _counted(judging, root, [s.artifact for s in found], contract) if judging and on_test else None  # what couldn't be judged showed nothing
        if look and contract:
            each = [replace(one, verdicts=spending.spent(one.verdicts, contract, look)) for one in each]
    verdicts = [v for j in each for v in j.verdicts]
    status = worst(verdicts) if verdicts else None
    return {
        "schema": 2,
        "verdict": str(status) if status else None,
        "exit_code": exit_code(status) if status else 0,
        "target": {"runtime": target.runtime, "threads": target.threads, "batch": target.batch},
        "split": split if judging else None,
        "inputs": fed.summary(),
        "test_looks": look.number if look else None,
        "look": spending.summary(contract, look, len(judging.split(split))) if look and judging else None,
        "subjects": [_subject(j) for j in each],
    }


def _subject(judged: Judged) -> dict[str, Any]:
    examined = judged.examined
    rows = examined.behaviour.candidate if examined.behaviour else None
    order = relabelled(rows, examined.behaviour.split) if rows is not None and examined.behaviour else None
    return {
        "name": examined.evidence.artifact,
        "kind": judged.subject.kind,
        **examined.evidence.summary(),
        "metric_interval": examined.metric_interval,
        "retention": vars(examined.retention) if examined.retention else None,
        "drop": vars(examined.drop) if examined.drop else None,
        "disturbed": examined.latency.disturbed if examined.latency else None,
        "behaviour": behaviour.summary(examined.behaviour) if examined.behaviour else None,
        "studies": dict(examined.studies),
        "agreement": dict(judged.agreement) if judged.agreement else None,
        "ratios": {"size": judged.size_ratio, "speedup_p50": vars(judged.speedup)} if judged.speedup else None,
        "notes": [*([judged.broken] if judged.broken else []), *([order] if order else []), *judged.notes],
        "verdicts": [{k: v for k, v in vars(x).items() if v is not None} for x in judged.verdicts],
    }


def _counted(task: Task, root: Path, artifacts: Sequence[Artifact], contract: Contract | None) -> Look:
    """The look that judging these files on test is; the same files again are the same look, whatever they are called."""
    root.mkdir(parents=True, exist_ok=True)
    data = looked(task, fingerprint(task.split("test")))
    marks = [digest([file_hash(file) for file in artifact.files()]) for artifact in artifacts]
    return count_look(root, data, run="evaluate", artifact=digest(marks), error=spending.error(contract))
