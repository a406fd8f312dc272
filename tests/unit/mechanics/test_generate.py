"""Continuing sequences: the draws' distribution, what they follow from, lengths, ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.mechanics.generate import chosen, continued, sampled, uniforms

V = 7


def successor(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """A model that is sure: after t comes t + 1, mod 7."""
    return torch.nn.functional.one_hot((ids + 1) % V, V).float() * 50


def run(ids, lengths, room, *, end=None, temperature=1.0, answer=successor):
    ids, lengths, room = torch.tensor(ids), torch.tensor(lengths), torch.tensor(room)
    uniform = uniforms(0, 0, np.arange(len(ids)), int(room.max()))
    text, now = continued(answer, ids, lengths, room=room, uniform=uniform, temperature=temperature, end=end)
    return text.tolist(), now.tolist()


def test_each_sequence_goes_on_from_its_own_prompt():
    text, lengths = run([[3, 4, 0, 0], [5, 9, 9, 9], [1, 2, 3, 9]], [2, 1, 3], [2, 3, 1])
    assert lengths == [4, 4, 4] and text == [[3, 4, 5, 6], [5, 6, 0, 1], [1, 2, 3, 4]]


def test_lengths_may_differ_and_what_stands_beyond_is_nothing():
    text, lengths = run([[3, 4, 2, 2], [5, 6, 0, 2]], [2, 3], [1, 4])
    assert lengths == [3, 7] and text == [[3, 4, 5, 0, 0, 0, 0], [5, 6, 0, 1, 2, 3, 4]]


def test_a_sequence_without_room_stays_as_it_is():
    text, lengths = run([[3, 4], [5, 6]], [2, 2], [0, 2])
    assert lengths == [2, 4] and text == [[3, 4, 0, 0], [5, 6, 0, 1]]


def test_the_end_token_is_kept_and_ends():
    text, lengths = run([[3], [6]], [1, 1], [5, 3], end=5)
    assert lengths == [3, 4] and text == [[3, 4, 5, 5], [6, 0, 1, 2]]


def test_it_stops_asking_when_all_are_done():
    asked = []
    run([[4], [4]], [1, 1], [50, 50], end=6, answer=lambda ids, lengths: asked.append(ids.shape) or successor(ids, lengths))
    assert asked == [(2, 1), (2, 2)]


def test_no_gradient_is_kept_for_the_drawing():
    kept = []
    run([[1]], [1], [2], answer=lambda ids, lengths: kept.append(torch.is_grad_enabled()) or successor(ids, lengths))
    assert kept == [False, False]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_have_the_models_distribution(temperature):
    """χ² over 40,000 draws, at a level of 1e-4."""
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0])
    count = 40_000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.bincount(sampled(logits.expand(count, 5), uniform, temperature=temperature), minlength=5).double()
    expected = (logits.double() / temperature).softmax(0) * count
    often = expected > 5
    assert ((found - expected)[often] ** 2 / expected[often]).sum() < 23.5 and found[~often].sum() < 10


def test_the_ends_of_the_distribution_function():
    """A uniform of 0 takes the first token that can be, one just below 1 the last; none without mass is ever taken."""
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert [sampled(logits, torch.tensor([u], dtype=torch.float64), temperature=1.0).item() for u in (0.0, 0.49, 0.51, 1 - 2**-53)] == [1, 1, 2, 2]
    assert sampled(torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([0.999]), temperature=0).item() == 1


def test_nan_draws_some_token_so_that_the_loss_can_tell():
    for temperature in (0, 1.0):
        assert 0 <= sampled(torch.full((1, V), torch.nan), torch.tensor([0.3]), temperature=temperature).item() < V


def test_draws_follow_from_seed_step_and_sample_alone():
    whole = uniforms(3, 5, np.array([4, 9, 0]), 6)
    assert torch.equal(whole[1:2], uniforms(3, 5, np.array([9]), 6)) and torch.equal(whole[[2, 0]], uniforms(3, 5, np.array([0, 4]), 6))
    others = [uniforms(3, 6, np.array([4]), 6), uniforms(4, 5, np.array([4]), 6), whole[1:2], whole[2:]]
    assert not any(torch.equal(whole[:1], other) for other in others)
    first = [np.random.default_rng([0x6F70, 3, 5]).random(), uniforms(3, 5, np.array([0]), 1).item()]
    assert first[0] != first[1], "the choice of a step and the draws of sample 0 are two streams"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_steps_is_kept(share):
    found = np.mean([chosen(7, step, share) for step in range(4000)])
    assert abs(found - share) <= 4 * (share * (1 - share) / 4000) ** 0.5
