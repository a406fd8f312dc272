"""A pass over all that a run vouches for: every byte of its evidence is hashed, and every file that doesn't hold is named.

Evidence is the journal, the summary, HEAD.json, objects, stage records, measurement records, and artifacts laid out. The teacher's
cache, checkpoints of training under way, the report and the lock are none: what they lead to is judged by its own hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from limbeck.core.errors import ConfigError, LimbeckError, RunError
from limbeck.pipeline.journal import line_hash, read
from limbeck.pipeline.lock import LOCK
from limbeck.pipeline.reading import AFTER, REPORT
from limbeck.pipeline.records import SEAL, is_sealed, newest, read_record, read_summary
from limbeck.pipeline.store import CANDIDATE_VERSION, digest

NO_EVIDENCE = frozenset({"cache", "checkpoints", "scratch", LOCK, REPORT})


@dataclass
class _Pass:
    """What a pass has found so far."""

    folder: Path
    problems: dict[str, str] = field(default_factory=dict)  # by file, relative to the run
    notes: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)

    def bad(self, path: Path | str, what: str) -> None:
        name = path if isinstance(path, str) else path.relative_to(self.folder).as_posix()
        self.problems.setdefault(name, what)

    def look(self, path: Path, reader: Callable[[], Any]) -> Any:
        """What `reader` gives, or None and a problem of this file."""
        self.checked.add(path.relative_to(self.folder).as_posix())
        try:
            return reader()
        except LimbeckError as error:
            self.bad(path, str(error))
            return None

    def object(self, sha: Any, *, by: str) -> bytes | None:
        """The bytes of an object that something names; None if they aren't there or aren't right."""
        if not (isinstance(sha, str) and len(sha) == 64 and set(sha) <= set("0123456789abcdef")):
            self.bad(by, f"names the object {sha!r}, which is no hash")
            return None
        path = self.folder / "objects" / sha[:2] / sha
        name = path.relative_to(self.folder).as_posix()
        if not path.is_file():
            self.bad(name, f"is missing; {by} needs it")
        return None if name in self.problems else path.read_bytes()

    def parsed(self, sha: Any, *, by: str) -> Any:
        """The content of an object that must be JSON."""
        raw = self.object(sha, by=by)
        try:
            return None if raw is None else json.loads(raw)
        except (ValueError, RecursionError):
            self.bad(by, f"names the object {sha[:12]}, which is not JSON")
            return None


def verify(folder: Path) -> dict[str, Any]:
    """Everything that doesn't hold in a run folder, by file; reads alone, and may look at a run under way.

    Raises: ConfigError if it is no run folder.
    """
    if not (folder / "journal.jsonl").is_file():
        raise ConfigError(f"{folder} is not a run folder: it has no journal. Name one, as in runs/run; `limbeck runs` lists them.")
    seen = _Pass(folder)
    lines = seen.look(folder / "journal.jsonl", lambda: read(folder / "journal.jsonl")) or []
    _objects(seen)
    for line in lines:
        _event(seen, line)
    laid = _stages(seen)
    exports = _measurements(seen)
    for mark, by in _marks(lines):
        if mark not in exports and "journal.jsonl" not in seen.problems:
            seen.bad(by, f"names the artifact {mark[:12]}, which no export in measurements/ holds")
    _artifacts(seen, laid | {mark[:16]: record for mark, record in exports.items()})
    _summary(seen, lines)
    _head(seen)
    _strange(seen)
    problems = [{"file": k, "what": v} for k, v in sorted(seen.problems.items())]
    counts = {"clean": not problems, "exit_code": 3 if problems else 0, "checked": len(seen.checked)}
    return {"schema": 1, "run": folder.name, **counts, "problems": problems, "notes": sorted(seen.notes)}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _objects(seen: _Pass) -> None:
    for path in sorted((seen.folder / "objects").rglob("*")):
        if path.is_dir() or _temporary(path):
            continue
        seen.checked.add(path.relative_to(seen.folder).as_posix())
        if path.is_symlink() or path.parent.name != path.name[:2] or file_hash(path) != path.name:
            seen.bad(path, "its bytes don't have the hash that is its name")


def _event(seen: _Pass, line: Mapping[str, Any]) -> None:
    for name in ("teacher", "candidate"):
        if name in line["data"]:
            _candidate(seen, line["data"][name], by="journal.jsonl")
    for name in ("preprocess", "object"):  # of the events `run` and `evidence`
        if name in line["data"]:
            seen.object(line["data"][name], by="journal.jsonl")


def _candidate(seen: _Pass, sha: Any, *, by: str) -> Mapping[str, Any]:
    """Its form, once all that it names was asked for."""
    data = seen.parsed(sha, by=by)
    try:
        if data is not None:
            newest(data.get("version"), CANDIDATE_VERSION, where=f"object {sha[:12]}: version")
            form = data["form"]
            for needed in [form["weights"]] if form["kind"] == "torch" else form["files"].values():
                seen.object(needed, by=f"objects/{sha[:2]}/{sha}")
            return form
    except (KeyError, TypeError, AttributeError):
        seen.bad(by, f"names the object {sha[:12]}, which is no candidate")
    except RunError as error:
        seen.bad(by, str(error))
    return {}


def _records(seen: _Pass, room: str) -> Iterable[tuple[Path, dict[str, Any]]]:
    for path in sorted((seen.folder / room).glob("*.json")):
        data = seen.look(path, lambda path=path: read_record(path))
        if data is not None:
            if not is_sealed(path):
                seen.notes.append(f"{room}/{path.name} was written before records carried their own hash; only what it names could be checked")
            yield path, data


def _stages(seen: _Pass) -> dict[str, Mapping[str, Any]]:
    """The artifacts that stages made themselves, by the folders in which they are laid out."""
    laid = {}
    for path, data in _records(seen, "stages"):
        if data.get("key") != path.stem:
            seen.bad(path, f"is the record of another key, {data.get('key')!r}")
        form = _candidate(seen, data.get("candidate"), by=f"stages/{path.name}")
        if form.get("kind") == "artifact" and is_artifact_record(form):
            laid[path.stem[:16]] = form
    return laid


def _measurements(seen: _Pass) -> dict[str, dict[str, Any]]:
    """The exports by their artifacts' marks; every object that a measurement names is asked for."""
    exports = {}
    for path, data in _records(seen, "measurements"):
        by = f"measurements/{path.name}"
        if not _named(path, data):
            seen.bad(path, "is the record of another measurement than its name says")
        content = seen.parsed(data.get("object"), by=by)
        if data.get("kind") in ("rows", "slices") and isinstance(content, dict):
            seen.object(content.get("rows"), by=by)
        if data.get("kind") == "export" and isinstance(content, dict):
            record = content.get("artifact")
            if not isinstance(record, dict) or not is_artifact_record(record):
                seen.bad(by, "names an export whose artifact would leave the run folder, or has no files")
                continue
            exports[digest(record)] = record
            for sha in record["files"].values():
                seen.object(sha, by=by)
    return exports


