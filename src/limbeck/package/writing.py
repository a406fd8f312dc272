"""A package written: its folder, its zip and the zip's hash. The same content gives the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from limbeck.core.errors import ConfigError
from limbeck.core.files import disk, sync_folder, write
from limbeck.package.checking import side_line
from limbeck.package.container import packed


def write_package(out: Path, files: Mapping[str, bytes]) -> None:
    """`out/` with these files, `out.zip`, `out.zip.sha256`: the folder whole or not at all; what is there already and equal is left.

    Raises: ConfigError if something else stands in one of the places, or a name would leave the folder; RunError if the disk is full.
    """
    archive = packed(files)
    beside = {out.with_name(f"{out.name}.zip"): archive, out.with_name(f"{out.name}.zip.sha256"): side_line(f"{out.name}.zip", archive)}
    there = out.exists()
    if there and not _equal(out, files):
        raise ConfigError(f"{out} exists and holds something else. Name another with --out, or move it away.")
    for path, data in beside.items():
        if path.exists() and (not path.is_file() or path.read_bytes() != data):
            raise ConfigError(f"{path} exists and holds something else. Name another with --out, or move it away.")
    if not there:
        _place(out, files)
    for path, data in beside.items():
        if not path.exists():
            write(path, data)


def _equal(out: Path, files: Mapping[str, bytes]) -> bool:
    if not out.is_dir():
        return False
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    return names == files.keys() and all((out / n).read_bytes() == d for n, d in files.items())


def _place(out: Path, files: Mapping[str, bytes]) -> None:
    """Beside its place first, then moved there in one step."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with disk(out):
        try:
            for name, data in files.items():
                write(temporary / name, data)
            temporary.rename(out)
            sync_folder(out.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
