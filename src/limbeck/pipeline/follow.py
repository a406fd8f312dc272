"""A run watched from outside: what its files say as they come. It reads alone and never takes the lock."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.core.errors import Interrupted, RunError
from limbeck.pipeline.lock import owner
from limbeck.pipeline.reading import opened
from limbeck.pipeline.records import read_record

POLL_SECONDS = 0.5
WATCHED = ("validation", "teacher", "agreement", "missed", "forgotten")  # of the last epoch
HEADER_LIMIT = 1 << 26  # bytes of a checkpoint's header; a longer one isn't ours


def follow(folder: Path, *, stop: Callable[[], bool] = lambda: False, poll_seconds: float = POLL_SECONDS) -> Iterator[dict[str, Any]]:
    """Every event of a run, from its first to its verdict, each as a table with `time` (UTC) and `event`; ends when the summary is there.

    Beside the journal's events: `made` (a stage's record), `measured`, `training` (a checkpoint, with epoch, step, and what the last epoch came to), and
    `interrupted` when no live process holds the run; then it waits for one.

    Raises: ConfigError if it is no run folder; RunError if the journal was changed; Interrupted when `stop` says so.
    """
    lines, seen, waiting = 0, {}, False
    while True:
        run = opened(folder)
        finished, alive = run.finished, owner(folder) is not None
        events = [{"time": x["time"], "event": x["event"], **x["data"]} for x in run.lines[lines:]]
        lines = len(run.lines)
        yield from sorted([*events, *_new(folder, seen)], key=lambda e: e["time"])
        if finished:
            return
        if not alive and not waiting:
            yield {"time": _utc(time.time()), "event": "interrupted", "note": "no process holds this run; start its command again to go on"}
        waiting = not alive
        until = time.monotonic() + poll_seconds
        while time.monotonic() < until:
            if stop():
                raise Interrupted(f"stopped following {folder}; the run itself was not touched. Run the same command again to go on following.")
            time.sleep(min(0.05, poll_seconds))


def _new(folder: Path, seen: dict[Path, int]) -> list[dict[str, Any]]:
    """Files that came, or were replaced, since the last look."""
    found = []
    for path in (*folder.glob("stages/*.json"), *folder.glob("measurements/*.json"), *folder.glob("checkpoints/*.safetensors")):
        try:
            changed = path.stat().st_mtime_ns
            if path.name.startswith(".") or seen.get(path) == changed:
                continue
            event = _event(path)
        except (OSError, RunError):  # it went away, or is being replaced: the next look tells
            continue
        seen[path] = changed
        found.append({"time": _utc(changed / 1e9), **event})
    return found


def _event(path: Path) -> dict[str, Any]:
    if path.parent.name == "measurements":
        return {"event": "measured", "kind": path.name.partition("-")[0]}
    if path.parent.name == "stages":
        data = read_record(path)
        return {"event": "made", "stage": data.get("stage"), "seconds": data.get("seconds")}
    position = _state(path).get("position", {})
    last = (position.get("history") or [{}])[-1]
    watched = {k: last[k] for k in WATCHED if k in last}
    scope = path.stem.partition("-")[2]
    return {"event": "training", "scope": scope, "epoch": position.get("epoch", 0) + 1, "step": position.get("step"), "loss": last.get("loss"), **watched}


def _state(path: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors. Raises RunError if it isn't one.

    safetensors: eight bytes of length, little-endian, then that many of JSON, in which `__metadata__` is text by name.
    """
    with path.open("rb") as file:
        head = file.read(8)
        (length,) = struct.unpack("<Q", head) if len(head) == 8 else (HEADER_LIMIT,)
        if length >= HEADER_LIMIT:
            raise RunError(f"{path} is not a checkpoint. Delete it and run again.")
        try:
            state = json.loads(json.loads(file.read(length))["__metadata__"]["state"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is not a checkpoint ({error}). Delete it and run again.") from error
    return state if isinstance(state, dict) else {}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
