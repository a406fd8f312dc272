"""cosine: the direction of an embedding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import logits, quarters, seen, split_changes_nothing
from torch import nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.objective import Seen
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ALL, cosine
from limbeck.mechanics.terms.cosine import cosine_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.testing import SmallNet, check_term


@pytest.mark.parametrize("options", [{}, {"student": "features.6", "teacher": "features.6"}, {"student": "features.6", "pool": True}, {"project": "always"}], ids=str)
def test_it_keeps_the_contract(options):
    check_term(cosine(**options), task=quarters())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_it_is_one_less_the_cosine_whatever_the_length(seed, scale):
    s, t = logits(seed), logits(seed + 1)
    a, b = s.numpy(), t.numpy()
    expected = np.mean(1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert cosine_loss(s, t).item() == pytest.approx(expected, rel=1e-9)
    assert cosine_loss(scale * s, t).item() == pytest.approx(expected, rel=1e-9)
    rotation = torch.linalg.qr(logits(seed + 2, 5, 5)).Q
    assert cosine_loss(s @ rotation, t @ rotation).item() == pytest.approx(expected, rel=1e-9)
    assert cosine_loss(s, s * 2).item() == pytest.approx(0, abs=1e-12) and cosine_loss(s, -s).item() == pytest.approx(2)


def test_gradient_and_a_vector_of_zeros():
    t = logits(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: cosine_loss(z, t), logits(0, 4, 3).requires_grad_())
    s = torch.zeros(1, 3, requires_grad=True)
    cosine_loss(s, torch.ones(1, 3)).backward()
    assert cosine_loss(s, torch.ones(1, 3)).item() == 1 and s.grad.abs().max() == 0


def built(options: dict, student: tuple[int, ...], teacher: tuple[int, ...]) -> Seen:
    """A step of two layers of these shapes, the projector in place."""
    s, t = logits(0, *student), logits(1, *teacher)
    own = nn.Linear(student[1 if len(student) != 3 else 2], teacher[1 if len(teacher) != 3 else 2], bias=False).double() if options.get("project") == "always" else nn.Identity()
    return seen({"tap:a": s}, {"tap:b": t}, own=own)


def test_places_are_compared_one_by_one_at_the_coarser_resolution():
    step = built({}, (2, 3, 4, 4), (2, 3, 2, 2))
    s, t = step.student["tap:a"], step.teacher["tap:b"]
    pooled = torch.nn.functional.avg_pool2d(s, 2)
    expected = 1 - torch.nn.functional.cosine_similarity(pooled, t, dim=1).mean()
    assert cosine(student="a", teacher="b").function(step).item() == pytest.approx(expected.item(), rel=1e-9)
    mean = 1 - torch.nn.functional.cosine_similarity(s.mean((2, 3)), t.mean((2, 3)), dim=1).mean()
    assert cosine(student="a", teacher="b", pool=True).function(step).item() == pytest.approx(mean.item(), rel=1e-9)


def test_tokens_count_alike_in_every_sample_and_padding_does_not():
    step = built({}, (2, 3, 4), (2, 3, 4))
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    masked = Seen(**{**vars(step), "inputs": {"attention_mask": mask}})
    cos = 1 - torch.nn.functional.cosine_similarity(step.student["tap:a"], step.teacher["tap:b"], dim=2)
    assert cosine(student="a", teacher="b").function(step).item() == pytest.approx(cos.mean().item(), rel=1e-6)
    assert cosine(student="a", teacher="b").function(masked).item() == pytest.approx(((cos[0].mean() + cos[1, 0]) / 2).item(), rel=1e-6)


def test_splits_change_nothing():
    term = cosine()
    bound = lambda step: term.function(Seen(**{**vars(step), "own": nn.Identity()}))  # noqa: E731
    split_changes_nothing(type(term)("cosine", bound), logits(0), logits(1))


def test_a_projector_is_sized_by_itself_and_only_where_it_is_needed():
    task = quarters()
    teacher = LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))
    bind = lambda **options: (1.0 * cosine(**options)).bind(task, teacher, SmallNet(8), seed=1)  # noqa: E731
    assert [p.shape for p in bind(student="features.6", teacher="features.6").parameters()] == [(32, 16)]
    assert bind(student="head", teacher="head").parameters() == [] and bind().parameters() == []
    with pytest.raises(ConfigError, match='cosine.project must be "auto" or "always" where widths differ, got "never" with student 16 and teacher 32'):
        bind(student="features.6", teacher="features.6", project="never")
    loss, _ = bind(student="features.6", teacher="features.6")(SmallNet(8), batch_of(task, "train", range(1)), np.arange(1))
    assert torch.isfinite(loss), "a batch of one"


def test_bad_settings_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="cosine.student must be a module path where cosine.teacher is one"):
        cosine(teacher="head")
    with pytest.raises(TaskError, match=r"cosine without a path compares outputs \[batch, dim\], got student \(2, 3, 4\)"):
        cosine().function(seen(logits(0, 2, 3, 4), logits(1, 2, 3, 4), own=nn.Identity()))
    with pytest.raises(ConfigError, match="options.project must be one of 'auto', 'always', 'never', got 'no'"):
        objective_of([Entry(name="cosine", options={"project": "no"})], ALL)
