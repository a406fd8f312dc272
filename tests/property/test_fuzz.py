"""Files that nobody would write: an error of ours or success, never another exception, never a change to a folder that is only read.

The same changes are drawn by Hypothesis (a few hundred in every run of the tests, shrunk when one fails) and, marked slow, by 10,000 seeds.
"""

import contextlib
import copy
import io
import json
import random
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck import api
from limbeck.cli import render
from limbeck.core.candidate import Blueprint
from limbeck.core.errors import ConfigError, LimbeckError, ReplayError
from limbeck.intake.runfile import read_runfile
from limbeck.mechanics.build import build
from limbeck.pipeline.journal import FIRST, line_hash, read
from limbeck.pipeline.records import read_summary, sealed
from limbeck.testing import small_task

JUNK = [
    None,
    True,
    0,
    -1,
    7,
    10**9,
    2**63,
    -(2**70),
    10**400,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "prune",
    "../../x",
    "/etc",
    "a\0b",
    "\ud800",
    "[/]",
    "[red]",
    "5 MB",
]
JUNK += ["3 parsecs", "limbeck:convnet", "task:teacher", "weight", "features.0", "x" * 5000, [], {}, [[]], [0, -5], [10**12, 10**12], [2**31], {"x": {"y": [1, {}]}}, {"": ""}]
RUN = {
    "task": {"entry": "task.py:task"},
    "contract": {"retention": "97 %", "size_ratio": 4, "size_bytes": "5 MB", "latency_p90_ms": 4.0, "confidence": 0.95},
    "target": {"runtime": "onnxruntime", "threads": 1, "batch": 1},
    "run": {"name": "run", "root": "runs", "seed": 3, "timing_seconds": 0.5, "control": False},
    "stage": [
        {"technique": "distill", "config": {"student": "small", "term": "kd", "training": {"epochs": 3, "learning_rate": 1e-3}}, "gate": {"retention": 0.98, "pays": "bytes"}},
        {"technique": "prune", "name": "thin", "config": {"ratio": 0.3, "ignore": ["head"]}, "recovery": {"training": {"epochs": 2}, "teacher_weight": 0.9}, "on_fail": "refine"},
        {"technique": "quantize", "config": {"samples": 64}},
    ],
}
MODEL = {
    "metric": {"name": "accuracy", "value": 0.9},
    "size_bytes": 9000,
    "download_bytes": 8000,
    "latency_ms": {"p50": 0.1, "p90": None},
    "peak_memory_bytes": 100,
    "parameters": 900,
    "macs": 5000,
    "artifact": "artifacts/a/model.onnx",
    "runtime": "onnxruntime",
    "threads": 1,
    "kernels": {"int8": 3, "float": 1},
    "retention": {"value": 0.99, "low": 0.97, "kind": "ratio"},
}
VERDICT = {"gate": "retention", "status": "PASS", "reason": "95% bound [0.97]", "limit": 0.95, "measured": 0.99, "low": 0.97}
SUMMARY = {
    "schema": 1,
    "run": "x",
    "verdict": "PASS",
    "exit_code": 0,
    "baseline": MODEL,
    "final": MODEL,
    "control": MODEL,
    "control_note": None,
    "retention": MODEL["retention"],
    "ratios": {"size": 4.0, "latency_p50": 2.0, "latency_p90": None},
    "contract": [VERDICT],
    "stages": [
        {"name": "thin", "technique": "prune", "verdict": "PASS", "verdicts": [VERDICT], "seconds": 1.5, "tries": 1, "error": None, **MODEL, "claims": {}},
        {"name": "worse", "technique": "quantize", "verdict": "FAIL", "verdicts": [], "seconds": 0.0, "tries": 2, "error": "it broke [here]"},
    ],
    "closest": {"stage": "thin", "violation": 0.1},
    "test_looks": 1,
    "refusal": {"reason": "no", "fix": "yes"},
    "journal_head": FIRST,
}
EVENTS = [
    {"event": "run", "data": {"plan": {"stages": []}, "seed": 0}},
    {"event": "baseline", "data": {"candidate": "a" * 64, "artifact": "b" * 64, "metric": 0.9}},
    {"event": "stage", "data": {"stage": "thin", "key": "c" * 64, "attempt": 1, "candidate": "d" * 64, "artifact": "e" * 64, "status": "PASS", "verdicts": [VERDICT]}},
    {"event": "verdict", "data": {"final": "e" * 64, "status": "PASS", "verdicts": []}},
]
BLUEPRINT = {
    "version": 1,
    "base": {"factory": "task:small", "kwargs": {}},
    "edits": [
        {"edit": "reshape", "module": "features.0", "attributes": {"out_channels": 4}, "tensors": {"weight": [4, 1, 3, 3]}},
        {"edit": "reshape", "module": "features.1", "attributes": {"num_features": 4}, "tensors": {"weight": [4], "bias": [4], "running_mean": [4], "running_var": [4]}},
        {"edit": "reshape", "module": "features.3", "attributes": {"in_channels": 4}, "tensors": {"weight": [16, 4, 3, 3]}},
        {"edit": "fold", "module": "features.0", "norm": "features.1"},
        {"edit": "quantize", "module": "features.0", "port": "weight", "bits": 8, "scheme": "symmetric", "axis": 0},
        {"edit": "quantize", "module": "features.2", "port": "out", "bits": 8, "scheme": "affine"},
        {"edit": "quantize", "module": "features.3", "port": "in", "bits": 8, "scheme": "affine", "shares": "features.2:out"},
        {"edit": "quantize", "module": "", "port": "operator", "operator": "mean", "ordinal": 0, "count": 1, "bits": 8, "scheme": "affine"},
    ],
}
FAMILY = {"version": 1, "base": {"factory": "limbeck:convnet", "kwargs": {"channels": 1, "classes": 4, "width": 8, "depth": 2, "size": 8}}, "edits": []}
NOT_JSON = (float("nan"), float("inf"))
TASK = small_task()


