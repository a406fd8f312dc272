"""The floors: imports point down, rooms of one floor don't import each other, and `import limbeck` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "limbeck"
FLOORS = [
    {"core"},
    {"analysis", "stats"},
    {"mechanics"},
    {"techniques", "runtimes", "intake", "tracking"},
    {"planner", "evaluation", "package", "report"},
    {"pipeline"},
    {"api", "testing", "adapters"},
    {"demo"},
    {"cli", "mcp", "serve"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FOREIGN_CODE = {SOURCE / "techniques" / "__init__.py", SOURCE / "intake" / "load.py"}  # run code that isn't ours, which may raise anything
FAMILIES = {"techniques", "runtimes"}  # a member imports nothing of another member


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The limbeck modules that a file imports anywhere, inside functions too, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    typing_only = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for n in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("limbeck"):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("limbeck")}
    return found


FILES = sorted(p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.name == "testing.py")


def test_every_room_has_a_floor():
    assert {room_of(p) for p in FILES} <= LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path):
    own = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if len(parts) < 2 or parts[1] not in LEVEL or parts[1] == own:
            continue
        assert LEVEL[parts[1]] < LEVEL[own], f"{path.name} ({own}) imports {name}: only a lower floor may be imported"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) in FAMILIES and p.name not in ("__init__.py", "card.py")], ids=lambda p: str(p.relative_to(SOURCE)))
def test_members_of_a_family_know_nothing_of_each_other(path: Path):
    own = path.relative_to(SOURCE).with_suffix("").parts
    for name in imports_of(path):
        parts = tuple(name.split(".")[1:])
        if parts[:1] == own[:1] and len(parts) > 1:
            target = SOURCE.joinpath(*parts[: len(own)]).with_suffix(".py")
            shared = "card" in parts or "tracing" in parts or "archive" in parts or "profiling" in parts or "onnx_flow" in parts or "torch_flow" in parts
            assert shared or target == path or not target.exists(), f"{path.name} imports its neighbour {name}"


@pytest.mark.parametrize("room", ["cli", "demo"])
def test_shells_import_the_api_and_core_alone(room: str):
    allowed = {"api", "core", "demo", room}
    for path in (SOURCE / room).glob("*.py"):
        for name in imports_of(path):
            parts = name.split(".")
            assert len(parts) < 2 or parts[1] in allowed or parts[1] not in LEVEL, f"{path.name} imports {name}: a shell imports the api"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_file_names_say_something(path: Path):
    stem = path.stem
    assert stem not in {"utils", "util", "helpers", "helper", "common", "misc"} and not stem.endswith(("_utils", "_helpers", "_common", "_misc"))
    assert not stem.startswith("base_")
    assert len(path.read_text().splitlines()) <= 450, f"{path.name} is too long; split it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_broad_except_print_or_assert(path: Path):
    tree = ast.parse(path.read_text())
    broad = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and (n.type is None or ast.unparse(n.type) in ("Exception", "BaseException"))]
    assert not broad or path in FOREIGN_CODE, f"{path.name}:{broad} catches everything"
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)], "an input check is an error with the value in it"
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not calls & ({"print", "eval", "hasattr"} | (set() if path in FOREIGN_CODE else {"exec"}))


@pytest.mark.slow
def test_any_module_may_be_the_first_that_is_imported():
    """Two that import each other work in one order alone, and whoever asks for the other first is told of a circular import."""
    names = [".".join(p.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for p in FILES if p.name != "__main__.py" and room_of(p) != "demo"]
    code = (
        "import importlib, os, sys, numpy, onnx, onnxruntime, torch, typer\n"
        "for name in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            importlib.import_module(name)\n"
        "        except BaseException as error:\n"
        "            print(f'{name}: {error}', flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def heavy_after(code: str) -> str:
    """Which heavy libraries a fresh process holds after this code."""
    shown = "\nimport sys\nprint(*[m for m in ('torch', 'numpy', 'onnx', 'onnxruntime', 'scipy', 'transformers') if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code + shown], capture_output=True, text=True, check=True).stdout.strip()


def test_import_limbeck_loads_no_torch():
    assert heavy_after("import limbeck\nfrom limbeck import Contract, Task, Plan, Stage, technique\nContract(retention=0.9)") == ""


def test_help_loads_no_torch():
    assert heavy_after("from typer.testing import CliRunner\nfrom limbeck.cli.main import app\nassert CliRunner().invoke(app, ['--help']).exit_code == 0") == ""
