"""From an entry, as in `task.py:task`, to a Task. The file is the user's own; it is run, and nothing else is."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.errors import TaskError, near
from limbeck.core.foreign import own_line
from limbeck.core.task import Task

MARK = "__limbeck_folder__"  # on a module that a task's file brought in: the folder that it came from


def load_task(entry: str, *, base: Path) -> Task:
    """The task that `entry` names, its `folder` set to where its file lies.

    Args:
        entry: `path/to/task.py:name`, relative to `base`, or `package.module:name`. The name is a Task, or a function that returns one.
        base: Where relative paths start, and where packages are looked for besides those that are installed.
    Raises: TaskError if there is no such file or name, if the file raises (its own line is shown), or if what it gives isn't a Task.
    """
    task, path = _named(entry, base=base, what="task.entry")
    name = entry.rpartition(":")[2]
    if isinstance(task, types.FunctionType):
        with _beside(path.parent):
            task = _run(task, path)
    if not isinstance(task, Task):
        raise TaskError(f"'{name}' in {path} must be a limbeck.Task or a function that returns one, got {type(task).__name__}. Write {name} = Task(…).")
    return replace(task, folder=path.parent / task.folder)


def load_name(entry: str, *, base: Path, what: str) -> Any:
    """What `file.py:name` or `package.module:name` names, whatever it is. Raises: TaskError as `load_task`, in which `what` names it."""
    return _named(entry, base=base, what=what)[0]


def _named(entry: str, *, base: Path, what: str) -> tuple[Any, Path]:
    """What an entry names, and the file that it stands in."""
    place, _, name = entry.rpartition(":")
    if not place or not name.isidentifier():
        raise TaskError(f"{what} must be 'file.py:name' or 'package.module:name', got {entry!r}. Name what is in the file, as in 'task.py:task'.")
    module = _file(base / place) if place.endswith(".py") else _package(place, base)
    path = Path(str(module.__file__)).resolve()
    if name not in vars(module):
        public = [n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)]
        raise TaskError(f"{path} has no '{name}', which {what} names. {near(name, public)}")
    return vars(module)[name], path


def _file(path: Path) -> types.ModuleType:
    path = path.resolve()
    if not path.is_file():
        others = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise TaskError(f"there is no task file {path}. {near(path.name, others)} Give its path from where the configuration lies, as in 'task.py:task'.")
    module = types.ModuleType(f"limbeck_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    with _beside(path.parent):
        # compiled here and now: a cached .pyc is only as fresh as the file's whole second
        _run(lambda: exec(compile(path.read_bytes(), str(path), "exec"), vars(module)), path)
    return module


def _package(place: str, base: Path) -> types.ModuleType:
    with _beside(base.resolve()):
        try:
            found = importlib.util.find_spec(place)
        except ModuleNotFoundError:
            found = None
        except ValueError:  # a module that is being run has no spec
            found = None
        if found is None or found.origin is None:
            raise TaskError(f"there is no module '{place}', which task.entry names. Install its package, or give a file, as in 'task.py:task'.")
        return _run(lambda: importlib.import_module(place), Path(found.origin))


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """The folder's own modules can be imported, and shadow those that another task's folder brought in under the same name."""
    for name, module in list(sys.modules.items()):
        if vars(module).get(MARK, str(folder)) != str(folder):
            del sys.modules[name]
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            file = vars(sys.modules[name]).get("__file__")
            if file and Path(file).is_relative_to(folder) and "site-packages" not in Path(file).parts:
                vars(sys.modules[name])[MARK] = str(folder)


def _run(call: Callable[[], Any], path: Path) -> Any:
    """What the user's code gives; what it raises, as a TaskError that shows their line and hides our frames."""
    linecache.checkcache(str(path))
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise TaskError(f"{_line(error, path)} raised {type(error).__name__}: {error}. Mend the task's file; --debug shows the whole traceback.") from error


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: `{(error.text or '').strip()}`"
    return own_line(error) or str(path)
