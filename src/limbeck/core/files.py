"""Files that are written whole or not at all, and what to say when the disk says no."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.core.errors import RunError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def write(path: Path, data: bytes) -> None:
    """Under a temporary name (`.name.pid.tmp`), synced, renamed: a killed process leaves the old file or the new one.

    Raises: RunError if the disk is full, or the folder can't be written; the old file is as it was.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """At the end of a file, synced. Raises: as `write`; the file is as long as it was."""
    with disk(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)  # to cut off takes no room
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, as `fsync` does for what is in a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """What the system says of a full or closed disk while the block runs, as a RunError that says how to go on. `path` is named where the system names none."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        if error.errno in FULL:
            raise RunError(
                f"{place} can't be written: {error.strerror}; {free(place)} are free there. Nothing is left half-written: make room and run the same command again to go on."
            ) from error
        if error.errno in CLOSED:
            raise RunError(
                f"{place} can't be written: {error.strerror}. Make its folder writable and run the same command again to go on, or choose another with run.root."
            ) from error
        raise


def free(path: Path) -> str:
    """The room that is left where this path lies, or would lie, in words."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    left = float(shutil.disk_usage(place).free)
    for unit in ("B", "kB", "MB"):
        if left < 1000:
            return f"{left:.0f} {unit}"
        left /= 1000
    return f"{left:.1f} GB"
