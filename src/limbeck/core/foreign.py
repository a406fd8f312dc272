"""Code that isn't ours: what a task's own functions raise, shown with their own line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.core.errors import TaskError

FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError)
OURS = Path(__file__).resolve().parents[1]
LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()


def own_line(error: BaseException) -> str:
    """The innermost line of the user's code that an error came through, as `task.py:3: …`; empty if ours is further in, or there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(OURS):
            return ""
        library = {"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(LIBRARY) or frame.filename.startswith("<")
        if not library:
            return f"{frame.filename}:{frame.lineno}: `{frame.line}`"
    return ""


@contextmanager
def users_code(what: str, *, always: bool = False) -> Iterator[None]:
    """What the user's code raises inside the block, as a TaskError with their own line.

    Args:
        what: Opens the message: whose code it is.
        always: Take also what was raised in a library, or far below ours, as theirs: nothing but their code runs here.
    Raises: TaskError. What comes from our own code, or a LimbeckError, passes as it is.
    """
    try:
        yield
    except (*FAILURES, SystemExit) as error:  # sys.exit() in a dataset must not end us with the exit code of a PASS
        line = own_line(error)
        if not line and not always:
            raise
        reason = next((part.strip() for part in str(error).splitlines() if part.strip()), "no reason given")
        raise TaskError(f"{what}: {line + ' raised ' if line else ''}{type(error).__name__}: {reason}. Mend it there; --debug shows the whole traceback.") from error
