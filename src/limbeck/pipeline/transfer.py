"""A whole run as one zip file, and back. What comes in is checked byte for byte before it is placed, or not placed at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from limbeck.core.errors import ConfigError, RunError
from limbeck.core.files import disk
from limbeck.pipeline.journal import Journal
from limbeck.pipeline.lock import LOCK, locked
from limbeck.pipeline.looks import Looked, count_look
from limbeck.pipeline.reading import REPORT, check_name, opened
from limbeck.pipeline.records import newest
from limbeck.pipeline.store import canonical, digest
from limbeck.pipeline.verify import file_hash, verify

MANIFEST, MANIFEST_VERSION = "limbeck-run.json", 1
LEFT_OUT = frozenset({"cache", "scratch", LOCK, REPORT})  # made again where they are needed
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say: the same run gives the same bytes on any day
MANIFEST_LIMIT = 1 << 26
DEFAULT_LIMIT = 64 * 10**9  # bytes that an import may unpack, unless told otherwise
CHUNK = 1 << 20
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OverflowError, ValueError)  # what the zip reader says of bytes that are no zip


def export_run(folder: Path, file: Path) -> dict[str, Any]:
    """A run that verifies, as one zip: entries sorted, stored as they are, without times, so that equal runs give equal bytes.

    The teacher's cache is left out, and artifacts laid out stand in the list alone: their bytes are objects already.

    Raises: ConfigError if `file` exists; RunError if the run is held or damaged, or the disk is full.
    """
    opened(folder)
    if file.exists():
        raise ConfigError(f"{file} exists. Name another, or move it away.")
    with locked(folder):
        found = verify(folder)
        if not found["clean"]:
            raise RunError(f"{folder} doesn't verify, so it isn't exported: {_shown(found['problems'])}. `limbeck verify {folder}` shows all.")
        entries, laid = _contents(folder)
        listed = {n: {"sha256": s, "size_bytes": (folder / n).stat().st_size} for n, s in entries.items()}
        manifest = {"version": MANIFEST_VERSION, "run": folder.name, "files": listed, "laid_out": laid}
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            with disk(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                _pack(temporary, folder, manifest)
                temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    return {"schema": 1, "run": folder.name, "file": str(file), "files": len(entries), "size_bytes": file.stat().st_size, "sha256": file_hash(file)}


def _contents(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Each file's hash by its name in the run: those that are packed, and those whose bytes are an object's."""
    entries, laid = {}, {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        top = name.split("/")[0]
        if top in LEFT_OUT or path.is_symlink() or not path.is_file() or path.name.startswith("."):
            continue
        sha = file_hash(path)
        (laid if top == "artifacts" and (folder / "objects" / sha[:2] / sha).exists() else entries)[name] = sha
    return entries, laid


def _pack(file: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=True) as archive:
        archive.writestr(_entry(MANIFEST), canonical(manifest))
        for name in sorted(manifest["files"]):
            with (folder / name).open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, CHUNK)
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, TIME)
    entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    return entry


