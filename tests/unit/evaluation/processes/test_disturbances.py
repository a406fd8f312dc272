"""The machine while something is timed: made-up ones whose clock falls, which are throttled, whose host takes their time."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.evaluation.processes.watch import EVERY_NS, Watch, clock_moved, gigahertz


class Made:
    """A machine's files."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, 0
        (root / "proc").mkdir()
        self.times(stolen=0, user=1000)

    def times(self, *, stolen: int, user: int) -> None:
        (self.root / "proc/stat").write_text(f"cpu  {user} 0 0 5000 0 0 0 {stolen} 0 0\ncpu0 0 0\n")

    def clock(self, *megahertz: float) -> None:
        (self.root / "proc/cpuinfo").write_text("".join(f"processor: {i}\ncpu MHz\t\t: {m}\n\n" for i, m in enumerate(megahertz)))

    def throttle(self, count: int) -> None:
        folder = self.root / "sys/devices/system/cpu/cpu1/thermal_throttle"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")

    def watch(self) -> Watch:
        return Watch(root=self.root, clock=lambda: self.now)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_a_quiet_machine_gives_no_reason(made):
    made.clock(2600, 2600)
    watch = made.watch()
    made.times(stolen=4, user=1096)
    for _ in range(9):
        made.now += EVERY_NS
        watch.look()
    assert watch.reasons() == []


def test_a_clock_that_falls_is_said(made):
    made.clock(800, 3400)
    watch = made.watch()
    for step in range(8):
        made.now += EVERY_NS
        made.clock(800, 3400 if step < 3 else 2100)
        watch.look()
    assert watch.reasons() == ["the clock fell from 3.4 to 2.1 GHz"]


def test_the_clock_is_not_read_more_often_than_it_need_be(made):
    made.clock(3400)
    watch = made.watch()
    made.clock(1000)
    for _ in range(100):
        watch.look()
    assert watch.reasons() == []


def test_throttling_is_counted_from_the_start_of_the_watch(made):
    made.throttle(7)
    watch = made.watch()
    assert watch.reasons() == []
    made.throttle(10)
    assert watch.reasons() == ["the processor was throttled 3 times"]


def test_time_that_the_host_took(made):
    watch = made.watch()
    made.times(stolen=7, user=1093)
    assert watch.reasons() == ["the host gave 7% of the machine's time to another"]


def test_a_machine_that_says_nothing_gives_no_reason(tmp_path):
    watch = Watch(root=tmp_path)
    watch.look()
    assert watch.reasons() == [] and gigahertz(tmp_path) is None


def test_frequencies_of_the_kernel_come_first(made):
    made.clock(2600)
    folder = made.root / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("3100000\n")
    assert gigahertz(made.root) == 3.1


def test_one_odd_reading_is_no_change_of_the_clock():
    assert clock_moved([3.4, 3.4, 3.4, 1.0, 3.4, 3.4, 3.4, 3.4, 3.4]) == ""
    assert clock_moved([2.0, 2.0, 3.0, 3.0]) == "the clock rose from 2.0 to 3.0 GHz"
    assert clock_moved([3.4, 1.0]) == ""


def test_company_is_told(made):
    assert made.watch().company().endswith("CPUs")
