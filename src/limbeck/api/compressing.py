"""Begin, compress, and the run that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.api.looking import package, report, status, verify
from limbeck.core.candidate import Artifact
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ConfigError
from limbeck.core.fields import parse
from limbeck.core.foreign import users_code
from limbeck.core.plan import CACHE_BYTES, Plan, Stage
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.core.technique import Log

if TYPE_CHECKING:
    from limbeck.intake.runfile import RunFile
    from limbeck.package.package import Package
    from limbeck.pipeline.folder import Request


@dataclass(frozen=True)
class Run:
    """A run: its summary (as `summary.json` has it) and where it stands. `compress` and `run` give one, `Run.open` finds one again."""

    folder: Path
    summary: Mapping[str, Any]

    @staticmethod
    def open(folder: str | Path) -> Run:
        """The run in this folder, finished or under way. Raises ConfigError if there is none, RunError if it is damaged."""
        return Run(Path(folder), status(folder))

    @property
    def verdict(self) -> str | None:
        """PASS, FAIL, INCONCLUSIVE, ANOMALOUS, UNVERIFIED, or REFUSED; None while it is under way."""
        return self.summary["verdict"]

    @property
    def exit_code(self) -> int | None:
        """As the command line would leave with; None while it is under way."""
        return self.summary["exit_code"]

    @property
    def artifact(self) -> Artifact | None:
        """The final artifact; None if there is none yet, or the run was refused."""
        final = self.summary.get("final")
        return Artifact(self.folder / final["artifact"], final["runtime"]) if final else None

    def report(self, out: str | Path | None = None, *, task: Task | str | None = None) -> Path:
        """Write the report, and say where; see `limbeck.api.report`."""
        return Path(report(self.folder, out=out, task=task)["file"])

    def package(self, out: str | Path | None = None) -> Package:
        """Package the final artifact; see `limbeck.api.package`."""
        return package(self, out=out)

    def verify(self) -> dict[str, Any]:
        """Hash every byte of the run's evidence; see `limbeck.api.verify`."""
        return verify(self.folder)

    def __repr__(self) -> str:
        return f"<limbeck.Run {str(self.folder)!r}: {self.verdict or 'under way'}>"

    def _repr_html_(self) -> str:
        from limbeck.report.notebook import run_html

        return run_html(self.summary)


def init(folder: str | Path, answers: Mapping[str, Any], *, ask: Any = None, force: bool = False) -> dict[str, Any]:
    """Write task.py and limbeck.toml (and train_teacher.py where there is no trained model) for a model and data of one's own.

    Args:
        answers: by the names of the flags of `limbeck init` (model, data, weights, limit, …); what is missing takes its default.
        ask: `(question, what was wrong with the answer before) → answer`; None: nobody is asked.
        force: overwrite files.
    Returns: what was decided and written, and the commands that come next.
    Raises: ConfigError that names the flag, for an answer that is missing, wrong, or contradicts another; TaskError for data or a
        model that a run would refuse; MissingLibrary. Nothing is written then.
    """
    from limbeck.intake.starting.begin import begin

    return begin(Path(folder), answers, ask=ask, force=force)


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
    cache_bytes: int = CACHE_BYTES,
    proof: Proof | None = None,
    log: Log | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Make the task's teacher smaller and faster until the contract holds on the deployed artifact, or say why it doesn't.

    A run that was interrupted goes on when it is called again with the same name; a finished one is read from its records.

    Args:
        plan: The stages; None lets limbeck plan (see `limbeck.planner.sequential`).
        root: The folder of runs; this run's is `root/name`.
        cache_bytes: Of disk that the teacher's answers may take; what doesn't fit is asked of the teacher each time.
        proof: What is shown of the final artifact beside the contract; None: every study that can be made.
        stop: Asked between steps; True leaves a checkpoint and raises Interrupted.
    Raises: TaskError, ConfigError, RunError for what the caller can mend; Interrupted.
    """
    from limbeck.pipeline.folder import Request
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
        cache_bytes=cache_bytes,
        proof=proof or Proof(),
    )
    return _carried_out(request, log, stop)


def run(path: str | Path, *, name: str | None = None, log: Log | None = None, stop: Callable[[], bool] = lambda: False) -> Run:
    """Carry out a run file (`limbeck.toml`). Paths in it are relative to it; variables of the environment stand over it, `name` over both."""
    return _carried_out(_requested(Path(path), name), log, stop)


def repeat(path: str | Path, *, seeds: int = 3, name: str | None = None, log: Log | None = None, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Carry out a run file under several seeds, each with its control (the final shape trained without a teacher), and compare them all.

    Run k has the seed `run.seed + k` and the name `<name>-seed<its seed>`; runs that are finished are read from their records, so that
    calling again goes on, and more seeds can be added. Each run looks at test once, and each look is counted.

    Returns: the runs with their figures, mean and spread over seeds, and the difference between final and control with an interval
        over samples and seeds; see `limbeck.pipeline.repeats.side_by_side`.
    Raises: as `run`; ConfigError for fewer than 1 seed.
    """
    from limbeck.pipeline.context import QuietLog
    from limbeck.pipeline.repeats import side_by_side

    if seeds < 1:
        raise ConfigError(f"seeds must be ≥ 1, got {seeds!r}. Three show a spread; more make the interval narrower.")
    asked = _requested(Path(path), name)
    requests = [replace(asked, seed=asked.seed + k, name=f"{asked.name}-seed{asked.seed + k}", plan=replace(asked.plan, control=True)) for k in range(seeds)]
    log = log or QuietLog()
    for number, request in enumerate(requests, 1):
        log.event("seed", seed=request.seed, run=request.name, number=number, of=seeds)
        _carried_out(request, log, stop)
    return side_by_side([r.root / r.name for r in requests], asked.task.metric)


