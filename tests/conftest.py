"""Shared by all tests: one thread, no network, and where real data lies if it is there."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data and trained teachers; the test is skipped where it isn't."""
    if not (DATA / "teachers").is_dir():
        pytest.skip(f"real data is not at {DATA}; set LIMBECK_DATA to its folder")
    return DATA
