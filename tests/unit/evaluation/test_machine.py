"""A machine read from files that were made up, and libraries that crash, hang or raise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from limbeck.evaluation.importing import RUNTIMES, loaded
from limbeck.evaluation.machine import cpu_info, instructions, read_machine

X86 = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 hypervisor\n\nprocessor\t: 1\nmodel name\t: Xeon\nflags\t\t: fpu\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp asimd asimddp i8mm sve\nCPU part\t: 0xd40\n"


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_processors_of_both_kinds():
    model, flags, count = cpu_info(X86)
    assert (model, count, instructions(flags)) == ("Xeon", 2, ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX INT8"))
    model, flags, count = cpu_info(ARM)
    assert (model, count, instructions(flags)) == ("0xd40", 1, ("NEON", "NEON dotprod", "NEON i8mm", "SVE"))
    assert cpu_info("") == ("", frozenset(), 0)


def counter(root: Path) -> None:
    for name, text in {"name": "package-0", "energy_uj": "123456", "max_energy_range_uj": "262143328850"}.items():
        write(root, f"sys/class/powercap/intel-rapl:0/{name}", f"{text}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what only Linux has")
def test_a_machine_that_tells_all(tmp_path):
    write(tmp_path, "proc/cpuinfo", X86)
    write(tmp_path, "proc/meminfo", "MemTotal:       2000 kB\nMemAvailable:    500 kB\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    write(tmp_path, "sys/devices/system/cpu/intel_pstate/no_turbo", "1\n")
    counter(tmp_path)
    found = read_machine(tmp_path / "runs" / "not yet", root=tmp_path, environment={"OMP_NUM_THREADS": "3", "HOME": "x"})
    assert (found.processor, found.cores, found.virtual, found.governor, found.turbo) == ("Xeon", 2, True, "powersave", False)
    assert (found.memory_bytes, found.free_memory_bytes) == (2_048_000, 512_000)
    assert found.energy == "intel-rapl:0" and found.threads == {"OMP_NUM_THREADS": "3"}
    assert found.disk == str(tmp_path) and found.free_disk_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads what only Linux has")
def test_a_machine_that_tells_nothing(tmp_path):
    found = read_machine(tmp_path, root=tmp_path, environment={})
    assert (found.instructions, found.governor, found.turbo, found.energy) == ((), None, None, None)
    assert "no RAPL counter" in found.energy_why and found.cores >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads what only Linux has")
def test_a_counter_that_only_root_may_read_says_so(tmp_path, monkeypatch):
    counter(tmp_path)
    plain = Path.read_text

    def read_text(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":  # permissions don't hold for root, under whom a container's tests run
            raise PermissionError(13, "Permission denied")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    found = read_machine(tmp_path, root=tmp_path, environment={})
    assert found.energy is None and "only root may read it" in found.energy_why and "chmod a+r" in found.energy_why


def test_a_library_that_crashes_hangs_or_raises_takes_nobody_along(tmp_path, monkeypatch):
    write(tmp_path, "fine_one.py", "print('noise on stdout')\n")
    write(tmp_path, "raises.py", "raise RuntimeError('operator nms does not exist')\n")
    write(tmp_path, "crashes.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    write(tmp_path, "leaves.py", "import os\nos._exit(7)\n")
    write(tmp_path, "last_one.py", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = loaded(["fine_one", "raises", "crashes", "leaves", "not_there_at_all", "last_one"])
    assert [name for name, check in found.items() if check.ok] == ["fine_one", "last_one"]
    assert found["raises"].detail == "RuntimeError: operator nms does not exist"
    assert "SIGSEGV" in found["crashes"].detail and "exit code 7" in found["leaves"].detail
    assert found["not_there_at_all"].detail.startswith("ModuleNotFoundError")


def test_a_library_that_hangs_is_given_up(tmp_path, monkeypatch):
    write(tmp_path, "hangs.py", "import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "didn't end within" in loaded(["hangs"], limit_s=3.0)["hangs"].detail


def test_the_runtimes_tell_of_themselves():
    found = loaded([RUNTIMES])[RUNTIMES]
    assert found.ok and {r["name"] for r in found.data} >= {"onnxruntime", "torch"}
