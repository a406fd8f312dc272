"""`limbeck.toml`: read once, at the edge, into frozen dataclasses."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from limbeck.core.contract import Contract, Target
from limbeck.core.environment import PREFIX, check_known, in_effect, overlay
from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, parse
from limbeck.core.plan import CACHE_BYTES, Stage
from limbeck.core.proof import Proof
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
    cache_bytes: Annotated[int, Range(0, None), "bytes of disk for the teacher's answers; what doesn't fit is asked of the teacher each time, as is all at 0"] = CACHE_BYTES


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """All that a run file may say."""

    task: Annotated[TaskEntry, "what is compressed"]
    contract: Annotated[Contract, "the limits"]
    target: Annotated[Target, "where it will run"] = field(default_factory=Target)
    run: Annotated[RunOptions, "the run itself"] = field(default_factory=RunOptions)
    proof: Annotated[Proof, "what is shown of the final artifact beside its contract"] = field(default_factory=Proof)
    stage: Annotated[tuple[Stage, ...], "in order; none: limbeck plans"] = ()


TABLES: Mapping[str, type] = {"run": RunOptions, "target": Target, "contract": Contract, "proof": Proof}  # what variables of the environment may set


def read_runfile(path: Path, *, environment: Mapping[str, str] | None = None) -> RunFile:
    """A run file, with what the environment (that of this process) sets over it.

    Raises: ConfigError for a missing file, TOML that can't be read (line and column), an unknown key or a bad value; for a variable
        that isn't known or has a bad value, which is named.
    """
    check_known(TABLES, environment)
    set_ = overlay(TABLES, environment)
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
    with told(environment), located(path):
        for table, values in set_.items():
            if isinstance(data.get(table, {}), dict):
                data[table] = data.get(table, {}) | values
        return parse(RunFile, data, where=path.name)


@contextmanager
def told(environment: Mapping[str, str] | None = None, *, table: str = "") -> Iterator[None]:
    """An error in a table of the file says which variables stand over that table: the value that breaks a rule may be theirs.

    Args:
        table: Where the error's own path doesn't say it.
    """
    try:
        yield
    except ConfigError as error:
        place = table or str(error.path[1] if len(error.path) > 1 else "")
        names = [name for name in in_effect(TABLES, environment) if name.startswith(f"{PREFIX}{place.upper()}_")]
        if not names:
            raise
        raise ConfigError(f"{error} Set by the environment: {', '.join(names)}.", path=error.path) from error
