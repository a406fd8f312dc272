"""What terms on features share: resolutions, padding, tokens as a grid, and what is refused."""

from dataclasses import replace

import pytest
import torch
from taps_said import features, gave, lengths, value
from torch import nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import attention_transfer, channel_wise, hidden_states, hint, nst, review, vid
from limbeck.mechanics.terms.features import Pair, as_map, features_of, flat_of, vectors_of
from limbeck.testing import SmallNet, check_term, small_task

PAIR = Pair(student="s", teacher="t")


def test_the_finer_map_is_averaged_down_to_the_coarser():
    s, t = features(0, 2, 3, 4, 4), features(1, 2, 5, 2, 2)
    found = features_of(gave(s, t), "x", PAIR)
    assert found.student.shape == (2, 4, 3) and found.teacher.shape == (2, 4, 5)
    assert torch.allclose(found.student[0, 1, 2], s[0, 2, 0:2, 2:4].mean()) and torch.equal(found.teacher[1, 2, 4], t[1, 4, 1, 0])
    assert torch.allclose(found.weight, torch.full((2, 4), 1 / 8, dtype=torch.float64))


def test_padding_weighs_nothing_and_every_sample_as_much():
    s, t = features(0, 2, 4, 3), features(1, 2, 4, 5)
    found = features_of(gave(s, t, mask=lengths(1, 3, tokens=4)), "x", PAIR)
    assert torch.allclose(found.weight, torch.tensor([[3, 0, 0, 0], [1, 1, 1, 0]]).double() / 6)
    own, _ = vectors_of(gave(s, t, mask=lengths(1, 3, tokens=4)), "x", PAIR)
    assert torch.allclose(own, torch.stack([s[0, 0], s[1, :3].mean(0)]))
    flat, _ = flat_of(gave(s, t, mask=lengths(1, 3, tokens=4)), "x", PAIR)
    assert flat.shape == (2, 12) and (flat[0, 3:] == 0).all() and torch.equal(flat[1, :9], s[1, :3].flatten())


def test_the_batch_says_what_is_padding_where_the_call_did_not():
    step = gave(features(0, 2, 4, 3), features(1, 2, 4, 5))
    found = features_of(replace(step, batch={"attention_mask": lengths(2, 4, tokens=4)}), "x", PAIR)
    assert (found.weight > 0).sum(1).tolist() == [2, 4]


def test_sequences_of_other_lengths_meet_at_the_shorter():
    s, t = features(0, 1, 6, 3), features(1, 1, 3, 5)
    found = features_of(gave(s, t, mask=lengths(3, tokens=6)), "x", PAIR)
    assert torch.allclose(found.student[0, 0], s[0, :2].mean(0)) and torch.allclose(found.student[0, 1], s[0, 2]), "padding isn't averaged in"
    assert (found.weight > 0).tolist() == [[True, True, False]]


def test_a_map_meets_tokens_as_a_grid_and_a_vector_as_a_mean():
    tokens, image = features(0, 2, 17, 3), features(1, 2, 5, 8, 8)
    found = features_of(gave(image, tokens), "x", PAIR)
    assert found.student.shape == (2, 16, 5) and torch.equal(found.teacher, tokens[:, 1:]), "the class token is left out"
    assert torch.equal(as_map(tokens, "x", "t")[1, 2, 3, 0], tokens[1, 13, 2])
    found = features_of(gave(features(2, 2, 7), image), "x", PAIR)
    assert found.student.shape == (2, 1, 7) and torch.allclose(found.teacher[:, 0], image.mean((2, 3)))


def test_a_half_precision_teacher_is_read_in_the_students():
    found = features_of(gave(features(0, 2, 3).float(), features(1, 2, 3).half().requires_grad_()), "x", PAIR)
    assert found.teacher.dtype == torch.float32 and not found.teacher.requires_grad


def test_what_does_not_fit_is_said():
    with pytest.raises(TaskError, match=r"x takes features of shape .* got \[2, 3, 4, 5, 6\] of torch.float64 from the student's 's'. Tap another module"):
        features_of(gave(features(0, 2, 3, 4, 5, 6), features(1, 2, 3)), "x", PAIR)
    with pytest.raises(TaskError, match=r"of torch.int64 from the teacher's 't'"):
        features_of(gave(features(0, 2, 3), torch.zeros(2, 3, dtype=torch.long)), "x", PAIR)
    with pytest.raises(TaskError, match="the 7 tokens of 't' form none"):
        features_of(gave(features(0, 2, 3, 4, 4), features(1, 2, 7, 3)), "x", PAIR)
    with pytest.raises(TaskError, match=r"as many samples from both sides, got student \[2, 3\] and teacher \[3, 3\]"):
        features_of(gave(features(0, 2, 3), features(1, 3, 3)), "x", PAIR)
    with pytest.raises(ConfigError, match="hidden_states.pairs must name at least one pair of layers"):
        hidden_states(pairs=())


@pytest.mark.parametrize("make", [attention_transfer, hidden_states, nst, vid], ids=lambda f: f.__name__)
def test_a_batch_of_one_and_a_half_precision_teacher_serve_terms_that_look_at_one_sample_at_a_time(make):
    s, t = features(0, 1, 3, 4, 4), features(1, 1, 5, 2, 2)
    term = make(pairs=(PAIR,))
    exact = value(term, s, t)
    assert torch.isfinite(exact) and value(term, s, t.half()).item() == pytest.approx(exact.item(), rel=1e-2)


class Patches(nn.Module):
    """A transformer on patches of 2 × 2, with a class token."""

    def __init__(self):
        super().__init__()
        self.embed, self.first = nn.Conv2d(1, 8, 2, 2), nn.Parameter(torch.zeros(1, 1, 8))
        self.block, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, image):
        tokens = self.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(image), -1, -1), tokens], 1)
        return self.head(self.norm(tokens + self.block(tokens).relu())[:, 0])


def test_a_convolutional_student_learns_from_a_transformer():
    torch.manual_seed(0)
    task = replace(small_task(), models={"teacher": Patches, "small": lambda: SmallNet(8)}, weights={"teacher": Patches().state_dict()})
    for term in (
        hint(student="features.8", teacher="block"),
        attention_transfer(pairs=(Pair(student="features.8", teacher="norm"),)),
        review(pairs=(Pair(student="features.5", teacher="embed"), Pair(student="features.8", teacher="norm"))),
        channel_wise(student="features.8", teacher="norm"),
    ):
        check_term(replace(term, agrees=False), task=task)  # paths of two architectures: they never agree
    with pytest.raises(ConfigError, match=r"no layer of the teacher answers to the student's 'features.8' .*those of its rank stand at .*Name the teacher's layer"):
        check_term(hint(student="features.8"), task=task)
