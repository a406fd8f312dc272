"""What a package says of itself: each file's hash, where the model came from, and what was shown of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from limbeck.core.errors import RunError
from limbeck.core.seal import holds, sealed
from limbeck.package.container import odd_name

NAME, KIND, SCHEMA = "manifest.json", "limbeck-package", 1
HEX = frozenset("0123456789abcdef")
WAY = "Take the package from where it was made, or make it again with `limbeck package`."


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file: the SHA-256 of its bytes, in hex, and how many there are."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input of the model: dtype as numpy writes it, shape with null where an axis is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """An artifact in the package: a file or a folder that the runtime loads, and the hash that stands for all of it."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Samples whose answers are known: how many, which of validation, by output how far another machine may be from them."""

    samples: int
    ids: tuple[int, ...]
    tolerances: Mapping[str, Mapping[str, float]]
    why: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a package vouches for. Plain data but for the parts that code reads.

    lineage: run, stage, candidate, teacher, data, code, plan, contract, seed, journal head: where the model comes from.
    figures: what was measured of it and of its baseline; verdicts: what was decided from that.
    absent: what a package may have and this one hasn't, with the reason.
    """

    name: str
    runtime: str
    artifact: Part
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    empty: Part
    baseline: Part | None
    golden: Golden | None
    target: Mapping[str, Any]
    verdict: str
    verdicts: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, Any]
    lineage: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    absent: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Entry] = field(default_factory=dict)

    def of(self, files: Mapping[str, bytes]) -> Manifest:
        """The same manifest of these files."""
        return replace(self, files={n: Entry(sha256=hashlib.sha256(d).hexdigest(), size_bytes=len(d)) for n, d in sorted(files.items())})

    def to_bytes(self) -> bytes:
        """JSON that vouches for itself, its keys in one order: a record that was written again gives the same bytes."""
        return sealed({"schema": SCHEMA, "kind": KIND, **json.loads(json.dumps(asdict(self), sort_keys=True))})


def artifact_hash(files: Mapping[str, str]) -> str:
    """What stands for an artifact: of one file its own SHA-256, of several that of their list (`hash  name`, sorted by name)."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256("".join(f"{files[n]}  {n}\n" for n in sorted(files)).encode()).hexdigest()


def read_manifest(raw: bytes) -> Manifest:
    """A manifest whose content has its hash, and whose names stay in the package. Raises RunError."""
    try:
        data = json.loads(raw)
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise RunError(f"{NAME} is not that of a package. {WAY}")
        if type(data.get("schema")) is int and data["schema"] > SCHEMA:
            raise RunError(f"{NAME} has schema {data['schema']}; this limbeck reads up to {SCHEMA}. Upgrade with pip install -U limbeck.")
        if not holds(data, raw):
            raise RunError(f"{NAME} was changed: its content doesn't have its hash. {WAY}")
        manifest = _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{NAME} can't be read ({type(error).__name__}: {error}): it was changed. {WAY}") from error
    _check(manifest)
    return manifest


def _parsed(data: Mapping[str, Any]) -> Manifest:
    named = {f: data[f] for f in ("name", "runtime", "target", "verdict", "figures", "lineage", "versions", "machine", "absent")}
    ports = tuple(Port(name=str(p["name"]), dtype=str(p["dtype"]), shape=tuple(p["shape"])) for p in data["inputs"])
    golden = data["golden"]
    return Manifest(
        **named,
        artifact=Part(**data["artifact"]),
        inputs=ports,
        outputs=tuple(data["outputs"]),
        empty=Part(**data["empty"]),
        baseline=Part(**data["baseline"]) if data["baseline"] else None,
        golden=Golden(**{**golden, "ids": tuple(golden["ids"])}) if golden else None,
        verdicts=tuple(data["verdicts"]),
        files={n: Entry(**e) for n, e in data["files"].items()},
    )


def _check(manifest: Manifest) -> None:
    """Raises RunError for names that leave the package, hashes that are none, and parts that aren't there."""
    for name, entry in manifest.files.items():
        if reason := odd_name(name):
            raise RunError(f"{NAME}: {name!r} {reason}. {WAY}")
        if not (isinstance(entry.sha256, str) and len(entry.sha256) == 64 and set(entry.sha256) <= HEX and type(entry.size_bytes) is int):
            raise RunError(f"{NAME}: {name!r} has no SHA-256 or no size. {WAY}")
    for part in (manifest.artifact, manifest.empty, *([manifest.baseline] if manifest.baseline else [])):
        if artifact_hash(files_of(manifest, part)) != part.sha256:
            raise RunError(f"{NAME}: the files of {part.path!r} don't have the hash of that artifact. {WAY}")
    texts = {"name": manifest.name, "runtime": manifest.runtime, "verdict": manifest.verdict}
    tables = {"target": manifest.target, "figures": manifest.figures, "lineage": manifest.lineage, "versions": manifest.versions, "absent": manifest.absent}
    odd = [n for n, v in texts.items() if not isinstance(v, str)] + [n for n, v in tables.items() if not isinstance(v, dict)]
    if odd:
        raise RunError(f"{NAME}.{odd[0]} has the wrong kind of value. {WAY}")


def files_of(manifest: Manifest, part: Part) -> dict[str, str]:
    """By name relative to the artifact's own folder, the hash of each of its files. Raises RunError if it has none."""
    folder = part.path.rpartition("/")[0]
    found = {n.removeprefix(f"{folder}/"): e.sha256 for n, e in manifest.files.items() if n == part.path or n.startswith(f"{part.path}/")}
    if not found:
        raise RunError(f"{NAME}: the package has no file of {part.path!r}. {WAY}")
    return found
