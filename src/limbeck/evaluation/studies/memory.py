"""Where memory goes: what is computed from the graph, what the runtime's arena plans, what a fresh process holds at its peak."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from limbeck.analysis.flow import Flow, live_bytes
from limbeck.evaluation import device
from limbeck.evaluation.studies.study import Data, Setting, Side, Study
from limbeck.runtimes import runtime

POINTS = 200  # of the course of memory that is kept; longer ones are thinned out, each point the highest of its stretch
LARGEST = 3  # steps that are named


def why_not(setting: Setting) -> str:
    """Not for a runtime that can't say what flows through an artifact."""
    mute = sorted({s.artifact.runtime for s in setting.sides.values() if runtime(s.artifact.runtime).flow is None})
    return f"{mute[0]} can't say which tensors pass through an artifact" if mute else ""


def take(setting: Setting) -> Data:
    """One fresh process for each artifact."""
    return {"batch": setting.target.batch, "models": {name: _figures(side, setting) for name, side in setting.sides.items()}}


def _figures(side: Side, setting: Setting) -> Data:
    found = device.memory(side.artifact, setting.feed, threads=setting.target.threads, stop=setting.stop)
    flow, arena = found.flow, found.flow.arena
    live = live_bytes(flow)
    return {
        "weights": {"bytes": flow.weight_bytes, "how": "computed"},
        "activations": {"bytes": max(live, default=0), "how": "computed", "at": _highest(flow, live), "inputs_bytes": sum(flow.inputs.values())},
        "planned": {"bytes": arena.planned_bytes, "held_bytes": arena.held_bytes, "how": "planned"} if arena else None,
        "planned_why": "" if arena else _unplanned(side),
        "resident": {"bytes": found.peak_bytes, "loading_bytes": found.loading_bytes, "how": "measured"},
        "operators": len(flow.steps),
        "course": _thinned(live),
    }


def _unplanned(side: Side) -> str:
    if side.artifact.runtime == "torch":
        return "torch takes each tensor's memory when it is made, and plans none ahead"
    return f"this version of {side.artifact.runtime} doesn't tell what its arena holds"


def _highest(flow: Flow, live: Sequence[int]) -> list[Data]:
    """The steps at which most is alive."""
    order = sorted(range(len(live)), key=lambda i: -live[i])[:LARGEST]
    return [{"step": i + 1, "name": flow.steps[i].name, "operator": flow.steps[i].operator, "bytes": live[i]} for i in order]


def _thinned(live: Sequence[int]) -> list[int]:
    if len(live) <= POINTS:
        return list(live)
    ends = [round(i * len(live) / POINTS) for i in range(POINTS + 1)]
    return [max(live[a:b]) for a, b in pairwise(ends)]


MEMORY = Study(
    name="memory",
    summary="weights, activations alive at once, what the runtime plans, and the process's peak",
    take=take,
    why_not=why_not,
    here=True,
)
