"""A run as it stands on disk: its journal, its summary, what its stages made. It reads; nothing here writes or takes the lock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, RunError, near
from limbeck.pipeline.journal import FIRST, line_hash, read
from limbeck.pipeline.lock import owner
from limbeck.pipeline.records import read_record, read_summary
from limbeck.pipeline.store import Store, digest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MADE = ("stage", "key", "attempt", "status", "candidate")  # what the journal says of a stage that made a candidate
REPORT = "report.html"  # in a run's folder; no evidence, as it can be written again
AFTER = frozenset({"rollback", "evidence"})  # what may be recorded once a run has its summary


@dataclass(frozen=True, kw_only=True)
class Product:
    """A candidate that a stage (or the export of the teacher) made: its object, and the mark of its artifact."""

    stage: str
    key: str
    attempt: int
    status: str
    candidate: str
    mark: str


@dataclass(frozen=True)
class Past:
    """A run folder, its journal's chain checked."""

    folder: Path
    lines: tuple[dict[str, Any], ...]
    summary: dict[str, Any] | None

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the summary speaks of all that the journal holds; a run that was started again with another plan is under way."""
        if self.summary is None:
            return False
        heads = [FIRST, *map(line_hash, self.lines)]
        anchor = self.summary.get("journal_head")
        return anchor in heads and all(line["event"] in AFTER for line in self.lines[heads.index(anchor) :])

    @property
    def state(self) -> str:
        """The verdict of a run that came to its end; else `under way` or `interrupted`."""
        if self.finished and self.summary is not None:
            return self.summary["verdict"]
        return "under way" if owner(self.folder) else "interrupted"

    @cached_property
    def exports(self) -> dict[str, dict[str, Any]]:
        """By its mark, each artifact: its files' record, and what is known of its structure."""
        found = {}
        for path in sorted((self.folder / "measurements").glob("export-*.json")):
            data = self.store.get_json(read_record(path)["object"])
            found[digest(data["artifact"])] = data
        return found

    @property
    def products(self) -> list[Product]:
        """What can be brought back, in the order in which it was made."""
        made = []
        for line in self.lines:
            data = line["data"]
            if line["event"] == "baseline" and data.keys() >= {"candidate", "artifact"}:
                made.append(Product(stage="baseline", key="", attempt=1, status="PASS", candidate=data["candidate"], mark=data["artifact"]))
            elif line["event"] == "stage" and data.keys() >= {*MADE, "artifact"}:
                made.append(Product(**{k: data[k] for k in MADE}, mark=data["artifact"]))
        return made

    @property
    def last(self) -> Product | None:
        """What speaks for the run: its final candidate if it came to its end, else the last that passed."""
        final = next((x["data"].get("final") for x in reversed(self.lines) if x["event"] == "verdict"), None) if self.finished else None
        passed = [p for p in self.products if p.status == "PASS"]
        return next((p for p in reversed(self.products) if p.mark == final), passed[-1] if passed else None)

    @property
    def baseline(self) -> Product:
        """The teacher as it was last exported. Raises RunError if the run never came so far."""
        found = [p for p in self.products if p.stage == "baseline"]
        if not found:
            raise RunError(f"{self.folder} holds no baseline. Start its command again.")
        return found[-1]

    def product(self, name: str) -> Product:
        """What this stage made: by its title, or by the first digits of its key where a title stands for several.

        Of several tries of one title, the one that passed is meant. Raises ConfigError that lists what there is.
        """
        titled = [p for p in self.products if p.stage == name]
        keyed = [p for p in self.products if len(name) >= 6 and p.key.startswith(name)]
        found = {p.candidate: p for p in titled or keyed}
        passed = {p.candidate: p for p in found.values() if p.status == "PASS"}
        choice = found if len(found) == 1 else passed
        if len(choice) == 1:
            return next(iter(choice.values()))
        if found:
            shown = "; ".join(f"{p.key[:12]} (try {p.attempt}, {p.status})" for p in found.values())
            raise ConfigError(f"'{name}' stands for {len(found)} candidates in {self.folder}: {shown}. Name one by its key.")
        broke = [x["data"]["error"] for x in self.lines if x["event"] == "stage broke" and x["data"].get("stage") == name]
        why = f"it broke ({broke[-1]})" if broke else "the run has no such stage"
        raise ConfigError(f"no candidate of stage '{name}' in {self.folder}: {why}. {near(name, (p.stage for p in self.products))}")

    def artifact_record(self, product: Product) -> Mapping[str, Any]:
        """The record of a product's artifact. Raises RunError if the run holds none."""
        if product.mark not in self.exports:
            raise RunError(f"{self.folder} holds no export of stage '{product.stage}' (artifact {product.mark[:12]}). `limbeck verify` shows what else is missing.")
        return self.exports[product.mark]["artifact"]


def opened(folder: Path) -> Past:
    """A run folder, opened to be read.

    Raises: ConfigError if it isn't one; RunError if its journal or summary was changed, or a later limbeck wrote it.
    """
    if not folder.is_dir():
        known = sorted(p.parent.name for p in folder.parent.glob("*/journal.jsonl"))
        raise ConfigError(f"there is no run folder {folder}. " + (near(folder.name, known) if known else "Name one, as in runs/run; `limbeck runs` lists them."))
    lines = read(folder / "journal.jsonl")
    if not lines:
        raise ConfigError(f"{folder} is not a run folder: it has no journal. Name one, as in runs/run; `limbeck runs` lists them.")
    return Past(folder, tuple(lines), read_summary(folder))


def check_name(name: str) -> None:
    """Raises ConfigError for the name of a run that could leave its root."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"run.name must be letters, digits, '.', '_' and '-', starting with a letter or digit, got {name!r}. Choose another.")