def import_run(file: Path, *, root: Path, name: str | None = None, limit_bytes: int = DEFAULT_LIMIT) -> dict[str, Any]:
    """Place an exported run below `root`, under its own name or another: whole, or not at all.

    Raises: ConfigError if there is no such file, the name is taken or not a name; RunError for a zip that names a path outside, a link,
        the same file twice, more than `limit_bytes`, other bytes than its list says, or a run that doesn't verify.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file {file}. Name a zip that `limbeck export` wrote.")
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _manifest(file, archive, limit_bytes)
            chosen = str(name or manifest["run"])
            check_name(chosen)
            if (root / chosen).exists():
                raise ConfigError(f"{root / chosen} exists. Import under another name with --name.")
            with disk(root):
                root.mkdir(parents=True, exist_ok=True)
                return _placed(archive, manifest, root, chosen)
    except BROKEN as error:
        raise RunError(f"{file} is not a zip that `limbeck export` wrote, or was changed: {error}. Nothing was placed.") from error
    except OSError as error:
        raise RunError(f"{error.filename or file}: {error.strerror or error}. Nothing was placed.") from error


def _placed(archive: zipfile.ZipFile, manifest: Mapping[str, Any], root: Path, name: str) -> dict[str, Any]:
    """Unpack beside its place, verify, then move there in one step."""
    temporary = root / f".import-{name}-{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for path, listed in sorted(manifest["files"].items()):
            _unpack(archive, path, listed, temporary)
        for path, sha in sorted(manifest["laid_out"].items()):
            source = temporary / "objects" / sha[:2] / sha
            if not source.is_file():
                raise RunError(f"{archive.filename} lists {path}, whose bytes (object {sha[:12]}) it doesn't hold. Nothing was placed.")
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary / path)
        found = verify(temporary)
        if not found["clean"]:
            raise RunError(f"the run in {archive.filename} doesn't verify: {_shown(found['problems'])}. Nothing was placed.")
        if (root / name).exists():
            raise ConfigError(f"{root / name} exists. Import under another name with --name.")
        temporary.rename(root / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _count_look(root, name)
    return {"schema": 1, "run": name, "folder": str(root / name), "files": len(manifest["files"]) + len(manifest["laid_out"]), "checked": found["checked"], "notes": found["notes"]}


def _unpack(archive: zipfile.ZipFile, path: str, listed: Mapping[str, Any], folder: Path) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    sha, size = hashlib.sha256(), 0
    with archive.open(path) as source, target.open("xb") as out:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > listed["size_bytes"]:
                break
            sha.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if size != listed["size_bytes"] or sha.hexdigest() != listed["sha256"]:
        raise RunError(f"{path} in {archive.filename} has other bytes than its list says: it was changed. Nothing was placed.")


def _manifest(file: Path, archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, Any]:
    """The zip's own list of its files, and that it holds these and no other; sizes are checked before anything is unpacked."""
    entries = archive.infolist()
    names = [e.filename for e in entries]
    for entry in entries:
        _check_entry(file, entry)
    folded = [n.casefold() for n in names]
    twice = next((n for n in names if folded.count(n.casefold()) > 1), None) if len(set(folded)) < len(names) else None
    if twice is not None:
        raise RunError(f"{file} holds {twice!r} twice (names that differ in case alone count as one). Nothing was placed.")
    total = sum(e.file_size for e in entries)
    if total > limit_bytes:
        raise RunError(f"{file} would unpack to {total:,} bytes; at most {limit_bytes:,} are allowed. Raise it with --limit-bytes if you trust it. Nothing was placed.")
    if sum(e.compress_size for e in entries) > file.stat().st_size:
        raise RunError(f"{file} says that its entries are larger than the file itself: they overlap. Nothing was placed.")
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > MANIFEST_LIMIT:
        raise RunError(f"{file} has no {MANIFEST}: it is no run that `limbeck export` wrote. Nothing was placed.")
    with archive.open(MANIFEST) as source:
        manifest = _parsed(file, _bounded(source))
    odd = sorted({*names} ^ {MANIFEST, *manifest["files"]})
    if odd:
        raise RunError(f"{file} and its list disagree on {odd[0]!r}. Nothing was placed.")
    return manifest


def _bounded(source: IO[bytes]) -> bytes:
    return source.read(MANIFEST_LIMIT)


def _parsed(file: Path, raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
        newest(data["version"], MANIFEST_VERSION, where=f"{file}: {MANIFEST}.version")
        files, laid = data["files"], data["laid_out"]
        whole = all(isinstance(e["sha256"], str) and type(e["size_bytes"]) is int for e in files.values()) and all(isinstance(s, str) for s in laid.values())
        if not whole or not isinstance(data["run"], str):
            raise TypeError("an entry has no sha256 or size_bytes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{file}: {MANIFEST} is not a list of a run's files ({error}). Nothing was placed.") from error
    for name in (*files, *laid):
        _check_path(file, name)
    stray = next((n for n in laid if n.split("/")[0] != "artifacts" or n in files), None)
    if stray is not None:
        raise RunError(f"{file} would lay out {stray!r}, which is no artifact. Nothing was placed.")
    return data


def _check_entry(file: Path, entry: zipfile.ZipInfo) -> None:
    _check_path(file, entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        what = "a link" if kind == stat.S_IFLNK else "no plain file"
        raise RunError(f"{file}: {entry.filename!r} is {what}. Nothing was placed.")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RunError(f"{file}: {entry.filename!r} is encrypted, or packed in a way that limbeck doesn't read. Nothing was placed.")


def _check_path(file: Path, name: str) -> None:
    """A name below the run's folder, in plain parts; refused as it stands, never mended."""
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or "\\" in name or "\0" in name or ":" in parts[0] or any(p in ("", ".", "..") for p in parts):
        raise RunError(f"{file}: {name!r} would leave the run folder, or is no plain path. Nothing was placed.")
    if any(p.startswith(".") for p in parts) or parts[0] in LEFT_OUT:
        raise RunError(f"{file}: {name!r} is no file that an exported run has. Nothing was placed.")


def _count_look(root: Path, name: str) -> None:
    """A run that came to its verdict looked at its test data: the same look as when it is run again here."""
    events = {line["event"]: line["data"] for line in Journal(root / name / "journal.jsonl").lines}
    asked, baseline, verdict = (events.get(e, {}) for e in ("run", "baseline", "verdict"))
    data = asked.get("data", {}).get("test")
    if data and baseline.get("artifact") and verdict.get("final"):
        marks = [baseline["artifact"], verdict["final"], *([verdict["control"]] if verdict.get("control") else [])]
        summary = opened(root / name).summary or {}
        look = summary.get("look") or {}
        noted = Looked(fingerprint=data, task=(summary.get("task") or {}).get("name"), samples=look.get("samples"))
        count_look(root, noted, run=name, artifact=digest(marks), **({"error": 1 - look["confidence"]} if look else {}))


def _shown(problems: list[dict[str, str]]) -> str:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(f"{p['file']}: {p['what']}" for p in problems[:3]) + more
