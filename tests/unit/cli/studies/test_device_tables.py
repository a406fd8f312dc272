"""What the terminal prints of a device's studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "report" / "studies"))
from device_figures import COLD_START, COUNTED, MEMORY, MODELLED, THROUGHPUT

from limbeck.cli.render import plain
from limbeck.cli.studies import show


def printed(name: str, found: dict[str, Any]) -> str:
    out = Console(width=160, highlight=False, record=True)
    show(out, plain({name: found}))
    return out.export_text()


def row(text: str, first: str) -> list[str]:
    return next(line for line in text.splitlines() if line.split()[:1] == [first]).split()


def test_cold_start():
    text = printed("cold_start", COLD_START)
    assert row(text, "baseline") == ["baseline", "400", "390–410", "280", "80", "32", "8", "1.25", "8"]
    assert row(text, "candidate")[2:4] == ["too", "few"] and "8 (2 disturbed)" in text


def test_throughput():
    text = printed("throughput", THROUGHPUT)
    assert row(text, "1") == ["1", "1,000", "2,000", "1,800", "3,600"] and row(text, "2") == ["2", "1,500", "–", "–", "–"]
    assert "throughput: 2,000 samples a second (baseline 1,000), at most 3,600, at batch 1 with 2 threads" in text
    assert "candidate takes 1 at once" in text and "1 point left out" in text and "other work" in text


def test_memory():
    text = printed("memory", MEMORY)
    assert "1.2 MB" in text and "1.5 MB" in text and "Conv <wide>" in text and "no plan: torch plans none ahead" in text


def test_energy_says_first_whether_it_was_counted():
    modelled, counted = printed("energy", MODELLED), printed("energy", COUNTED)
    assert "modelled (not measured)" in modelled and row(modelled, "candidate") == ["candidate", "0.001", "0.0005", "to", "0.002"] and "there is no <counter>" in modelled
    assert "counted by package-0" in counted and row(counted, "candidate") == ["candidate", "1", "-0.1", "to", "1.2", "2"] and "other processes" in counted


@pytest.mark.parametrize(("name", "found"), [("cold_start", COLD_START), ("memory", MEMORY), ("energy", MODELLED), ("energy", COUNTED)])
def test_one_model_alone(name: str, found: dict[str, Any]):
    assert "baseline" not in printed(name, found | {"models": {"candidate": found["models"]["candidate"]}})
