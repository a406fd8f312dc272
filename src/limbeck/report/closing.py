"""Where it was measured, on what data, and how to do it again."""

from __future__ import annotations

import json
from typing import Any

from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el
from limbeck.report.story import Reproduce, Story

LONGEST = 60_000  # characters of a plan or a contract


def environment(story: Story) -> list[Node]:
    """Machine, libraries, seed; then the data by its fingerprints."""
    facts = table("Machine, libraries and seed", ("what", "value"), [(k, v) for k, v in story.environment], kind="facts")
    prints = table("Fingerprints (SHA-256) of data and code", ("what", "fingerprint"), [(k, el("code", {"class": "hash"}, v)) for k, v in story.fingerprints], kind="facts")
    return [
        facts if story.environment else _missing("The machine and its libraries are not recorded."),
        prints if story.fingerprints else _missing("The data has no fingerprints yet."),
    ]


def reproduce(told: Reproduce) -> list[Node]:
    """The commands, in order; then contract and plan as data."""
    commands = el("pre", {"tabindex": 0, "aria-label": "Commands"}, el("code", None, "\n".join(told.commands)))
    note = el("p", {"class": "note"}, told.note) if told.note else None
    return [commands, note, _data("Contract", told.contract), _data("Plan", told.plan)]


def _data(name: str, data: Any) -> Node:
    if data is None:
        return None
    whole = json.dumps(data, indent=1, ensure_ascii=False)
    text = whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}\n… {len(whole) - LONGEST:,} more characters, left out here"
    return el("details", None, el("summary", None, f"{name} as data"), el("pre", {"tabindex": 0, "aria-label": f"{name} as data"}, el("code", None, text)))


def _missing(text: str) -> Html:
    return el("p", {"class": "missing"}, text)
