"""Energy counters of the processor, as Linux shows them (RAPL under /sys/class/powercap)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
NONE = "this kernel shows no RAPL counter (/sys/class/powercap): usual in a virtual machine or container, and off x86"
WITHIN = "dram"  # the one domain inside a package that the package's own counter may leave out


@dataclass(frozen=True)
class Zone:
    """A counter: microjoules that only grow, until they begin again at 0 behind `range_uj`."""

    name: str
    file: Path
    range_uj: int


def zones(root: Path = POWERCAP) -> tuple[tuple[Zone, ...], str]:
    """The counters of all packages and of their memory that can be read; and why there are none, where there are none.

    The platform's own counter (psys) holds the packages, so it isn't added to them; nor are the cores, which a package holds.
    """
    found, why = [], NONE
    for folder in sorted(root.glob("intel-rapl:*")):  # AMD's counters bear this name too; intel-rapl-mmio shows the same package again
        try:
            name = (folder / "name").read_text().strip()
            if not name.startswith("package") and name != WITHIN:
                continue
            int((folder / "energy_uj").read_text())
            found.append(Zone(f"{name} ({folder.name})", folder / "energy_uj", int((folder / "max_energy_range_uj").read_text())))
        except PermissionError:
            why = f"the RAPL counter is there, but only root may read it. To allow it: sudo chmod a+r {root}/*/energy_uj"
        except (OSError, ValueError):
            why = "the RAPL counters give no number"
    return tuple(found), "" if found else why


class Meter:
    """All counters of a machine together, from 0 on. It must be read at least once in the time that a counter takes to begin again (minutes)."""

    def __init__(self, found: tuple[Zone, ...]):
        self._zones = found
        self._last = [_read(zone) for zone in found]
        self._total = 0

    def microjoules(self) -> int:
        """Since this meter was made."""
        for number, zone in enumerate(self._zones):
            now = _read(zone)
            step = now - self._last[number]
            self._total += step if step >= 0 else step + zone.range_uj + 1
            self._last[number] = now
        return self._total


def _read(zone: Zone) -> int:
    return int(zone.file.read_text())
