"""For tests of `evaluate` and `compare`: the command line run here, timed for a moment, and a small task beside ONNX files made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app

TASK = """
from dataclasses import replace
import torch
from torch.utils.data import TensorDataset
from limbeck import Task, accuracy
torch.manual_seed(0)
rows = torch.randn({rows}, 64)
weight = torch.tensor({weight})
labels = (rows @ weight).argmax(1)
data = TensorDataset(rows, labels)
slices = {{"three": lambda batch: batch[0][:, 0] > {third}}}
task = Task(name="rows", splits={{"train": data, "test": data, "none": TensorDataset(rows[:0], labels[:0])}}, metric=accuracy(), slices=slices)
guess = replace(task, splits={{"test": TensorDataset(rows, (labels + 1) % 4)}}, slices={{}})
"""


def write_rows(folder: Path, *, rows: int = 400) -> Path:
    """task.py: `task`, whose labels are what linear(folder) answers, and `guess`, on which that is never right. The slice `three` has three samples."""
    import numpy as np
    import torch

    weight = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    torch.manual_seed(0)
    first = torch.randn(rows, 64)[:, 0].sort().values
    third = float((first[-4] + first[-3]) / 2)
    (folder / "task.py").write_text(TASK.format(rows=rows, weight=weight.tolist(), third=third))
    return folder


@pytest.fixture
def said(tmp_path, monkeypatch):
    """The command line, in a folder with nothing else in it: words → exit code, standard output, standard error, each in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LIMBECK_RUN_TIMING_SECONDS", "0.05")

    def run(*words: str, studies: str = "none") -> tuple[int, str, str]:
        done = CliRunner().invoke(app, [*words, "--studies", studies])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.stdout + done.stderr
        return done.exit_code, done.stdout, " ".join(done.stderr.split())

    return run


def data(answer: tuple[int, str, str]) -> dict[str, Any]:
    """What `--json` printed, read as strictly as the standard has it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(answer[1], parse_constant=refuse)
