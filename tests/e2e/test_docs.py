"""The documentation holds: code runs, run files are read, commands parse, links lead somewhere, and nothing public is left out.

A page names what its blocks rest on as `<!-- needs: … -->`. Blocks of one page run in order, in one folder and one namespace. A
block whose first line is `# name.py` or `# name.toml` is that file. A shell block under `<!-- run -->` is carried out; with a
number (`<!-- run: 3 -->`) its last command must exit with it. `<!-- slow -->` leaves a page to `make test-all`.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import pages
from pages import ROOT, Block, blocks
from project import limbeck, write_project

import limbeck as package
from limbeck.core.fields import parse
from limbeck.intake.runfile import read_runfile
from limbeck.techniques import cards

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
GENERATED = {DOCS / "reference.md", DOCS / "api.md"}
LANGUAGES = {"", "python", "toml", "bash", "sh", "text", "json", "html"}
RUN_FILE = {"task", "contract", "target", "run", "stage"}
LEAST = {"task": {"entry": "task.py:task"}, "contract": {"retention": 0.9}}
README_NEEDS = ["mine"]
TERMS = '[[stage]]\ntechnique = "distill"\nconfig = {{ student = "small", terms = [\n{}] }}\n'
PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 32 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""
MINE = """
import torch
from safetensors.torch import save_file
from limbeck.testing import SmallNet, small_task

class MyResNet(SmallNet): pass
class SmallNet(SmallNet): pass
train, validation, test = (small_task().splits[name] for name in ("train", "validation", "test"))
save_file(MyResNet().state_dict(), "teacher.safetensors")
"""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- what pages may need -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A small project whose run has its verdict."""
    folder = write_project(tmp_path_factory.mktemp("finished"), plan=PLAN, run="control = false\n")
    done = limbeck("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def needed(want: str, folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Lay out what a page needs; returns the names that its blocks find. Raises KeyError for what nobody provides."""
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "mine": lambda: {"_": (folder / "mine.py").write_text(MINE)},
        "a small project": lambda: {"_": write_project(folder, plan=PLAN, run="control = false\n")},
        "a finished run": lambda: {"_": shutil.copytree(request.getfixturevalue("finished_run"), folder, dirs_exist_ok=True)},
        "a plug-in": lambda: plugin(folder),
        "a task and a contract": a_task,
        "an exported model": lambda: exported(folder),
        "an objective": an_objective,
    }
    return makers[want]()


def plugin(folder: Path) -> dict[str, Any]:
    """The entry point of a distribution that page's file `mine.py` belongs to, as pip would have installed it."""
    (folder / "mine-1.0.dist-info").mkdir()
    (folder / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "mine-1.0.dist-info" / "entry_points.txt").write_text("[limbeck.techniques]\ntruncate = mine:truncate\n")
    return {}


def a_task() -> dict[str, Any]:
    """A contract that the teacher honours already, so that judging it takes a moment."""
    from limbeck.testing import small_task

    return {"limbeck": package, "task": small_task(), "contract": package.Contract(retention=0.5)}


def an_objective() -> dict[str, Any]:
    """A term on features that is to find its layer in a teacher twice as wide."""
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.signals import LiveTeacher
    from limbeck.mechanics.terms import cka, task_loss
    from limbeck.testing import SmallNet, small_task

    task = small_task()
    objective = task_loss() + 1.0 * cka(student="features.5", teacher="auto")
    return {"task": task, "objective": objective, "signals": LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task)), "student": SmallNet(8)}


def exported(folder: Path) -> dict[str, Any]:
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.data import example
    from limbeck.runtimes import export
    from limbeck.testing import small_task

    task = small_task()
    traced = example(task, rebuild(teacher_candidate(task).torch_form, task))
    theirs = export("onnxruntime", traced, folder / "theirs").path
    shutil.copy(theirs, folder / "someone_elses.onnx")
    images = task.splits["test"].tensors[0][:4].numpy()
    return {"task": task, "example": traced, "images": images, "folder": folder / "artifact", "_": (folder / "artifact").mkdir()}


# --- the walk ----------------------------------------------------------------------------------------------------------------


