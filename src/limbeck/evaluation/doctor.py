"""Is this machine, with what is installed on it, fit for limbeck? Readings in, findings out: combinations that are known to be bad stand here as data."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any, Literal

from limbeck.evaluation.importing import GROUP, PLUGIN, RUNTIMES, Loaded, loaded
from limbeck.evaluation.machine import Machine, read_machine

SCHEMA = 1
CORE = {"numpy": "numpy", "scipy": "scipy", "safetensors": "safetensors", "torch": "torch", "onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
CHECKED = {"torchvision": "torchvision"}  # distribution → module: optional, and known to fail beside others
KNOWN = ("coremltools", "openvino", "onnxruntime-gpu", "torchvision", "torchao", "typing-extensions")  # whose versions rules ask for
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*(?:>=\s*([0-9][0-9.]*))?[^;]*(?:;.*?extra\s*==\s*['\"]([^'\"]+)['\"])?")
LITTLE_DISK, LITTLE_MEMORY = 2_000_000_000, 2_000_000_000
VNNI = {"AVX-VNNI", "AVX-512 VNNI", "AMX INT8"}
Severity = Literal["broken", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A distribution that limbeck, or one of its extras, asks for."""

    name: str
    least: str = ""  # the least version, "" for any
    extra: str = ""  # "" for limbeck itself


@dataclass(frozen=True, kw_only=True)
class Readings:
    """All that the findings follow from."""

    machine: Machine
    limbeck: str
    python: str
    requirements: tuple[Requirement, ...]
    versions: Mapping[str, str]  # distribution → installed version
    imports: Mapping[str, Loaded] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A combination that is known to be bad: when it holds, what follows, and the way out. `seen` says how it was detected, or "" if it doesn't hold."""

    name: str
    severity: Severity
    seen: Callable[[Readings], str]
    follows: str
    way: str


def read(run_root: Path) -> Readings:
    """This machine and this environment, each heavy library imported in a process apart."""
    requirements = tuple(parsed(requires("limbeck") or []))
    versions = {name: found for name in (*dict.fromkeys(r.name for r in requirements), *KNOWN) if (found := _installed(name))}
    names = [CORE[name] for name in CORE if name in versions] + [CHECKED[name] for name in CHECKED if name in versions]
    plugins = [PLUGIN + entry.name for entry in entry_points(group=GROUP)]
    return Readings(
        machine=read_machine(run_root),
        limbeck=version("limbeck"),
        python=platform.python_version(),
        requirements=requirements,
        versions=versions,
        imports=loaded([*names, RUNTIMES, *plugins]),
    )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def parsed(lines: Sequence[str]) -> list[Requirement]:
    """Requirements as a package's metadata writes them: name, least version, extra."""
    found = [REQUIREMENT.match(line) for line in lines]
    return [Requirement(name=m[1], least=m[2] or "", extra=m[3] or "") for m in found if m]


def older(installed: str, least: str) -> bool:
    """Whether a version is below another, number by number; what follows the numbers (`rc1`, `+cpu`) doesn't count."""
    numbers = lambda text: [int(part) for part in re.findall(r"\d+", re.match(r"[0-9.]*", text)[0])]  # type: ignore[index] # noqa: E731
    a, b = numbers(installed), numbers(least)
    width = max(len(a), len(b))
    return a + [0] * (width - len(a)) < b + [0] * (width - len(b))


def _torchvision(r: Readings) -> str:
    found = r.imports.get("torchvision")
    return f"torchvision {r.versions.get('torchvision')} beside torch {r.versions.get('torch')}: {found.detail}" if found and not found.ok else ""


def _coremltools(r: Readings) -> str:
    core, numpy = r.versions.get("coremltools", ""), r.versions.get("numpy", "0")
    return f"coremltools {core} with numpy {numpy}" if core.startswith("9.0") and not older(numpy, "2.4") else ""


def _saturates(r: Readings) -> str:
    m = r.machine
    x86 = m.architecture in ("x86_64", "AMD64", "amd64") and m.instructions
    return f"{m.processor or 'this processor'} has none of {', '.join(sorted(VNNI))}" if x86 and VNNI.isdisjoint(m.instructions) else ""