def _named(path: Path, data: Mapping[str, Any]) -> bool:
    try:
        return path.stem == f"{data.get('kind')}-{digest([data.get('kind'), data.get('key')])[:32]}"
    except ValueError:  # NaN in a key, which no measurement of limbeck's has
        return False


def is_artifact_record(record: Any) -> bool:
    """Whether this is the record of an artifact whose files all stay below the folder in which they are laid out."""
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict) or not record["files"]:
        return False
    names = [record.get("name"), *record["files"]]
    return all(isinstance(n, str) and n and "\\" not in n and not PurePosixPath(n).is_absolute() and ".." not in PurePosixPath(n).parts for n in names)


def _marks(lines: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    for line in lines:
        names = {"baseline": ("artifact",), "stage": ("artifact",), "rollback": ("artifact",), "verdict": ("final", "control")}.get(line["event"], ())
        yield from ((line["data"][n], "journal.jsonl") for n in names if line["data"].get(n))


def _artifacts(seen: _Pass, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Files laid out below artifacts/, against the records by the folders that they name."""
    for path in sorted((seen.folder / "artifacts").rglob("*")):
        if path.is_dir() or _temporary(path):
            continue
        name = path.relative_to(seen.folder).as_posix()
        _, mark, *rest = name.split("/")
        sha = known[mark]["files"].get("/".join(rest)) if mark in known else None
        if sha is None:
            seen.notes.append(f"{name}: no record names it")
            continue
        seen.checked.add(name)
        if path.is_symlink() or file_hash(path) != sha:
            seen.bad(path, f"its bytes aren't those of object {sha[:12]}")


def _summary(seen: _Pass, lines: list[dict[str, Any]]) -> None:
    """The summary's own hash, its place in the journal, its verdict, and the artifacts that it names."""
    path = seen.folder / "summary.json"
    if not path.exists():
        return
    data = seen.look(path, lambda: read_summary(seen.folder))
    if data is None:
        return
    if SEAL not in data:
        seen.bad(path, "has no hash of its own: it was changed, or written before summaries carried one")
    heads = [line_hash(line) for line in lines]
    if data.get("journal_head") not in heads:
        seen.bad("journal.jsonl", "its last line isn't the one that summary.json names (journal_head): a line was changed or cut off")
    elif any(line["event"] not in AFTER for line in lines[heads.index(data["journal_head"]) + 1 :]):
        seen.notes.append("summary.json is older than the journal: the run was started again and hasn't come to its end")
    for model in ("baseline", "final", "control"):
        artifact = _table(data.get(model)).get("artifact")
        if artifact and not (seen.folder / str(artifact)).exists():
            seen.bad(str(artifact), f"is missing; summary.json names it ({model})")


def _head(seen: _Pass) -> None:
    path = seen.folder / "HEAD.json"
    if path.exists():
        for entry in (seen.look(path, lambda: read_record(path)) or {}).values():
            if isinstance(entry, dict):
                _candidate(seen, entry.get("candidate"), by="HEAD.json")


def _strange(seen: _Pass) -> None:
    for path in sorted(seen.folder.rglob("*")):
        name = path.relative_to(seen.folder).as_posix()
        if path.is_file() and name not in seen.checked and name.split("/")[0] not in {*NO_EVIDENCE, "artifacts"} and not _temporary(path):
            seen.notes.append(f"{name}: not a file of limbeck's")


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")
