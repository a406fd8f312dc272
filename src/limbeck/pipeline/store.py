"""What a run keeps: files by their hash, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Artifact, ArtifactForm, Blueprint, Candidate, TorchForm
from limbeck.core.errors import RunError
from limbeck.core.facts import Fact
from limbeck.core.files import write
from limbeck.pipeline.records import newest

CANDIDATE_VERSION = 1  # of a candidate's object


def canonical(data: Any) -> bytes:
    """JSON with one spelling: equal data gives equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(data: Any) -> str:
    """SHA-256 of data's canonical JSON."""
    return hashlib.sha256(canonical(data)).hexdigest()


class Store:
    """Objects of one run, by SHA-256 of their bytes."""

    def __init__(self, root: Path):
        self._root = root / "objects"

    def path(self, sha: str) -> Path:
        if len(sha) != 64 or not all(c in "0123456789abcdef" for c in sha):
            raise RunError(f"{sha!r} is not the name of an object (64 hex digits). The run folder was changed by hand.")
        return self._root / sha[:2] / sha

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        if not self.path(sha).exists():
            write(self.path(sha), data)
        return sha

    def get(self, sha: str) -> bytes:
        """The bytes of an object, checked. Raises RunError if it is missing or has other bytes than its name says."""
        try:
            data = self.path(sha).read_bytes()
        except FileNotFoundError:
            raise RunError(f"object {sha[:12]} is missing from {self._root}. Start the run again in another folder.") from None
        if hashlib.sha256(data).hexdigest() != sha:
            raise RunError(f"object {self.path(sha)} was changed: its bytes don't have its hash. Delete it and run again.")
        return data

    def put_json(self, data: Any) -> str:
        return self.put(canonical(data))

    def get_json(self, sha: str) -> Any:
        return json.loads(self.get(sha))

    def put_candidate(self, candidate: Candidate) -> str:
        form: dict[str, Any]
        if isinstance(candidate.form, TorchForm):
            from safetensors.torch import save

            weights = self.put(save({k: v.contiguous() for k, v in sorted(candidate.form.weights.items())}))
            form = {"kind": "torch", "blueprint": json.loads(candidate.form.blueprint.to_json()), "weights": weights}
        else:
            form = {"kind": "artifact", **self.put_artifact(candidate.form.artifact)}
        return self.put_json({"version": CANDIDATE_VERSION, "form": form, "facts": sorted(candidate.facts)})

    def get_candidate(self, sha: str, folder: Path) -> Candidate:
        """A candidate again; one that is only an artifact is laid out in `folder`."""
        data = self.get_json(sha)
        newest(data.get("version"), CANDIDATE_VERSION, where=f"object {sha[:12]}: version")
        facts = frozenset(Fact(f) for f in data["facts"])
        form = data["form"]
        if form["kind"] == "artifact":
            return Candidate(ArtifactForm(self.artifact(form, folder)), facts)
        from safetensors.torch import load

        return Candidate(TorchForm(Blueprint.from_json(json.dumps(form["blueprint"])), load(self.get(form["weights"]))), facts)

    def put_artifact(self, artifact: Artifact) -> dict[str, Any]:
        """An artifact's files, kept; what comes back is plain data from which `artifact` lays them out again."""
        base = artifact.path.parent
        return {"runtime": artifact.runtime, "name": artifact.path.name, "files": {str(f.relative_to(base)): self.put(f.read_bytes()) for f in artifact.files()}}

    def artifact(self, record: Mapping[str, Any], folder: Path) -> Artifact:
        """Lay an artifact's files out under `folder` (as links where the file system can)."""
        for name in (record["name"], *record["files"]):
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise RunError(f"artifact file {name!r} would leave the run folder. The run was changed by hand.")
        for name, sha in record["files"].items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and hashlib.sha256(place.read_bytes()).hexdigest() == sha:
                continue
            write(place, self.get(sha))
        return Artifact(folder / record["name"], record["runtime"])


def remove_temporaries(root: Path) -> None:
    """What a killed process left half-written."""
    for path in root.rglob(".*.tmp"):
        path.unlink(missing_ok=True)
    shutil.rmtree(root / "scratch", ignore_errors=True)