def advise(
    path: str | Path,
    *,
    student: str | None = None,
    options: Mapping[str, Any] | None = None,
    epochs: int = 3,
    seeds: int = 2,
    name: str | None = None,
    log: Log | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Try a run file's teacher on a student in short trainings: does it help, is it too strong, which temperature and weight.

    Args:
        student, options: As `distill` takes them; by default those of the run file's first `distill` stage.
        epochs: Of each training. seeds: How often each setting is tried; the interval is over samples and seeds.
    Returns: the gap between teacher and student, each setting's validation metric with its difference and interval, and the answers.
    Raises: as `run`; ConfigError if the run file distils into nothing and no student is given.
    """
    from limbeck.pipeline.advice import advise as asked_for
    from limbeck.pipeline.context import Announced, QuietLog
    from limbeck.pipeline.run import opened

    if epochs < 1 or seeds < 1:
        raise ConfigError(f"epochs and seeds must be ≥ 1, got {epochs!r} and {seeds!r}. Three epochs and two seeds are a start.")
    request = _requested(Path(path), None)
    found = next((s for s in request.plan.stages if s.technique == "distill"), Stage(technique="distill"))
    if student is not None:
        found = replace(found, config={**found.config, "student": student, "options": dict(options or {})})
    if "student" not in found.config:
        raise ConfigError(f"{path} distils into no student, so there is nothing to advise on. Give --student, as in 'limbeck:convnet', or a distill stage.")
    request = replace(request, plan=Plan(stages=(found,)), name=name or f"{request.name}-advice")
    with users_code(f"task '{request.task.name}'"), opened(request, log=Announced(log or QuietLog()), stop=stop) as run:
        return asked_for(run, found, epochs=epochs, seeds=seeds)


def _requested(path: Path, name: str | None) -> Request:
    """What a run file asks for."""
    from limbeck.core.environment import in_effect
    from limbeck.intake.load import load_task
    from limbeck.intake.runfile import TABLES, read_runfile
    from limbeck.pipeline.folder import Request
    from limbeck.planner.sequential import sequential

    file = read_runfile(path)
    _check_names(path, file)
    task = load_task(file.task.entry, base=path.parent)
    plan = Plan(stages=file.stage, control=file.run.control) if file.stage else replace(sequential(task, file.contract), control=file.run.control)
    return Request(
        task=task,
        contract=file.contract,
        plan=plan,
        target=file.target,
        name=name or file.run.name,
        root=path.parent / file.run.root,
        seed=file.run.seed,
        timing_seconds=file.run.timing_seconds,
        cache_bytes=file.run.cache_bytes,
        proof=file.proof,
        run_file=path,
        entry=file.task.entry,
        variables={k: v for k, v in in_effect(TABLES).items() if not (name and k == "LIMBECK_RUN_NAME")},
    )


def _carried_out(request: Request, log: Log | None, stop: Callable[[], bool]) -> Run:
    from limbeck.pipeline.context import Announced, QuietLog
    from limbeck.pipeline.run import carry_out

    with users_code(f"task '{request.task.name}'"):
        return Run(request.root / request.name, carry_out(request, log=Announced(log or QuietLog()), stop=stop))


def _check_names(path: Path, file: RunFile) -> None:
    """The names and options in a run file that only their families can judge. Raises ConfigError with line and column, MissingLibrary."""
    from limbeck.intake.places import located
    from limbeck.intake.runfile import told
    from limbeck.planner.recipes import recipe
    from limbeck.runtimes import installed
    from limbeck.techniques import card

    for number, stage in enumerate(file.stage):
        with located(path, under=("stage", number, "technique")):
            config = (recipe(stage.technique) or card(stage.technique)).config
        with located(path, under=("stage", number, "config")):
            parse(config, stage.config, where=f"{stage.title}.config")
    with told(table="target"), located(path, under=("target", "runtime")):
        installed(file.target.runtime)
