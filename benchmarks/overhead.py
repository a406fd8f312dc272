"""How much of a run is neither training nor exporting nor measuring? And how long does a finished run take to read again?

Runs the demo twice in one process and times what its own steps take, by wrapping the functions that train, export and measure.
Writes `records/overhead.json`; the bar is 3 % and 5 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck import api
from limbeck.demo.prepare import prepare
from limbeck.evaluation import environment, measure, quality
from limbeck.mechanics import recover, train
from limbeck.pipeline import control, examiner
from limbeck.pipeline.context import QuietLog
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.techniques.distill import offline

RECORD = Path(__file__).parent / "records" / "overhead.json"


class Clock:
    """Seconds inside wrapped functions; what they call among themselves counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = False

    def wrap(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start

        return timed


def main() -> int:
    clock = Clock()
    fit = clock.wrap("training", train.fit)
    for module in (offline, recover, control):
        vars(module)["fit"] = fit
    for module, name in ((measure, "latency"), (measure, "peak_memory"), (measure, "answers"), (measure, "download_bytes"), (quality, "rows_of"), (quality, "rows_of_module")):
        setattr(module, name, clock.wrap("measuring", getattr(module, name)))
    examiner.Examiner.golden = clock.wrap("measuring", examiner.Examiner.golden)
    object.__setattr__(ONNXRUNTIME, "load", clock.wrap("measuring", ONNXRUNTIME.load))
    object.__setattr__(ONNXRUNTIME, "export", clock.wrap("exporting", ONNXRUNTIME.export))
    vars(examiner)["profile"] = clock.wrap("measuring", vars(examiner)["profile"])
    with tempfile.TemporaryDirectory() as folder:
        path = prepare(Path(folder), quick=False, log=QuietLog())
        start = time.perf_counter()
        result = api.run(path)
        total = time.perf_counter() - start
        spent = sum(clock.seconds.values())
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "from limbeck.cli.main import main; main()", "run", str(path)], check=True, capture_output=True)
        again = time.perf_counter() - start
    record = {
        "question": "what share of a run is neither training, exporting nor measuring; how long does a finished run take again, start of the process included",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "verdict": result.verdict,
        "seconds": {"total": total, **clock.seconds},
        "overhead": (total - spent) / total,
        "again_seconds": again,
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"overhead {record['overhead']:.1%} of {total:.1f} s (bar 3 %), again in {again:.1f} s (bar 5 s)")
    return 0 if record["overhead"] <= 0.03 and again <= 5 else 1


if __name__ == "__main__":
    sys.exit(main())