def changed(data, rng: random.Random):
    """A copy of plain data with one to three changes at places drawn at random."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        holder, key = _spot(data, rng)
        if holder is None:
            continue
        kind = rng.randrange(5)
        if kind == 0:
            holder.pop(key)
        elif kind == 1 and isinstance(holder, dict):
            holder[str(rng.choice(JUNK))[:20]] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(rng.choice(holder)))
        else:
            holder[key] = copy.deepcopy(rng.choice(JUNK))
    return data


def _spot(data, rng: random.Random):
    """A place in nested data, all of them equally likely: what holds it, and its key."""
    spots, todo = [], [data]
    while todo:
        holder = todo.pop()
        items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        spots += [(holder, key) for key, _ in items]
        todo += [value for _, value in items if isinstance(value, (dict, list))]
    return rng.choice(spots) if spots else (None, None)


def torn(text: str, rng: random.Random) -> str:
    """Text with a piece cut out, doubled, or written over by noise."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice([0, 1, 1, 5, 40]))
    noise = "".join(chr(rng.choice([0, 9, 10, 13, 34, 35, 39, 44, 46, 61, 91, 92, 93, 123, 125, 228, 0x1F600, rng.randrange(32, 127)])) for _ in range(rng.randrange(6)))
    return text[:start] + rng.choice(["", noise, text[start:end] * 2, "[" * 3000, '"""', "\n[[stage]]\n"]) + text[end:]


def toml(data) -> str:
    """Plain data as TOML: tables for the top level, inline ones below. What TOML can't say is left out."""
    lines = []
    for name, table in data.items():
        for entry in table if isinstance(table, list) and name == "stage" else [table]:
            if isinstance(entry, dict):
                lines.append(f"[[{_key(name)}]]" if isinstance(table, list) else f"[{_key(name)}]")
                lines += [f"{_key(k)} = {_value(v)}" for k, v in entry.items() if v is not None]
            elif entry is not None:
                lines.insert(0, f"{_key(name)} = {_value(entry)}")
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name).replace("\\ud800", "?").replace("\\u0000", "?")


