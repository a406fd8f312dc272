"""Plain JSON that vouches for itself: each record carries the hash of its own content, so that one changed byte is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.errors import RunError
from limbeck.core.seal import SEAL, holds, sealed
from limbeck.pipeline.shape import check_summary

RECORD_VERSION = 2  # of stage records, measurement records and HEAD.json; 1 had no hash of its own, and is still read
SUMMARY_SCHEMA = 2  # 1 had no studies, and is still read


def record(data: Mapping[str, Any]) -> bytes:
    """A stage's or a measurement's record of today's version, its keys in one order."""
    return sealed(json.loads(json.dumps({**data, "version": RECORD_VERSION}, sort_keys=True)), allow_nan=True)


def read_record(path: Path) -> dict[str, Any]:
    """A record without its hash, checked.

    Raises: RunError if it isn't a record, was changed since it was written, or comes from a later limbeck.
    """
    data = _opened(path, RECORD_VERSION, "version")
    if SEAL not in data and data.get("version", 1) > 1:
        raise RunError(f"{path} has no hash of its own: it was changed. Delete it and run again.")
    return {k: v for k, v in data.items() if k != SEAL}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a run, checked, as it stands in the file; None if the run came to none yet."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    data = _opened(path, SUMMARY_SCHEMA, "schema")
    check_summary(data, where=str(path))
    return data


def is_sealed(path: Path) -> bool:
    """Whether a record carries its own hash (those of version 1 don't)."""
    return SEAL in _opened(path, RECORD_VERSION, "version")


def newest(version: Any, known: int, *, where: str) -> None:
    """Raises RunError if this version is not a whole number from 1 to `known`, the newest that this limbeck reads."""
    if type(version) is not int or version < 1:
        raise RunError(f"{where} must be a whole number from 1, got {version!r}. The file was changed; take it from a copy of the run.")
    if version > known:
        raise RunError(f"{where} is {version}; this limbeck reads up to {known}. The run was written by a later limbeck: upgrade with pip install -U limbeck.")


def _opened(path: Path, known: int, version: str) -> dict[str, Any]:
    """A record with its hash, checked. The version comes first: a later one may vouch for itself in another way."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
        whole = isinstance(data, dict) and (SEAL not in data or holds(data, raw))
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}. Take it from a copy of the run.") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON ({error}): it was changed. Take it from a copy of the run, or delete it and run again.") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} must hold a table, got {type(data).__name__}. Take it from a copy of the run, or delete it and run again.")
    newest(data.get(version, 1 if version == "version" else None), known, where=f"{path}.{version}")
    if not whole:
        raise RunError(f"{path} was changed: its content doesn't have its hash. Take it from a copy of the run, or delete it and run again.")
    return data
