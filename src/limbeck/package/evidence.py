"""What `predict.py --measure` wrote on another machine, read as something that may be wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError
from limbeck.core.evidence import Latency
from limbeck.core.seal import holds

KIND, SCHEMA = "limbeck-evidence", 1
MOST_FILE_BYTES = 1 << 28
MOST_MS, MOST_MEMORY = 1e7, 1 << 50
WAY = "Measure again with `predict.py --measure`."


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """One artifact's latency and memory on another machine, bound to its hash; the baseline's too where the package had it."""

    artifact: str
    baseline: str | None
    runtime: str
    threads: int
    batch: int
    latency: Latency
    baseline_latency: Latency | None
    peak_memory_bytes: int
    baseline_memory_bytes: int | None
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    time: str


def read_evidence(path: Path) -> tuple[Elsewhere, dict[str, Any]]:
    """The evidence in a file, checked, and the same as plain data.

    Raises: ConfigError if it is no evidence, was changed, holds a number that can't be, or says that the artifact answered otherwise there.
    """
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise ConfigError(f"{path} is larger than evidence can be ({MOST_FILE_BYTES:,} bytes). Name the file that `predict.py --measure` wrote.")
        raw = path.read_bytes()
        data = json.loads(raw)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}. Name the file that `predict.py --measure` wrote.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}). Name the file that `predict.py --measure` wrote.") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ConfigError(f"{path} is no evidence. Name the file that `predict.py --measure` wrote.")
    if data.get("schema") != SCHEMA:
        raise ConfigError(f"{path}.schema must be {SCHEMA}, got {data.get('schema')!r}. Measure with a package of this limbeck, or upgrade with pip install -U limbeck.")
    if not holds(data, raw):
        raise ConfigError(f"{path} was changed since it was written: its content doesn't have its hash. {WAY}")
    return parsed(data, where=str(path)), data


def parsed(data: Mapping[str, Any], *, where: str) -> Elsewhere:
    """Evidence from plain data, every number checked. Raises ConfigError that names the first place that can't be."""
    try:
        timed, memory, golden = data["latency_ms"], data["peak_memory_bytes"], data["golden"]
        baseline = _hash(data["baseline"], f"{where}.baseline") if data["baseline"] is not None else None
        found = Elsewhere(
            artifact=_hash(data["artifact"], f"{where}.artifact"),
            baseline=baseline,
            runtime=str(data["runtime"]["name"]),
            threads=_whole(data["threads"], f"{where}.threads", least=1),
            batch=_whole(data["batch"], f"{where}.batch", least=1),
            latency=_latency(timed["artifact"], f"{where}.latency_ms.artifact"),
            baseline_latency=_latency(timed["baseline"], f"{where}.latency_ms.baseline") if baseline else None,
            peak_memory_bytes=_whole(memory["artifact"], f"{where}.peak_memory_bytes.artifact"),
            baseline_memory_bytes=_whole(memory["baseline"], f"{where}.peak_memory_bytes.baseline") if baseline else None,
            machine=dict(data["machine"]),
            versions=dict(data["versions"]),
            time=str(data["time"]),
        )
        answered = golden is None or golden["holds"] is True
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where} isn't as `predict.py --measure` writes it ({type(error).__name__}: {error}). {WAY}") from error
    if not answered:
        raise ConfigError(f"{where}: the artifact answered otherwise there than where it was made, so its quality there isn't known. Measure its quality on that machine first.")
    turns = {len(one.blocks) for one in (found.latency, found.baseline_latency) if one}
    if len(turns) > 1:
        raise ConfigError(f"{where}.latency_ms: artifact and baseline must have been timed in turn, equally often, got {sorted(turns)} turns. {WAY}")
    return found


def _latency(data: Mapping[str, Any], where: str) -> Latency:
    blocks = data["blocks"]
    if not isinstance(blocks, list) or not blocks or not all(isinstance(b, list) and b for b in blocks):
        raise ConfigError(f"{where}.blocks must be lists of milliseconds, at least one. {WAY}")
    for number, block in enumerate(blocks):
        for value in block:
            if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= MOST_MS:
                raise ConfigError(f"{where}.blocks[{number}] must hold milliseconds above 0 and up to {MOST_MS:g}, got {value!r}. {WAY}")
    return Latency(blocks=tuple(tuple(float(v) for v in b) for b in blocks), disturbed=data["disturbed"] is True)


def _whole(value: Any, where: str, *, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= MOST_MEMORY:
        raise ConfigError(f"{where} must be a whole number from {least} to {MOST_MEMORY:,}, got {value!r}. {WAY}")
    return value


def _hash(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ConfigError(f"{where} must be a SHA-256 in hex, got {value!r}. {WAY}")
    return value
