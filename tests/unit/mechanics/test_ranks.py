"""Two processes train as one does: oracle 8, with parts of four and three, masks, queues and a stop in the middle."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from two_processes import CASES, main

from limbeck.core.errors import ConfigError, RunError
from limbeck.mechanics.ranks import Ranks, current, inner
from limbeck.pipeline.folder import held


def launched(folder: Path, *launcher: str) -> list[dict]:
    """What each of two processes tells."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")} | {"OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([sys.executable, "-m", *launcher, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    main(folder)
    return folder, json.loads((folder / "told-0.json").read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate isn't installed: pip install limbeck[distributed]")
    folder = tmp_path_factory.mktemp("two")
    options = {"num_processes": 2, "num_machines": 1, "mixed_precision": "no", "main_process_port": 0}
    return folder, launched(folder, "accelerate.commands.launch", "--multi_gpu", *(str(word) for k, v in options.items() for word in (f"--{k}", v)))


def near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> list[str]:
    """The names that differ by more than this share of the largest entry."""
    assert a.keys() == b.keys()
    return [k for k in a if (a[k].double() - b[k].double()).abs().max() > tolerance * a[k].double().abs().max().clamp(min=1e-6)]


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_of_two_processes_are_those_of_one(name, alone, two):
    (one, said), (both, (first, second)) = alone, two
    assert first[name] == second[name] == pytest.approx(said[name], rel=1e-6)
    assert not near(load_file(one / f"{name}.safetensors"), load_file(both / f"{name}.safetensors"), 5e-6)


def test_a_loop_of_ones_own_under_ddp_has_the_gradients_of_one_process(alone, two):
    assert not near(*(load_file(folder / "wrapped.safetensors") for folder, _ in (alone, two)), 5e-6)


def test_a_training_in_two_processes_is_that_of_one(alone, two):
    """The same samples in the same order, one set of weights, one history: on both processes."""
    (one, said), (both, (first, second)) = alone, two
    assert not near(load_file(one / "plain.safetensors"), load_file(both / "plain.safetensors"), 5e-6)
    seen = [[{k: v for k, v in row.items() if not k.startswith("share of ")} for row in told["plain"]] for told in (said, first, second)]
    assert seen[1] == seen[2] and len(seen[1]) == 3
    assert all(a == pytest.approx(b, rel=1e-5) for a, b in zip(seen[0], seen[1], strict=True))


def test_the_first_process_alone_writes_tells_and_judges(two):
    folder, (first, second) = two
    assert first["events plain"].count("judged") == first["events plain"].count("epoch") == 3 and second["events plain"] == []
    assert (folder / "checkpoint-plain-0").exists() and not (folder / "checkpoint-plain-1").exists()


def test_a_stop_that_reaches_one_process_stops_both_and_resumes_with_the_same_bits(two):
    folder, (first, second) = two
    straight, resumed = (load_file(folder / f"{name}.safetensors") for name in ("dropout", "resumed"))
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    assert first["resumed"] == second["resumed"] == first["dropout"]


def test_batch_norms_keep_one_set_of_running_statistics(alone, two):
    """Their steps are normalized by each process's own part, so that the training isn't that of one process; the mean of means is."""
    (_, said), (_, (first, second)) = alone, two
    assert first["norm"] == second["norm"] and first["norm"] != said["norm"]


def test_what_keeps_samples_of_one_process_alone_is_refused(alone, two):
    _, (first, second) = two
    assert first["memory"] == second["memory"] and "'keeping.mean' differs between the 2 processes" in first["memory"]
    assert "batch of 1 can't be split over 2" in first["small"] and "memory" not in alone[1]


def test_one_process_is_nobody_to_wait_for(monkeypatch):
    assert current(start=True) is None
    assert Ranks(1, 3).part(torch.arange(7).numpy()).tolist() == [3, 4]
    model = nn.Linear(2, 2)
    assert inner(model) is model
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="process 1 of 2 isn't told where the first one is"):
        current(start=True)


def test_a_run_is_not_launched_twice(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="one process's work, and 2 were launched"), held(tmp_path, "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_starts_one_process_of_several_is_said(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match="started one.*torchrun --nproc_per_node 2"):
        current(start=True)
