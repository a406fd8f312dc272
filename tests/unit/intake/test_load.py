"""From `task.py:task` to a Task, and messages that point at the user's own line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.core.errors import TaskError
from limbeck.intake.load import load_task

GOOD = """
from limbeck.core.metric import Metric
from limbeck.core.task import Task

task = Task(metric=Metric(name="m", rows=lambda o, b: {}, reduce=lambda r: 0.0), splits={"train": [1]}, name="NAME")
number = 3


def made():
    return task


def broken():
    return {}["lost"]
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_and_a_function_in_it(tmp_path: Path) -> None:
    write(tmp_path / "work" / "task.py", GOOD)
    for entry in ("work/task.py:task", "work/task.py:made"):
        task = load_task(entry, base=tmp_path)
        assert task.name == "NAME" and task.folder == (tmp_path / "work").resolve()
    assert str(tmp_path / "work") not in sys.path


def test_an_absolute_path_and_a_folder_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "task.py", GOOD.replace('name="NAME"', "folder='data'").replace("'data'", "__import__('pathlib').Path('data')"))
    assert load_task(f"{path}:task", base=Path("elsewhere")).folder == tmp_path.resolve() / "data"


def test_a_changed_file_is_read_again_within_the_same_second(tmp_path: Path) -> None:
    path = write(tmp_path / "task.py", GOOD)
    assert load_task("task.py:task", base=tmp_path).name == "NAME"
    path.write_text(GOOD.replace("NAME", "GAME"))
    assert load_task("task.py:task", base=tmp_path).name == "GAME"


def test_modules_beside_the_file_are_found_and_those_of_another_task_are_not_mistaken_for_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "limbeck_test_sibling.py", f"NAME = {name!r}")
        write(tmp_path / name / "task.py", "from limbeck_test_sibling import NAME\n" + GOOD.replace('"NAME"', "NAME"))
    for name in ("one", "two", "one"):
        assert load_task(f"{name}/task.py:task", base=tmp_path).name == name


def test_dataclasses_in_the_file_find_their_module(tmp_path: Path) -> None:
    write(tmp_path / "task.py", "from __future__ import annotations\nimport dataclasses\n\n@dataclasses.dataclass\nclass Row:\n    x: int = 0\n" + GOOD)
    assert load_task("task.py:task", base=tmp_path).name == "NAME"


def test_a_module_of_a_package(tmp_path: Path) -> None:
    write(tmp_path / "limbeck_test_package" / "__init__.py", "")
    write(tmp_path / "limbeck_test_package" / "jobs.py", GOOD)
    task = load_task("limbeck_test_package.jobs:task", base=tmp_path)
    assert task.folder == (tmp_path / "limbeck_test_package").resolve()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("task.py", "task.entry must be 'file.py:name'"),
        ("task.py:", "task.entry must be"),
        ("tsak.py:task", r"there is no task file .*tsak\.py\. Did you mean 'task\.py'"),
        ("nowhere/task.py:task", "there is no task file"),
        ("task.py:tsak", "has no 'tsak'.*Did you mean 'task'"),
        ("task.py:number", r"must be a limbeck\.Task or a function that returns one, got int"),
        ("task.py:broken", r"task\.py:14: `return {}\[\"lost\"\]` raised KeyError: 'lost'"),
        ("no.such.module:task", "there is no module 'no.such.module'"),
    ],
)
def test_a_wrong_entry_is_refused_with_a_way_out(tmp_path: Path, entry: str, message: str) -> None:
    write(tmp_path / "task.py", GOOD)
    with pytest.raises(TaskError, match=message):
        load_task(entry, base=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\n", r"task\.py:2: `y = x / 0` raised ZeroDivisionError: division by zero"),
        ("def f(:\n", r"task\.py:1: `def f\(:` raised SyntaxError"),
        ("import limbeck_no_such_library\n", r"task\.py:1: `import limbeck_no_such_library` raised ModuleNotFoundError"),
        ("import json\n\njson.loads('{')\n", r"task\.py:3: `json\.loads\('\{'\)` raised JSONDecodeError"),
        ("def f():\n    return [][1]\n\nf()\n", r"task\.py:2: `return \[\]\[1\]` raised IndexError"),
        ("raise SystemExit(3)\n", r"task\.py:1: .* raised SystemExit: 3"),
    ],
)
def test_a_file_that_raises_shows_its_own_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "task.py", text)
    with pytest.raises(TaskError, match=message) as caught:
        load_task("task.py:task", base=tmp_path)
    assert caught.value.__cause__ is not None  # what --debug shows
    assert str(tmp_path) not in sys.path


DOCS = Path(__file__).parents[3] / "docs" / "task.md"


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each code block of docs/task.md as the file that its first line names, and the teacher trained."""
    folder = tmp_path_factory.mktemp("documented")
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL):
        name = block.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name), f"a block of docs/task.md must begin with its file's name, got {name!r}"
        write(folder / name, block)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def test_the_documented_files_are_all_here(documented: Path) -> None:
    assert sorted(p.name for p in documented.glob("*.py")) == ["dict_task.py", "digits.py", "ensemble.py", "own_metric.py", "sliced.py", "task.py", "train.py", "two_outputs.py"]
    ordinary = (documented / "task.py").read_text().splitlines()
    assert len([line for line in ordinary if line.strip() and not line.startswith("#")]) <= 15


@pytest.mark.parametrize(("file", "least", "most"), [("task", 0.9, 1.0), ("dict_task", 0.9, 1.0), ("ensemble", 0.9, 1.0), ("own_metric", 0.0, 0.3), ("two_outputs", 0.0, 0.3)])
def test_every_task_of_the_documentation_loads_passes_the_checks_and_scores(documented: Path, file: str, least: float, most: float) -> None:
    import numpy as np
    import torch

    from limbeck.intake.checks import check
    from limbeck.mechanics.build import rebuild, teacher_form
    from limbeck.mechanics.data import batch_of, batches, predict
    from limbeck.mechanics.terms.task_loss import default_losses

    torch.manual_seed(0)
    task = load_task(f"{file}.py:task", base=documented)
    assert check(task).dropped == ()
    model = rebuild(teacher_form(task), task)
    with torch.no_grad():
        parts = [task.metric.rows({k: v.numpy() for k, v in predict(task, model, batch).items()}, batch) for _, batch in batches(task, "test", size=200)]
        batch = batch_of(task, "train", range(4))
        losses = (task.loss or (lambda outputs, b: default_losses(task, outputs, b)))(predict(task, model, batch), batch)
    assert losses.shape == (4,)
    assert least <= task.metric.reduce({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}) <= most
    if task.views:
        args, _ = task.views.apply_to(task, batch, np.arange(4), 0)
        assert args[0].shape == (4, 1, 8, 8)
