"""Counters of a made-up machine: which are read, how they begin again at 0, and why there are none."""

from pathlib import Path

import pytest

from limbeck.evaluation.powercap import Meter, zones


def zone(root: Path, folder: str, name: str, uj: int = 0, *, most: int = 999) -> Path:
    (root / folder).mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": str(uj), "max_energy_range_uj": str(most)}.items():
        (root / folder / file).write_text(f"{text}\n")
    return root / folder / "energy_uj"


def test_packages_and_their_memory_are_added_and_nothing_twice(tmp_path: Path):
    for folder, name in {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:2": "dram", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}.items():
        zone(tmp_path, folder, name)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    found, why = zones(tmp_path)
    assert [z.name for z in found] == ["package-0 (intel-rapl:0)", "dram (intel-rapl:0:2)", "package-1 (intel-rapl:1)"] and why == ""


def test_a_counter_that_begins_again_goes_on(tmp_path: Path):
    one, two = zone(tmp_path, "intel-rapl:0", "package-0", 900), zone(tmp_path, "intel-rapl:1", "package-1", 10)
    meter = Meter(zones(tmp_path)[0])
    steps = []
    for first, second in ((950, 10), (20, 15), (20, 15), (999, 14)):  # 950 → 20 by 70; 15 → 14 by 999
        one.write_text(str(first))
        two.write_text(str(second))
        steps.append(meter.microjoules())
    assert steps == [50, 50 + 70 + 5, 125, 125 + 979 + 999]


def test_where_there_is_none_it_says_why(tmp_path: Path):
    assert zones(tmp_path / "nowhere") == ((), zones(tmp_path)[1]) and "no RAPL counter" in zones(tmp_path)[1]
    zone(tmp_path, "intel-rapl:0", "package-0").write_text("soon")
    assert zones(tmp_path) == ((), "the RAPL counters give no number")


def test_a_counter_that_only_root_may_read_says_how_to_allow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zone(tmp_path, "intel-rapl:0", "package-0")
    read = Path.read_text

    def refused(self: Path, *args, **kwargs) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refused)
    found, why = zones(tmp_path)
    assert found == () and "sudo chmod a+r" in why
