"""The model of this package, with numpy and its runtime and nothing else.

    python predict.py INPUT.npz [-o OUT.npz]     answers for arrays named as the model's inputs, samples along axis 0
    python predict.py --self-test                every file against its hash, then the golden answers; exit 0, or 3 if anything doesn't hold
    python predict.py --measure [--out FILE]     latency and memory on this machine, as evidence for `limbeck evidence import`

or, from Python: `from predict import Model; Model().predict(**inputs)`.
"""
# It runs on devices, also under an older Python than limbeck's: no zip(strict=…), no datetime.UTC, no itertools.pairwise.
# ruff: noqa: B905, UP017, RUF007

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
CODES = {"bad": 2, "fails": 3}
WARM_UP, BLOCK, MIN_BLOCKS, MOST_BLOCKS = 3, 5, 20, 1000
DISTURBED, PAUSE_MS, PAUSE_TIMES = 0.05, 250.0, 20
PROC = Path("/proc/self")


class Problem(Exception):
    """What the caller can mend, and the exit code that it ends with."""

    def __init__(self, message, code="bad"):
        super().__init__(message)
        self.code = CODES[code]


def manifest():
    """The manifest, if its content has the hash that it carries."""
    try:
        raw = (FOLDER / "manifest.json").read_bytes()
        data = json.loads(raw)
        body = {k: v for k, v in data.items() if k != "sha256"}
        whole = data["sha256"] == hashlib.sha256(_spelled(body)).hexdigest() and _spelled(data) == raw
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Problem(f"manifest.json can't be read: {error}", "fails") from error
    if not whole:
        raise Problem("manifest.json was changed: its content doesn't have its hash", "fails")
    return data


def _spelled(data):
    return json.dumps(data, indent=1, ensure_ascii=False).encode(errors="replace")


def changed(about, names=None):
    """Files (all, or these) whose bytes don't have their hash, with what is wrong."""
    wrong = {}
    for name, entry in about["files"].items():
        if names is not None and name not in names:
            continue
        path = FOLDER / name
        if not path.is_file():
            wrong[name] = "is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            wrong[name] = "its bytes don't have their hash"
    return wrong


class Model:
    """The model, loaded after its bytes were checked. part: "artifact", or "baseline" where the package has it."""

    def __init__(self, threads=None, part="artifact"):
        self.about = manifest()
        self.threads = threads or self.about["target"]["threads"]
        path = self.about[part]["path"]
        wrong = changed(self.about, [n for n in self.about["files"] if n == path or n.startswith(path + "/")])
        if wrong:
            raise Problem("; ".join(f"{n} {w}" for n, w in wrong.items()), "fails")
        load = {"onnxruntime": _onnxruntime, "torch": _torch}[self.about["runtime"]]
        self._run, self.version = load(FOLDER / path, self.threads, self.about)

    def predict(self, **inputs) -> dict[str, Any]:
        """The outputs by name, for arrays by the names of the model's inputs; samples along axis 0."""
        return self._run(self._fed(inputs))

    def _fed(self, inputs):
        wanted = {p["name"]: p for p in self.about["inputs"]}
        if inputs.keys() != wanted.keys():
            raise Problem(f"the model takes {', '.join(wanted)}; got {', '.join(inputs) or 'nothing'}")
        fed = {}
        for name, port in wanted.items():
            value, dtype = np.ascontiguousarray(inputs[name]), np.dtype(port["dtype"])
            if value.dtype.kind not in {"i": "iu", "u": "iu"}.get(dtype.kind, dtype.kind):
                raise Problem(f"input '{name}' must be {dtype}, got {value.dtype}")
            cast = value.astype(dtype, copy=False)
            if cast is not value and dtype.kind in "iu" and not np.array_equal(cast, value):
                raise Problem(f"input '{name}' must be {dtype}: some of its {value.dtype} don't fit")
            free = [None if s is None else int(s) for s in port["shape"]]
            if value.ndim != len(free) or any(want not in (None, got) for want, got in zip(free, value.shape)):
                raise Problem(f"input '{name}' must have the shape {['any' if s is None else s for s in free]}, got {list(value.shape)}")
            fed[name] = cast
        return fed


def _onnxruntime(path, threads, about) -> tuple[Any, str]:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise Problem(f"the runtime can't be imported: {error}. Install it: pip install onnxruntime") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    file = path if path.is_file() else next(iter(sorted(path.glob("*.onnx"))))
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed))), ort.__version__


