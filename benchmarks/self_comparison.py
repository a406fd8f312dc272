"""Is the interval of "how many times faster" honest? The same artifact against itself, again and again, on a machine as it is found, and on a busy one.

The truth is 1. Each comparison is one of `measure.latency`, taken once (a disturbed one isn't repeated, so that none is chosen),
and `median_ratio` of it. The loaded arm runs beside one busy process for each CPU. Writes `records/self_comparison.json`, with the
ratio of every turn; the bar: the 99 % interval holds 1 in at least 95 % of the comparisons of each arm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.task import Task
from limbeck.evaluation import environment, measure
from limbeck.evaluation.subject import of_task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.families.resnet import resnet
from limbeck.stats.latency import median_ratio

RECORD = Path(__file__).parent / "records" / "self_comparison.json"
TIMES, SECONDS, BAR = 50, 0.5, 0.95
BUSY = "import numpy as np\na = np.random.default_rng(0).random((512, 512))\nwhile True:\n    a @ a"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        artifact = _artifact(Path(folder))
        arms = {"as found": [_once(artifact) for _ in range(TIMES)]}
        with ExitStack() as stack:
            for _ in range(os.cpu_count() or 1):
                busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY], env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}))
                stack.callback(busy.kill)
            arms["loaded"] = [_once(artifact) for _ in range(TIMES)]
    record = {
        "question": "in what share of comparisons of an artifact with itself does the 99 % interval of the median ratio hold 1",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "setting": {
            "times": TIMES,
            "seconds": SECONDS,
            "block": 5,
            "confidence": 0.99,
            "artifact": "ResNet-8, width 16, 32 × 32, float, onnxruntime, 1 thread, batch 1",
            "bar": BAR,
        },
        "arms": arms,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    covered = {name: float(np.mean([one["low"] <= 1 <= one["high"] for one in found])) for name, found in arms.items()}
    print(covered)
    return 0 if min(covered.values()) >= BAR else 1


def _artifact(folder: Path) -> Artifact:
    """An untrained ResNet-8: what it answers doesn't matter here."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.zeros(8, dtype=torch.int64))
    task = Task(name="images", models={"teacher": partial(resnet, channels=3, classes=10)}, splits={"train": data}, metric=accuracy())
    return of_task(task, model=None, target=Target(), folder=folder, name="resnet").artifact


def _once(artifact: Artifact) -> dict[str, Any]:
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    first, second = measure.latency([artifact, artifact], feed, threads=1, seconds=SECONDS, repeats=0)
    found = median_ratio(first.blocks, second.blocks)
    ratios = " ".join(f"{np.median(a) / np.median(b):.4f}" for a, b in zip(first.blocks, second.blocks, strict=True))  # one a turn; a list would be a line each
    return {
        "low": found.low,
        "value": found.value,
        "high": found.high,
        "waited": round(max(first.waited, second.waited), 4),
        "p50_ms": float(np.median(first.samples)),
        "ratios": ratios,
    }


if __name__ == "__main__":
    sys.exit(main())
