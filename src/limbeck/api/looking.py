"""What there is of runs: seen, compared, brought back, reported, packaged, moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from limbeck.core.task import Task

if TYPE_CHECKING:
    from limbeck.package.package import Package


class InFolder(Protocol):
    """What has a run's folder, as a `limbeck.Run`."""

    @property
    def folder(self) -> Path: ...


def status(folder: str | Path) -> dict[str, Any]:
    """The summary of a run that came to its end; for one under way, what its journal holds so far.

    Raises: ConfigError if it is no run folder; RunError if its journal or summary was changed, or a later limbeck wrote it.
    """
    from limbeck.pipeline.reading import opened
    from limbeck.pipeline.records import SUMMARY_SCHEMA

    run = opened(Path(folder))
    if run.summary is not None:
        return run.summary
    events = [{"time": x["time"], "event": x["event"], **x["data"]} for x in run.lines]
    return {"schema": SUMMARY_SCHEMA, "run": run.folder.name, "verdict": None, "exit_code": None, "state": run.state, "events": events}


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


def report(folder: str | Path, *, out: str | Path | None = None, task: Task | str | None = None, samples: bool = True) -> dict[str, Any]:
    """A run, finished, refused or under way, as one HTML file that needs nothing else; what it holds is in `file`.

    Args:
        out: The file to write; by default report.html in the run's folder.
        task: The task whose test samples are shown, or its name (file.py:name); by default that of the run's own run file, if it is
            still there and its test data is that of the run. Without it the report is written without samples, and says why.
    Raises: ConfigError if it is no run folder; RunError if the run is damaged; TaskError if the task's own code fails.
    """
    from limbeck.pipeline import judging, telling

    return telling.report(Path(folder), out=Path(out) if out else None, task=judging.named_task(task), show_samples=samples)


def verify(folder: str | Path) -> dict[str, Any]:
    """Hash every byte of a run's evidence, or of a package (folder or zip), whose golden answers are asked for too.

    Each file that doesn't hold is named. exit_code 0 clean, 3 if anything is wrong; of a package, `unchecked` says what couldn't be.
    """
    from limbeck.package import checking
    from limbeck.pipeline import verify as verifying

    path = Path(folder)
    return checking.verify(path) if checking.is_package(path) else verifying.verify(path)


def package(run: str | Path | InFolder, *, out: str | Path | None = None, stage: str = "final", baseline: bool | None = None, samples: bool = True) -> Package:
    """What a finished run deploys, as a folder and a zip: artifact, manifest, golden answers, `predict.py`, card. See `limbeck.pipeline.packing`.

    Args:
        out: The folder; None: `packages/<run>`. The zip stands beside it.
        stage: "final", or the stage whose artifact is wanted.
        baseline: Take the baseline's artifact along, to be timed in turn elsewhere; None: if the contract limits speedup.
        samples: Take golden samples along: a few of the validation split, as they are.
    """
    from limbeck.pipeline import packing

    folder = _folder(run)
    return packing.package(folder, out=Path(out) if out else None, stage=stage, baseline=baseline, samples=samples)


def import_evidence(run: str | Path | InFolder, file: str | Path) -> dict[str, Any]:
    """Bring back what a package's `predict.py --measure` wrote elsewhere; under `host = "imported"` the contract is judged with it."""
    from limbeck.pipeline import imported

    return imported.import_evidence(_folder(run), Path(file))


def export_run(folder: str | Path, file: str | Path) -> dict[str, Any]:
    """A whole run as one zip; equal runs give equal bytes."""
    from limbeck.pipeline import transfer

    return transfer.export_run(Path(folder), Path(file))


def import_run(file: str | Path, *, root: str | Path = "runs", name: str | None = None, limit_bytes: int | None = None) -> dict[str, Any]:
    """Place an exported run below `root`, every byte of it checked first; whole, or not at all."""
    from limbeck.pipeline import transfer

    return transfer.import_run(Path(file), root=Path(root), name=name, limit_bytes=transfer.DEFAULT_LIMIT if limit_bytes is None else limit_bytes)


def _folder(run: str | Path | InFolder) -> Path:
    return Path(run) if isinstance(run, (str, Path)) else run.folder
