"""fsp: the flow between two layers (oracle 6: a Gram over channels)."""

from dataclasses import replace

import pytest
import torch
from taps_said import features, gave, lengths, rotation

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, fsp
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.fsp import Flow, flow_matrix, fsp_loss
from limbeck.testing import SmallNet, check_term, small_task

FLOW = (Flow(student_from="a", student_to="b", teacher_from="x", teacher_to="y"),)


def test_it_keeps_the_contract():
    check_term(fsp(flows=(Flow(student_from="features.2", student_to="features.8"),)), task=replace(small_task(), models={"teacher": SmallNet, "small": SmallNet}))


def test_it_is_the_paper_written_out():
    own, theirs = {"a": features(0, 2, 3, 4, 4), "b": features(1, 2, 5, 2, 2)}, {"x": features(2, 2, 3, 2, 2), "y": features(3, 2, 5, 2, 2)}
    small = torch.nn.functional.avg_pool2d(own["a"], 2)
    matrix = lambda f, g: torch.einsum("bihw,bjhw->bij", f, g) / 4  # noqa: E731
    expected = (matrix(small, own["b"]) - matrix(theirs["x"], theirs["y"])).square().mean()
    term = fsp(flows=FLOW)
    assert term.function(gave(own, theirs)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert fsp(flows=FLOW * 2).function(gave(own, theirs)).item() == pytest.approx(2 * expected.item(), rel=1e-12)
    assert term.student_taps == ("a", "b") and term.teacher_taps == ("x", "y")


def test_turning_the_channels_is_seen():
    """Oracle 6: not invariant to rotation; permuting channels on one side is seen too."""
    a, b = features(0, 2, 3, 4, 4), features(1, 2, 5, 4, 4)
    turned = torch.einsum("bihw,ij->bjhw", b, rotation(0, 5))
    term = fsp(flows=FLOW)
    assert term.function(gave({"a": a, "b": b}, {"x": a, "y": b})).item() == 0
    assert term.function(gave({"a": a, "b": turned}, {"x": a, "y": b})) > 1e-4


def test_tokens_flow_without_their_padding():
    own, theirs, mask = {"a": features(0, 2, 5, 3), "b": features(1, 2, 5, 4)}, {"x": features(2, 2, 5, 3), "y": features(3, 2, 5, 4)}, lengths(2, 5, tokens=5)
    found = fsp(flows=FLOW).function(gave(own, theirs, mask=mask))
    matrices = [[side[p][b, :n].T @ side[q][b, :n] / n for b, n in enumerate((2, 5))] for side, p, q in ((own, "a", "b"), (theirs, "x", "y"))]
    assert found.item() == pytest.approx(sum((s - t).square().mean().item() for s, t in zip(*matrices, strict=True)) / 2, rel=1e-12)


def test_gradient_and_splits():
    last, weight = features(1, 2, 4, 3), torch.full((2, 4), 0.25).double()
    assert torch.autograd.gradcheck(lambda z: fsp_loss(flow_matrix(z, last, weight), features(2, 2, 2, 3)), features(0, 2, 4, 2).requires_grad_())
    own, theirs = {"a": features(0, 4, 3, 4, 4), "b": features(1, 4, 5, 2, 2)}, {"x": features(2, 4, 3, 2, 2), "y": features(3, 4, 5, 2, 2)}
    part = lambda i: fsp(flows=FLOW).function(gave({k: v[i] for k, v in own.items()}, {k: v[i] for k, v in theirs.items()})).item()  # noqa: E731
    assert part(slice(None)) == pytest.approx((part(slice(0, 2)) + part(slice(2, 4))) / 2, rel=1e-12)


def test_what_is_refused():
    own, theirs = {"a": features(0, 2, 3, 4, 4), "b": features(1, 2, 5, 4, 4)}, {"x": features(2, 2, 3, 4, 4), "y": features(3, 2, 6, 4, 4)}
    with pytest.raises(TaskError, match=r"as many channels on both sides, got student \[3, 5\] and teacher \[3, 6\] from 'a' to 'b'. For other widths use hint"):
        fsp(flows=FLOW).function(gave(own, theirs))
    with pytest.raises(ConfigError, match="fsp.flows must name at least one pair of layers"):
        fsp(flows=())
    with pytest.raises(ConfigError, match=r"terms\[0\].options.flows\[0\].student_to is missing"):
        objective_of([Entry(name="fsp", options={"flows": [{"student_from": "a"}]})], ALL)
