"""Figures of the four studies of behaviour, as they come out of two tables whose answers are known: for those who show them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from tables_of_answers import logits, setting

from limbeck.evaluation.studies import taken
from limbeck.evaluation.studies.answers import ANSWERS
from limbeck.evaluation.studies.forgotten import FORGOTTEN
from limbeck.evaluation.studies.found_slices import FOUND_SLICES
from limbeck.intake.metrics import mse, top_k


@functools.cache
def figures(folder: Path) -> dict[str, Any]:
    """A candidate that loses half of the third class where `size` is large; its classes bear names that markup must escape."""
    rng = np.random.default_rng(0)
    label, size = rng.integers(0, 4, 800), rng.random(800)
    lost = (label == 2) & (size > 0.5) & (rng.random(800) < 0.7)
    sure = np.where(rng.random(800) < 0.5, 0.95, 0.5)
    tables = logits(label, 4, sure), logits(np.where(lost, 1, label), 4, 0.7)
    one = setting(folder / "classes", *tables, {"label": label, "size": size}, classes=["ant", "b<e>e", "cow & calf", "dog"])
    told = taken(one, (ANSWERS, FORGOTTEN, FOUND_SLICES))
    blind = setting(folder / "blind", *tables, {"label": label}, metric=top_k(1))
    same = setting(folder / "same", tables[0], tables[0], {"label": label, "size": size})
    a = rng.normal(0, 2, (100, 3))
    numbers = setting(folder / "numbers", a, a + rng.normal(0.1, 0.2, a.shape), {"target": a.astype(np.float32)}, metric=mse())
    values = taken(numbers, (ANSWERS, FOUND_SLICES))
    nothing = taken(same, (ANSWERS, FORGOTTEN, FOUND_SLICES))
    return {"classes": told, "blind": taken(blind, (ANSWERS,)), "same": nothing, "numbers": values, "layers": LAYERS}


LAYERS = {
    "split": "test",
    "samples": 256,
    "layers": [
        {"path": "stem", "kind": "Conv2d", "depth": 0.5, "baseline": "stem", "by": "name", "cka": 0.98, "most_like": {"path": "stem", "cka": 0.98}},
        {"path": "body.a<b>", "kind": "Conv2d", "depth": 0.8, "baseline": "body.old", "by": "place", "cka": 0.41, "most_like": {"path": "stem", "cka": 0.62}},
        {"path": "head", "kind": "Linear", "depth": 1.0, "baseline": None, "by": None, "cka": None, "most_like": {"path": "body.old", "cka": 0.3}},
    ],
    "moved_most": "body.a<b>",
    "mean": 0.695,
    "matrix": {"candidate": ["stem", "body.a<b>", "head"], "baseline": ["stem", "body.old"], "cka": [[0.98, 0.5], [0.62, 0.41], [0.1, -0.02]]},
}