def walk(page: str, text: str, folder: Path, namespace: dict[str, Any]) -> None:
    """Carry out a page's blocks in `folder`. Raises what a block raises."""
    for block in blocks(text):
        where = f"{page}:{block.line}"
        if block.language == "python":
            run_python(where, block, folder, namespace)
        elif block.language == "toml":
            read_toml(where, block, folder)
        elif (expected := next((m for m in block.marks if re.fullmatch(r"run(: \d+)?", m)), None)) is not None:
            run_shell(where, block, folder, int(expected.partition(": ")[2] or 0))


def run_python(where: str, block: Block, folder: Path, namespace: dict[str, Any]) -> None:
    if block.file:
        (folder / block.file).write_text(block.text)
        importlib.invalidate_caches()
        importlib.import_module(Path(block.file).stem)
        return
    exec(compile("\n" * block.line + block.text, where, "exec"), namespace)


def read_toml(where: str, block: Block, folder: Path) -> None:
    """It parses; what looks like a run file, or a part of one, is read as one, with the options of its techniques.

    A bare `{ name = … }` is an entry of `terms`.
    """
    text = TERMS.format(block.text) if block.text.startswith("{") else block.text
    data = tomllib.loads(text)
    if block.file:
        (folder / block.file).write_text(block.text)
    if not data or not data.keys() <= RUN_FILE:
        return
    path = folder / "whole.toml"
    rest = {k: v for k, v in LEAST.items() if k not in data}
    path.write_text("".join(f"[{k}]\n" + "".join(f"{n} = {v!r}\n" for n, v in table.items()) for k, table in rest.items()) + text)
    known = cards()
    for stage in read_runfile(path).stage:
        if stage.technique in known:
            parse(known[stage.technique].config, stage.config, where=f"{where}: {stage.title}.config")


def run_shell(where: str, block: Block, folder: Path, expected: int) -> None:
    """Each command in a process of its own; all but the last must exit with 0."""
    found = pages.shell_lines(block)
    for number, words in enumerate(found, 1):
        if words[0] == "limbeck":
            done = limbeck(*words[1:], cwd=folder, path=folder)
        elif words[0] == "python":
            done = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=300)
        else:
            raise AssertionError(f"{where}: only limbeck and python are run here, got {shlex.join(words)}")
        want = expected if number == len(found) else 0
        assert done.returncode == want, f"{where}: {shlex.join(words)} exited with {done.returncode}, not {want}\n{done.stdout}\n{done.stderr}"


def carried_out(page: Path) -> bool:
    return any(b.language in ("python", "toml") or any(m.startswith("run") for m in b.marks) for b in blocks(page.read_text()))


def marked(page: Path) -> Any:
    return pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if "<!-- slow -->" in page.read_text() else [])


@pytest.mark.parametrize("page", [marked(p) for p in PAGES if carried_out(p)])
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch, request):
    text = page.read_text()
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for want in [*pages.needs(text), *(README_NEEDS if page.name == "README.md" else [])]:
        vars(module).update(needed(want, tmp_path, request))
    try:
        walk(name_of(page), text, tmp_path, vars(module))
    finally:
        for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", None) or "").startswith(str(tmp_path))]:
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path):
    """Commands in shell blocks go through the real parser; those in prose must name a command and its options."""
    text = page.read_text()
    for words in pages.commands_of(text):
        if "--help" not in words:
            pages.command(words)
    wrong = [bad for span in pages.spans_of(text) if span.startswith("limbeck ") and (bad := pages.unknown_span(span))]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page: Path):
    """Links with their anchors, and files and tests of the repository. Blocks are in a language that is checked."""
    text = page.read_text()
    assert not pages.broken_links(page, text)
    assert not pages.missing_files(text)
    languages = {b.language for b in blocks(text)} - ({"py"} if page in GENERATED else set())
    assert languages <= LANGUAGES, "a block in another language would never be run"


