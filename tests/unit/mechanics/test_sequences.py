"""Where ids, mask, labels and prompts stand in a batch, and what is refused."""

from __future__ import annotations

import pytest
import torch

from limbeck import Task, perplexity
from limbeck.core.errors import TaskError
from limbeck.mechanics.data import arguments, labels
from limbeck.mechanics.sequences import sequences_of

TASK = Task(name="text", splits={}, metric=perplexity())
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LABELS = torch.tensor([[-100, 5, 6, -100], [8, -100, -100, -100]])
WHOLE = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


def test_a_dict_is_read_by_its_usual_names():
    found = sequences_of(TASK, WHOLE)
    assert (found.at_ids, found.at_mask, found.at_labels) == ("input_ids", "attention_mask", "labels") and found.lengths.tolist() == [4, 2]
    assert found.prompts().tolist() == [2, 1], "the label at t is the token at t + 1"


def test_a_tuple_is_ids_and_labels():
    found = sequences_of(TASK, (IDS, LABELS))
    assert (found.at_ids, found.at_mask, found.at_labels) == (0, None, 1) and found.lengths.tolist() == [4, 4]


def test_names_and_positions_may_be_given():
    batch = {"text": IDS, "real": MASK.bool(), "y": LABELS, "start": torch.tensor([3, 1])}
    found = sequences_of(TASK, batch, input="text", mask="real")
    assert found.prompts(given="start").tolist() == [3, 1] and found.prompts(tokens=3).tolist() == [3, 2]
    assert sequences_of(TASK, (MASK, IDS, LABELS), input="1", mask="0").lengths.tolist() == [4, 2]


def test_other_ends_are_put_into_a_copy():
    text, lengths = torch.tensor([[3, 4, 9, 9, 9], [7, 9, 0, 0, 0]]), torch.tensor([5, 2])
    fresh = sequences_of(TASK, {**WHOLE, "id": [1, 2]}).with_ids(text, lengths)
    assert torch.equal(fresh["input_ids"], text) and fresh["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]] and fresh["id"] == [1, 2]
    assert (fresh["labels"] == -100).all() and torch.equal(WHOLE["input_ids"], IDS)
    pair = sequences_of(TASK, [IDS, LABELS]).with_ids(text, lengths, text)
    assert torch.equal(pair[0], text) and torch.equal(pair[1], text)


def test_unlabelled_batches_get_labels_that_the_model_never_sees():
    text, lengths = IDS, torch.tensor([4, 4])
    for batch in ((IDS,), {"input_ids": IDS}):
        fresh = sequences_of(TASK, batch).with_ids(text, lengths, LABELS)
        assert torch.equal(labels(fresh), LABELS)
        args, kwargs = arguments(TASK, fresh)
        assert [v.tolist() for v in (*args, *kwargs.values())] == [IDS.tolist()]


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (IDS, {}, "no place for labels"),
        ({"ids": IDS}, {}, "no entry 'input_ids'; it has 'ids'"),
        ((IDS, LABELS), {"input": "5"}, "no entry 5; it has 0, 1"),
        ((IDS.float(), LABELS), {}, r"float32 of shape \[2, 4\] at 0.*on_policy.input"),
        ((IDS[:, :, None], LABELS), {}, r"whole numbers \[batch, time\]"),
        ((["a", "b"], LABELS), {}, "got list"),
        ({**WHOLE, "attention_mask": MASK.flip(1)}, {}, "padding, which stands on the right"),
        ({**WHOLE, "attention_mask": MASK[:, :3]}, {}, "padding, which stands on the right"),
        ({**WHOLE, "labels": IDS}, {}, "They are the inputs themselves: move them one to the left"),
        ({**WHOLE, "labels": IDS.flip(0)}, {}, "must be the token at t \\+ 1.*Label with −100"),
        ({**WHOLE, "labels": torch.tensor([0, 1])}, {}, r"one token for each id, got shape \[2\] for ids \[2, 4\]"),
        ({**WHOLE, "position_ids": IDS}, {}, "'position_ids' has one entry a token.*Leave it out"),
        ((IDS, MASK, LABELS), {}, "batch's 1 has one entry a token.*on_policy.mask"),
    ],
)
def test_what_cannot_be_continued_is_refused_with_a_way_out(batch, options, message):
    with pytest.raises(TaskError, match=message):
        sequences_of(TASK, batch, **options)


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((IDS,), {}, "nothing says where a prompt ends.*on_policy.prompt_tokens"),
        ({**WHOLE, "start": torch.tensor([0, 1])}, {"given": "start"}, r"from 1 to as many tokens as its sequence, got \[0, 1\]"),
        ({**WHOLE, "start": torch.tensor([4, 3])}, {"given": "start"}, r"got \[4, 3\] for sequences of \[4, 2\]"),
        ({**WHOLE, "start": torch.tensor([1])}, {"given": "start"}, r"got \[1\]"),
        (WHOLE, {"given": "begin"}, "no entry 'begin'"),
        ({**WHOLE, "attention_mask": MASK * torch.tensor([[1], [0]])}, {"tokens": 2}, "no sequence is empty"),
    ],
)
def test_prompts_that_cannot_be_are_refused(batch, options, message):
    with pytest.raises(TaskError, match=message):
        sequences_of(TASK, batch).prompts(**options)


def test_a_sequence_without_a_label_is_all_prompt():
    batch = {**WHOLE, "labels": torch.tensor([[-100, 5, 6, -100], [-100] * 4])}
    assert sequences_of(TASK, batch).prompts().tolist() == [2, 2]
