"""`limbeck.toml`: read once, at the edge, into frozen dataclasses."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, parse
from limbeck.core.plan import Stage
from limbeck.intake.places import located


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """Where the task is."""

    entry: Annotated[str, Hint("Write it as file.py:name."), "`file.py:name` or `package.module:name`; the name is a Task or a function that gives one"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run itself: its name, its place, its seed."""

    name: Annotated[str, "the run's folder below root"] = "run"
    root: Annotated[str, "where runs are kept, relative to this file"] = "runs"
    seed: Annotated[int, Range(0, 2**32 - 1), "the seed from which all randomness is drawn"] = 0
    timing_seconds: Annotated[float, Range(0, 600, closed="right"), "seconds for which each artifact is timed, each time"] = 2.0
    control: Annotated[bool, "also train the final shape in FP32 without a teacher"] = True


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """All that a run file may say."""

    task: Annotated[TaskEntry, "what is compressed"]
    contract: Annotated[Contract, "the limits"]
    target: Annotated[Target, "where it will run"] = field(default_factory=Target)
    run: Annotated[RunOptions, "the run itself"] = field(default_factory=RunOptions)
    stage: Annotated[tuple[Stage, ...], "in order; none: limbeck plans"] = ()


def read_runfile(path: Path) -> RunFile:
    """Raises ConfigError for a missing file, TOML that can't be read (line and column), an unknown key or a bad value."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the run file {path} can't be read: {error.strerror}. Name one that exists, or write one with [task], [contract] and [[stage]].") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # bad TOML is a ValueError; a number or a nest that Python gives up on isn't called bad TOML
        reason = str(error) if isinstance(error, ValueError) else "its lists or tables are nested too deep"
        raise ConfigError(f"{path} is not TOML: {reason}. Mend that place.") from error
    with located(path):
        return parse(RunFile, data, where=path.name)
