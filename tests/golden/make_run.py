"""Make the small run that later code must open: `python tests/golden/make_run.py [NAME]` writes tests/golden/runs/NAME.

Made once for each format that was released; a run that stands there is never made again, or it would prove nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import limbeck
from limbeck import Contract, Gate, Plan, Recovery, Stage, Task, Training, api
from limbeck.pipeline.lock import LOCK
from limbeck.testing import small_task

RUNS = Path(__file__).parent / "runs"
PAYS = Gate(pays="bytes", shrink=1.05, retention=0.3)


def task() -> Task:
    return small_task()


def plan() -> Plan:
    """One stage of each family, trained for a second."""
    training = vars(Training(epochs=6, batch_size=16, learning_rate=5e-3))
    return Plan(
        stages=(
            Stage(technique="distill", config={"student": "small", "training": training}, gate=PAYS),
            Stage(technique="prune", config={"ratio": 0.3, "round_to": 4}, recovery=Recovery(training=Training(epochs=2, batch_size=16)), gate=PAYS),
            Stage(technique="quantize", config={"samples": 64}, gate=PAYS),
        ),
        control=False,
    )


def carried_out(root: Path, name: str, *, stages: int | None = None, studies: str = "none") -> limbeck.Run:
    """The run, below `root`; its first `stages` alone where that is asked, and these studies."""
    whole = plan()
    shown = Plan(stages=whole.stages[:stages], control=False)
    return limbeck.compress(task(), Contract(retention=0.3, size_ratio=1.5), shown, root=root, name=name, timing_seconds=0.1, proof=limbeck.Proof(studies=studies, seconds=0.1))


def main(name: str) -> int:
    if (RUNS / name).exists():
        sys.stderr.write(f"{RUNS / name} exists; a run of the past is not made again. Give another name.\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = carried_out(Path(folder), name, studies="all").folder
        api.gc(made, delete=True)
        (made / LOCK).unlink()
        RUNS.mkdir(exist_ok=True)
        shutil.copytree(made, RUNS / name)
    sys.stderr.write(f"{RUNS / name}: {api.status(RUNS / name)['verdict']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else limbeck.__version__))
