"""A trained ResNet-18 on Fashion-MNIST under corruption, outside of its classes and at its edges; skipped where the data isn't."""

import numpy as np
import pytest
import torch
from test_real_data import fashion, images  # noqa: F401

from limbeck.core.contract import Target
from limbeck.evaluation.studies import Setting, Side
from limbeck.evaluation.studies.edges import EDGES
from limbeck.evaluation.studies.outside import OUTSIDE
from limbeck.evaluation.studies.shift import SHIFT
from limbeck.evaluation.subject import of_task


@pytest.fixture(scope="module")
def setting(fashion, tmp_path_factory) -> Setting:  # noqa: F811
    """The teacher beside itself with noise on the weights of its last layer: a candidate that has lost a little."""
    from dataclasses import replace

    from limbeck.mechanics.build import rebuild, teacher_candidate

    model = rebuild(teacher_candidate(fashion).torch_form, fashion)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    last = [k for k, v in weights.items() if v.dim() == 2][-1]
    weights[last] += 0.15 * weights[last].std() * torch.randn(weights[last].shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(fashion, weights={"teacher": weights})
    folder = tmp_path_factory.mktemp("real")
    sides = [Side(artifact=of_task(task, model=None, target=Target(), folder=folder / name, name=name).artifact) for task, name in ((fashion, "baseline"), (noisy, "candidate"))]
    return Setting(baseline=sides[0], candidate=sides[1], task=fashion, split="test", target=Target(), feed={}, samples=450)


@pytest.mark.slow
def test_a_real_classifier_loses_as_strengths_grow(setting):
    found = SHIFT.take(setting)
    assert found["derived"] and "images CHW" in found["assumed"] and found["samples"] == 15 and found["distinct"] == 450
    by_strength = np.mean([[p["baseline"] for p in kind["points"]] for kind in found["kinds"]], axis=0)
    assert by_strength[0] > 0.8 and by_strength[-1] < by_strength[0] - 0.1, by_strength
    assert found["overall"]["kind"] == "ratio" and 0.9 < found["overall"]["value"] < 1.05 and found["overall"]["low"] < found["overall"]["value"]


@pytest.mark.slow
def test_shuffled_pixels_are_no_clothes(setting):
    found = OUTSIDE.take(setting)
    sets = {one["name"]: one for one in found["sets"]}
    assert found["inside"]["baseline"]["mean"] > 0.9
    assert sets["shuffled"]["baseline"]["auroc"]["low"] > 0.5, "a trained net is less sure of shuffled pixels"


@pytest.mark.slow
def test_a_real_classifier_at_its_edges(setting):
    words = {case["name"]: case["word"] for case in EDGES.take(setting)["cases"]}
    assert words["empty batch"] == words["batch of one"] == words["all zero"] == words["subnormal"] == "ok"
    assert words["+ infinity"] == "not finite" and "crashed" not in words.values()