def _torch(path, threads, about) -> tuple[Any, str]:
    try:
        import torch
        import torch.ao.quantization.fx._decomposed  # declares operators that a quantized program may hold
        from torch.utils._pytree import tree_leaves
    except ImportError as error:
        raise Problem(f"the runtime can't be imported: {error}. Install it: pip install torch") from error
    torch.set_num_threads(threads)
    file = path if path.is_file() else next(iter(sorted(path.glob("*.pt2"))))
    names = {"limbeck.json": ""}
    module = torch.export.load(file, extra_files=names).module(check_guards=False)
    kept = json.loads(names["limbeck.json"] or "{}")
    inputs, outputs = kept.get("inputs") or [p["name"] for p in about["inputs"]], kept.get("outputs") or about["outputs"]

    def run(feed):
        with torch.inference_mode():
            found = tree_leaves(module(*(torch.from_numpy(feed[n]) for n in inputs)))
        return {n: t.numpy() for n, t in zip(outputs, found)}

    return run, torch.__version__


def golden(side):
    """The golden inputs or outputs: one dict of arrays a sample."""
    with np.load(FOLDER / "golden" / f"{side}.npz", allow_pickle=False) as file:
        found = {}
        for key in file.files:
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = file[key]
    return [found[i] for i in sorted(found)]


def compared(model):
    """The golden answers against this machine's: (samples, largest relative difference, what is beyond its tolerance)."""
    known, got = golden("outputs"), [model.predict(**feed) for feed in golden("inputs")]
    worst, beyond = 0.0, []
    for name, limits in model.about["golden"]["tolerances"].items():
        a, b = ([np.ravel(s[name]).astype(np.float64) for s in side] for side in (known, got))
        if [v.size for v in a] != [v.size for v in b]:
            beyond.append(f"output '{name}' has another shape")
            continue
        old, new = np.concatenate(a), np.concatenate(b)
        same = (old == new) | (np.isnan(old) & np.isnan(new))
        if "equal" in limits:
            if same.mean() < limits["equal"]:
                beyond.append(f"output '{name}': {same.mean():.1%} of its whole numbers are the known ones")
            continue
        scale = np.abs(old[np.isfinite(old)]).max(initial=0.0)
        gap = 0.0 if same.all() else float(np.abs(old[~same] - new[~same]).max())
        far = gap if gap == 0.0 else gap / scale if scale and np.isfinite(gap) else float("inf")
        worst = max(worst, far)
        if not far <= limits["max_rel"]:
            beyond.append(f"output '{name}' differs by {far:.3g} of its largest magnitude, at most {limits['max_rel']:.3g} is allowed")
    return len(known), worst, beyond


def self_test():
    """Hashes, then golden answers. Returns 0, or 3 if anything doesn't hold."""
    about = manifest()
    wrong = changed(about)
    listed = {*about["files"], "manifest.json"}
    extra = sorted(n for n in (p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file()) if n not in listed)
    for name, what in wrong.items():
        say(f"FAIL {name}: {what}")
    if not wrong:
        say(f"ok   {len(listed)} files have their hashes")
    for name in extra:
        say(f"note {name} is not part of the package; nothing vouches for it")
    say("note not checked: who made the package (hashes find damage, and are no signature)")
    if wrong:
        say("note not checked: the golden answers; a changed package is not loaded")
        return 3
    if about["golden"] is None:
        say("note not checked: golden answers; the package has none")
        return 0
    try:
        model = Model()
    except Problem as error:
        if error.code == 3:
            raise
        say(f"note not checked: golden answers; {error}")
        return 0
    samples, worst, beyond = compared(model)
    for line in beyond:
        say(f"FAIL golden: {line}")
    if beyond:
        say(f"note {about['golden']['why']}")
        return 3
    say(f"ok   {samples} golden answers" + (", bit for bit" if worst == 0.0 else f", at most {worst:.2g} of the largest output away") + f" ({about['runtime']} {model.version})")
    return 0


def timed_feed(about):
    """The inputs of one timed inference: golden samples up to the target's batch, else random numbers of the declared shapes."""
    batch, random = about["target"]["batch"], np.random.default_rng(0)
    if about["golden"]:
        samples = golden("inputs")
        same = all(v.shape[1:] == samples[0][n].shape[1:] for s in samples for n, v in s.items())
        return {n: np.concatenate([(samples[i % len(samples)] if same else samples[0])[n] for i in range(batch)]) for n in samples[0]}
    feed = {}
    for port in about["inputs"]:
        shape = [s or (batch if axis == 0 else 16) for axis, s in enumerate(port["shape"])]
        floats = np.dtype(port["dtype"]).kind == "f"
        feed[port["name"]] = (random.standard_normal(shape) if floats else random.integers(0, 2, shape)).astype(port["dtype"])
    return feed


