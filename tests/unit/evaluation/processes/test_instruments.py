"""Which batch sizes and numbers of threads are measured, in which order, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.errors import ArtifactError
from limbeck.evaluation.processes import instruments
from limbeck.runtimes.card import InputSpec


class Doubler:
    """y = 2 x, and notes the batches that it was asked. `fixed`: the only batch that it takes."""

    def __init__(self, log: list[tuple[str, int]], name: str, *, fixed: int | None = None, most: int = 10**6, rows: bool = True):
        self.inputs, self.outputs = (InputSpec("x", "float32", (fixed, 3)), InputSpec("rate", "int64", ())), ("y",)
        self._log, self._name, self._most, self._rows = log, name, most, rows

    def __call__(self, feed) -> dict[str, np.ndarray]:
        batch = len(feed["x"])
        self._log.append((self._name, batch))
        if batch > self._most:
            raise ArtifactError(f"no batch of {batch} here.")
        return {"y": 2 * feed["x"] if self._rows else feed["x"].sum(0)}


FEED = {"x": np.ones((2, 3), np.float32), "rate": np.array(16000, np.int64)}


def measured(sessions, *, seconds: float = 0.2, batches=(2, 1, 4), threads=(1,)):
    request = {"artifacts": [None] * len(sessions), "batch": 2, "batches": list(batches), "thread_counts": list(threads), "seconds": seconds}
    return instruments.throughput(request, FEED, lambda index, threads: sessions[index], lambda: 0)


def test_every_point_has_its_rounds_for_both_models():
    log = []
    found = measured([Doubler(log, "a"), Doubler(log, "b")], threads=(2, 1))
    assert [(p["threads"], p["batch"]) for p in found["points"]] == [(2, 2), (2, 1), (2, 4), (1, 2), (1, 1), (1, 4)]
    assert all(len(block) >= instruments.ROUNDS and min(block) > 0 for p in found["points"] for block in p["blocks"])
    assert found["left_out"] == [] and found["fixed"] == [False, False]


def test_a_fixed_batch_has_its_own_point_alone():
    log = []
    found = measured([Doubler(log, "a"), Doubler(log, "b", fixed=2)])
    assert found["fixed"] == [False, True] and {batch for name, batch in log if name == "b"} == {2}
    assert {p["batch"]: [b is not None for b in p["blocks"]] for p in found["points"]} == {2: [True, True], 1: [True, False], 4: [True, False]}


def test_a_batch_that_the_graph_refuses_is_left_out_with_its_reason():
    found = measured([Doubler([], "a", most=2)])
    assert [p["batch"] for p in found["points"]] == [2, 1] and found["left_out"] == [{"threads": 1, "batch": 4, "why": "no batch of 4 here."}]


def test_the_targets_own_point_must_hold():
    with pytest.raises(ArtifactError, match="batch of 2"):
        measured([Doubler([], "a", most=1)])


def test_a_first_axis_that_is_none_of_samples_is_no_batch():
    found = measured([Doubler([], "a", rows=False)])
    assert [p["batch"] for p in found["points"]] == [2] and all("isn't one of samples" in left["why"] for left in found["left_out"])


def test_without_time_the_targets_own_point_is_still_measured():
    found = measured([Doubler([], "a")], seconds=0.0, threads=(2, 1))
    assert [(p["threads"], p["batch"], len(p["blocks"][0])) for p in found["points"]] == [(2, 2, instruments.ROUNDS)]
    assert {(left["threads"], left["batch"]) for left in found["left_out"]} == {(2, 1), (2, 4), (1, 2), (1, 1), (1, 4)}
    assert {left["why"] for left in found["left_out"]} == {"there was no time left for it"}


def test_a_batch_that_may_need_more_memory_than_is_free_is_not_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(instruments, "_available", lambda: 1)
    log = []
    found = measured([Doubler(log, "a")])
    assert found["left_out"] == [{"threads": 1, "batch": 4, "why": "it might need more memory than is free"}] and ("a", 4) not in log


def test_other_processes_are_counted_in_cores():
    others = instruments._Others()
    share = others.share()
    assert share is None or share >= 0
