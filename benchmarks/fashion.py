"""What does compound compression reach on a real teacher, beside INT8 alone? Fashion-MNIST, ResNet-18 of 2.8 million parameters.

Two runs, resumable, one after the other: `quantize` alone, and `distill` into a ResNet-8 → `quantize`, with the control. Needs
LIMBECK_DATA (real data and the trained teacher). `python benchmarks/fashion.py [folder]`; records go to `records/fashion.json`.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from limbeck import Contract, Gate, Plan, Result, Stage, Task, Training, accuracy, compress
from limbeck.evaluation import environment

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORD = Path(__file__).parent / "records" / "fashion.json"
SEED, EPOCHS = 0, 6


def images(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    folder = DATA / "fashion_mnist"
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    count, height, width = struct.unpack(">3I", pixels[4:16])
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(count, 1, height, width).astype(np.float32) / 255
    return torch.from_numpy((x - 0.2860) / 0.3530), torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def fashion() -> Task:
    """55,000 to learn from, the 5,000 that the teacher left out to steer by, the 10,000 of test for the verdict."""
    spec = importlib.util.spec_from_file_location("architectures", DATA / "teachers" / "architectures.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"there is no teacher at {DATA}; set LIMBECK_DATA")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y = images("train")
    order = np.random.default_rng(0).permutation(len(x))
    train, validation = order[:-5000], order[-5000:]
    splits = {"train": TensorDataset(x[train], y[train]), "validation": TensorDataset(x[validation], y[validation]), "test": TensorDataset(*images("t10k"))}
    weights = DATA / "teachers" / "fashion_resnet18.safetensors"
    return Task(name="fashion", models={"teacher": module.fashion_resnet18}, weights={"teacher": weights}, splits=splits, metric=accuracy())


def runs(root: Path) -> dict[str, Result]:
    task, done = fashion(), {}
    alone = Plan(stages=(Stage(technique="quantize"),), control=False)
    training = Training(epochs=EPOCHS, batch_size=128, learning_rate=5e-3)
    student = {"student": "limbeck:resnet", "options": {"widths": [16, 32, 64], "blocks": [1, 1, 1]}, "training": training}
    compound = Plan(stages=(Stage(technique="distill", config=student, gate=Gate(retention=0.95)), Stage(technique="quantize", gate=Gate(retention=0.95))))
    asked = {"int8": (alone, Contract(retention=0.99, size_ratio=3.5, speedup_p50=2)), "compound": (compound, Contract(retention=0.95, size_ratio=30, speedup_p50=5))}
    for name, (plan, contract) in asked.items():
        done[name] = compress(task, contract, plan, name=name, root=root, seed=SEED, log=Lines())
    return done


class Lines:
    def event(self, event: str, **data: object) -> None:
        print(event, *(f"{k}={v}" for k, v in data.items()), flush=True)

    def progress(self, done: float, total: float, note: str) -> None:
        pass


def main() -> None:
    done = runs(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent.parent).stdout.strip()
    record = {
        "question": __doc__.splitlines()[0] if __doc__ else "",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": environment.machine(),
        "versions": environment.versions(),
        "seed": SEED,
        "epochs": EPOCHS,
        "runs": {name: {k: result.summary[k] for k in ("verdict", "baseline", "final", "control", "retention", "ratios", "contract")} for name, result in done.items()},
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    for name, result in done.items():
        final, ratios = result.summary["final"], result.summary["ratios"]
        print(f"{name}: {result.verdict}, accuracy {final['metric']['value']:.4f}, {ratios['size']:.1f}× smaller, {ratios['latency_p50']:.1f}× faster")


if __name__ == "__main__":
    main()
