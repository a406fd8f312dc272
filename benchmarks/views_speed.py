"""How much of a training step is each of the images' views?

Plain steps of a ResNet-8 at batch 128 and each view alone, in turn in one process on one thread; inputs are random: time doesn't depend
on them. `python benchmarks/views_speed.py` takes about a minute; writes `records/views_speed.json`, which `docs/views.md` shows.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillation_speed import BATCH, STEPS, images, in_turn, ratio, stepping
from limbeck import Views
from limbeck.core.files import write
from limbeck.evaluation import environment
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.terms import task_loss
from limbeck.mechanics.views import Viewer
from limbeck.pipeline.store import canonical

RECORD = Path(__file__).parent / "records" / "views_speed.json"
TURNS, BAR = 20, 0.05
STUDENTS = {"w 16": (16, 32, 64), "w 8": (8, 16, 32)}
MOVED = {"crop": 4, "flip": True}
COLOUR = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "black": (-8.0,), "white": (8.0,)}
VIEWS = {
    "crop and flip": Views(**MOVED),
    "shift": Views(shift=4),
    "noise": Views(noise=0.1),
    "erase": Views(erase=1.0),
    "brightness, contrast and saturation": Views(**COLOUR),
    "mixup": Views(mixup=1.0),
    "cutmix": Views(cutmix=1.0),
}
LONG = {  # what whole recipes cost; the bar is for each view alone
    "crop, flip and mixup": Views(**MOVED, mixup=1.0),
    "crop, flip, colour, erase, mixup and cutmix": Views(**MOVED, **COLOUR, erase=1.0, mixup=0.5, cutmix=0.5),
}


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task, ids, kinds = replace(images(), views=None), np.arange(BATCH), dict[str, Callable[[], Any]]()
    for name, widths in STUDENTS.items():
        kinds[name] = stepping((1.0 * task_loss()).bind(task), resnet(channels=3, classes=10, widths=list(widths)), BATCH)
    for name, views in {**VIEWS, **LONG}.items():
        viewer = Viewer(replace(task, views=views))
        batch = viewer.reader.batch(ids)
        kinds[name] = lambda viewer=viewer, batch=batch: viewer.see(batch, ids, 1)
    taken = in_turn(kinds, turns=TURNS)
    share = {name: {s: ratio(taken, name, s) for s in STUDENTS} for name in (*VIEWS, *LONG)}
    met = {name: max(at["value"] for at in share[name].values()) <= BAR for name in VIEWS}
    record = {
        "question": "how much of a training step each view of images is",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip(),
        "machine": {**environment.machine(), "threads": 1},
        "versions": environment.versions(),
        "setting": {"batch": BATCH, "sides": "3 × 32 × 32", "students": list(STUDENTS), "turns": TURNS, "steps_a_turn": STEPS},
        "bar": BAR,
        "met": met,
        "share": share,
        "median_ms": {name: float(np.median(blocks)) for name, blocks in taken.items()},
        "ms": taken,
    }
    write(RECORD, canonical(record) + b"\n")
    print(f"met {met}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
