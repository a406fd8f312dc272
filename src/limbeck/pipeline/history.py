"""What became of runs: the list of them, the way back to any stage, and the removal of what no record needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, LimbeckError, RunError
from limbeck.core.files import write
from limbeck.pipeline.journal import Journal, read
from limbeck.pipeline.lock import locked
from limbeck.pipeline.reading import Past, Product, opened
from limbeck.pipeline.records import read_record, record, sealed
from limbeck.pipeline.verify import file_hash

HASH = re.compile(rb"[0-9a-f]{64}")


def runs(root: Path) -> list[dict[str, Any]]:
    """Every run below `root`, by name. One that can't be read is listed as damaged, with what is wrong.

    Raises: ConfigError if there is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"there is no folder of runs {root}. Name one, as in `limbeck runs limbeck-demo/runs`.")
    return [_listed(path.parent) for path in sorted(root.glob("*/journal.jsonl")) if not path.parent.name.startswith(".")]


def _listed(folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": folder.name, "folder": str(folder), "size_bytes": _size(p for p in folder.rglob("*"))}
    try:
        if not read(folder / "journal.jsonl"):
            return entry | _row(state="interrupted")
        run = opened(folder)
    except LimbeckError as error:
        return entry | _row(state="damaged", error=str(error))
    summary = (run.summary or {}) if run.finished else {}
    final = summary.get("final") or {}
    plan = next((x["data"].get("plan", {}) for x in reversed(run.lines) if x["event"] == "run"), {})
    titles = {s.get("name") or s.get("technique") for s in plan.get("stages", ())}
    passed = [s for s in summary["stages"] if s["verdict"] == "PASS"] if "stages" in summary else {p.stage for p in run.products if p.status == "PASS"} & titles
    return entry | _row(
        state=run.state,
        passed=len(passed),
        stages=len(plan.get("stages", ())),
        last_event=run.lines[-1]["time"],
        metric=final.get("metric"),
        retention=(summary.get("retention") or {}).get("value"),
        ratios=summary.get("ratios"),
    )


def _row(*, state: str, passed: int = 0, stages: int = 0, **more: Any) -> dict[str, Any]:
    """`state` is the verdict, `under way`, `interrupted` or `damaged`."""
    return {"state": state, "stages_passed": passed, "stages": stages, **dict.fromkeys(("last_event", "metric", "retention", "ratios", "error")), **more}


def _size(paths: Iterable[Path]) -> int:
    return sum(p.lstat().st_size for p in paths if p.is_file() and not p.is_symlink())


def rollback(folder: Path, to: str, *, out: Path | None = None) -> dict[str, Any]:
    """Bring back the exact bytes of what a stage made: HEAD points to it, its artifact is laid out, the journal says so.

    Args:
        to: A stage's title, "baseline", or the first digits of a stage's key.
        out: Where a copy of the artifact goes: a file, or a folder for an artifact of several files.
    Raises: ConfigError for a stage that made none, or an `out` that holds something else; RunError if the run is held or damaged.
    """
    opened(folder)
    with locked(folder):
        run = opened(folder)
        product = run.product(to)
        files = run.artifact_record(product)
        form = run.store.get_json(product.candidate)["form"]
        for sha in {*([form["weights"]] if form["kind"] == "torch" else []), *files["files"].values()}:
            run.store.get(sha)  # every byte is checked before anything moves
        copies = _copies(files, out) if out else {}
        artifact = run.store.artifact(files, folder / "artifacts" / product.mark[:16])
        place = artifact.path.relative_to(folder).as_posix()
        _point(run, product, runtime=artifact.runtime, place=place)
        for path, sha in copies.items():
            write(path, run.store.get(sha))
    return {
        "schema": 1,
        "run": folder.name,
        "stage": product.stage,
        "key": product.key or None,
        "candidate": product.candidate,
        "artifact": place,
        "files": dict(files["files"]),
        "size_bytes": artifact.size_bytes,
        "out": [str(p) for p in copies],
    }


def _copies(files: Any, out: Path) -> dict[Path, str]:
    """Where each file of an artifact goes under `out`; refused where another file stands."""
    names = dict(files["files"])
    single = len(names) == 1 and not out.is_dir()
    copies = {out if single else out / name: sha for name, sha in names.items()}
    for path, sha in copies.items():
        if path.is_dir() or (path.exists() and file_hash(path) != sha):
            raise ConfigError(f"--out {path} exists and holds something else. Name another, or move it away.")
    return copies


def _point(run: Past, product: Product, *, runtime: str, place: str) -> None:
    """The journal first, then HEAD, then the summary's note of the journal's head: killed between, the order still tells what was meant."""
    path = run.folder / "HEAD.json"
    heads = {k: v for k, v in read_record(path).items() if k != "version"} if path.exists() else {}
    before = (heads.get(runtime) or {}).get("candidate")
    finished = run.finished
    journal = Journal(run.folder / "journal.jsonl")
    number = 1 + sum(line["event"] == "rollback" for line in journal.lines)
    journal.record("rollback", number=number, to=product.stage, key=product.key, candidate=product.candidate, artifact=product.mark, before=before)
    write(path, record(heads | {runtime: {"stage": product.stage, "candidate": product.candidate, "artifact": place}}))
    if finished and run.summary is not None:
        write(run.folder / "summary.json", sealed(run.summary | {"journal_head": journal.head}))


def gc(folder: Path, *, delete: bool = False) -> dict[str, Any]:
    """What no journal line, stage record, measurement or summary needs; deleted only on request.

    Objects that nothing names, checkpoints of stages that have their record, artifacts that no record lays out, what a killed process
    left half-written, and, once the run has its summary, the teacher's cache. What limbeck doesn't know is left alone.

    Raises: ConfigError if it is no run folder; RunError if the run is held, or damaged: then nothing is deleted.
    """
    opened(folder)
    with locked(folder):
        run = opened(folder)
        found = sorted(dict(_garbage(run)).items())
        rows = [{"file": p.relative_to(folder).as_posix(), "size_bytes": p.lstat().st_size, "why": why} for p, why in found]
        if delete:
            _delete(folder, [p for p, _ in found])
    return {"schema": 1, "run": folder.name, "deleted": delete, "files": rows, "size_bytes": sum(r["size_bytes"] for r in rows)}


def _garbage(run: Past) -> Iterable[tuple[Path, str]]:
    needed = needed_objects(run)
    keys = {p.stem[:16] for p in (run.folder / "stages").glob("*.json")}
    for path in _files(run.folder / "objects"):
        if path.name not in needed:
            yield path, "no record names it"
    for path in _files(run.folder / "checkpoints"):
        if path.name.split("-")[0] in keys:
            yield path, "its stage is done"
    for path in _files(run.folder / "artifacts"):
        if path.relative_to(run.folder / "artifacts").parts[0] not in keys | {mark[:16] for mark in run.exports}:
            yield path, "no record lays it out"
    for path in _files(run.folder / "cache"):
        if run.finished:
            yield path, "the run is finished; the teacher would answer again"
    for path in run.folder.rglob("*"):
        if path.is_file() and path.match(".*.tmp"):
            yield path, "left half-written by a process that was killed"
        elif path.is_file() and path.relative_to(run.folder).parts[0] == "scratch":
            yield path, "scratch of a run that isn't under way"


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() or p.is_symlink()]


