"""The public verbs. The shells (command line, and what may follow) import this and nothing below it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ConfigError, TaskError, near
from limbeck.core.evidence import exit_code, worst
from limbeck.core.fields import json_schema, parse, table
from limbeck.core.foreign import users_code
from limbeck.core.plan import Plan
from limbeck.core.task import Task
from limbeck.core.technique import Log

if TYPE_CHECKING:
    from limbeck.intake.runfile import RunFile


@dataclass(frozen=True)
class Result:
    """What a run came to: its summary (as `summary.json` has it) and where it stands."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """PASS, FAIL, INCONCLUSIVE, ANOMALOUS, UNVERIFIED, or REFUSED."""
        return self.summary["verdict"]

    @property
    def exit_code(self) -> int:
        return self.summary["exit_code"]

    @property
    def artifact(self) -> Artifact | None:
        """The final artifact; None if the run was refused."""
        final = self.summary.get("final")
        return Artifact(self.folder / final["artifact"], final["runtime"]) if final else None


def compress(
    task: Task,
    contract: Contract,
    plan: Plan | None = None,
    *,
    target: Target | None = None,
    name: str = "run",
    root: str | Path = "runs",
    seed: int = 0,
    timing_seconds: float = 2.0,
    log: Log | None = None,
    stop: Callable[[], bool] = lambda: False,
    run_file: Path | None = None,
    entry: str | None = None,
) -> Result:
    """Make the task's teacher smaller and faster until the contract holds on the deployed artifact, or say why it doesn't.

    A run that was interrupted goes on when it is called again with the same name; a finished one is read from its records.

    Args:
        plan: The stages; None lets limbeck plan (see `limbeck.planner.sequential`).
        root: The folder of runs; this run's is `root/name`.
        stop: Asked between steps; True leaves a checkpoint and raises Interrupted.
        run_file, entry: Where the task came from; noted, so that a report finds its samples again.
    Raises: TaskError, ConfigError, RunError for what the caller can mend; Interrupted.
    """
    from limbeck.pipeline.context import Announced, QuietLog
    from limbeck.pipeline.folder import Request
    from limbeck.pipeline.run import carry_out
    from limbeck.planner.sequential import sequential

    request = Request(
        task=task,
        contract=contract,
        plan=plan or sequential(task, contract),
        target=target or Target(),
        name=name,
        root=Path(root),
        seed=seed,
        timing_seconds=timing_seconds,
        run_file=run_file,
        entry=entry,
    )
    with users_code(f"task '{task.name}'"):
        return Result(Path(root) / name, carry_out(request, log=Announced(log or QuietLog()), stop=stop))


def run(path: str | Path, *, name: str | None = None, log: Log | None = None, stop: Callable[[], bool] = lambda: False) -> Result:
    """Carry out a run file (`limbeck.toml`). Paths in it are relative to it."""
    from limbeck.intake.load import load_task
    from limbeck.intake.runfile import read_runfile
    from limbeck.planner.sequential import sequential

    path = Path(path)
    file = read_runfile(path)
    _check_names(path, file)
    task = load_task(file.task.entry, base=path.parent)
    plan = Plan(stages=file.stage, control=file.run.control) if file.stage else replace(sequential(task, file.contract), control=file.run.control)
    return compress(
        task,
        file.contract,
        plan,
        target=file.target,
        name=name or file.run.name,
        root=path.parent / file.run.root,
        seed=file.run.seed,
        timing_seconds=file.run.timing_seconds,
        log=log,
        stop=stop,
        run_file=path,
        entry=file.task.entry,
    )


def _check_names(path: Path, file: RunFile) -> None:
    """The names and options in a run file that only their families can judge. Raises ConfigError with line and column, MissingLibrary."""
    from limbeck.intake.places import located
    from limbeck.runtimes import installed
    from limbeck.techniques import card

    for number, stage in enumerate(file.stage):
        with located(path, under=("stage", number, "technique")):
            config = card(stage.technique).config
        with located(path, under=("stage", number, "config")):
            parse(config, stage.config, where=f"{stage.title}.config")
    with located(path, under=("target", "runtime")):
        installed(file.target.runtime)


def status(folder: str | Path) -> dict[str, Any]:
    """The summary of a run that came to its end; for one under way, what its journal holds so far.

    Raises: ConfigError if it is no run folder; RunError if its journal or summary was changed, or a later limbeck wrote it.
    """
    from limbeck.pipeline.reading import opened

    run = opened(Path(folder))
    if run.summary is not None:
        return run.summary
    events = [{"time": x["time"], "event": x["event"], **x["data"]} for x in run.lines]
    return {"schema": 1, "run": run.folder.name, "verdict": None, "exit_code": None, "state": run.state, "events": events}


def follow(folder: str | Path, *, stop: Callable[[], bool] = lambda: False, poll_seconds: float = 0.5) -> Iterator[dict[str, Any]]:
    """The events of a run under way, as they come; ends when its summary is there. See `limbeck.pipeline.follow`."""
    from limbeck.pipeline import follow as watching

    return watching.follow(Path(folder), stop=stop, poll_seconds=poll_seconds)


def runs(root: str | Path = "runs") -> dict[str, Any]:
    """The runs below a root: state (a verdict, `under way`, `interrupted`, `damaged`), stages passed, bytes on disk, last event, final figures."""
    from limbeck.pipeline import history

    return {"schema": 1, "root": str(root), "runs": history.runs(Path(root))}


def rollback(folder: str | Path, to: str, *, out: str | Path | None = None) -> dict[str, Any]:
    """Bring back the exact bytes of what a stage made; with `out`, a copy of its artifact too. See `limbeck.pipeline.history`."""
    from limbeck.pipeline import history

    return history.rollback(Path(folder), to, out=Path(out) if out else None)


def gc(folder: str | Path, *, delete: bool = False) -> dict[str, Any]:
    """What no record of a run needs; deleted only on request. See `limbeck.pipeline.history`."""
    from limbeck.pipeline import history

    return history.gc(Path(folder), delete=delete)


def diff(a: str | Path, b: str | Path) -> dict[str, Any]:
    """What changed between two runs, or two stages (RUN@STAGE): plan, config, edits, evidence, verdicts, environment."""
    from limbeck.pipeline import difference

    return difference.diff(str(a), str(b))


def verify(folder: str | Path) -> dict[str, Any]:
    """Hash every byte of a run's evidence; each file that doesn't hold is named. exit_code 0 clean, 3 if anything is wrong."""
    from limbeck.pipeline import verify as verifying

    return verifying.verify(Path(folder))


def export_run(folder: str | Path, file: str | Path) -> dict[str, Any]:
    """A whole run as one zip; equal runs give equal bytes."""
    from limbeck.pipeline import transfer

    return transfer.export_run(Path(folder), Path(file))


def import_run(file: str | Path, *, root: str | Path = "runs", name: str | None = None, limit_bytes: int | None = None) -> dict[str, Any]:
    """Place an exported run below `root`, every byte of it checked first; whole, or not at all."""
    from limbeck.pipeline import transfer

    return transfer.import_run(Path(file), root=Path(root), name=name, limit_bytes=transfer.DEFAULT_LIMIT if limit_bytes is None else limit_bytes)


def evaluate(
    subject: str | Path | Task,
    *,
    task: Task | str | None = None,
    split: str = "test",
    model: str | None = None,
    contract: Contract | None = None,
    target: Target | None = None,
    root: str | Path = "runs",
) -> dict[str, Any]:
    """Judge one artifact, or one model of a task exported to the target: metric with interval, latency, bytes, memory.

    Without a task only resources are measured, on random inputs; quality is then unverified. A look at "test" is counted in `root`.
    """
    return _judged([subject], task=task, split=split, model=model, contract=contract, target=target, root=Path(root))


def compare(
    baseline: str | Path | Task,
    candidate: str | Path | Task,
    *,
    task: Task | str | None = None,
    split: str = "test",
    contract: Contract | None = None,
    target: Target | None = None,
    root: str | Path = "runs",
) -> dict[str, Any]:
    """Judge a candidate against a baseline on the same samples: non-inferiority, speedup in turn, bytes, memory, agreement.

    The contract defaults to retention ≥ 0.97 (a drop of 0 where the metric admits no ratio needs a contract of yours).
    """
    return _judged([baseline, candidate], task=task, split=split, model=None, contract=contract, target=target, root=Path(root))


def _judged(
    subjects: list[str | Path | Task], *, task: Task | str | None, split: str, model: str | None, contract: Contract | None, target: Target | None, root: Path
) -> dict[str, Any]:
    from limbeck.evaluation.subject import judge, of_path, of_task

    target = target or Target()
    judging = _task(task)
    with users_code("the task"), tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        found = []
        for number, subject in enumerate(subjects):
            own = subject if isinstance(subject, Task) else _task(subject) if _is_task(subject) else None
            judging = judging or own
            if own:
                found.append(of_task(own, model=model, target=target, folder=Path(folder) / str(number), name=own.name if isinstance(subject, Task) else str(subject)))
            else:
                found.append(of_path(Path(str(subject))))
        if judging and split not in judging.splits:
            judging.split(split)
        if contract is None and len(found) > 1 and judging is not None and judging.metric.ratio:
            contract = Contract(retention=0.97)
        judged = judge(found, task=judging, target=target, split=split, contract=contract)
    looks = _look(judging, split, root, [s.artifact.path.name for s in found]) if judging and split == "test" else None
    verdicts = [v for j in judged for v in j.verdicts]
    status_ = worst(verdicts) if verdicts else None
    return {
        "schema": 1,
        "verdict": str(status_) if status_ else None,
        "exit_code": exit_code(status_) if status_ else 0,
        "target": {"runtime": target.runtime, "threads": target.threads, "batch": target.batch},
        "split": split if judging else None,
        "test_looks": looks,
        "subjects": [_subject_data(j) for j in judged],
    }


def _subject_data(judged: Any) -> dict[str, Any]:
    examined = judged.examined
    return {
        "name": examined.evidence.artifact,
        **examined.evidence.summary(),
        "metric_interval": examined.metric_interval,
        "retention": vars(examined.retention) if examined.retention else None,
        "agreement": dict(judged.agreement) if judged.agreement else None,
        "ratios": {"size": judged.size_ratio, "speedup_p50": vars(judged.speedup)} if judged.speedup else None,
        "verdicts": [{k: v for k, v in vars(x).items() if v is not None} for x in judged.verdicts],
    }


def _is_task(subject: str | Path | Task) -> bool:
    text = str(subject)
    return not Path(text).exists() and ":" in text


def _task(task: Task | str | Path | None) -> Task | None:
    from limbeck.intake.load import load_task

    if task is None or isinstance(task, Task):
        return task
    if ":" not in str(task):
        raise TaskError(f"a task is named as file.py:name, got {str(task)!r}. Add the name of the Task in it, as in {task}:task.")
    return load_task(str(task), base=Path())


def _look(task: Task, split: str, root: Path, names: list[str]) -> int:
    from limbeck.intake.fingerprint import fingerprint
    from limbeck.pipeline.looks import count_look

    root.mkdir(parents=True, exist_ok=True)
    return count_look(root, fingerprint=fingerprint(task.split(split)), run="evaluate", artifact=" ".join(names))


def techniques() -> list[dict[str, Any]]:
    """Every technique's card as plain data, third parties' too."""
    from limbeck.techniques import cards

    return [
        {
            "name": card.name,
            "family": card.family,
            "summary": card.summary,
            "version": card.version,
            "needs": sorted(card.needs),
            "gives": sorted(card.gives),
            "breaks": sorted(card.breaks),
            "data": str(card.data),
            "paper": card.paper,
            "recovers": card.recovers,
            "options": json_schema(card.config),
            "table": table(card.config),
        }
        for card in cards().values()
    ]


def runtimes() -> list[dict[str, Any]]:
    """Every runtime, with the version that is installed or None."""
    from limbeck.runtimes import ALL

    return [{"name": r.name, "summary": r.summary, "suffix": r.suffix, "version": r.available(), "round_to": r.round_to} for r in ALL]


def named(found: list[dict[str, Any]], name: str, *, kind: str) -> dict[str, Any]:
    """The entry of this name. Raises ConfigError with near names."""
    known = {entry["name"]: entry for entry in found}
    if name not in known:
        raise ConfigError(f"there is no {kind} '{name}'. {near(name, known)}")
    return known[name]
