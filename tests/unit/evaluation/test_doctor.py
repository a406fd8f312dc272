"""Made-up machines and environments: what the doctor says of each, and how it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.evaluation.doctor import RULES, Readings, examine, older, parsed
from limbeck.evaluation.importing import PLUGIN, RUNTIMES, Loaded
from limbeck.evaluation.machine import Machine

LINES = ["torch>=2.9", "numpy>=2.0", "onnxruntime>=1.22", "scikit-learn>=1.5; extra == 'demo'", 'pyright[nodejs]; extra == "dev"']
MACHINE = Machine(
    processor="Made-up 9000",
    instructions=("AVX2", "FMA", "AVX-512 VNNI"),
    cores=8,
    usable_cores=8,
    memory_bytes=16_000_000_000,
    free_memory_bytes=8_000_000_000,
    disk="/data",
    free_disk_bytes=90_000_000_000,
)
GOOD = Readings(
    machine=MACHINE,
    limbeck="1.0",
    python="3.12.1",
    requirements=tuple(parsed(LINES)),
    versions={"torch": "2.13.0+cpu", "numpy": "2.3.5", "onnxruntime": "1.31.1", "scikit-learn": "1.9"},
    imports={
        "torch": Loaded(ok=True, data={"gpus": ["H200"], "cuda": None, "threads": 8}),
        "numpy": Loaded(ok=True),
        "onnxruntime": Loaded(ok=True),
        RUNTIMES: Loaded(ok=True, data=[{"name": "onnxruntime", "summary": "s", "version": "1.31.1"}, {"name": "other", "summary": "s", "version": None}]),
    },
)


def with_machine(**changes: object) -> Readings:
    return replace(GOOD, machine=replace(MACHINE, **changes))


def with_versions(**changes: str) -> Readings:
    return replace(GOOD, versions={**GOOD.versions, **{k.replace("_", "-"): v for k, v in changes.items()}})


def failing(name: str, detail: str, **versions: str) -> Readings:
    return replace(with_versions(**versions), imports={**GOOD.imports, name: Loaded(ok=False, detail=detail)})


def test_a_good_machine_has_no_problem():
    data = examine(GOOD)
    assert data["problems"] == [] and data["ok"] and data["exit_code"] == 0
    assert data["machine"]["gpus"] == ["H200"] and data["machine"]["instructions"][2] == "AVX-512 VNNI"
    assert [r["pip"] for r in data["runtimes"]] == [None, "pip install other"]
    demo, dev = data["extras"]
    assert demo["installed"] and demo["pip"] is None
    assert not dev["installed"] and dev["pip"] == 'pip install "limbeck[dev]"' and dev["libraries"][0]["name"] == "pyright"


@pytest.mark.parametrize(
    ("readings", "name", "severity", "detected"),
    [
        (
            failing("torchvision", "RuntimeError: operator torchvision::nms does not exist", torchvision="0.28"),
            "torchvision can't load",
            "warning",
            "torchvision 0.28 beside torch 2.13.0+cpu: RuntimeError",
        ),
        (with_versions(coremltools="9.0", numpy="2.4.1"), "coremltools 9.0 with numpy 2.4 or later", "warning", "coremltools 9.0 with numpy 2.4.1"),
        (with_machine(instructions=("AVX2", "FMA")), "int8 without VNNI", "warning", "Made-up 9000 has none of"),
        (with_machine(threads={"OMP_NUM_THREADS": "9"}), "more threads than cores", "warning", "OMP_NUM_THREADS=9 on 8 cores"),
        (with_machine(usable_cores=2), "not all cores", "note", "2 of 8 cores"),
        (with_versions(onnxruntime_gpu="1.30"), "two builds of ONNX Runtime", "warning", "onnxruntime 1.31.1 and onnxruntime-gpu 1.30"),
        (
            replace(with_machine(instructions=("AVX-512 VNNI", "AMX BF16")), versions={**GOOD.versions, "openvino": "2026.4"}),
            "OpenVINO computes in bf16",
            "note",
            "openvino 2026.4",
        ),
        (with_machine(governor="powersave", turbo=False), "clock held low", "warning", "powersave"),
        (with_machine(virtual=True), "a virtual machine", "note", "hypervisor"),
        (with_machine(free_disk_bytes=1_500_000_000), "little room", "warning", "1.5 GB are free at /data"),
        (with_machine(free_memory_bytes=900_000_000), "little memory", "warning", "0.9 GB are free"),
        (failing(PLUGIN + "theirs", "ImportError: no name"), "technique 'theirs' can't load", "warning", "ImportError: no name"),
        (with_versions(torch="2.8.1"), "torch is too old", "broken", "torch 2.8.1 is installed"),
        (failing("onnxruntime", "it brought its process down (SIGILL): x"), "onnxruntime can't load", "broken", "import onnxruntime: it brought its process down"),
        (failing(RUNTIMES, "ImportError: numpy"), "limbeck's runtimes can't load", "broken", "import limbeck.runtimes: ImportError"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_each_bad_combination_is_found_with_how_and_a_way_out(readings, name, severity, detected):
    (problem,) = examine(readings)["problems"]
    assert (problem["name"], problem["severity"]) == (name, severity)
    assert detected in problem["detected"] and problem["way"] and problem["follows"]
    assert examine(readings)["exit_code"] == (3 if severity == "broken" else 0)


@pytest.mark.parametrize(
    "readings",
    [
        with_versions(coremltools="9.0", numpy="2.3.9"),
        with_versions(coremltools="9.1", numpy="2.4.0"),
        with_machine(architecture="arm64", instructions=("NEON",)),
        with_machine(instructions=()),  # a system that doesn't tell
        with_machine(threads={"OMP_NUM_THREADS": "8"}),
        with_machine(threads={"OMP_NUM_THREADS": "dynamic"}),
        with_machine(governor="powersave", turbo=True),  # how Intel's driver calls its ordinary mode
        with_machine(free_memory_bytes=None, free_disk_bytes=None),
    ],
)
def test_what_only_looks_like_it_is_none(readings):
    assert examine(readings)["problems"] == []


def test_what_is_missing_is_broken_comes_first_and_names_the_pip_line():
    readings = replace(with_machine(virtual=True), versions={"numpy": "2.3.5", "onnxruntime-gpu": "1.30"}, imports={})
    data = examine(readings)
    assert [p["name"] for p in data["problems"]] == ["torch is missing", "a virtual machine"]  # the GPU build stands for onnxruntime
    assert data["problems"][0]["way"] == 'pip install "torch>=2.9"' and data["exit_code"] == 3 and data["runtimes"] == []


def test_a_rule_of_ones_own_and_none_of_ours_share_a_name():
    assert len({rule.name for rule in RULES}) == len(RULES)
    (problem,) = examine(GOOD, rules=[replace(RULES[0], name="mine", seen=lambda r: r.python)])["problems"]
    assert problem["name"] == "mine" and problem["detected"] == "3.12.1"


@pytest.mark.parametrize(("a", "b", "below"), [("2.13.0+cpu", "2.9", False), ("2.8", "2.9", True), ("1.22", "1.22.0", False), ("3.0rc1", "3.0", False), ("2", "2.0.1", True)])
def test_versions_compare_by_number(a, b, below):
    assert older(a, b) is below
