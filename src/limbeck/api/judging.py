"""Models and artifacts by themselves, without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.contract import Contract, Target
from limbeck.core.fields import parse, to_dict
from limbeck.core.foreign import users_code
from limbeck.core.proof import Proof
from limbeck.core.task import Task

if TYPE_CHECKING:
    from torch import nn


def evaluate(
    subject: str | Path | Task | nn.Module,
    *,
    task: Task | str | None = None,
    split: str = "test",
    model: str | None = None,
    contract: Contract | None = None,
    target: Target | None = None,
    proof: Proof | None = None,
    inputs: Any = None,
    timing_seconds: float = 2.0,
    root: str | Path = "runs",
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Judge one model: metric with interval, latency, bytes, memory, studies.

    Without a task only resources are measured, and quality is unverified. A look at "test" is counted in `root`.

    Args:
        subject: An artifact's path, a task or its name (file.py:name), an `nn.Module`, a run's folder (or folder@stage), a package.
        task: On whose data it is judged, and how a module is exported; the subject's own if it is a task.
        model: Which model of a task that is judged; its teacher by default.
        inputs: What is timed instead of samples of the split (or, without a task, of random inputs): a tensor or array, a tuple of
            them, a dict by name, or the path of a .npz file. A module without a task is exported for just these shapes.
        target: Where models of torch are exported to; its threads and batch are used for all.
        timing_seconds: How long each model is timed, in (0, 600]; up to five times as long where a limit on a percentile needs it.
    Raises: TaskError, ConfigError, ArtifactError, RunError for what the caller can mend, an artifact that crashes its runtime
        included; Interrupted when `stop` says so.
    """
    from limbeck.pipeline import judging

    options = {"contract": contract, "target": target, "proof": proof, "inputs": inputs, "seconds": timing_seconds}
    return judging.judged([subject], task=task, split=split, model=model, root=Path(root), stop=stop, **options)


def compare(
    baseline: str | Path | Task | nn.Module,
    candidate: str | Path | Task | nn.Module,
    *,
    task: Task | str | None = None,
    split: str = "test",
    contract: Contract | None = None,
    target: Target | None = None,
    proof: Proof | None = None,
    inputs: Any = None,
    timing_seconds: float = 2.0,
    root: str | Path = "runs",
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Judge a candidate against a baseline on the same samples: non-inferiority, speedup in turn, bytes, memory, agreement.

    Either may be anything that `evaluate` takes. The contract defaults to retention ≥ 0.97; a metric that admits no ratio needs a
    contract of yours. Arguments and errors: as `evaluate`; ArtifactError also if the two take different inputs.
    """
    from limbeck.pipeline import judging

    options = {"contract": contract, "target": target, "proof": proof, "inputs": inputs, "seconds": timing_seconds}
    return judging.judged([baseline, candidate], task=task, split=split, model=None, root=Path(root), stop=stop, **options)


def analyze(
    subject: str | Path | Task,
    *,
    task: Task | str | None = None,
    model: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    depth: int | None = None,
    seconds: float = 2.0,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Where a model's bytes, multiply-adds and time are: counted by layer and block, timed on the target; of an artifact, by operator.

    Args:
        subject: A task or its name (file.py:name), a run file (its task and target), or an artifact.
        task: Whose samples an artifact is fed; random ones without it.
        runtime, threads, batch: Of the target; the run file's, or onnxruntime, 1 and 1.
        depth: Names of a module path that make a block; None: what keeps any block from holding most of the multiply-adds.
        seconds: About how long each of the two timings takes.
    Raises: TaskError, ConfigError, ArtifactError for what the caller can mend; Interrupted when `stop` says so.
    """
    from limbeck.evaluation import analyze as analyzing
    from limbeck.pipeline import judging
    from limbeck.runtimes import installed

    own, target = judging.analyzed(subject)
    given = {"runtime": runtime, "threads": threads, "batch": batch}
    target = parse(Target, {**to_dict(target), **{k: v for k, v in given.items() if v is not None}}, where="target")
    installed(target.runtime)
    with users_code("the task"):
        if own is None:
            return analyzing.of_artifact(Path(str(subject)), task=judging.named_task(task), target=target, seconds=seconds, stop=stop)
        name = own.name if isinstance(subject, Task) else str(subject)
        return analyzing.of_task(own, name=name, model=model, target=target, depth=depth, seconds=seconds, stop=stop)