def needed_objects(run: Past) -> set[str]:
    """Every object that a record names, directly or through other objects.

    Whatever looks like an object's name counts as one, so that a record of a later limbeck keeps what it needs too.
    """
    texts = [json.dumps(run.lines).encode(), json.dumps(run.summary).encode()]
    for path in (*sorted((run.folder / "stages").glob("*.json")), *sorted((run.folder / "measurements").glob("*.json")), run.folder / "HEAD.json"):
        if path.exists():
            texts.append(json.dumps(read_record(path)).encode())
    return _closure(run, {sha.decode() for text in texts for sha in HASH.findall(text)})


def _closure(run: Past, names: Iterable[str]) -> set[str]:
    """These objects and all that they name; names that no object has are left out. Weights and artifacts name none."""
    left, found = list(names), set()
    while left:
        sha = left.pop()
        path = run.store.path(sha)
        if sha in found or not path.is_file():
            continue
        found.add(sha)
        with path.open("rb") as file:
            if file.read(1) in (b"{", b"[", b'"'):  # JSON, or weights that begin so by chance: then too much is kept
                left += [name.decode() for name in HASH.findall(path.read_bytes())]
    return found


def _delete(folder: Path, paths: list[Path]) -> None:
    try:
        for path in paths:
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == folder or any(parent.iterdir()):
                    break
                parent.rmdir()
    except OSError as error:
        raise RunError(f"{error.filename} can't be deleted: {error.strerror}. Make the folder writable and run the same command again.") from error
