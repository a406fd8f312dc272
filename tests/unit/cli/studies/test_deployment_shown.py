"""What the terminal shows of columns, kernels and saturation."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "studies"))
import deployment_figures as made

from limbeck.cli.studies import show


def shown(name: str, data: dict) -> str:
    out = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(out, {name: data})
    return out.export_text()


def test_columns():
    text = shown("columns", made.columns())
    assert "fp32 (torch) 0.9500" in text and "candidate (deployed) 0.9300" in text and "+0.0100" in text and "none of 2 tensors diverges" in text
    bad = made.row("conv2", 23.0, 23.0, stage="file")
    assert "diverges: conv2 (Conv, QuantizeLinear), tensor t_conv2: 23 steps, at most 1; the file" in shown("columns", made.columns(bad, first=bad))
    assert "they part in conv2" in shown("columns", made.columns(bad, first=bad)).splitlines()[0]
    odd = made.row("conv2", 0.0, None, stage="runtime")
    assert "not finite; the runtime" in shown("columns", made.columns(odd, first=odd))
    assert "not known: no file" in shown("columns", made.columns(layers={"missing": "no file"}))


def test_kernels():
    text = shown("kernels", made.kernels(silent=True))
    assert "float in silence: conv1 (Conv, 30.0%)" in text and "4,000 → 1,000 bytes (-75%)" in text and "layout" not in text
    assert "silence" not in shown("kernels", made.kernels())


def test_saturation():
    text = shown("saturation", made.saturation())
    assert "42 sums of 1,000" in text and "conv1 42" in text and "reduce_range = true" in text
    lines = {line.split("  ")[1].strip(): line for line in text.splitlines() if "0." in line and "  " in line}
    assert "0.9000" in lines["measured here"] and "+0.1000" in lines["without VNNI"] and "95.00%" in lines["7-bit weights"]
    assert len(shown("saturation", made.saturation(risky=False)).strip().splitlines()) == 1
