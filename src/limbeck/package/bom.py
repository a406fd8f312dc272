"""The bill of materials: what the model needs to run, and its files by hash, as CycloneDX 1.5 (cyclonedx.org/docs/1.5/json)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from limbeck.package.manifest import Manifest, files_of

NAME = "sbom.cdx.json"
NEEDS = {"onnxruntime": ("onnxruntime", "numpy"), "torch": ("torch", "numpy")}


def bill(manifest: Manifest) -> bytes:
    """CycloneDX JSON without a time, so that the same package has the same one; its serial number follows from the artifact's hash."""
    libraries = [_library(name, manifest.versions) for name in NEEDS.get(manifest.runtime, (manifest.runtime, "numpy"))]
    folder = manifest.artifact.path.rpartition("/")[0]
    files = [_file(f"{folder}/{name}", sha) for name, sha in sorted(files_of(manifest, manifest.artifact).items())]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": manifest.name,
        "version": manifest.artifact.sha256[:12],
        "hashes": [{"alg": "SHA-256", "content": manifest.artifact.sha256}],
    }
    tool = {"type": "application", "name": "limbeck", "version": manifest.versions.get("limbeck", "")}
    data = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, manifest.artifact.sha256)}",
        "version": 1,
        "metadata": {"tools": {"components": [tool]}, "component": model},
        "components": [*libraries, *files],
        "dependencies": [{"ref": "model", "dependsOn": [c["bom-ref"] for c in (*libraries, *files)]}],
    }
    return json.dumps(data, indent=1, ensure_ascii=False).encode()


def _library(name: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """A library with the version under which the model was measured."""
    known = versions.get(name)
    purl = f"pkg:pypi/{name}@{known}" if known else f"pkg:pypi/{name}"
    return {"type": "library", "bom-ref": purl, "name": name, **({"version": known} if known else {}), "purl": purl, "scope": "required"}


def _file(name: str, sha: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": name, "name": name, "hashes": [{"alg": "SHA-256", "content": sha}]}
