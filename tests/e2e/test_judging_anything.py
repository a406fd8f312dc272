"""`evaluate` and `compare` of anything: modules, tasks, runs and their stages, packages, and ONNX files that we didn't make."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from judging import data, said  # noqa: F401 - a fixture
from project import limbeck as command_line
from project import write_project
from torch import nn
from torch.utils.data import TensorDataset

import limbeck
from foreign_onnx import LENGTH, bytes_model, linear, picky, voice
from limbeck import api
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ArtifactError, ConfigError, TaskError
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.pipeline import judging
from limbeck.testing import SmallNet, small_task

NONE = Proof(studies="none")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Timed for a moment, where a test doesn't say how long."""
    judge = judging.judge
    monkeypatch.setattr(judging, "judge", lambda *args, seconds, **options: judge(*args, seconds=0.05 if seconds == 2 else seconds, **options))


# ---- modules ----


def test_a_module_is_judged_as_the_artifact_that_it_exports_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = small_task()
    torch.manual_seed(0)
    module = SmallNet(8).train()
    module.head.eval()
    (one,) = limbeck.evaluate(module, task=task, split="validation", proof=NONE)["subjects"]
    assert (one["kind"], one["name"], one["parameters"]) == ("module", "SmallNet", sum(p.numel() for p in module.parameters()))
    assert one["metric"]["value"] is not None and one["latency_ms"]["p50"] > 0 and one["size_bytes"] > 4 * one["parameters"] * 0.9
    assert module.training and not module.head.training and module.features.training, "the user's module is left as it was"
    found = limbeck.compare(module, SmallNet(16), task=task, split="validation", proof=NONE)
    assert [s["kind"] for s in found["subjects"]] == ["module", "module"] and found["subjects"][1]["ratios"]["size"] < 1
    assert found["subjects"][1]["retention"]["samples"] == 96 and found["verdict"] is not None


def test_a_module_beside_a_file_and_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = small_task()
    teacher = SmallNet()
    teacher.load_state_dict(dict(task.weights["teacher"]))
    file = limbeck.runtimes.export("onnxruntime", example_of(task, teacher), tmp_path / "file").path
    same = limbeck.compare(teacher, str(file), task=task, split="validation", proof=NONE)
    assert same["subjects"][1]["agreement"]["max_abs"] < 1e-5 and same["subjects"][1]["behaviour"]["flips"]["lost"] == 0
    assert same["subjects"][0]["size_bytes"] == same["subjects"][1]["size_bytes"]
    against = limbeck.compare(task, teacher, split="validation", proof=NONE)
    assert [s["kind"] for s in against["subjects"]] == ["task", "module"] and against["subjects"][1]["retention"]["value"] == 1


def example_of(task, module):
    from limbeck.mechanics.data import example

    return example(task, module)


class Two(nn.Module):
    """A tensor and a dict in, a tuple out."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 3), scale
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x, extra):
        return self.layer(x) * self.scale, {"sum": extra["a"].sum() + x.sum()}


def test_a_module_without_a_task_takes_the_inputs_that_it_is_called_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = (torch.ones(2, 6), {"a": np.ones(3, np.float32)})
    data = limbeck.evaluate(Two(), inputs=inputs, proof=NONE)
    (one,) = data["subjects"]
    assert one["kind"] == "module" and one["metric"]["value"] is None and one["parameters"] == 21 and data["split"] is None
    assert [(a["name"], a["shape"]) for a in data["inputs"]["arrays"]] == [("0", [2, 6]), ("1_a", [3])] and data["inputs"]["source"] == "given"
    two = limbeck.compare(Two(), Two(1.5), inputs=inputs, proof=NONE)["subjects"][1]["agreement"]
    assert [o["name"] for o in two["outputs"]] == ["output_0", "output_1_sum"]
    assert two["outputs"][0]["max_rel"] == pytest.approx(0.5, abs=0.01) and two["outputs"][1]["max_abs"] == 0
    by_name = limbeck.evaluate(Two(), inputs={"x": torch.ones(1, 6), "extra": {"a": torch.ones(2)}}, proof=NONE)
    assert [a["name"] for a in by_name["inputs"]["arrays"]] == ["x", "extra_a"]
    with pytest.raises(TaskError, match="Two is a module, and to export it its inputs must be known. Give task=…, or inputs=…"):
        limbeck.evaluate(Two())
    with pytest.raises(TaskError, match="the module returned str, in which there is no tensor"):
        limbeck.evaluate(Says(), inputs=torch.ones(1))


class Says(nn.Module):
    def forward(self, x):
        return "nothing"


LOUD = """
import dataclasses, os, sys
from limbeck.testing import SmallNet, small_task

