"""A finished run's model as a package: gathered from the run's records, so that the same run gives the same bytes. It writes nothing into the run."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ConfigError, RunError
from limbeck.core.evidence import Status
from limbeck.core.facts import Fact
from limbeck.evaluation.processes.apart import Apart
from limbeck.package import bom, card, golden
from limbeck.package import manifest as manifests
from limbeck.package.answers import answers
from limbeck.package.checking import PREDICT
from limbeck.package.manifest import Golden, Manifest, Part, Port, artifact_hash
from limbeck.package.package import Package
from limbeck.package.writing import write_package
from limbeck.pipeline.reading import NAME, REPORT, Past, Product, opened
from limbeck.runtimes import bind, installed
from limbeck.runtimes.card import Session

FINAL = "final"
NEEDED = {"retention", "metric", "size_bytes", "download_bytes", "latency_ms", "peak_memory_bytes", "parameters", "macs", "kernels"}
CODE = Path(golden.__file__).with_name(PREDICT)  # goes along as it stands; it imports nothing of limbeck


def package(folder: Path, *, out: Path | None = None, stage: str = FINAL, baseline: bool | None = None, samples: bool = True) -> Package:
    """Write a run's final artifact, or what one of its stages made, as a folder and a zip.

    Args:
        out: The folder; None: `packages/<run>`, or `packages/<run>-<stage>`.
        stage: "final", a stage's title, "baseline", or the first digits of a stage's key.
        baseline: Whether the baseline's artifact goes with it, so that another device can time both in turn; None: if the contract limits speedup.
        samples: Whether golden samples go with it. They are data of the validation split, as they are.
    Raises: ConfigError for what isn't a finished run or stage, or an `out` that holds something else; RunError if the run was changed.
    """
    run = opened(folder)
    if not run.finished or run.summary is None or run.summary["verdict"] == "REFUSED":
        raise ConfigError(f"{folder} has no verdict to go with a package ({run.state}). Start its command again until it has one, then package it.")
    product = _product(run, stage)
    title = run.summary["run"] if stage == FINAL else f"{run.summary['run']}-{product.stage}"
    if out is None and not NAME.fullmatch(title):
        raise ConfigError(f"{title!r} is no name for a folder. Name one with --out.")
    place = Path("packages") / title if out is None else out
    with_baseline = "speedup_p50" in run.summary["limits"] if baseline is None else baseline
    files, manifest = _Gathering(run, product, final=stage == FINAL, name=title, samples=samples).whole(with_baseline and product.stage != "baseline")
    write_package(place, files)
    return Package(place, manifest)


def _product(run: Past, stage: str) -> Product:
    if stage != FINAL:
        return run.baseline if stage == "baseline" else run.product(stage)
    product = run.last
    if product is None:
        raise RunError(f"{run.folder} holds no final artifact. `limbeck verify {run.folder}` shows what is missing.")
    return product


class _Gathering:
    """What goes into one package, read from a run's records with every hash checked."""

    def __init__(self, run: Past, product: Product, *, final: bool, name: str, samples: bool):
        self._run, self._product, self._final, self._name, self._samples = run, product, final, name, samples
        self._summary: Mapping[str, Any] = run.summary or {}
        self._asked: Mapping[str, Any] = next(x["data"] for x in reversed(run.lines) if x["event"] == "run")
        self._files: dict[str, bytes] = {}
        self._absent: dict[str, str] = {}

    def whole(self, with_baseline: bool) -> tuple[dict[str, bytes], Manifest]:
        """Every file by name, the manifest last, and the same manifest as data."""
        record = self._run.artifact_record(self._product)
        self._runtime = installed(record["runtime"])
        artifact = self._part("model", record)
        with tempfile.TemporaryDirectory(prefix="limbeck-") as scratch:
            laid = self._run.store.artifact(record, Path(scratch) / "model")
            threads = int(self._summary["target"]["threads"])
            with Apart(laid, threads=threads) as session:  # what it takes and gives is asked of it where it can bring nobody down
                known = self._golden(session, laid, threads)
            empty = self._empty(Path(scratch) / "empty")
        manifest = Manifest(
            name=self._name,
            runtime=record["runtime"],
            artifact=artifact,
            inputs=tuple(Port(name=i.name, dtype=i.dtype, shape=i.shape) for i in session.inputs),
            outputs=tuple(session.outputs),
            empty=empty,
            baseline=self._baseline() if with_baseline else None,
            golden=known,
            target=self._summary["target"],
            **self._judged(),
            lineage=self._lineage(),
            versions=self._summary["environment"]["versions"],
            machine=self._summary["environment"]["machine"],
        )
        self._files |= {"preprocess.json": self._preprocess(), PREDICT: CODE.read_bytes()}
        self._report()
        manifest = Manifest(**{**vars(manifest), "absent": dict(sorted(self._absent.items()))}).of(self._files)
        self._files |= {card.NAME: card.model_card(manifest), bom.NAME: bom.bill(manifest)}
        manifest = manifest.of(self._files)
        return {**self._files, manifests.NAME: manifest.to_bytes()}, manifest

    def _part(self, folder: str, record: Mapping[str, Any]) -> Part:
        """An artifact's files below this folder of the package."""
        data = {name: self._run.store.get(sha) for name, sha in record["files"].items()}
        self._files |= {f"{folder}/{name}": raw for name, raw in data.items()}
        return Part(path=f"{folder}/{record['name']}", sha256=artifact_hash(record["files"]), size_bytes=sum(map(len, data.values())))

    def _baseline(self) -> Part:
        return self._part("baseline", self._run.artifact_record(self._run.baseline))

    def _empty(self, folder: Path) -> Part:
        """The runtime's empty artifact, above which memory is measured."""
        made = self._runtime.empty(folder)
        data = {f.relative_to(folder).as_posix(): f.read_bytes() for f in made.files()}
        self._files |= {f"empty/{n}": raw for n, raw in data.items()}
        shas = {n: hashlib.sha256(raw).hexdigest() for n, raw in data.items()}
        return Part(path=f"empty/{made.path.relative_to(folder).as_posix()}", sha256=artifact_hash(shas), size_bytes=sum(map(len, data.values())))

    def _golden(self, session: Session, laid: Artifact, threads: int) -> Golden | None:
        """The run's golden samples under the artifact's own names; another artifact than the final answers them now, in a process of its own."""
        sha = self._summary.get("golden")
        if not sha or not self._samples:
            self._absent["golden"] = "the run kept no golden samples; it was carried out by a limbeck that didn't" if self._samples else "left out on request"
            return None
        ids, feeds, outputs = _kept_samples(self._run.store.get(sha))
        feeds = [bind(feed, session.inputs) for feed in feeds]
        final = next((x["data"]["final"] for x in reversed(self._run.lines) if x["event"] == "verdict"), None)
        if self._product.mark != final:
            outputs = answers(laid, feeds, threads=threads)
        outputs = [{n: out[n] for n in session.outputs} for out in outputs]
        self._files |= {golden.INPUTS: golden.npz(feeds), golden.OUTPUTS: golden.npz(outputs)}
        quantized = self._quantized()
        return Golden(samples=len(feeds), ids=ids, tolerances=golden.tolerances(outputs[0], quantized=quantized), why=golden.WHY_INT8 if quantized else golden.WHY_FLOAT)

    def _quantized(self) -> bool:
        facts = self._run.store.get_json(self._product.candidate)["facts"]
        return Fact.QUANTIZED in facts or bool((self._run.exports[self._product.mark].get("kernels") or {}).get("int8"))

    def _preprocess(self) -> bytes:
        sha = self._asked.get("preprocess")
        if sha is None:
            self._absent["preprocess"] = "the run didn't keep it; it was carried out by a limbeck that didn't"
        return json.dumps(self._run.store.get_json(sha) if sha else {}, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"

    def _report(self) -> None:
        path = self._run.folder / REPORT
        if self._final and path.is_file():
            self._files[REPORT] = path.read_bytes()
        else:
            self._absent["report"] = "`limbeck report` had not been run when it was packaged" if self._final else "a report is of the final artifact"

    def _judged(self) -> dict[str, Any]:
        """Figures and verdicts: the contract's for the final artifact, the stage's own gate for another."""
        summary = self._summary
        base = {k: v for k, v in summary["baseline"].items() if k in NEEDED}
        if self._final:
            figures = {k: v for k, v in summary["final"].items() if k in NEEDED} | {"retention": summary["retention"], "ratios": summary["ratios"]}
            figures |= {"baseline": base, "imported": summary.get("imported", [])}
            return {"verdict": summary["verdict"], "verdicts": tuple(summary["contract"]), "figures": figures}
        place = f"artifacts/{self._product.mark[:16]}/"
        shown = next((m for m in (*summary["stages"], summary["baseline"]) if str(m.get("artifact", "")).startswith(place)), {})
        events = [x["data"] for x in self._run.lines if x["event"] == "stage" and x["data"].get("key") == self._product.key]
        figures = {k: v for k, v in shown.items() if k in NEEDED} | ({"baseline": base} if self._product.stage != "baseline" else {})
        verdicts = tuple(events[-1].get("verdicts", ())) if events else ()
        return {"verdict": self._product.status if events else str(Status.UNVERIFIED), "verdicts": verdicts, "figures": figures}

    def _lineage(self) -> dict[str, Any]:
        asked = self._asked
        return {
            "run": self._summary["run"],
            "task": (self._summary.get("task") or {}).get("name"),
            "stage": self._product.stage,
            "final": self._final,
            "key": self._product.key or None,
            "candidate": self._product.candidate,
            "teacher": asked["teacher"],
            "data": asked["data"],
            "contract": asked["contract"],
            "plan": asked["plan"],
            "seed": asked["seed"],
            "journal_head": self._summary["journal_head"],
            "judged": next((x["time"] for x in reversed(self._run.lines) if x["event"] == "verdict"), None),
            "test_looks": self._summary["test_looks"],
        }


def _kept_samples(raw: bytes) -> tuple[tuple[int, ...], list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """What the run kept: the samples' numbers in validation, their inputs, their outputs."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        ids = tuple(int(i) for i in file["ids"])
        sides: dict[str, list[dict[str, np.ndarray]]] = {"in": [{} for _ in ids], "out": [{} for _ in ids]}
        for key in file.files:
            if key != "ids":
                number, side, name = key.split("/", 2)
                sides[side][int(number)][name] = file[key]
    return ids, sides["in"], sides["out"]