def _value(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value if v is not None) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\\ud800", "\\u00e9")
    return str(value).lower() if isinstance(value, (bool, float)) else str(value)


def attempt(call):
    """What a call gives, or None where it raised an error of ours. Any other exception passes, and fails the test."""
    try:
        return call()
    except LimbeckError as error:
        assert str(error).strip()
        return None


def unchanged(folder: Path, call) -> None:
    before = {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()}
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    assert {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()} == before


def fresh(tmp: Path) -> Path:
    folder = tmp / "in" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (tmp / "in" / "outside").write_text("not to be touched")
    return folder


def run_files(rng: random.Random, tmp: Path) -> None:
    folder, text = fresh(tmp), toml(changed(RUN, rng))
    for _ in range(rng.choice([0, 0, 0, 1])):
        text = torn(text, rng)
    path = folder / "limbeck.toml"
    path.write_bytes(text.encode("utf-8", "replace") if rng.random() < 0.98 else rng.randbytes(60))

    def call() -> None:
        attempt(lambda: read_runfile(path))
        assert attempt(lambda: api.run(path)) is None, "there is no task beside it"

    unchanged(folder, call)


def summaries(rng: random.Random, tmp: Path) -> None:
    folder, data = fresh(tmp), changed(SUMMARY | {"verdict": rng.choice(["PASS", "FAIL", "REFUSED"])}, rng)
    text = sealed(data, allow_nan=True).decode("utf-8", "replace") if rng.random() < 0.3 and isinstance(data, dict) and "\\ud800" not in json.dumps(data) else json.dumps(data)
    (folder / "summary.json").write_bytes((torn(text, rng) if rng.random() < 0.3 else text).encode("utf-8", "replace"))
    (folder / "journal.jsonl").write_bytes(chained(EVENTS[:1]))
    unchanged(folder, lambda: shown(folder))


def shown(folder: Path) -> None:
    attempt(lambda: read_summary(folder))
    data = attempt(lambda: api.status(folder))
    if data is not None:
        render.run(data)


def chained(events) -> bytes:
    """Journal lines whose hashes follow, whatever they say."""
    previous, lines = FIRST, []
    for event in events:
        line = {"version": 1, "time": "2026-01-01T00:00:00.000+00:00", "previous": previous, **event} if isinstance(event, dict) else event
        lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))
        with contextlib.suppress(UnicodeEncodeError):
            previous = line_hash(line)
    return b"".join(raw + b"\n" for raw in lines)


def journals(rng: random.Random, tmp: Path) -> None:
    folder, raw = fresh(tmp), chained(changed(EVENTS, rng))
    if rng.random() < 0.2:
        raw = torn(raw.decode("utf-8", "replace"), rng).encode("utf-8", "replace")
    if rng.random() < 0.1 and raw:
        place = rng.randrange(len(raw))
        raw = raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]
    (folder / "journal.jsonl").write_bytes(raw)
    unchanged(folder, lambda: (attempt(lambda: read(folder / "journal.jsonl")), shown(folder)))


def blueprints(rng: random.Random, tmp: Path) -> None:
    data = changed(rng.choice([BLUEPRINT, BLUEPRINT, FAMILY]), rng)
    if data.get("base") and isinstance(data["base"], dict) and str(data["base"].get("factory")).startswith("task:"):
        data["base"]["kwargs"] = (
            {k: v for k, v in data["base"]["kwargs"].items() if v != 10**9} if isinstance(data["base"].get("kwargs"), dict) else {}
        )  # the user's own factory, at the user's own cost
    text = json.dumps(data)
    blueprint = attempt(lambda: Blueprint.from_json(torn(text, rng) if rng.random() < 0.1 else text))
    if blueprint is not None:
        model = attempt(lambda: build(blueprint, TASK))
        assert model is None or sum(t.numel() for t in model.state_dict().values()) < 2**24, "a damaged blueprint takes no gigabytes"


