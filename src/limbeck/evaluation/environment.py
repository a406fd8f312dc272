"""Where something was measured: what makes a figure comparable with another, or not."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("limbeck", "torch", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "numpy", "scipy", "safetensors")


def versions() -> dict[str, str]:
    """The libraries that a result depends on, with the version that is installed."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
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
        told = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", info.read_text().split("\n\n")[0], re.MULTILINE))
        which = ", ".join(f"{name} {told[key]}" for name, key in (("family", "cpu family"), ("model", "model"), ("stepping", "stepping")) if key in told)
        return f"{told.get('model name', platform.machine())}{f' ({which})' if which else ''}"  # clouds give several processors one name
    return platform.processor() or platform.machine()
