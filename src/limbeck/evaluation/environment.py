"""Where something was measured: what makes a figure comparable with another, or not."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("limbeck", "torch", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "numpy", "scipy", "safetensors")


def versions() -> dict[str, str]:
    """The libraries that a result depends on, with the version that is installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """Processor, cores and system."""
    return {"processor": _processor(), "cores": os.cpu_count() or 1, "system": platform.platform(terse=True), "python": platform.python_version()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("model name", "cpu family", "model\t", "stepping")
        lines = [line for line in info.read_text().split("\n\n")[0].splitlines() if line.startswith(wanted)]
        return " ".join(line.partition(":")[2].strip() for line in lines) or platform.machine()
    return platform.processor() or platform.machine()