TARGETS = {f.__name__: f for f in (run_files, summaries, journals, blueprints)}


@pytest.fixture(autouse=True)
def _calm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a layer of width 0 has nothing to initialize, says torch
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_changed_is_taken(name, tmp_path):
    """The files from which the damaged ones are made are right by themselves."""
    folder = fresh(tmp_path)
    (folder / "limbeck.toml").write_text(toml(RUN))
    assert len(read_runfile(folder / "limbeck.toml").stage) == 3
    (folder / "journal.jsonl").write_bytes(chained(EVENTS))
    assert len(read(folder / "journal.jsonl")) == 4
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    assert api.status(folder)["run"] == "x"
    render.run(SUMMARY)
    for data in (BLUEPRINT, FAMILY):
        build(Blueprint.from_json(json.dumps(data)), TASK)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=75, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rng=st.randoms(use_true_random=False))
def test_damage_is_an_error_of_ours(name, rng, tmp_path):
    TARGETS[name](rng, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {"weight": [2**31]}}, "the edits ask for tensors of 2,147,483,648 numbers, more than 4,194,304"),
        ({"tensors": {"weight": [4000, 4000]}}, "the edits ask for tensors of 16,000,000 numbers"),
        ({"tensors": {"weight": [-1, 3]}}, r"tensor 'weight' of 'features.0' must have a list of sizes ≥ 0, got \[-1, 3\]"),
        ({"tensors": {"weight": 4}}, "must have a list of sizes ≥ 0, got 4"),
        ({"tensors": {"weight": [True]}}, "must have a list of sizes"),
        ({"tensors": {"wieght": [4]}}, "has no tensor 'wieght'"),
        ({"attributes": {"out_channels": "4"}}, r"attribute 'out_channels' of 'features.0' must be of the kind that it was \(int\), got 4"),
        ({"attributes": {"_parameters": 3}}, "has no attribute '_parameters'"),
        ({"attributes": {"training": False}}, "has no attribute 'training'"),
        ({"module": "features.9"}, "there is no module 'features.9'"),
        ({"edit": ["reshape"]}, "which this limbeck doesn't know"),
        ({"edit": "quantize", "port": "weight", "bits": 10**9, "axis": 0}, "must have 2 to 16 bits, got 1000000000"),
        ({"edit": "quantize", "port": "weight", "bits": 8, "axis": 9}, "is malformed: IndexError"),
    ],
)
def test_an_edit_that_was_damaged_is_told_and_takes_no_memory(change, message):
    edit = {"edit": "reshape", "module": "features.0", "attributes": {}, "tensors": {}} | change
    with pytest.raises(ReplayError, match=message):
        build(Blueprint("task:small", {}, (edit,)), TASK)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 10**6}, "would have 90,000,049,000,006 numbers, more than 268,435,456"),
        ({"depth": 10**9}, "convnet.depth must be at most 1,000, got 1000000000"),
        ({"widht": 8}, "can't be built from channels = 1, classes = 3, widht = 8: .*unexpected keyword argument 'widht'"),
    ],
)
def test_a_family_of_absurd_size_is_told_and_takes_no_memory(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        build(Blueprint("limbeck:convnet", {"channels": 1, "classes": 3} | kwargs), TASK)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", TARGETS)
def test_ten_thousand_files(name, part, tmp_path):
    for seed in range(part * 625, (part + 1) * 625):
        try:
            TARGETS[name](random.Random(f"{name} {seed}"), tmp_path)
        except Exception as error:
            raise AssertionError(f"{name}(random.Random('{name} {seed}'), folder) raised {error!r}") from error
