"""Arms of a benchmark, each trained once a seed and kept; and what their difference from another arm is worth.

An arm that is finished is read again, one that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import limbeck
from limbeck import Task, Training
from limbeck.core.errors import StageError
from limbeck.core.files import write
from limbeck.core.technique import Signals
from limbeck.evaluation import environment
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog

Work = Callable[[FileCheckpoint], tuple[np.ndarray, Mapping[str, Any]]]  # test answers right or wrong, and what else is worth keeping
Made = Mapping[str, np.ndarray]  # by arm, [seeds, samples]: whether each test sample was right


@dataclass(frozen=True)
class Ledger:
    """A folder of finished arms: what a run of one seed gave, in a file of its own, under the setting that it was run with."""

    folder: Path

    @staticmethod
    def at(root: Path, name: str, setting: Mapping[str, Any]) -> Ledger:
        key = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:10]
        return Ledger(root / f"{re.sub(r'[^a-z0-9_]+', '-', name)}-{key}")

    def place(self, arm: str, seed: int) -> Path:
        """The file of one arm and seed."""
        return self.folder / f"{re.sub(r'[^a-z0-9_]+', '-', arm)}-{seed}.json"

    def run(self, arm: str, seed: int, work: Work) -> dict[str, Any]:
        """What this arm gave with this seed: test answers right or wrong, and more; its cost in core seconds. A divergence is a result too."""
        place = self.place(arm, seed)
        if place.exists():
            return json.loads(place.read_text())
        checkpoint = FileCheckpoint(place.with_suffix(".safetensors"))
        start = time.process_time()
        try:
            answers, more = work(checkpoint)
            found = {"accuracy": float(answers.mean()), "right": packed(answers), **more}
        except StageError as error:
            found = {"failed": str(error)}
        found["core_seconds"] = round(time.process_time() - start, 1)
        write(place, json.dumps(found).encode())
        checkpoint.path.unlink(missing_ok=True)
        print(f"{datetime.now(UTC):%H:%M:%S} {arm} {seed}: {found.get('accuracy', found.get('failed'))} in {found['core_seconds']} s", flush=True)
        return found


def trained(
    sizes: Mapping[str, Any], objective: Objective, signals: Signals | None, *, task: Task, training: Training, seed: int, checkpoint: FileCheckpoint
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A ResNet of these sizes after its last epoch, in eval mode, and its curve. The seed decides its first weights and the order of samples."""
    torch.manual_seed(seed)
    model = resnet(**sizes).to(memory_format=torch.channels_last)  # a third faster on these processors
    history = fit(model, objective.bind(task, signals, model, seed=seed), training, seed=seed, checkpoint=checkpoint, log=QuietLog())
    return model, history


def packed(answers: np.ndarray) -> str:
    """Bits of right and wrong as text."""
    return base64.b64encode(np.packbits(answers)).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """The other way round."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:count].astype(bool)


def answers(runs: Mapping[str, Mapping[str, Mapping[str, Any]]], count: int) -> dict[str, np.ndarray]:
    """Of a record's runs (by arm, by seed): the arms of which every seed is there, [seeds, samples]."""
    seeds = max((len(found) for found in runs.values()), default=0)
    whole = {arm: found for arm, found in runs.items() if len(found) == seeds and all("right" in run for run in found.values())}
    return {arm: np.stack([unpacked(found[seed]["right"], count) for seed in sorted(found, key=int)]) for arm, found in whole.items()}


@dataclass(frozen=True)
class Difference:
    """A difference of two arms' mean accuracy, with what an interval of any confidence is made of. All are fractions."""

    value: float
    error: float  # standard error, over seeds and test samples together
    freedom: float  # degrees of freedom of the error

    def bounds(self, confidence: float = 0.975) -> tuple[float, float]:
        """Both bounds, each one-sided at this confidence: 0.975 gives the two-sided interval at 95 %."""
        from scipy.stats import t

        half = float(t.ppf(confidence, self.freedom)) * self.error
        return self.value - half, self.value + half


def spread(made: Made) -> tuple[float, int]:
    """The standard deviation of an arm's accuracy from seed to seed, beyond what a seed does to all arms alike, and its degrees of freedom.

    The residual of arms × seeds (randomized blocks), pooled over all arms: with three seeds, one arm's own spread says nearly nothing.
    """
    accuracy = np.stack([rows.mean(1) for rows in made.values()])
    arms, seeds = accuracy.shape
    rest = accuracy - accuracy.mean(1, keepdims=True) - accuracy.mean(0, keepdims=True) + accuracy.mean()
    freedom = (arms - 1) * (seeds - 1)
    return float(np.sqrt((rest**2).sum() / freedom)), freedom


def difference(candidate: np.ndarray, baseline: np.ndarray, noise: tuple[float, int]) -> Difference:
    """What candidate − baseline is, paired by seed and by test sample, for other seeds *and* other test samples.

    Seeds and samples are crossed random effects. The variance of the mean difference is that over seeds (2·s²/S, s pooled: `spread`) plus
    that over samples (of each sample's mean over seeds, /N), less the residual that both contain, and never below the greater of both; its
    degrees of freedom are Satterthwaite's.

    Args:
        candidate, baseline: [seeds, samples] of right and wrong, seeds in the same order.
        noise: What `spread` found.
    Source: Searle, Casella & McCulloch 1992, Variance Components, §4.7 (two-way crossed, random); Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    apart = candidate.astype(np.float64) - baseline
    seeds, samples = apart.shape
    by_sample, by_seed, value = apart.mean(0), apart.mean(1), float(apart.mean())
    over_seeds = 2 * noise[0] ** 2 / seeds
    over_samples = float(by_sample.var(ddof=1)) / samples
    rest = apart - by_sample[None] - by_seed[:, None] + value
    both = float((rest**2).sum()) / ((seeds - 1) * (samples - 1)) / (seeds * samples) if seeds > 1 else 0.0
    variance = max(over_seeds + over_samples - both, over_seeds, over_samples)
    parts = over_seeds**2 / noise[1] + over_samples**2 / (samples - 1)
    return Difference(value, variance**0.5, variance**2 / parts if parts else float(samples - 1))


def about(question: str, setting: Mapping[str, Any], runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """What every record says of itself: commit, machine, versions, setting, cost."""
    commit = _git("rev-parse", "--short", "HEAD").stdout.strip() + ("-dirty" if _git("diff", "--quiet", "HEAD", "--", ".").returncode else "")
    seconds = sum(run["core_seconds"] for found in runs.values() for run in found.values())
    return {
        "question": question,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {**environment.machine(), "threads": 1},
        "versions": environment.versions(),
        "setting": dict(setting),
        "core_hours": round(seconds / 3600, 3),
        "runs": runs,
    }


def _git(*asked: str) -> subprocess.CompletedProcess[str]:
    """Of the package that ran."""
    return subprocess.run(["git", *asked], capture_output=True, text=True, cwd=Path(limbeck.__file__).parent)


def collected(arms: Sequence[str], seeds: Sequence[int], ledger: Ledger) -> dict[str, dict[str, dict[str, Any]]]:
    """What is finished, by arm and seed."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for arm in arms:
        for seed in seeds:
            place = ledger.place(arm, seed)
            if place.exists():
                found.setdefault(arm, {})[str(seed)] = json.loads(place.read_text())
    return found
