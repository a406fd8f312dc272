"""The machine while something is timed on it: its clock, who else had the CPU, whether it was throttled. Nothing is imported for it.

Linux says all of it; elsewhere what can't be read is left out, and nothing is claimed of it.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

APART = 0.1  # of the clock, by which it may move while things are timed
STOLEN = 0.05  # of the time that this machine's processes wanted, which the host gave to another machine
EVERY_NS = 50_000_000  # between two readings of the clock
CPUS = "sys/devices/system/cpu"


class Watch:
    """Readings from its start on. `root` is where `proc` and `sys` stand, so that a made-up machine can be read too."""

    def __init__(self, *, root: Path = Path("/"), clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._root, self._clock = root, clock
        self._throttled, self._times, self._switched = _throttles(root), _times(root), _switches()
        self._gigahertz: list[float] = []
        self._next = clock()
        self.look()

    def look(self) -> None:
        """Read the clock, if it is time to."""
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY_NS
            if (found := gigahertz(self._root)) is not None:
                self._gigahertz.append(found)

    def reasons(self) -> list[str]:
        """What since the start makes these figures those of this hour alone, in words."""
        found = [clock_moved(self._gigahertz)]
        if (throttled := _throttles(self._root) - self._throttled) > 0:
            found.append(f"the processor was throttled {throttled:,} times")
        stolen, wanted = (now - then for now, then in zip(_times(self._root), self._times, strict=True))
        if wanted > 0 and stolen / wanted > STOLEN:
            found.append(f"the host gave {stolen / wanted:.0%} of the machine's time to another")
        return [reason for reason in found if reason]

    def company(self) -> str:
        """How often this process was interrupted by others, and how many want the CPUs."""
        return f"{_switches() - self._switched:,} times; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def clock_moved(readings: Sequence[float]) -> str:
    """Whether the medians of the first, the middle and the last third of the readings (GHz) lie apart, in words; else nothing."""
    third = len(readings) // 3
    if not third:
        return ""
    parts = [median(part) for part in (readings[:third], readings[third : len(readings) - third], readings[len(readings) - third :])]
    low, high = min(parts), max(parts)
    if low >= (1 - APART) * high:
        return ""
    fell = parts.index(high) < parts.index(low)
    return f"the clock fell from {high:.1f} to {low:.1f} GHz" if fell else f"the clock rose from {low:.1f} to {high:.1f} GHz"


def gigahertz(root: Path) -> float | None:
    """That of the fastest CPU now, which is one that works; None if the system doesn't say."""
    kilohertz = [_number(path) for path in (root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if kilohertz:
        return max(kilohertz) / 1e6 or None
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
        return max((float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")), default=0.0) / 1e3 or None
    except (OSError, ValueError):
        return None


def _throttles(root: Path) -> int:
    """How often any CPU was throttled since the machine started."""
    return int(sum(_number(path) for path in (root / CPUS).glob("cpu[0-9]*/thermal_throttle/*_throttle_count")))


def _times(root: Path) -> tuple[int, int]:
    """Ticks that the host took from this machine, and those that its processes wanted."""
    try:
        user, nice, system, _, _, irq, softirq, stolen = map(int, (root / "proc/stat").read_text().splitlines()[0].split()[1:9])
    except (OSError, ValueError, IndexError):
        return 0, 0
    return stolen, user + nice + system + irq + softirq + stolen


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0
