"""Every error that limbeck raises on purpose. A message gives the place, the rule, the value and the way out.

LimbeckError
├── ConfigError       a value breaks its rule                                      exit 2
│   └── Undefined     a statistic means nothing on too many draws of these samples exit 2
├── TaskError         the task can't be loaded, or contradicts itself              exit 2
├── ArtifactError     a runtime can't load or run this artifact                    exit 2
│   └── NotANumber    an artifact's output is NaN; carries which and where         exit 2
├── MissingLibrary    an optional library isn't installed                          exit 2
├── RunError          a run folder is damaged, held by another process, or foreign exit 2
├── ReplayError       a blueprint doesn't rebuild the model that it describes      exit 5
├── StageError        a technique can't do its work on this candidate              exit 5
├── RefusedError      what was asked can't be done; carries the Refusal            exit 5
└── Interrupted       Ctrl-C or SIGTERM; what was done is on disk                  exit 130
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class LimbeckError(Exception):
    """Base of all; `exit_code` is what the command line leaves with."""

    exit_code = 2


class ConfigError(LimbeckError):
    """A value in a config, a contract or a file breaks its rule. `path`: what was read, then the keys that lead to the value."""

    def __init__(self, message: str, *, path: tuple[str | int, ...] = ()):
        super().__init__(message)
        self.path = path


class Undefined(ConfigError):
    """A statistic can't be bounded: it means nothing in too many resamples, as a ratio to a baseline that may as well be 0."""


class TaskError(LimbeckError):
    """The task can't be loaded, or its parts contradict each other."""


class ArtifactError(LimbeckError):
    """A runtime can't load or run an artifact."""


class NotANumber(ArtifactError):
    """An output of an artifact is NaN. Where two models are judged it is a finding on that one, not the end."""


class MissingLibrary(LimbeckError):
    """An optional library isn't installed."""


class RunError(LimbeckError):
    """A run folder is damaged, held by another process, or belongs to something else."""


class ReplayError(LimbeckError):
    """A blueprint and its weights don't rebuild the model that they describe."""

    exit_code = 5


class StageError(LimbeckError):
    """A technique can't do its work on this candidate; the pipeline fails the stage and goes on as `on_fail` says.

    curve: what training did until then, one row an epoch, where it is training that failed.
    """

    exit_code = 5

    def __init__(self, message: str, *, curve: Sequence[Mapping[str, float]] = ()):
        super().__init__(message)
        self.curve = [dict(row) for row in curve]


@dataclass(frozen=True)
class Refusal:
    """An expected no: why, and the least change that would turn it into a yes."""

    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason} {self.fix}"


class RefusedError(LimbeckError):
    """Carries a `Refusal` through code that can't return one."""

    exit_code = 5

    def __init__(self, refusal: Refusal):
        super().__init__(str(refusal))
        self.refusal = refusal


class Interrupted(LimbeckError):
    """Ctrl-C or SIGTERM arrived; a checkpoint was left."""

    exit_code = 130


def near(name: str, known: Iterable[str]) -> str:
    """A clause for error messages: the names that `name` may have meant, or all that there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "There is " + ", ".join(f"'{n}'" for n in names) + "." if names else "There is none."
