"""Every wrong input in one table: what is wrong, and what the command line says to it. No traceback, nothing written, nothing run."""

import io
import pickle
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from limbeck import runtimes
from limbeck.cli.main import app
from limbeck.pipeline.journal import Journal
from limbeck.runtimes.onnxruntime import ONNXRUNTIME

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from limbeck import Task, accuracy

def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 6, generator=generator), torch.arange(count) % 3

class Net(nn.Module):
    def __init__(self, width=1024):
        super().__init__()
        self.up, self.down = nn.Linear(6, width), nn.Linear(width, 3)
    def forward(self, x):
        return self.down(self.up(x).relu())

parts = {name: data(count, seed) for seed, (name, count) in enumerate({"train": 60, "validation": 200, "test": 200}.items())}
torch.manual_seed(0)
weights = Net().state_dict()
options = {}
# HERE
splits = globals().get("splits") or {name: TensorDataset(*part) for name, part in parts.items()}
task = Task(name="rows", models={"teacher": Net, "small": Net}, weights={"teacher": weights}, splits=splits, metric=accuracy(), **options)
"""
RUN = """[task]
entry = "task.py:task"

[contract]
CONTRACT

[run]
timing_seconds = 0.1
"""
QUANTIZE = '\n[[stage]]\ntechnique = "quantize"\n'


def run_file(contract: str = "size_ratio = 2", *, more: str = QUANTIZE) -> str:
    return RUN.replace("CONTRACT", contract) + more


def stage(text: str) -> str:
    return run_file(more=f"\n[[stage]]\n{text}\n")


@dataclass(frozen=True)
class Case:
    """A wrong input: where it is wrong, and what must be said (each part of it), with the kind of error."""

    id: str
    says: tuple[str, ...]
    kind: str = "ConfigError"
    task: str = ""
    run: str = field(default_factory=run_file)
    words: tuple[str, ...] = ("run",)
    code: int = 2
    ran: bool = False  # the run folder is there already: only the work itself could tell
    files: tuple[tuple[str, bytes], ...] = ()


def contract(id: str, text: str, *says: str) -> Case:
    return Case(id, says, run=run_file(text))


def toml(id: str, text: str, *says: str) -> Case:
    return Case(id, says, run=text)


def task(id: str, lines: str, *says: str, **more) -> Case:
    return Case(id, says, kind="TaskError", task=lines, **more)


RUN_FILE = [
    Case("missing run file", ("nowhere.toml can't be read: No such file", "Name one that exists"), words=("run", "nowhere.toml")),
    toml("not TOML", "[task\n", "limbeck.toml is not TOML:", "line 1, column 6", "Mend that place."),
    toml("nested past any use", f"x = {'[' * 5000}", "limbeck.toml is not TOML: its lists or tables are nested too deep"),
    toml("unknown table", run_file() + "[contrat]\nretention = 0.9\n", "limbeck.toml:12:1: contrat is not an option", "Did you mean 'contract'?"),
    toml("unknown key", run_file("retenton = 0.9"), "limbeck.toml:5:1: contract.retenton is not an option, got 0.9. Did you mean 'retention'"),
    toml("missing table", '[task]\nentry = "task.py:task"\n', "limbeck.toml: contract is missing; it is table: the limits. Add it."),
    toml("missing key", stage('name = "x"'), "limbeck.toml:10:1: stage[0].technique is missing", "name of the technique", "Add it."),
    toml("wrong type", run_file("retention = true"), "limbeck.toml:5:1: contract.retention must be a number, got True", "for 97 % write 0.97"),
    toml(
        "wrong type in an inline table",
        stage('technique = "prune"\nrecovery = { training = { epochs = "5" } }'),
        "limbeck.toml:12:27: stage[0].recovery.training.epochs must be a whole number, got '5'",
    ),
    toml(
        "a date", stage('technique = "prune"\nconfig = { ratio = 2020-01-01 }'), "limbeck.toml:12:12: stage[0].config.ratio must be text, a number", "got datetime.date(2020, 1, 1)"
    ),
    toml("out of range in a technique", stage('technique = "prune"\n[stage.config]\nratio = 1.2'), "limbeck.toml:13:1: prune.config.ratio must be in [0, 1), got 1.2"),
    toml(
        "unknown option of a technique", stage('technique = "prune"\nconfig = { ratoi = 0.5 }'), "limbeck.toml:12:12: prune.config.ratoi is not an option", "Did you mean 'ratio'?"
    ),
    toml("unknown technique", stage('technique = "prunne"'), "limbeck.toml:11:1: there is no technique 'prunne'. Did you mean 'prune'?"),
    toml("unknown term", stage('technique = "distill"\nconfig = { student = "small", term = "kdd" }'), "limbeck.toml:12:31: distill.config.term", "'kdd'", "Did you mean 'kd'?"),
    toml("unknown runtime", run_file() + '[target]\nruntime = "onnxrutime"\n', "limbeck.toml:13:1: limbeck has no runtime 'onnxrutime'. Did you mean 'onnxruntime'?"),
    toml("a name that leaves the root", run_file().replace("[run]", '[run]\nname = "../elsewhere"'), "run.name must be letters, digits", "got '../elsewhere'", "Choose another."),
    Case("a name that leaves the root, by option", ("run.name must be", "got '/tmp/x'"), words=("run", "--name", "/tmp/x")),
    toml("a number without end", run_file(f"size_ratio = {'9' * 400}"), "limbeck.toml:5:1: contract.size_ratio must be a number below 2^63"),
]
CONTRACT = [
    contract("limits nothing", "", "limbeck.toml:4:1: contract must limit something", "as in retention = 0.97"),
    contract("percent as a number", "retention = 97", "limbeck.toml:5:1: contract.retention must be in [0, 1.05], got 97. It is a fraction; for 97 % write 0.97."),
    contract(
        "a median looser than p90", "latency_p90_ms = 3\nlatency_p50_ms = 5", "limbeck.toml:6:1: contract.latency_p50_ms must be at most latency_p90_ms (3), got 5", "swap them"
    ),
    contract("infinite", "size_ratio = inf", "contract.size_ratio must be a finite number, got inf"),
    contract("not a number", "retention = nan", "contract.retention must be in [0, 1.05], got nan"),
    contract("a unit of another kind", 'size_bytes = "5 ms"', "limbeck.toml:5:1: contract.size_bytes must be a number, or text in B, kB, MB", "got '5 ms'", 'as in "5 MB"'),
    contract("a unit of another kind, for time", 'latency_p50_ms = "3 MB"', "contract.latency_p50_ms must be a number, or text in ms, s", "got '3 MB'", 'as in "3 ms"'),
    contract("no unit", 'retention = "0.97"', "contract.retention must be a number, or text in %, got '0.97'", 'as in "97 %"'),
    contract("half a byte", 'size_bytes = "0.5 B"', "contract.size_bytes must be a whole number of B, got '0.5 B'"),
    contract("a unit where none is taken", 'size_ratio = "4 x"', "contract.size_ratio must be a number, got '4 x'"),
    Case("a unit on the command line", ("contract.size_bytes must be a number, or text in B", "got '5ms'"), words=("evaluate", "task.py:task", "--limit", "size_bytes=5ms")),
    Case("a limit without a number", ("--limit retention must be name=number",), words=("evaluate", "task.py:task", "--limit", "retention")),
    Case("an unknown limit", ("contract.retentoin is not an option",), words=("evaluate", "task.py:task", "--limit", "retentoin=1")),
]
TASKS = [
    Case("missing task file", ("there is no task file", "tsk.py", "Did you mean 'task.py'?"), kind="TaskError", run=run_file().replace("task.py:", "tsk.py:")),
    Case("no task in it", ("has no 'tusk'", "Did you mean 'task'?"), kind="TaskError", run=run_file().replace(":task", ":tusk")),
    task("it raises", "x = [][1]", "task.py:22: `x = [][1]` raised IndexError: list index out of range", "Mend the task's file"),
    task("it isn't Python", "x = (", "task.py:", "raised SyntaxError"),
    task(
        "a factory that raises",
        "def Net(): raise OSError('no such disk')",
        "Task.models['teacher']()",
        "task.py:22: `def Net(): raise OSError('no such disk')` raised OSError: no such disk",
    ),
    task("outputs without names", "Net.forward = lambda self, x: [self.down(x[:, :1].repeat(1, 1024))]", "the model returned list, which has no names", "Give Task(outputs=…)"),
    task("outputs that can't be mapped", "options['outputs'] = lambda raw: {'logits': raw.nothing}", "task.py:22:", "AttributeError", "no attribute 'nothing'"),
    task("outputs that aren't tensors", "options['outputs'] = lambda raw: {'logits': raw.tolist()}", "outputs must give a dict of tensors", "Name each tensor"),
    task(
        "a model that doesn't fit its data",
        "parts = {k: (x[:, :4], y) for k, (x, y) in parts.items()}",
        "the model 'teacher' doesn't run on a batch of split 'train'",
        "mat1 and mat2",
    ),
    task("one answer for the whole batch", "Net.forward = lambda self, x: self.down(self.up(x)).mean(0)", "output 'logits' must have one entry a sample (60), got a shape of [3]"),
    task(
        "an output that names a path", "options['outputs'] = lambda raw: {'../logits': raw}", "an output must be named by letters", "got '../logits'", "Rename it in Task.outputs"
    ),
    task("empty split", "parts['test'] = data(0, 3)", "split 'test' is empty. Give it samples."),
    task("missing split", "parts['tset'] = parts.pop('test')", "has no split 'test'", "Did you mean 'tset'?"),
    task(
        "splits that share ids",
        "splits = {name: TensorDataset(*part) for name, part in parts.items()}\n"
        "for name, split in splits.items(): split.ids = [f'{name}-{i}' for i in range(len(split))]\n"
        "splits['test'].ids[7] = 'train-3'",
        "splits 'train' and 'test' share 1 ids, as 'train-3'. What is judged must not have been seen",
    ),
    task(
        "splits that share content",
        "parts['test'][0][:5] = parts['train'][0][:5]; parts['test'][1][:5] = parts['train'][1][:5]",
        "5 of 60 training samples also stand in test",
        "split again",
    ),
    task("a label out of range in train", "parts['train'][1][59] = 3", "labels of split 'train' must be in [0, 3), the classes of 'teacher', got 3 at sample 59. Renumber"),
    task("a label out of range in validation", "parts['validation'][1][150] = -1", "split 'validation', samples 0 to 199: metric 'accuracy': labels must be in [0, 3), got -1"),
    task(
        "a label out of range in test",
        "parts['test'][1][199] = 7",
        "split 'test', samples 0 to 199: metric 'accuracy': labels must be in [0, 3), got 7 at sample 199",
        "model's number of classes",
    ),
    task("no labels to judge by", "splits = {k: [row for row in x] for k, (x, y) in parts.items()}", "metric 'accuracy' finds no labels", "Give samples as (input, label)"),
    task(
        "no labels for a recovery",
        "splits = {k: [row for row in x] if k == 'train' else TensorDataset(x, y) for k, (x, y) in parts.items()}",
        "stage 'prune' recovers on labels (recovery.teacher_weight = 0.9), but the training samples of task 'rows' have none. Give samples as (input, label), or set",
        run=stage('technique = "prune"\nrecovery = { training = { epochs = 1 } }'),
    ),
    task(
        "no labels for a term",
        "splits = {k: [row for row in x] if k == 'train' else TensorDataset(x, y) for k, (x, y) in parts.items()}",
        "the batch has no labels for task_loss. Give samples as (input, label), or a Task.loss.",
        run=stage('technique = "distill"\nconfig = { student = "small", options = { width = 64 } }'),
        ran=True,
    ),
    task("a label that isn't a class", "parts = {k: (x, y.float() + 0.5) for k, (x, y) in parts.items()}", "metric 'accuracy' needs labels that are whole numbers, got float32"),
    task("NaN in weights", "weights['up.bias'][2] = float('nan')", "weight 'up.bias' of 'teacher' holds NaN or Inf. Train it again"),
    task("NaN in inputs", "parts['validation'][0][3, 2] = float('nan')", "split 'validation': input '0' must be finite, got nan at [3, 2]", "Clean the data"),
    task(
        "NaN in the teacher's outputs",
        "Net.forward = lambda self, x: self.down(self.up(x).log())",
        "the teacher's output 'logits' is NaN for sample",
        "of split 'train'",
        "Look at this input",
    ),
    task(
        "random samples",
        "class Noisy(list):\n"
        "    def __getitem__(self, i): row, label = super().__getitem__(i); return row + torch.rand(6), label\n"
        "splits = {k: list(zip(x, y)) for k, (x, y) in parts.items()}\n"
        "splits['train'] = Noisy(splits['train'])",
        "split 'train': dataset[i] must be deterministic",
        "Move random augmentation to Task.views",
    ),
    task(
        "a data set that raises",
        "class Broken(list):\n    def __getitem__(self, i): return {}[i]\nsplits = {k: Broken([1] * 9) for k in parts}",
        "its data: ",
        "task.py:23:",
        "KeyError: 0",
    ),
    task("weights that don't fit", "weights = {'up.weight': weights['up.weight']}", "the weights of 'teacher' don't fit its factory", "Missing key(s)"),
    task("no weights file", "weights = 'nowhere.safetensors'", "there is no weights file", "nowhere.safetensors", "relative to the task's own file"),
    Case(
        "a corrupt weights file",
        ("weights.safetensors can't be read as plain tensors", "Save the state dict as safetensors"),
        "TaskError",
        "weights = 'weights.safetensors'",
        files=(("weights.safetensors", b"\x10" * 99),),
    ),
    Case(
        "a corrupt torch file",
        ("weights.pt can't be read as plain tensors", "Save the state dict as safetensors"),
        "TaskError",
        "weights = 'weights.pt'",
        files=(("weights.pt", b"PK\x03\x04 no"),),
    ),
    Case(
        "an unknown student", ("task 'rows' has no model 'smal'. Did you mean 'small'?",), "TaskError", run=stage('technique = "distill"\nconfig = { student = "smal" }'), ran=True
    ),
    Case(
        "an unknown family", ("limbeck has no family 'convnett'. Did you mean 'convnet'?",), run=stage('technique = "distill"\nconfig = { student = "limbeck:convnett" }'), ran=True
    ),
    Case(
        "a student's option of another type",
        ("Task.models['small'](width = wide)", "TypeError"),
        "TaskError",
        run=stage('technique = "distill"\nconfig = { student = "small", options = { width = "wide" } }'),
        ran=True,
    ),
    Case("an unknown model", ("has no model 'smal'. Did you mean 'small'",), "TaskError", words=("evaluate", "task.py:task", "--model", "smal")),
]
ARTIFACTS = [
    Case("no such artifact", ("there is no artifact nowhere.onnx", "Name a file that a runtime loads"), "ArtifactError", words=("evaluate", "nowhere.onnx")),
    Case(
        "a corrupt ONNX file",
        ("x.onnx can't be loaded by ONNX Runtime", "Export or download it again."),
        "ArtifactError",
        words=("evaluate", "x.onnx"),
        files=(("x.onnx", b"\x08\x0anot a model"),),
    ),
    Case("an empty ONNX file", ("x.onnx can't be loaded by ONNX Runtime",), "ArtifactError", words=("evaluate", "x.onnx"), files=(("x.onnx", b""),)),
    Case("a corrupt torch program", ("x.pt2 is not a .pt2 archive", "Export it again."), "ArtifactError", words=("evaluate", "x.pt2"), files=(("x.pt2", b"PK\x03\x04 no"),)),
    Case("a file of no runtime", ("x.docx must be for one runtime, by its suffix, got .docx",), "ArtifactError", words=("evaluate", "x.docx"), files=(("x.docx", b""),)),
    Case("no run folder", ("there is no run folder runs/nothing",), words=("status", "runs/nothing")),
    Case("a folder that is no run", ("is not a run folder: it has no journal",), words=("status", ".")),
    Case("a torn summary", ("summary.json is not JSON",), "RunError", words=("status", "runs/x"), files=(("runs/x/summary.json", b'{"schema": 1,'),)),
    Case(
        "a summary of a later limbeck",
        ("summary.json.schema is 9; this limbeck reads up to 2", "upgrade"),
        "RunError",
        words=("status", "runs/x"),
        files=(("runs/x/summary.json", b'{"schema": 9}'),),
    ),
    Case(
        "a summary of another shape",
        ("summary.json.verdict must be one of PASS, FAIL", "got 'GREAT'", "take it from a copy"),
        "RunError",
        words=("status", "runs/x"),
        files=(("runs/x/summary.json", b'{"schema": 1, "run": "x", "verdict": "GREAT", "exit_code": 0, "stages": []}'),),
    ),
    Case("a changed journal", ("journal.jsonl, line 1: its hash doesn't follow",), "RunError", words=("status", "runs/x"), files=(("runs/x/journal.jsonl", b'{"time": "now"}\n'),)),
]
CASES = RUN_FILE + CONTRACT + TASKS + ARTIFACTS


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def said(folder: Path, *words: str, monkeypatch) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, run here."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.stdout.split()), " ".join(done.stderr.split())


def written(folder: Path, case: Case) -> Path:
    (folder / "task.py").write_text(TASK.replace("# HERE", case.task))
    (folder / "limbeck.toml").write_text(case.run)
    for name, data in case.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        if name.endswith("summary.json"):
            Journal((folder / name).with_name("journal.jsonl")).record("run")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_a_wrong_input_is_told_in_words(case, tmp_path, monkeypatch):
    before = files_of(written(tmp_path, case))
    code, _, error = said(tmp_path, *case.words, monkeypatch=monkeypatch)
    message = error[error.find(f"{case.kind}: ") :]
    assert code == case.code and message.startswith(f"{case.kind}: ") and "Traceback" not in error, error
    for part in case.says:
        assert part in message, message
    assert message.rstrip().endswith((".", "?")), "a message is a sentence"
    if case.ran:
        assert not (tmp_path / "runs" / "run" / "stages").exists(), "nothing was trained"
    else:
        assert files_of(tmp_path) == before, "nothing is written"


def test_the_table_itself_can_fail(tmp_path, monkeypatch):
    """The task and the run file that the cases spoil are right by themselves."""
    good = Case("good", ())
    code, out, error = said(written(tmp_path, good), "run", monkeypatch=monkeypatch)
    assert code in (0, 3, 4) and "quantize" in out, (out, error)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ('size_bytes = "5 MB"', "size_bytes", 5_000_000),
        ('size_bytes = "500kB"', "size_bytes", 500_000),
        ('download_bytes = "2 MiB"', "download_bytes", 2 * 1024 * 1024),
        ('peak_memory_bytes = "1.5 GB"', "peak_memory_bytes", 1_500_000_000),
        ('latency_p50_ms = "3 ms"', "latency_p50_ms", 3.0),
        ('latency_p90_ms = "0.5 s"', "latency_p90_ms", 500.0),
        ('latency_p90_ms = "250 µs"', "latency_p90_ms", 0.25),
        ('latency_p90_ms = "250 \u03bcs"', "latency_p90_ms", 0.25),  # the Greek letter, not the micro sign
        ('retention = "97 %"', "retention", 0.97),
        ('retention = 0.9\nconfidence = "99%"', "confidence", 0.99),
        ("latency_p50_ms = 3\nlatency_p90_ms = 5", "latency_p90_ms", 5.0),
        ("speedup_p50 = 0.95", "speedup_p50", 0.95),
        ("retention = 0.97\nmetric = 0.9", "metric", 0.9),
    ],
)
def test_a_unit_is_read_exactly_and_what_does_not_contradict_is_taken(text, name, value, tmp_path):
    from limbeck.intake.runfile import read_runfile

    (tmp_path / "limbeck.toml").write_text(run_file(text))
    found = getattr(read_runfile(tmp_path / "limbeck.toml").contract, name)
    assert found == value and type(found) is type(value)


def test_an_order_that_the_facts_forbid(tmp_path, monkeypatch):
    plan = '\n[[stage]]\ntechnique = "quantize"\n[[stage]]\ntechnique = "prune"\n'
    code, out, _ = said(written(tmp_path, Case("order", (), run=run_file(more=plan))), "run", monkeypatch=monkeypatch)
    assert code == 5 and "stage 2 (prune) needs 'float-weights', which stage 1 (quantize) took away. Put stage 2 (prune) before stage 1 (quantize)" in out
    assert not (tmp_path / "runs" / "run" / "stages").exists()


def test_a_runtime_that_is_not_installed(tmp_path, monkeypatch):
    """Told before anything is written, with the line that installs it; and where only the library itself is gone, when it is asked for."""
    gone = ("gone/onnxruntime/__init__.py", b"raise ModuleNotFoundError(name='onnxruntime')")  # in the process that would load it
    before = files_of(written(tmp_path, Case("runtime", (), files=(("x.onnx", b"any"), gone))))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "gone"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code, _, error = said(tmp_path, "evaluate", "x.onnx", monkeypatch=monkeypatch)
    assert code == 2 and error.endswith("MissingLibrary: 'onnxruntime' must be installed for this, and isn't. Install it: pip install onnxruntime")
    monkeypatch.setattr(runtimes, "ALL", (replace(ONNXRUNTIME, available=lambda: None),))
    code, _, error = said(tmp_path, "run", monkeypatch=monkeypatch)
    assert code == 2 and error.endswith("MissingLibrary: the runtime 'onnxruntime' must be installed for this, and isn't. Install it: pip install onnxruntime")
    assert files_of(tmp_path) == before


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def zipped(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save({"up.weight": payload}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("made", [zipped, lambda p: pickle.dumps({"up.weight": p})], ids=["zip", "bare"])
@pytest.mark.parametrize("suffix", ["pt", "bin", "safetensors"])
def test_code_in_a_weights_file_is_refused_and_not_run(made, suffix, tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    name = f"weights.{suffix}"
    before = files_of(written(tmp_path, Case("code", (), task=f"weights = {name!r}", files=((name, made(Payload(trap))),))))
    code, _, error = said(tmp_path, "run", monkeypatch=monkeypatch)
    assert code == 2 and f"{name} can't be read as plain tensors" in error and "Save the state dict as safetensors" in error, error
    assert not trap.exists() and files_of(tmp_path) == before
    pickle.loads(pickle.dumps(Payload(trap))).close()
    assert trap.exists(), "the trap works where it is sprung"


def test_code_in_an_artifact_is_refused_and_not_run(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/models/model.json", "{}")
        archive.writestr("x/data/constants/model.pt", pickle.dumps(Payload(trap)))
    code, _, error = said(tmp_path, "evaluate", "x.pt2", monkeypatch=monkeypatch)
    assert code == 2 and "must hold only tensors and JSON, got data/constants/model.pt: code or a pickle" in error and not trap.exists()


def test_a_traceback_is_shown_to_who_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path, Case("debug", (), task="x = [][1]")))
    done = CliRunner().invoke(app, ["run", "--debug"])
    assert type(done.exception).__name__ == "TaskError" and isinstance(done.exception.__cause__, IndexError)
