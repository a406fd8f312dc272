"""A package as an object: what it holds, whether it holds, and what its model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ConfigError, RunError

if TYPE_CHECKING:
    import numpy as np

    from limbeck.package.manifest import Manifest
    from limbeck.runtimes.card import Session


@dataclass(frozen=True, repr=False)
class Package:
    """A package's folder and its manifest. `Package.open` reads one; `limbeck.api.package` makes one."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(folder: str | Path) -> Package:
        """The package in this folder, its manifest checked; `verify` checks the rest. Raises ConfigError, RunError."""
        from limbeck.package.manifest import NAME, read_manifest

        path = Path(folder)
        if not (path / NAME).is_file():
            raise ConfigError(f"there is no package in {path}: it has no {NAME}. Name the folder that `limbeck package` wrote (a zip is unpacked first).")
        return Package(path, read_manifest((path / NAME).read_bytes()))

    @property
    def zip(self) -> Path:
        """Where its zip is written, beside the folder."""
        return self.folder.with_name(f"{self.folder.name}.zip")

    @property
    def artifact(self) -> Artifact:
        """What the runtime loads."""
        return Artifact(self.folder / self.manifest.artifact.path, self.manifest.runtime)

    def verify(self) -> dict[str, Any]:
        """Every hash, then the golden answers on this machine: clean, problems by file, what could not be checked."""
        from limbeck.package.checking import verify

        return verify(self.folder)

    def predict(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The model's outputs by name, for arrays by the names of its inputs, samples along axis 0.

        Its files are checked against their hashes before it is loaded, once. Raises RunError, ArtifactError.
        """
        return self._session(inputs)

    @cached_property
    def _session(self) -> Session:
        from limbeck.package.checking import gathered
        from limbeck.runtimes import installed

        found = gathered(self.folder)
        if found.problems:
            name, what = next(iter(sorted(found.problems.items())))
            raise RunError(f"{self.folder}: {name} {what}. A package that doesn't hold is not loaded; `limbeck verify` shows all.")
        return installed(self.manifest.runtime).load(self.artifact, int(self.manifest.target.get("threads", 1)))

    def summary(self) -> dict[str, Any]:
        """What `limbeck package --json` prints: places, verdict, figures, files."""
        manifest = self.manifest
        return {
            "schema": 1,
            "package": manifest.name,
            "folder": str(self.folder),
            "zip": str(self.zip),
            "verdict": manifest.verdict,
            "stage": manifest.lineage["stage"],
            "final": manifest.lineage["final"],
            "artifact": {"path": manifest.artifact.path, "sha256": manifest.artifact.sha256, "size_bytes": manifest.artifact.size_bytes, "runtime": manifest.runtime},
            "baseline": manifest.baseline.sha256 if manifest.baseline else None,
            "golden": manifest.golden.samples if manifest.golden else 0,
            "metric": manifest.figures.get("metric"),
            "latency_ms": manifest.figures.get("latency_ms"),
            "verdicts": [dict(v) for v in manifest.verdicts],
            "absent": dict(manifest.absent),
            "files": {n: e.size_bytes for n, e in manifest.files.items()},
        }

    def __repr__(self) -> str:
        rows = "; ".join(f"{k}: {v}" for k, v in self._rows().items())
        return f"Package({str(self.folder)!r}; {rows})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left'>{escape(v)}</td></tr>" for k, v in self._rows().items())
        return f"<table><caption style='text-align:left'>Package <b>{escape(self.manifest.name)}</b> in {escape(str(self.folder))}</caption>{rows}</table>"

    def _rows(self) -> Mapping[str, str]:
        manifest, figures = self.manifest, self.manifest.figures
        metric, latency, base = figures.get("metric") or {}, figures.get("latency_ms") or {}, (figures.get("baseline") or {}).get("size_bytes")
        smaller = f" ({base / manifest.artifact.size_bytes:.1f}× smaller than the baseline)" if base else ""
        times = ", ".join(f"{n} {latency[n]:.3f} ms" for n in ("p50", "p90") if latency.get(n) is not None)
        return {
            "verdict": manifest.verdict + ("" if manifest.lineage["final"] else f" (gate of stage {manifest.lineage['stage']})"),
            "bytes": f"{manifest.artifact.size_bytes:,}{smaller}",
            "latency": f"{times}; {manifest.runtime}, {manifest.target.get('threads')} thread(s)" if times else "not measured",
            "metric": f"{metric['name']} {metric['value']:.4f}" if metric.get("value") is not None else "not measured",
            "files": f"{len(manifest.files) + 1}: {', '.join(manifest.files)}",
        }