print("a task that talks")
os.system("echo and so does a process of it")

class Loud(SmallNet):
    def forward(self, x):
        print("forward")
        return super().forward(x)

class Leaves(SmallNet):
    def forward(self, x):
        sys.exit(0)

task = dataclasses.replace(small_task(), models={"teacher": Loud})
leaves = dataclasses.replace(small_task(), models={"teacher": Leaves})
"""


def test_what_a_task_prints_is_not_in_the_answer(tmp_path):
    (tmp_path / "task.py").write_text(LOUD)
    done = command_line("evaluate", "task.py:task", "--split", "validation", "--studies", "none", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["subjects"][0]["metric"]["value"] is not None
    for line in ("a task that talks", "and so does a process of it", "forward"):
        assert line in done.stderr.splitlines()


def test_a_task_that_exits_is_no_pass(tmp_path):
    (tmp_path / "task.py").write_text(LOUD)
    done = command_line("evaluate", "task.py:leaves", "--split", "validation", "--studies", "none", cwd=tmp_path)
    assert done.returncode == 2 and "`sys.exit(0)` raised SystemExit: 0. Mend it there" in done.stderr


# ---- runs and packages ----


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    plan = '[[stage]]\ntechnique = "quantize"\nconfig = { samples = 64 }\ngate = { pays = "bytes", shrink = 1.05, retention = 0.3 }\n'
    folder = write_project(tmp_path_factory.mktemp("project"), plan=plan, run="control = false")
    done = command_line("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert command_line("package", "runs/run", cwd=folder).returncode == 0
    return folder


def test_runs_their_stages_and_packages_are_subjects(project, monkeypatch):
    monkeypatch.chdir(project)
    both = lambda a, b, **more: limbeck.compare(a, b, proof=NONE, **more)["subjects"]  # noqa: E731
    first, final = both("runs/run@baseline", "runs/run", task="task.py:task", split="validation")
    summary = json.loads(Path("runs/run/summary.json").read_text())
    assert (first["size_bytes"], final["size_bytes"]) == (summary["baseline"]["size_bytes"], summary["final"]["size_bytes"])
    assert first["parameters"] == summary["baseline"]["parameters"] and final["kernels"]["int8"] > 0 and final["retention"]["samples"] == 96
    for other, kind in (("runs/run@quantize", "run"), ("packages/run", "package"), ("packages/run.zip", "package")):
        _, b = both("runs/run", other)
        assert (b["kind"], b["name"], b["size_bytes"]) == (kind, other, final["size_bytes"]) and b["agreement"]["max_abs"] == 0
    assert sorted(p.name for p in project.iterdir() if p.name != "__pycache__") == ["limbeck.toml", "packages", "runs", "task.py"], "nothing is left behind"


def test_what_no_stage_is_called_and_a_package_that_was_changed(project, monkeypatch):
    from limbeck.core.errors import LimbeckError

    monkeypatch.chdir(project)
    with pytest.raises(LimbeckError, match="no candidate of stage 'prune'"):
        limbeck.evaluate("runs/run@prune", proof=NONE)
    with pytest.raises(LimbeckError, match="there is no artifact runs/nothing"):
        limbeck.evaluate("runs/nothing@final", proof=NONE)
    raw = bytearray(Path("packages/run.zip").read_bytes())
    raw[len(raw) // 2] ^= 1
    Path("changed.zip").write_bytes(raw)
    with pytest.raises(LimbeckError, match=r"changed\.zip: .*A package that doesn't hold is not loaded"):
        limbeck.evaluate("changed.zip", proof=NONE)
    Path("changed.zip").unlink()


# ---- how long ----


def test_timing_takes_as_long_as_is_asked(tmp_path, said):  # noqa: F811
    """A reason to time for longer has a way to do so."""
    wide = linear(tmp_path, features=4096)
    counts = []
    for seconds in ("0.02", "1"):
        found = data(said("compare", str(wide), str(wide), "--limit", "latency_p90_ms=1000", "--timing-seconds", seconds, "--json"))
        reason = found["subjects"][1]["verdicts"][-1]["reason"]
        counts.append(int(re.search(r"of ([\d,]+) inferences", reason)[1].replace(",", "")))
    assert 5 * 20 <= counts[0] < counts[1] <= 5 * 1000
    with pytest.raises(ConfigError, match=r"timing_seconds must be in \(0, 600\], got 0"):
        limbeck.evaluate(wide, timing_seconds=0)


# ---- files of third parties ----


def test_a_file_with_nested_ifs_a_state_and_a_scalar_is_measured(tmp_path, said):  # noqa: F811
    voice(tmp_path)
    answer = said("evaluate", "voice.onnx", "--json")
    found = data(answer)
    (one,) = found["subjects"]
    assert answer[0] == 0 and found["verdict"] is None and found["inputs"]["source"] == "random"
    assert [(a["shape"], a.get("value")) for a in found["inputs"]["arrays"]] == [([1, 512], None), ([2, 1, 4], None), ([], 16000)]
    assert one["latency_ms"]["p50"] > 0 and one["peak_memory_bytes"] > 0
    assert one["kernels"]["operators"]["If"] == 2 and one["kernels"]["float"] == 2, "both branches' convolutions"
    assert one["kernels"]["initializer_bytes"] >= 4 * 4 * (LENGTH + LENGTH // 2), "weights in inner graphs count"


def test_two_such_files_agree_though_names_and_order_differ(tmp_path, said):  # noqa: F811
    voice(tmp_path, "a.onnx")
    voice(tmp_path, "b.onnx", outputs=("speech", "memory"), order=("sr", "state", "x"))
    code, out, _ = said("compare", "a.onnx", "b.onnx")
    assert code == 4 and "UNVERIFIED" in out.splitlines()[0] and "on 16 random inputs outputs differ by 0 at most" in out and "sr = 16000" in out
    found = data(said("compare", "a.onnx", "b.onnx", "--json"))["subjects"][1]["agreement"]
    assert [(o["name"], o["other"]) for o in found["outputs"]] == [("output", "speech"), ("stateN", "memory")]


def test_weights_in_another_file_are_counted_and_looked_into(tmp_path):
    """As torch's exporter writes them: a small graph, and its weights beside it. Limits on bytes speak of both."""
    whole = linear(tmp_path, features=512)
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(whole), apart, save_as_external_data=True, location="apart.onnx.data", size_threshold=0)
    assert apart.stat().st_size < whole.stat().st_size / 4
    found = limbeck.compare(whole, apart, contract=Contract(size_ratio=1.2, download_bytes=1000), proof=Proof(studies="saturation,memory"))
    one = found["subjects"][1]
    assert one["size_bytes"] == sum((tmp_path / name).stat().st_size for name in ("apart.onnx", "apart.onnx.data")) and one["agreement"]["max_abs"] == 0
    assert [(v["gate"], v["status"]) for v in one["verdicts"]] == [("size_ratio", "FAIL"), ("download_bytes", "FAIL")]
    assert one["kernels"]["initializer_bytes"] >= 4 * 4 * 512 and not [name for name, study in one["studies"].items() if "missing" in study]
    assert api.analyze(apart, seconds=0.1)["totals"]["artifact_bytes"] == one["size_bytes"]


