"""Does a library load? Asked in a child process, so that one that crashes or hangs takes nobody along.

`python -m limbeck.evaluation.importing` takes names on stdin (JSON) and writes a line before each and one after it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from limbeck.core.foreign import FAILURES

RUNTIMES = "limbeck.runtimes"  # asked for, its answer is the list of runtimes
PLUGIN = "plug-in "  # before the name of an entry point
GROUP = "limbeck.techniques"
LIMIT_S = 60.0  # for each library


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """How an import ended. `data`: what a library said of itself, where it is asked."""

    ok: bool
    detail: str = ""
    seconds: float = 0.0
    data: Any = None


def loaded(names: Sequence[str], *, limit_s: float = LIMIT_S, command: Sequence[str] = (sys.executable, "-P", "-m", "limbeck.evaluation.importing")) -> dict[str, Loaded]:
    """Each module (or `plug-in NAME`), imported in a process apart; after a crash or a hang the rest in another one."""
    found: dict[str, Loaded] = {}
    left = list(names)
    while left:
        lines, ending = _asked(left, limit_s * len(left), command)
        for line in lines:
            if "ok" in line:
                found[line["name"]] = Loaded(ok=line["ok"], detail=line["detail"], seconds=line["seconds"], data=line.get("data"))
        started = [line["name"] for line in lines if "ok" not in line]
        rest = [name for name in left if name not in found]
        if rest:
            culprit = next((name for name in reversed(started) if name in rest), rest[0])
            found[culprit] = Loaded(ok=False, detail=ending)
        left = [name for name in rest if name not in found]
    return found


def _asked(names: Sequence[str], limit_s: float, command: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The lines that a child wrote, and how it ended."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            out, err = process.communicate(json.dumps(list(names)), timeout=limit_s)
            ending = _ending(process.returncode, err)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            ending = f"it didn't end within {limit_s:.0f} s"
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"name"') and line.endswith("}")], ending


def _ending(code: int, err: str) -> str:
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "it said nothing")
    if code >= 0:
        return f"it ended its process with exit code {code}: {last}"
    return f"it brought its process down ({signal.Signals(-code).name if -code in list(signal.Signals) else -code}): {last}"


def main() -> None:
    """Import each name and say how it went. What a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in json.load(sys.stdin):
        _say(answers, {"name": name})
        start, data = time.perf_counter(), None
        try:
            data = _imported(name)
            ok, detail = True, ""
        except (*FAILURES, SyntaxError, SystemExit) as error:
            ok, detail = False, f"{type(error).__name__}: {next((line for line in str(error).splitlines() if line.strip()), 'no reason given')}"
        _say(answers, {"name": name, "ok": ok, "detail": detail, "seconds": round(time.perf_counter() - start, 3), "data": data})


def _say(answers: Any, line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _imported(name: str) -> Any:
    if name.startswith(PLUGIN):
        for entry in entry_points(group=GROUP, name=name.removeprefix(PLUGIN)):
            if "card" not in vars(entry.load()):
                raise TypeError(f"{entry.value} has no card: it isn't decorated with limbeck.technique")
        return None
    module = importlib.import_module(name)
    if name == RUNTIMES:
        return [{"name": r.name, "summary": r.summary, "version": r.available()} for r in module.ALL]
    return _devices(module) if name == "torch" else None


def _devices(torch: Any) -> dict[str, Any]:
    """What torch can compute on."""
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {"gpus": cuda + (["Apple GPU (mps)"] if torch.backends.mps.is_available() else []), "cuda": torch.version.cuda, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    main()