def _too_many_threads(r: Readings) -> str:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = r.machine.threads.get(name, "").split(",")[0]
        if value.isdigit() and int(value) > r.machine.usable_cores:
            return f"{name}={value} on {r.machine.usable_cores} cores"
    return ""


def _two_onnxruntimes(r: Readings) -> str:
    both = {"onnxruntime", "onnxruntime-gpu"} <= r.versions.keys()
    return f"onnxruntime {r.versions['onnxruntime']} and onnxruntime-gpu {r.versions['onnxruntime-gpu']} share one folder" if both else ""


def _openvino_bf16(r: Readings) -> str:
    computes = {"AVX-512 BF16", "AMX BF16"} & set(r.machine.instructions)
    return f"openvino {r.versions['openvino']} on a processor with {', '.join(sorted(computes))}" if "openvino" in r.versions and computes else ""


RULES: tuple[Rule, ...] = (
    Rule(
        name="torchvision can't load",
        severity="warning",
        seen=_torchvision,
        follows="What imports torchvision fails with it: timm, and some models of transformers. limbeck itself doesn't need it.",
        way="Install the torchvision that belongs to this torch (its wheels on PyPI are CUDA builds), or remove it: pip uninstall torchvision",
    ),
    Rule(
        name="coremltools 9.0 with numpy 2.4 or later",
        severity="warning",
        seen=_coremltools,
        follows="Its conversion of a traced model raises: int() of a 1-d array.",
        way='pip install "numpy<2.4"',
    ),
    Rule(
        name="int8 without VNNI",
        severity="warning",
        seen=_saturates,
        follows="Sums of two u8·s8 products saturate at 16 bits: an int8 artifact may answer otherwise here than on a processor with VNNI.",
        way='Give the stage 7-bit weights: technique = "quantize", config = { reduce_range = true }',
    ),
    Rule(
        name="more threads than cores",
        severity="warning",
        seen=_too_many_threads,
        follows="Threads that wait spin and take each other's time: 10 to 20 times slower was seen.",
        way="Set it to the number of cores or fewer, as in OMP_NUM_THREADS=1",
    ),
    Rule(
        name="two builds of ONNX Runtime",
        severity="warning",
        seen=_two_onnxruntimes,
        follows="Whichever was installed last is loaded, whatever the other's version says.",
        way="pip uninstall onnxruntime onnxruntime-gpu, then install one of them",
    ),
    Rule(
        name="OpenVINO computes in bf16",
        severity="note",
        seen=_openvino_bf16,
        follows="By default it rounds FP32 models to bf16 there: its outputs differ from the others' by more than rounding.",
        way="Set INFERENCE_PRECISION_HINT=f32 where numbers are compared.",
    ),
    Rule(
        name="clock held low",
        severity="warning",
        seen=lambda r: f"the governor is '{r.machine.governor}'" if r.machine.governor == "powersave" and r.machine.turbo is False else "",
        follows="Latencies are longer than the processor's own, and change with its load.",
        way="sudo cpupower frequency-set -g performance, while you measure",
    ),
    Rule(
        name="a virtual machine",
        severity="note",
        seen=lambda r: "the processor's flags name a hypervisor" if r.machine.virtual else "",
        follows="Neighbours may slow a timing down without a trace. Ratios taken in turn, as `limbeck compare` takes them, are safer than milliseconds.",
        way="Measure what you promise in milliseconds on the device itself.",
    ),
    Rule(
        name="not all cores",
        severity="note",
        seen=lambda r: f"{r.machine.usable_cores} of {r.machine.cores} cores may be used" if r.machine.usable_cores < r.machine.cores else "",
        follows="This process is held to some cores (taskset, a container).",
        way="Don't ask for more threads than that.",
    ),
    Rule(
        name="little room",
        severity="warning",
        seen=lambda r: f"{(r.machine.free_disk_bytes or 0) / 1e9:.1f} GB are free at {r.machine.disk}" if (r.machine.free_disk_bytes or LITTLE_DISK) < LITTLE_DISK else "",
        follows="A run keeps each stage's weights and artifact, and the teacher's answers.",
        way="Make room (limbeck gc RUN --delete), or keep runs elsewhere with run.root.",
    ),
    Rule(
        name="little memory",
        severity="warning",
        seen=lambda r: f"{r.machine.free_memory_bytes / 1e9:.1f} GB are free" if r.machine.free_memory_bytes is not None and r.machine.free_memory_bytes < LITTLE_MEMORY else "",
        follows="Training and exporting hold a model several times.",
        way="Close what else runs here, or use smaller batches.",
    ),
)


