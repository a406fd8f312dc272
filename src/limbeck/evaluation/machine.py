"""What this machine is, read and not guessed: processor, instruction sets, memory, disk, energy counters, clocks. Nothing is imported for it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.evaluation.powercap import zones

# what int8, bf16 and FP32 kernels look for; the first name is ours, the others are what systems call it
INSTRUCTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AVX2", ("avx2", "hw.optional.avx2_0")),
    ("FMA", ("fma",)),
    ("AVX-512", ("avx512f", "hw.optional.avx512f")),
    ("AVX-VNNI", ("avx_vnni",)),
    ("AVX-512 VNNI", ("avx512_vnni",)),
    ("AVX-512 BF16", ("avx512_bf16",)),
    ("AMX INT8", ("amx_int8",)),
    ("AMX BF16", ("amx_bf16",)),
    ("NEON", ("asimd", "neon", "hw.optional.neon", "hw.optional.AdvSIMD")),
    ("NEON dotprod", ("asimddp", "hw.optional.arm.FEAT_DotProd")),
    ("NEON i8mm", ("i8mm", "hw.optional.arm.FEAT_I8MM")),
    ("SVE", ("sve",)),
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RAPL = Path("sys/class/powercap")
FREQUENCY = Path("sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Readings; None where this system doesn't say."""

    system: str = "Linux"
    architecture: str = "x86_64"
    processor: str = ""
    instructions: tuple[str, ...] = ()
    cores: int = 1
    usable_cores: int = 1  # that this process may run on
    memory_bytes: int | None = None
    free_memory_bytes: int | None = None
    disk: str = ""  # where runs are kept
    free_disk_bytes: int | None = None
    energy: str | None = None  # the counter that can be read
    energy_why: str = ""  # what there is, or why there is none
    governor: str | None = None
    turbo: bool | None = None
    virtual: bool = False
    threads: Mapping[str, str] = field(default_factory=dict)  # variables that set numbers of threads


def read_machine(run_root: Path, *, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Machine:
    """This machine; `root` is where its `proc` and `sys` stand, so that a made-up machine can be read too."""
    environment = os.environ if environment is None else environment
    system = platform.system()
    model, flags, count = _sysctl() if system == "Darwin" else cpu_info(_text(root / "proc/cpuinfo") or "")
    energy, why = _energy(root, system)
    total, available = _memory(root)
    disk = _existing(run_root.absolute())
    return Machine(
        system=system,
        architecture=platform.machine(),
        processor=model or platform.processor(),
        instructions=instructions(flags),
        cores=count or os.cpu_count() or 1,
        usable_cores=_usable(),
        memory_bytes=total,
        free_memory_bytes=available,
        disk=str(disk),
        free_disk_bytes=shutil.disk_usage(disk).free,
        energy=energy,
        energy_why=why,
        governor=(_text(root / FREQUENCY / "cpu0/cpufreq/scaling_governor") or "").strip() or None,
        turbo=_turbo(root),
        virtual="hypervisor" in flags,
        threads={name: environment[name] for name in THREADS if name in environment},
    )


def cpu_info(text: str) -> tuple[str, frozenset[str], int]:
    """Model, flags and number of processors from /proc/cpuinfo (x86 says `flags`, Arm `Features`)."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    first = dict(line.split(":", 1) for line in (blocks[0].splitlines() if blocks else ()) if ":" in line)
    values = {key.strip().lower(): value.strip() for key, value in first.items()}
    model = values.get("model name") or values.get("hardware") or values.get("cpu part", "")
    return model, frozenset((values.get("flags") or values.get("features") or "").split()), sum(block.lstrip().startswith("processor") for block in blocks)


def instructions(flags: frozenset[str]) -> tuple[str, ...]:
    """Those of our list that a processor has, by our names."""
    return tuple(name for name, theirs in INSTRUCTIONS if not flags.isdisjoint(theirs))


def _sysctl() -> tuple[str, frozenset[str], int]:
    """The same from macOS: an optional feature that is there is 1."""
    try:
        text = subprocess.run(["sysctl", "machdep.cpu.brand_string", "hw.logicalcpu", "hw.optional"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "", frozenset(), 0
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = frozenset(key for key, value in values.items() if key.startswith("hw.optional") and value == "1")
    return values.get("machdep.cpu.brand_string", ""), flags, int(values.get("hw.logicalcpu") or 0)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _usable() -> int:
    if platform.system() == "Linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Bytes in all and available: from /proc/meminfo, else from what the system counts in pages."""
    values = {key: value.split() for key, _, value in (line.partition(":") for line in (_text(root / "proc/meminfo") or "").splitlines())}
    if "MemTotal" in values:
        available = values.get("MemAvailable")
        return int(values["MemTotal"][0]) * 1024, int(available[0]) * 1024 if available else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None
    except (ValueError, OSError):
        return None, None


def _existing(path: Path) -> Path:
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _energy(root: Path, system: str) -> tuple[str | None, str]:
    """The energy counter that can be read, and what is to be said of it."""
    if system == "Darwin":
        return None, "macOS tells energy only to powermetrics, which needs root"
    found, why = zones(root / RAPL)
    return (found[0].file.parent.name, "RAPL, in microjoules") if found else (None, why)


def _turbo(root: Path) -> bool | None:
    off, boost = _text(root / FREQUENCY / "intel_pstate/no_turbo"), _text(root / FREQUENCY / "cpufreq/boost")
    return off.strip() == "0" if off is not None else boost.strip() == "1" if boost is not None else None
