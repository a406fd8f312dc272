"""Compress from Python: a task, a contract, a plan, a verdict."""

import sys
from pathlib import Path

from limbeck import Contract, Gate, Plan, Recovery, Stage, Training, compress
from limbeck.testing import small_task

short = Training(epochs=4, batch_size=16, learning_rate=5e-3)
gate = Gate(pays="bytes", shrink=1.1, retention=0.5)  # quick: bytes must pay, nothing is timed
plan = Plan(
    stages=(
        Stage(technique="distill", config={"student": "small", "training": short}, gate=gate),
        Stage(technique="prune", config={"ratio": 0.3, "round_to": 4}, recovery=Recovery(training=short), gate=gate),
        Stage(technique="quantize", gate=gate),
    )
)
result = compress(small_task(), Contract(retention=0.5, size_ratio=3), plan, root=Path(sys.argv[1] if len(sys.argv) > 1 else "runs"), timing_seconds=0.2)
print(result.verdict, f"{result.summary['ratios']['size']:.1f}× smaller", result.artifact.path if result.artifact else "")