def examine(r: Readings, *, rules: Sequence[Rule] = RULES) -> dict[str, Any]:
    """What `limbeck doctor` says. exit_code 0 if limbeck's core works here, 3 if something that it needs is broken."""
    broken = [*_missing(r), *_fails(r)]
    seen = [(rule, rule.seen(r)) for rule in rules]
    held = [_problem(rule.name, rule.severity, how, rule.follows, rule.way) for rule, how in seen if how]
    plugins = {name.removeprefix(PLUGIN): check for name, check in r.imports.items() if name.startswith(PLUGIN)}
    torch = r.imports.get("torch")
    problems = [*broken, *held, *(_plugin_problem(name, check) for name, check in plugins.items() if not check.ok)]
    bad = any(p["severity"] == "broken" for p in problems)
    runtimes = r.imports.get(RUNTIMES)
    return {
        "schema": SCHEMA,
        "ok": not bad,
        "exit_code": 3 if bad else 0,
        "limbeck": r.limbeck,
        "python": r.python,
        "machine": {**asdict(r.machine), "instructions": list(r.machine.instructions), "gpus": torch.data["gpus"] if torch and torch.data else []},
        "required": [_distribution(q, r) for q in r.requirements if not q.extra],
        "runtimes": [{**one, "pip": None if one["version"] else f"pip install {one['name']}"} for one in (runtimes.data if runtimes and runtimes.data else [])],
        "extras": _extras(r),
        "plugins": [{"name": name, "ok": check.ok, "detail": check.detail} for name, check in plugins.items()],
        "problems": sorted(problems, key=lambda p: ("broken", "warning", "note").index(p["severity"])),
    }


def _problem(name: str, severity: Severity, detected: str, follows: str, way: str) -> dict[str, str]:
    return {"name": name, "severity": severity, "detected": detected, "follows": follows, "way": way}


def _missing(r: Readings) -> list[dict[str, str]]:
    found = []
    for q in r.requirements:
        have, wanted = r.versions.get(q.name), f"{q.name}>={q.least}" if q.least else q.name
        other = q.name == "onnxruntime" and "onnxruntime-gpu" in r.versions
        if not q.extra and (have is None or (q.least and older(have, q.least))) and not other:
            how = f"{q.name} {have} is installed" if have else f"{q.name} isn't installed"
            found.append(_problem(f"{q.name} {'is too old' if have else 'is missing'}", "broken", how, f"limbeck needs {wanted}.", f'pip install "{wanted}"'))
    return found


def _fails(r: Readings) -> list[dict[str, str]]:
    names = {module: name for name, module in CORE.items()} | {RUNTIMES: "limbeck's runtimes"}
    failed = [(module, check) for module, check in r.imports.items() if module in names and not check.ok]
    return [
        _problem(
            f"{names[module]} can't load",
            "broken",
            f"import {module}: {check.detail}",
            "limbeck needs it.",
            f"pip install --force-reinstall {names[module]}" if module != RUNTIMES else "Mend what else is broken here first; then install limbeck again.",
        )
        for module, check in failed
    ]


def _plugin_problem(name: str, check: Loaded) -> dict[str, str]:
    return _problem(f"technique '{name}' can't load", "warning", check.detail, "It is left out of the list of techniques.", "Ask its author, or upgrade its package.")


def _distribution(q: Requirement, r: Readings) -> dict[str, Any]:
    have = r.versions.get(q.name)
    fits = have is not None and not (q.least and older(have, q.least))
    check = r.imports.get(CORE.get(q.name, ""))
    return {"name": q.name, "version": have, "least": q.least or None, "ok": fits and (check is None or check.ok)}


def _extras(r: Readings) -> list[dict[str, Any]]:
    """Each extra with its libraries, and the pip line where one is missing."""
    rows = []
    for extra in dict.fromkeys(q.extra for q in r.requirements if q.extra):
        inside = [_distribution(q, r) for q in r.requirements if q.extra == extra]
        whole = all(one["ok"] for one in inside)
        rows.append({"name": extra, "installed": whole, "libraries": inside, "pip": None if whole else f'pip install "limbeck[{extra}]"'})
    return rows
