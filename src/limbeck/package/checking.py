"""Does a package hold? Every byte against its hash first; only then the model is asked for the answers that are known."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError, LimbeckError, RunError
from limbeck.package import golden as known
from limbeck.package.answers import answers
from limbeck.package.container import MOST_BYTES, unpacked
from limbeck.package.manifest import NAME, Manifest, read_manifest
from limbeck.runtimes import ALL

SIGNATURE = "who made it: these hashes find damage, and are no signature"
PREDICT = "predict.py"


@dataclass
class Found:
    """The files of a package as they are read, what is wrong with them by name, and the manifest once it holds."""

    name: str
    files: dict[str, bytes | memoryview | Path] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    manifest: Manifest | None = None
    whole: bool = True  # whether all its files could be read

    def bad(self, name: str, what: str) -> None:
        self.problems.setdefault(name, what)

    def read(self, name: str) -> bytes:
        data = self.files[name]
        return data.read_bytes() if isinstance(data, Path) else bytes(data)


def is_package(path: Path) -> bool:
    """Whether this is to be read as a package and not as a run: a file, or a folder with a package's manifest or code and no journal."""
    return path.is_file() or (not (path / "journal.jsonl").exists() and any((path / name).is_file() for name in (NAME, PREDICT)))


def verify(path: Path) -> dict[str, Any]:
    """Everything that doesn't hold in a package (folder or zip), by file, and what could not be checked here.

    Nothing is unpacked or loaded before every name and hash holds; then the model answers the golden inputs in a process of
    its own, in the runtime of this machine.

    Returns: clean, exit_code (0 or 3), checked (files), problems, unchecked, golden (None if it wasn't asked).
    Raises: ConfigError if there is no such file or folder.
    """
    found = gathered(path)
    outcome = _asked(found) if found.manifest and not found.problems else None
    problems = [{"file": n, "what": w} for n, w in sorted(found.problems.items())]
    return {
        "schema": 1,
        "package": found.name,
        "clean": not problems,
        "exit_code": 3 if problems else 0,
        "checked": len(found.files),
        "problems": problems,
        "unchecked": [*found.unchecked, SIGNATURE],
        "golden": outcome,
        "verdict": found.manifest.verdict if found.manifest else None,
        "artifact": found.manifest.artifact.sha256 if found.manifest else None,
        "notes": [],
    }


def gathered(path: Path) -> Found:
    """The files of a package, hashed and compared with its manifest. Raises ConfigError if there is no such file or folder."""
    if path.is_dir():
        found = _of_folder(path)
    elif path.is_file():
        found = _of_zip(path)
    else:
        raise ConfigError(f"there is no package {path}. Name its folder or its zip.")
    if found.whole:
        _against_manifest(found)
    return found


def _of_folder(path: Path) -> Found:
    found = Found(path.name)
    for place in sorted(path.rglob("*")):
        name = place.relative_to(path).as_posix()
        if place.is_symlink():
            found.bad(name, "is a link; a package holds plain files")
        elif place.is_file():
            found.files[name] = place
        elif not place.is_dir():
            found.bad(name, "is no plain file")
    return found


def _of_zip(path: Path) -> Found:
    found = Found(path.name)
    if path.stat().st_size > MOST_BYTES:
        found.bad(path.name, f"is larger than a package can be ({MOST_BYTES:,} bytes)")
        found.whole = False
        return found
    raw = path.read_bytes()
    seen = unpacked(raw, where=path.name)
    found.files |= seen.files
    found.problems |= seen.problems
    found.whole = seen.whole
    side = path.with_name(f"{path.name}.sha256")
    if not side.is_file():
        found.unchecked.append(f"the zip's own hash: {side.name} isn't beside it (the zip vouches for itself too)")
    elif side.read_bytes() != side_line(path.name, raw):
        found.bad(side.name, f"doesn't say the hash of {path.name}: one of the two was changed, or renamed")
    return found


def side_line(name: str, raw: bytes) -> bytes:
    """The file beside a zip, as `sha256sum -c` reads it."""
    return f"{hashlib.sha256(raw).hexdigest()}  {name}\n".encode()


def _against_manifest(found: Found) -> None:
    if NAME not in found.files:
        found.bad(NAME, "is missing: nothing says what the package should hold")
        return
    try:
        manifest = read_manifest(found.read(NAME))
    except RunError as error:
        found.bad(NAME, str(error))
        return
    found.manifest = manifest
    for name, entry in manifest.files.items():
        if name not in found.files:
            found.bad(name, "is missing")
        elif _digest(found.files[name]) != (entry.sha256, entry.size_bytes):
            found.bad(name, "its bytes don't have their hash")
    for name in found.files.keys() - manifest.files.keys() - {NAME}:
        found.bad(name, "is not part of the package: its manifest doesn't name it")


def _digest(data: bytes | memoryview | Path) -> tuple[str, int]:
    if not isinstance(data, Path):
        return hashlib.sha256(data).hexdigest(), len(data)
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), data.stat().st_size


def _asked(found: Found) -> dict[str, Any] | None:
    """The golden answers against those of this machine; what stands in the way of asking is noted."""
    manifest = found.manifest
    if manifest is None or manifest.golden is None:
        found.unchecked.append("golden outputs: the package has none" + (f" ({manifest.absent['golden']})" if manifest and "golden" in manifest.absent else ""))
        return None
    card = next((r for r in ALL if r.name == manifest.runtime), None)
    version = card.available() if card else None
    if version is None:
        found.unchecked.append(f"golden outputs: the runtime {manifest.runtime} isn't installed here (pip install {manifest.runtime})")
        return None
    try:
        expected = known.samples_of(found.read(known.OUTPUTS), where=known.OUTPUTS)
        feeds = known.samples_of(found.read(known.INPUTS), where=known.INPUTS)
        with laid_out(found, manifest) as artifact:
            got = answers(artifact, feeds, threads=int(manifest.target.get("threads", 1)))
        if len(expected) != len(got):
            raise RunError(f"{known.INPUTS} and {known.OUTPUTS} hold different numbers of samples. Make the package again.")
    except ArtifactError as error:
        found.bad(manifest.artifact.path, f"doesn't run here: {error}")
        return None
    except (KeyError, LimbeckError) as error:
        found.bad(known.OUTPUTS, f"can't be compared: {error}")
        return None
    worst, beyond = known.differences(expected, got, manifest.golden.tolerances)
    if beyond:
        found.bad(manifest.artifact.path, f"answers otherwise here than where it was made: {'; '.join(beyond)}. {manifest.golden.why}")
    return {"samples": len(got), "max_rel": worst, "exact": worst == 0.0 and not beyond, "holds": not beyond, "runtime": f"{manifest.runtime} {version}"}


@contextmanager
def laid_out(found: Found, manifest: Manifest) -> Iterator[Artifact]:
    """The artifact where a runtime can load it: in its folder, or unpacked for the moment from bytes that were checked."""
    path = manifest.artifact.path
    names = [n for n in found.files if n == path or n.startswith(f"{path}/")]
    place = found.files[names[0]]
    if isinstance(place, Path):
        yield Artifact(place.parents[names[0].count("/")] / path, manifest.runtime)
        return
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        for name in names:
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(found.read(name))
        yield Artifact(Path(folder) / path, manifest.runtime)
