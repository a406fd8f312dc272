"""Who works in a run's folder: one process at a time, by a lock that the system lets go of when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from limbeck.core.errors import RunError

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder against other processes while the block runs; its number stands in the lock so that they can name it.

    Raises: RunError if another process holds the folder, or it can't be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"the run folder {folder} can't be written: {error.strerror}. Choose another with run.root.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 64, 0).decode(errors="replace").strip() or "another process"
            raise RunError(f"the run folder {folder} is held by process {holder}. Wait until it ends, or give this run another name.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def owner(folder: Path) -> int | None:
    """The number of the live process that holds this run, or None. It reads alone, so it can't get in the way of a run that starts.

    A number that stands in the lock of a process that was killed, and was given to another one since, is told by that one's age.
    """
    path = folder / LOCK
    try:
        text, since = path.read_text(errors="replace").strip(), path.stat().st_mtime
        if not text.isdigit():
            return None
        process = psutil.Process(int(text))
        alive = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + 1.0
    except (OSError, OverflowError, psutil.Error):
        return None
    return process.pid if alive else None
