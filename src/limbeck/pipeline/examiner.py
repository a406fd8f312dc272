"""Exports and measurements of a run, each taken once and kept: a verdict doesn't change with the clock on resume."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.analysis.profile import profile
from limbeck.core.candidate import Artifact, ArtifactForm, Candidate, TorchForm
from limbeck.core.contract import Target
from limbeck.core.errors import ArtifactError, StageError
from limbeck.core.evidence import Evidence, Latency
from limbeck.core.facts import Fact
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.core.technique import Log
from limbeck.evaluation import environment, measure, quality, slices
from limbeck.evaluation.behaviour import Behaviour
from limbeck.evaluation.gates import Examined, intervals, limits_on_percentiles, percentiles
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.studies import Data, Setting, Side, Study, taken
from limbeck.intake.fingerprint import fingerprint
from limbeck.mechanics.build import rebuild
from limbeck.mechanics.data import arguments, batch_of, example, feed, predict
from limbeck.pipeline.leaving import Leaving
from limbeck.pipeline.records import read_record, record
from limbeck.pipeline.store import Store, digest, write
from limbeck.runtimes import parity, runtime

WORK = {
    "export": "an export",
    "golden": "the golden samples",
    "rows": "an evaluation",
    "slices": "the slices",
    "latency": "a timing",
    "memory": "a measurement of memory",
    "twin": "the untrained twin",
    "study": "a study",
}
GOLDEN = 8  # samples of validation whose answers go with the artifact
FLOAT_TOLERANCE = 1e-3  # how far, relative to the largest output, a float artifact may be from its module


@dataclass(frozen=True)
class Kept:
    """A candidate as the run keeps it: its object, its artifact's files, and what is known of its structure."""

    candidate: str  # object of the candidate
    artifact: Mapping[str, Any]  # record of the artifact's files
    parameters: int | None
    macs: int | None
    kernels: Mapping[str, Any]
    download_bytes: int
    parity: Mapping[str, float | None] | None

    @property
    def mark(self) -> str:
        return digest(self.artifact)