def test_a_file_of_a_fixed_batch_is_not_counted_as_another(tmp_path):
    """Four at once, asked for eight: samples a second and "at batch 8" would be twice what they are. Said to be of one: told."""
    model = onnx.load(linear(tmp_path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    four = tmp_path / "four.onnx"
    onnx.save(model, four)
    with pytest.raises(ArtifactError, match=r"the batch is 8, and no random input has that many along its first axis \(but 4\)\. Set --batch"):
        limbeck.evaluate(four, target=Target(batch=8), contract=Contract(samples_per_second=1), proof=NONE)
    with pytest.raises(ArtifactError, match="the batch is 8, and no given input has that many"):
        limbeck.evaluate(four, target=Target(batch=8), inputs={"x": np.zeros((4, 64), np.float32)}, proof=NONE)
    one, as_four = (limbeck.evaluate(four, target=Target(batch=batch), proof=NONE)["subjects"][0]["notes"] for batch in (1, 4))
    assert one == ["timed on 4 along the first axis, counted as one sample; if that is the batch, say so: --batch 4"] and as_four == []
    rows = TensorDataset(torch.zeros(8, 64), torch.zeros(8, dtype=torch.long))
    task = Task(name="rows", metric=accuracy(), splits={"test": rows})
    with pytest.raises(ArtifactError, match=r"four\.onnx takes 4 samples at once, and the batch is 1\. Set --batch"):
        limbeck.evaluate(four, task=task, proof=NONE, root=tmp_path)


def test_inputs_are_given_where_random_ones_dont_run(tmp_path, said):  # noqa: F811
    picky(tmp_path)
    code, _, error = said("evaluate", "picky.onnx")
    assert code == 2 and "none of 10 random inputs runs through picky.onnx, which take signal float32[1, any]" in error and "--inputs FILE.npz" in error
    np.savez(tmp_path / "x.npz", signal=np.ones((1, 97), np.float32))
    np.savez(tmp_path / "short.npz", signal=np.ones((1, 96), np.float32))
    code, out, _ = said("evaluate", "picky.onnx", "--inputs", "x.npz")
    assert code == 0 and "inputs: signal float32[1, 97]" in out and "given" in out
    code, _, error = said("evaluate", "picky.onnx", "--inputs", "short.npz")
    assert code == 2 and error.startswith("ArtifactError: picky.onnx") and "ONNX Runtime failed" in error
    code, _, error = said("evaluate", "picky.onnx", "--inputs", "none.npz")
    assert code == 2 and "there is no file of inputs none.npz" in error


def test_whole_numbers_and_a_limit(tmp_path, said):  # noqa: F811
    size = bytes_model(tmp_path).stat().st_size
    code, out, _ = said("evaluate", "bytes.onnx", "--limit", f"size_bytes={size}")
    assert code == 0 and out.startswith("PASS bytes.onnx")
    code, out, _ = said("evaluate", "bytes.onnx", "--limit", f"size_bytes={size - 1}")
    assert code == 3 and out.startswith("FAIL bytes.onnx")


def packaged(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} isn't installed; it brings ONNX models of a third party")
    return sorted(Path(spec.submodule_search_locations[0]).rglob("*.onnx"))


@pytest.mark.parametrize("name", ["magika", pytest.param("silero_vad", marks=pytest.mark.slow)])
def test_third_parties_files_are_measured(name, said):  # noqa: F811
    for file in packaged(name):
        found = data(said("evaluate", str(file), "--json"))["subjects"][0]
        assert found["size_bytes"] == file.stat().st_size and found["latency_ms"]["p50"] > 0 and found["peak_memory_bytes"] > 0
        assert found["kernels"]["float"] > 0 and found["kernels"]["initializer_bytes"] > 0.75 * found["size_bytes"]


def test_silero_in_two_spellings_agrees(said):  # noqa: F811
    files = {p.name: str(p) for p in packaged("silero_vad")}
    if not files.keys() >= {"silero_vad.onnx", "silero_vad_op18_ifless.onnx"}:
        pytest.skip("this version of silero_vad brings other files")
    found = data(said("compare", files["silero_vad.onnx"], files["silero_vad_op18_ifless.onnx"], "--json"))
    assert found["subjects"][1]["agreement"]["max_rel"] < 1e-4 and found["inputs"]["arrays"][2] == {"name": "sr", "dtype": "int64", "shape": [], "value": 16000}