def measure(out, seconds):
    """Write evidence: latency in turn with the baseline where the package has it, peak memory, each in a fresh process."""
    about = manifest()
    if self_test() != 0:
        raise Problem("nothing was measured: the package doesn't hold", "fails")
    samples, worst, beyond = compared(Model()) if about["golden"] else (0, None, [])
    parts = ["artifact", *(["baseline"] if about["baseline"] else [])]
    taken = child({"do": "latency", "parts": parts, "seconds": seconds})
    if any(taken["disturbed"]):  # once more, and the calmer of the two is kept
        taken = min((taken, child({"do": "latency", "parts": parts, "seconds": seconds})), key=lambda t: (sum(t["disturbed"]), sum(t["waited"])))
    memory = {p: child({"do": "memory", "parts": [p]})["bytes"] for p in parts}
    body = {
        "schema": 1,
        "kind": "limbeck-evidence",
        "artifact": about["artifact"]["sha256"],
        "baseline": about["baseline"]["sha256"] if about["baseline"] else None,
        "runtime": {"name": about["runtime"], "version": taken["version"]},
        "threads": about["target"]["threads"],
        "batch": about["target"]["batch"],
        "seconds": seconds,
        "latency_ms": {p: {"blocks": taken["blocks"][i], "waited": taken["waited"][i], "disturbed": taken["disturbed"][i]} for i, p in enumerate(parts)},
        "peak_memory_bytes": memory,
        "peak_memory_method": "VmHWM" if (PROC / "clear_refs").exists() else "ru_maxrss",
        "golden": {"samples": samples, "max_rel": worst, "holds": not beyond} if samples else None,
        "machine": machine(),
        "versions": {"numpy": np.__version__, "python": platform.python_version(), about["runtime"]: taken["version"]},
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = _spelled({**body, "sha256": hashlib.sha256(_spelled(body)).hexdigest()})
    path = Path(out).absolute()
    if FOLDER in path.resolve().parents:
        path = FOLDER.parent / path.name  # the package stays as it is
    path.write_bytes(text)
    for i, part in enumerate(parts):
        flat = [s for block in taken["blocks"][i] for s in block]
        quiet = "" if not taken["disturbed"][i] else "; other work on this machine is in the figures: measure again"
        say(f"{part:<9} p50 {np.quantile(flat, 0.5):.3f} ms, p90 {np.quantile(flat, 0.9):.3f} ms of {len(flat)}, memory {memory[part] / 1e6:.2f} MB{quiet}")
    if "baseline" not in parts:
        say("no baseline in this package: a limit on speedup stays UNVERIFIED (limbeck package --with-baseline)")
    say(f"written to {path}; bring it back with: limbeck evidence import RUN {path.name}")
    return 0


def child(request):
    """One measurement in a fresh process, so that nothing but the runtime is in its figures."""
    threads = str(manifest()["target"]["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    flags = [*(["-S"] if sys.flags.no_site else []), *(["-I"] if sys.flags.isolated else [])]
    done = subprocess.run([sys.executable, *flags, __file__, "--child", json.dumps(request)], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Problem(f"measuring {request['do']} ended with {done.returncode}: {last}", "fails")
    return json.loads(done.stdout.splitlines()[-1])


def latency(request):
    """All loaded and warmed up, then in turn: each turn is one inference that isn't counted and a block that is."""
    models = [Model(part=p) for p in request["parts"]]
    feeds = [timed_feed(models[0].about)] * len(models)
    for model, feed in zip(models, feeds):
        for _ in range(WARM_UP):
            model.predict(**feed)
    gc.collect()
    gc.disable()
    blocks, lost, spent = [[] for _ in models], [0] * len(models), [0] * len(models)
    start = time.perf_counter()
    while len(blocks[0]) < MIN_BLOCKS or (len(blocks[0]) < MOST_BLOCKS and time.perf_counter() - start < request["seconds"] * len(models)):
        for i, model in enumerate(models):
            waited, turn = waiting_ns(models[0].threads), time.perf_counter_ns()
            model.predict(**feeds[i])
            marks = [time.perf_counter_ns()]
            for _ in range(BLOCK):
                model.predict(**feeds[i])
                marks.append(time.perf_counter_ns())
            lost[i] += max(0, waiting_ns(models[0].threads) - waited)
            spent[i] += marks[-1] - turn
            blocks[i].append([(b - a) / 1e6 for a, b in zip(marks, marks[1:])])
    waited = [a / b for a, b in zip(lost, spent)]
    flat = [[s for block in one for s in block] for one in blocks]
    paused = [max(f) > max(PAUSE_MS, PAUSE_TIMES * float(np.median(f))) for f in flat]
    return {"blocks": blocks, "waited": waited, "disturbed": [w > DISTURBED or p for w, p in zip(waited, paused)], "version": models[0].version}


def waiting_ns(threads):
    """Nanoseconds that this process was ready to run and another had the CPU; elsewhere than on Linux wall time without CPU time."""
    total, tasks = 0, PROC / "task"
    if not (PROC / "schedstat").exists():
        return time.perf_counter_ns() - time.process_time_ns() if threads == 1 else 0
    for task in os.listdir(tasks):
        try:
            total += int((tasks / task / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # a thread that ended
    return total


def memory(request):
    """By how much loading and running the artifact raises the peak above an empty session of the runtime."""
    about = manifest()
    feed = timed_feed(about)
    load = {"onnxruntime": _onnxruntime, "torch": _torch}[about["runtime"]]
    if changed(about, [about["empty"]["path"]]):
        raise Problem(f"{about['empty']['path']} doesn't have its hash", "fails")
    empty, _ = load(FOLDER / about["empty"]["path"], about["target"]["threads"], {**about, "inputs": [{"name": "x"}], "outputs": ["y"]})
    empty({"x": np.zeros(1, np.float32)})
    gc.collect()
    before = peak(reset=True)
    model = Model(part=request["parts"][0])
    for _ in range(10):
        model.predict(**feed)
    return {"bytes": max(0, peak() - before)}


def peak(reset=False):
    """The peak of resident bytes; set back first where the system can."""
    try:
        if reset:
            (PROC / "clear_refs").write_text("5")
        return int(next(line for line in (PROC / "status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return top if sys.platform == "darwin" else top * 1024


def machine():
    """Processor with what speeds up int8, cores, system."""
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line) if info.exists() else {}
    found = {k.strip(): v.strip() for k, v in lines.items()}
    name = " ".join(found[k] for k in ("cpu family", "model", "model name", "stepping") if k in found) or platform.processor() or platform.machine()
    fast = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm") if f in (found.get("flags") or found.get("Features") or "").split()]
    return {"processor": name, "features": fast, "cores": os.cpu_count() or 1, "system": platform.platform(terse=True)}


def answer(path, out):
    """Outputs for the arrays of an .npz: into `out`, or as JSON."""
    try:
        with np.load(path, allow_pickle=False) as file:
            inputs = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise Problem(f"{path} is no .npz of arrays: {error}. Write it with numpy.savez(path, name=array)") from error
    found = Model().predict(**inputs)
    if out:
        np.savez(out, allow_pickle=False, **found)
        say(f"written to {out}: " + ", ".join(f"{n} {list(v.shape)}" for n, v in found.items()))
    else:
        say(json.dumps({n: v.tolist() for n, v in found.items()}))
    return 0


def say(text):
    sys.stdout.write(text + "\n")


def main():
    parser = argparse.ArgumentParser(description="The model of this package. It needs numpy and its runtime.")
    parser.add_argument("input", nargs="?", help="an .npz of arrays named as the model's inputs, samples along axis 0")
    parser.add_argument("-o", "--output", help="the .npz to write; without it, JSON is printed")
    parser.add_argument("--self-test", action="store_true", help="check every hash and the golden answers; exit 3 if anything doesn't hold")
    parser.add_argument("--measure", action="store_true", help="measure latency and memory here, as evidence for `limbeck evidence import`")
    parser.add_argument("--out", default="evidence.json", help="where --measure writes its evidence")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each model is timed, at least")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.child:
            request = json.loads(given.child)
            say(json.dumps({"latency": latency, "memory": memory}[request["do"]](request)))
            return 0
        if given.self_test:
            return self_test()
        if given.measure:
            return measure(given.out, given.seconds)
        if given.input is None:
            parser.error("name an INPUT.npz, or --self-test, or --measure")
        return answer(given.input, given.output)
    except Problem as error:
        sys.stderr.write(f"{error}\n")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