class Examiner:
    """Exports candidates to the target and measures their artifacts, once each."""

    def __init__(
        self, root: Path, store: Store, task: Task, target: Target, fingerprints: Mapping[str, str], log: Log, *, seconds: float, confidence: float, stop: Callable[[], bool]
    ):
        self._seconds, self._confidence = seconds, confidence
        self._stop, self._leaving = stop, Leaving(stop)
        self._out: dict[str, Artifact] = {}
        self._open: tuple[str, Apart] | None = None  # the artifact that was asked last, still loaded, and its mark
        self._root, self._store, self._task, self._target = root, store, task, target
        self._fingerprints, self._log = fingerprints, log
        self._runtime = runtime(target.runtime)
        self._versions = environment.versions()
        self._machine = environment.machine()

    def recorded(self, kind: str, key: Mapping[str, Any], take: Callable[[], Any]) -> Any:
        """What was recorded under this key, or what `take` gives now, recorded."""
        path = self._root / "measurements" / f"{kind}-{digest([kind, key])[:32]}.json"
        if path.exists():
            return self._store.get_json(read_record(path)["object"])
        with self._leaving(WORK[kind]):
            data = take()
        write(path, record({"kind": kind, "key": key, "object": self._store.put_json(data)}))
        return data

    def keep(self, candidate: Candidate, name: str) -> Kept:
        """Keep a candidate and its artifact for the target, exported once."""
        sha = self._store.put_candidate(candidate)
        key = {"candidate": sha, "runtime": self._target.runtime, "versions": self._versions, "data": self._fingerprints["train"], "code": self._fingerprints["code"]}
        data = self.recorded("export", key, lambda: self._exported(candidate, name))
        if "download_bytes" not in data:  # a record of limbeck before it was kept there
            data = data | {"download_bytes": measure.download_bytes(self._laid_out(data["artifact"]))}
        return Kept(candidate=sha, **{k: v for k, v in data.items() if k != "layers"})

    def _exported(self, candidate: Candidate, name: str) -> dict[str, Any]:
        if isinstance(candidate.form, ArtifactForm):
            if candidate.form.artifact.runtime != self._target.runtime:
                file = f"a file for '{candidate.form.artifact.runtime}' ({candidate.form.artifact.path.name})"
                raise ArtifactError(f"{name} is {file}, and the target is '{self._target.runtime}'. Set target.runtime to the first.")
            given = self._store.put_artifact(candidate.form.artifact)
            return {
                "artifact": given,
                "parameters": None,
                "macs": None,
                "kernels": self._session(given, candidate.form.artifact).kernels(),
                "download_bytes": measure.download_bytes(candidate.form.artifact),
                "parity": None,
                "layers": None,
            }
        self._log.event("exporting", candidate=name, runtime=self._target.runtime)
        self._log.progress(0, 0, f"exporting {name}")
        model = rebuild(candidate.torch_form, self._task)
        traced = example(self._task, model)
        folder = self._root / "scratch" / "export"
        folder.mkdir(parents=True, exist_ok=True)
        artifact = self._runtime.export(traced, folder)
        batch = batch_of(self._task, "train", range(min(32, len(self._task.split("train")))))
        with torch.no_grad():
            expected = {k: v.numpy() for k, v in predict(self._task, model, batch).items()}
        record = self._store.put_artifact(artifact)
        session = self._session(record, artifact)
        same = parity(expected, session(feed(self._task, batch)))
        if Fact.QUANTIZED not in candidate.facts and (same["max_rel"] or 0.0) > FLOAT_TOLERANCE:
            far = f"by {same['max_rel']:.2g} of the largest output (at most {FLOAT_TOLERANCE:g})"
            raise StageError(f"exported to {self._target.runtime}, {name} differs from its torch module {far}. The exporter doesn't understand something in this model.")
        counted = profile(model, *arguments(self._task, batch_of(self._task, "train", [0])))
        return {
            "artifact": record,
            "parameters": counted.parameters,
            "macs": counted.macs,
            "kernels": session.kernels(),
            "download_bytes": measure.download_bytes(artifact),
            "parity": same,
            "layers": [asdict(layer) for layer in counted.layers],
        }

    def _session(self, files: Mapping[str, Any], artifact: Artifact) -> Apart:
        """The artifact of these files, loaded in a process of its own; the one that was asked last stays loaded."""
        mark = digest(files)
        if self._open and (self._open[0] != mark or self._open[1].closed):
            self._open[1].close()
            self._open = None
        if self._open is None:
            self._open = (mark, Apart(artifact, threads=self._target.threads, stop=self._stop))
        return self._open[1]

    def close(self) -> None:
        """End the process of the artifact that is still loaded."""
        if self._open:
            self._open[1].close()
            self._open = None

    def artifact(self, kept: Kept) -> Artifact:
        return self._laid_out(kept.artifact)

    def _laid_out(self, files: Mapping[str, Any]) -> Artifact:
        """The artifact's files, hashed the first time that this process lays them out."""
        mark = digest(files)[:16]
        if mark not in self._out:
            self._out[mark] = self._store.artifact(files, self._root / "artifacts" / mark)
        return self._out[mark]

    def rows(self, kept: Kept, split: str) -> dict[str, np.ndarray]:
        """The metric's rows of this artifact over a split."""
        key = {"artifact": kept.mark, "data": self._fingerprints[split], "code": self._fingerprints["code"], "versions": self._versions, "machine": self._machine}

        def take() -> dict[str, str]:
            self._log.event("evaluating", artifact=kept.mark[:12], split=split)
            session = self._session(kept.artifact, self.artifact(kept))
            rows = quality.rows_of_session(session, self._task, split, progress=self._log.progress)
            return {"rows": self._store.put(_packed(rows))}

        return self._unpacked(self.recorded("rows", key, take)["rows"])

    def _unpacked(self, sha: str) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self._store.get(sha)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def slices(self, split: str) -> dict[str, np.ndarray]:
        """To which of the task's slices each sample of a split belongs: one bool a sample, by name. They depend on the data alone."""
        if not self._task.slices:
            return {}

        def take() -> dict[str, Any]:
            found = slices.masks_of(self._task, split)
            return {"names": list(found), "rows": self._store.put(_packed({str(i): mask for i, mask in enumerate(found.values())}))}

        kept = self.recorded("slices", {"data": self._fingerprints[split], "code": self._fingerprints["code"], "names": list(self._task.slices)}, take)
        masks = self._unpacked(kept["rows"])
        return {name: masks[str(i)] for i, name in enumerate(kept["names"])}

    def golden(self, kept: Kept) -> str:
        """The object of what this artifact answers, one sample at a time, to samples spread over validation: for whoever deploys it.

        An npz of `<i>/in/<input>` and `<i>/out/<output>` for each sample, and `ids`, their numbers in validation.
        """
        key = {"artifact": kept.mark, "data": self._fingerprints["validation"], "code": self._fingerprints["code"], "versions": self._versions, "machine": self._machine}

        def take() -> str:
            count = len(self._task.split("validation"))
            ids = np.linspace(0, count - 1, min(GOLDEN, count)).round().astype(np.int64)
            session = self._session(kept.artifact, self.artifact(kept))
            arrays = {"ids": ids}
            for i, sample in enumerate(ids):
                inputs = feed(self._task, batch_of(self._task, "validation", [int(sample)]))
                arrays |= {f"{i}/in/{k}": v for k, v in inputs.items()} | {f"{i}/out/{k}": v for k, v in session(inputs).items()}
            return self._store.put(_packed(arrays))

        return self.recorded("golden", key, take)

    def latencies(self, kept: Sequence[Kept], limits: Mapping[str, float] | None = None, *, judged: int = -1) -> list[Latency]:
        """These artifacts timed in turn in one process; as long as a contract's `limits` on percentiles of the one of number `judged` take."""
        seconds, percentile_limits = self._seconds, limits_on_percentiles(limits or {})
        early = "speedup_p50" not in (limits or {})
        goal = {"limits": percentile_limits, "judged": judged % len(kept), "early": early} if percentile_limits else None
        key = {
            "artifacts": [k.mark for k in kept],
            "threads": self._target.threads,
            "batch": self._target.batch,
            "seconds": seconds,
            "versions": self._versions,
            "machine": self._machine,
        } | ({"goal": goal} if goal else {})

        def take() -> list[dict[str, Any]]:
            self._log.event("timing", artifacts=len(kept), seconds=seconds)
            self._log.progress(0, 0, f"timing {len(kept)} artifacts in turn, about {seconds * len(kept):.0f} s")
            taken = measure.latency(
                [self.artifact(k) for k in kept],
                self.feed(),
                threads=self._target.threads,
                seconds=seconds,
                limits=percentile_limits,
                judged=judged,
                early=early,
                told=lambda event, why: self._log.event(event, why=why),
                stop=self._stop,
            )
            return [one.kept() for one in taken]

        return [Latency.of(one) for one in self.recorded("latency", key, take)]

    def memory(self, kept: Kept) -> int:
        key = {"artifact": kept.mark, "threads": self._target.threads, "batch": self._target.batch, "versions": self._versions, "machine": self._machine}

        def take() -> int:
            self._log.progress(0, 0, "measuring memory")
            return measure.peak_memory(self.artifact(kept), self.feed(), threads=self._target.threads, stop=self._stop)

        return self.recorded("memory", key, take)

    def feed(self) -> dict[str, np.ndarray]:
        """The inputs of one timed inference: the first samples of validation."""
        count = len(self._task.split("validation"))
        return feed(self._task, batch_of(self._task, "validation", [i % count for i in range(self._target.batch)]))

    def studies(
        self, asked: Sequence[Study], proof: Proof, *, final: Kept, baseline: Kept, split: str, latencies: Sequence[Latency | None], confidence: float | None = None
    ) -> dict[str, Data]:
        """What these studies show of the final artifact beside the baseline, each taken once and kept."""
        here, confidence = self._target.host == "local", confidence or self._confidence
        first, last = (self._side(kept, split, latency) for kept, latency in zip((baseline, final), latencies, strict=True))
        setting = Setting(
            candidate=last,
            baseline=first,
            task=self._task,
            split=split,
            target=self._target,
            feed=self.feed(),
            confidence=confidence,
            samples=proof.samples,
            seconds=proof.seconds,
            stop=self._stop,
            progress=self._log.progress,
        )
        key = {
            "artifacts": [baseline.mark, final.mark],
            "candidates": [baseline.candidate, final.candidate],
            "data": self._fingerprints[split],
            "code": self._fingerprints["code"],
            "target": vars(self._target),
            "proof": [proof.samples, proof.seconds],
            **({"outside": {name: fingerprint(data) for name, data in self._task.outside.items()}} if self._task.outside else {}),
            "confidence": confidence,
            "versions": self._versions,
            "machine": self._machine,
        }

        def keep(study: Study, take: Callable[[], Data]) -> Data:
            self._log.event("study", name=study.name)
            return self.recorded("study", key | {"study": [study.name, study.version]}, take)

        return taken(setting, asked, here=here, keep=keep)

    def _side(self, kept: Kept, split: str, latency: Latency | None) -> Side:
        form = self._store.get_candidate(kept.candidate, self._root / "scratch" / kept.candidate[:16]).form
        module = partial(rebuild, form, self._task) if isinstance(form, TorchForm) else None
        return Side(artifact=self.artifact(kept), module=module, rows=self.rows(kept, split), latency=latency, parameters=kept.parameters, macs=kept.macs, kernels=kept.kernels)

    def kept_of(self, kept: Kept, baseline: Kept, *, split: str, confidence: float) -> dict[str, Any]:
        """What an artifact keeps of the baseline's quality, and how it answers: `retention`, `drop` and `behaviour`, for `Examined`."""
        metric, rows, first = self._task.metric, self.rows(kept, split), self.rows(baseline, split)
        behaviour = Behaviour(metric=metric, candidate=rows, baseline=first, masks=self.slices(split), split=split, confidence=confidence)
        return {**quality.retention_and_drop(metric, rows, first, confidence=confidence, split=split), "behaviour": behaviour}

    def evidence(self, kept: Kept, *, latency: Latency | None = None, memory: bool = False, metric_value: float | None = None) -> Evidence:
        """What an artifact costs; it is asked nothing for that."""
        artifact = self.artifact(kept)
        return Evidence(
            artifact=str(artifact.path.relative_to(self._root)),
            runtime=self._target.runtime,
            threads=self._target.threads,
            size_bytes=artifact.size_bytes,
            download_bytes=kept.download_bytes,
            metric_name=self._task.metric.name,
            metric_value=metric_value,
            parameters=kept.parameters,
            macs=kept.macs,
            latency_ms=percentiles(latency),
            latency_interval_ms=intervals(latency),
            latency_note=latency.note if latency else None,
            peak_memory_bytes=self.memory(kept) if memory else None,
            kernels=kept.kernels,
        )

    def examined(self, kept: Kept, *, split: str, latency: Latency | None = None, baseline: Kept | None = None, confidence: float | None = None, memory: bool = False) -> Examined:
        """All that is known of an artifact, gathered; against a baseline also what it keeps of it."""
        rows, confidence = self.rows(kept, split), confidence or self._confidence
        if baseline:
            quality.refuse_undefined(self._task.metric, rows, self.rows(baseline, split))
        interval = quality.interval(self._task.metric, rows, confidence=confidence)
        evidence = self.evidence(kept, latency=latency, memory=memory, metric_value=interval.value)
        compared = self.kept_of(kept, baseline, split=split, confidence=confidence) if baseline else {}
        return Examined(evidence=evidence, latency=latency, **compared, metric_interval=(interval.low, interval.high))


def _packed(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as an npz."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