# --- nothing is left out -----------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation():
    import yaml

    def leaves(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [x for part in (node.values() if isinstance(node, dict) else node) for x in leaves(part)]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


def test_every_command_is_told_of_by_hand(monkeypatch):
    """Each in the prose or a block of a page that isn't generated, and in the reference, which has no other."""
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    assert {tuple(c.split()) for c in generate.COMMANDS} == pages.tree().keys(), "COMMANDS of docs/generate.py"
    written = "\n".join(p.read_text() for p in PAGES if p not in GENERATED)
    reference = (DOCS / "reference.md").read_text()
    for path in pages.tree():
        name = f"limbeck {' '.join(path)}"
        assert re.search(rf"{name}\b", written), f"no page tells of {name}"
        assert f"### `{name}`" in reference


def test_every_public_name_is_told_of(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import generate_api

    assert not generate_api.undocumented()
    text = (DOCS / "api.md").read_text()
    assert not [name for name in package.__all__ if f"### `limbeck.{name}`" not in text]


def test_every_technique_option_stands_on_its_page():
    for name, card in cards().items():
        page = (DOCS / "techniques" / f"{name}.md").read_text()
        assert not [o for o in card.config.__dataclass_fields__ if f"`{o}`" not in page]


def test_generated_blocks_are_up_to_date():
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    """No script, style, font or picture comes from elsewhere when a page is read."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed; it comes with limbeck[docs]")
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    made = list((tmp_path / "site").rglob("*.html"))
    assert len(made) >= len(PAGES) - 1
    for page in made:
        html = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//[^\s\"'>]+", html), page
        assert not [x for x in re.findall(r"<link[^>]+>", html) if re.search(r"href=[\"']?(?:https?:)?//", x) and "canonical" not in x], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", style.read_text()), style


# --- the walk itself can fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nassert 1 == 2\n```", AssertionError),
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```", AssertionError),
        ("```toml\n[contract\n```", tomllib.TOMLDecodeError),
        ("```toml\n[contract]\nretenton = 0.9\n```", package.LimbeckError),
        ('```toml\n[[stage]]\ntechnique = "prune"\nconfig = { ratio = 2 }\n```', package.LimbeckError),
        ('```toml\n{ name = "kd", options = { temprature = 4 } }\n```', package.LimbeckError),
        ("<!-- run -->\n```\nlimbeck status nowhere\n```", AssertionError),
        ("<!-- run: 2 -->\n```sh\nrm -r x\n```", AssertionError),
    ],
)
def test_a_wrong_block_is_seen(text, error, tmp_path):
    with pytest.raises(error):
        walk("page.md", text, tmp_path, {})


def test_a_block_that_holds_is_taken(tmp_path):
    walk("page.md", '```python\nx = 1\n```\n\n```toml\n[contract]\nretention = "97 %"\n```\n\n<!-- run: 2 -->\n```\nlimbeck status nowhere  # no such run\n```', tmp_path, {})


def test_wrong_commands_links_and_files_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Here and there\n")
    for words in (["ruun"], ["run", "--colour"], ["diff", "a"], ["evaluate", "x", "--threads", "0"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing|invalid|greater than"):
            pages.command(words)
    assert pages.command(["compare", "a", "b", "--limit", "retention=0.9"]).params["limit"] == ["retention=0.9"]
    assert pages.unknown_span("limbeck ruun") and pages.unknown_span("limbeck run --colour") and not pages.unknown_span("limbeck runs [ROOT]")
    assert pages.broken_links(page, "[a](nowhere.md) [b](page.md#there) [c](page.md#here-and-there) [d](https://example.org)") == ["nowhere.md", "page.md#there"]
    assert pages.missing_files("`tests/e2e/test_docs.py::test_nothing` `tests/e2e/test_docs.py::test_blocks_run` `src/nowhere.py`") == [
        "tests/e2e/test_docs.py::test_nothing",
        "src/nowhere.py",
    ]
    assert pages.shell_lines(Block(1, "", 'A=1 B="2 3" limbeck runs\nruns/   the user\'s runs\n', ())) == [["limbeck", "runs"]]
    assert pages.shell_lines(Block(1, "sh", "limbeck run \\\n  x.toml | jq .verdict  # a comment\n", ())) == [["limbeck", "run", "x.toml"], ["jq", ".verdict"]]
