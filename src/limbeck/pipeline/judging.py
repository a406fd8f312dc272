"""What a user names (a task, a run file, an artifact) judged, and the data of it that `evaluate` and `compare` give."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from limbeck.core.contract import Contract, Target
from limbeck.core.errors import TaskError
from limbeck.core.evidence import exit_code, worst
from limbeck.core.foreign import users_code
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.evaluation import behaviour
from limbeck.evaluation.subject import judge, of_path, of_task
from limbeck.intake.fingerprint import fingerprint
from limbeck.intake.load import load_task
from limbeck.intake.runfile import read_runfile
from limbeck.pipeline.looks import count_look


def analyzed(subject: str | Path | Task) -> tuple[Task | None, Target]:
    """The task that a subject names, and where it will run; no task if the subject is an artifact."""
    if isinstance(subject, Task):
        return subject, Target()
    if Path(subject).suffix == ".toml":
        file = read_runfile(Path(subject))
        return load_task(file.task.entry, base=Path(subject).parent), file.target
    return (named_task(subject) if is_task(subject) else None), Target()


def judged(
    subjects: list[str | Path | Task],
    *,
    task: Task | str | None,
    split: str,
    model: str | None,
    contract: Contract | None,
    target: Target | None,
    proof: Proof | None,
    root: Path,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """What `evaluate` (one subject) and `compare` (two) say, as plain data; a look at test is counted in `root`."""
    target = target or Target()
    judging = named_task(task)
    with users_code("the task"), tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        found = []
        for number, subject in enumerate(subjects):
            own = subject if isinstance(subject, Task) else named_task(subject) if is_task(subject) else None
            judging = judging or own
            if own:
                found.append(of_task(own, model=model, target=target, folder=Path(folder) / str(number), name=own.name if isinstance(subject, Task) else str(subject)))
            else:
                found.append(of_path(Path(str(subject))))
        if judging and split not in judging.splits:
            judging.split(split)
        if contract is None and len(found) > 1 and judging is not None and judging.metric.ratio:
            contract = Contract(retention=0.97)
        judged = judge(found, task=judging, target=target, split=split, contract=contract, proof=proof or Proof(), stop=stop)
    looks = _counted(judging, split, root, [s.artifact.path.name for s in found]) if judging and split == "test" else None
    verdicts = [v for j in judged for v in j.verdicts]
    status_ = worst(verdicts) if verdicts else None
    return {
        "schema": 2,
        "verdict": str(status_) if status_ else None,
        "exit_code": exit_code(status_) if status_ else 0,
        "target": {"runtime": target.runtime, "threads": target.threads, "batch": target.batch},
        "split": split if judging else None,
        "test_looks": looks,
        "subjects": [_subject(j) for j in judged],
    }


def _subject(judged: Any) -> dict[str, Any]:
    examined = judged.examined
    return {
        "name": examined.evidence.artifact,
        **examined.evidence.summary(),
        "metric_interval": examined.metric_interval,
        "retention": vars(examined.retention) if examined.retention else None,
        "behaviour": behaviour.summary(examined.behaviour) if examined.behaviour else None,
        "studies": dict(examined.studies),
        "agreement": dict(judged.agreement) if judged.agreement else None,
        "ratios": {"size": judged.size_ratio, "speedup_p50": vars(judged.speedup)} if judged.speedup else None,
        "verdicts": [{k: v for k, v in vars(x).items() if v is not None} for x in judged.verdicts],
    }


def is_task(subject: str | Path | Task) -> bool:
    """Whether a text names a task (file.py:name) rather than a file."""
    text = str(subject)
    return not Path(text).exists() and ":" in text


def named_task(task: Task | str | Path | None) -> Task | None:
    """The task of this name, loaded; a Task and None as they are. Raises TaskError."""
    if task is None or isinstance(task, Task):
        return task
    if ":" not in str(task):
        raise TaskError(f"a task is named as file.py:name, got {str(task)!r}. Add the name of the Task in it, as in {task}:task.")
    return load_task(str(task), base=Path())


def _counted(task: Task, split: str, root: Path, names: list[str]) -> int:
    root.mkdir(parents=True, exist_ok=True)
    return count_look(root, fingerprint=fingerprint(task.split(split)), run="evaluate", artifact=" ".join(names))
