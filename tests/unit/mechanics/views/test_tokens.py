"""token_drop and token_mask: tokens left out or hidden, never special ones, never padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from limbeck.core.errors import ConfigError
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.views import Views

PAD, CLS, SEP, MASK = 0, 101, 102, 103
SPECIAL = (PAD, CLS, SEP, MASK)
TASK = Task(metric=Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0), splits={})


def sentences(count: int, length: int = 24, *, left: bool = False) -> dict[str, torch.Tensor]:
    """[CLS] words [SEP], each sentence as long as its number says, padded; token types count upwards, so that each word is known again."""
    ids, attention, types = (torch.zeros(count, length, dtype=torch.long) for _ in range(3))
    for i in range(count):
        words = 3 + i % (length - 5)
        row = torch.tensor([CLS, *range(1000, 1000 + words), SEP])
        at = length - len(row) if left else 0
        ids[i, at : at + len(row)], attention[i, at : at + len(row)] = row, 1
        types[i, at : at + len(row)] = torch.arange(1, len(row) + 1)
    return {"input_ids": ids, "attention_mask": attention, "token_type_ids": types}


def shown(views: Views, batch: dict[str, torch.Tensor], ids: np.ndarray | None = None, view: int = 0) -> dict[str, torch.Tensor]:
    args, kwargs = views.apply_to(TASK, batch, np.arange(len(batch["input_ids"])) if ids is None else ids, view)
    assert args == ()
    return kwargs


def dropping(**more) -> Views:
    return Views(**{"token_drop": 0.3, "pad_id": PAD, "keep_ids": SPECIAL, "along": ("token_type_ids",), "input": "input_ids", **more})


def masking(**more) -> Views:
    return Views(**{"token_mask": 0.3, "mask_id": MASK, "keep_ids": SPECIAL, "input": "input_ids", **more})


def test_masking_hides_words_as_often_as_asked_and_nothing_else():
    batch = sentences(400)
    seen = shown(masking(), batch)
    words = batch["input_ids"] >= 1000
    hidden = seen["input_ids"] == MASK
    assert not (hidden & ~words).any() and torch.equal(seen["input_ids"][~hidden], batch["input_ids"][~hidden])
    assert stats.binomtest(int(hidden.sum()), int(words.sum()), 0.3).pvalue > 1e-4
    assert torch.equal(seen["attention_mask"], batch["attention_mask"])


@pytest.mark.parametrize("left", [False, True])
def test_dropping_closes_up_and_the_mask_says_what_is_left(left):
    batch = sentences(400, left=left)
    seen = shown(dropping(pad_side="left" if left else "right"), batch)
    gone = 0
    for i in range(400):
        real = seen["attention_mask"][i].bool()
        n = int(real.sum())
        assert torch.equal(real, torch.arange(24) >= 24 - n if left else torch.arange(24) < n)
        kept, types = seen["input_ids"][i][real], seen["token_type_ids"][i][real]
        assert kept[0] == CLS and kept[-1] == SEP and n >= 3
        before = batch["input_ids"][i][batch["attention_mask"][i].bool()]
        assert torch.equal(before[types - 1], kept) and (types.diff() > 0).all()  # in their order, their types beside them
        assert not seen["input_ids"][i][~real].any() and not seen["token_type_ids"][i][~real].any()
        gone += len(before) - n
    words = int((batch["input_ids"] >= 1000).sum())
    assert abs(gone / words - 0.3) < 0.03


def test_a_draw_belongs_to_the_word_wherever_padding_puts_it():
    """So that a batch, which pads its samples to the longest, decides nothing."""
    short = sentences(10, 16)
    wide = {name: torch.nn.functional.pad(values, (0, 9)) for name, values in short.items()}
    left = sentences(10, 16, left=True)
    for views in (masking(), dropping(), dropping(token_mask=0.3, mask_id=MASK)):
        side = {"pad_side": "left"} if views.token_drop else {}
        own = shown(views, short)
        assert torch.equal(shown(views, wide)["input_ids"][:, :16], own["input_ids"])
        other = shown(type(views)(**{**vars(views), **side}), left)
        for i in range(10):
            assert torch.equal(other["input_ids"][i][other["attention_mask"][i].bool()], own["input_ids"][i][own["attention_mask"][i].bool()])


def test_a_sample_keeps_a_word_however_much_is_dropped():
    batch = sentences(200)
    seen = shown(dropping(token_drop=0.999, keep_ids=()), {**batch, "input_ids": batch["input_ids"]})
    assert (seen["attention_mask"].sum(1) >= 1).all() and (seen["attention_mask"].sum(1) == 1).float().mean() > 0.8


def test_without_a_mask_padding_is_told_by_its_id_and_ids_keep_their_dtype():
    ids = sentences(50)["input_ids"].int()
    args, kwargs = Views(token_drop=0.4, pad_id=PAD, keep_ids=(CLS, SEP)).apply_to(TASK, (ids, torch.zeros(50)), np.arange(50), 0)
    assert kwargs == {} and args[0].dtype == torch.int32
    for before, after in zip(ids, args[0], strict=True):
        n = int((after != 0).sum())
        assert not after[n:].any() and set(after[:n].tolist()) <= set(before.tolist())
    assert (args[0] != 0).sum() < (ids != 0).sum()


def test_views_differ_and_come_again():
    batch = sentences(30)
    found = [shown(masking(versions=3), batch, view=v)["input_ids"] for v in range(4)]
    assert torch.equal(found[0], found[3]) and not torch.equal(found[0], found[1])
    some = np.array([7, 3, 20])
    part = shown(masking(versions=3), {k: v[some] for k, v in batch.items()}, some, 1)
    assert torch.equal(part["input_ids"], found[1][some])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Views(token_mask=0.1, keep_ids=()), "views.token_mask needs mask_id, got none. Give the tokenizer's mask token"),
        (lambda: Views(token_drop=0.1, keep_ids=()), "views.token_drop needs pad_id"),
        (lambda: Views(token_mask=0.1, mask_id=3), "need keep_ids, got none"),
        (lambda: Views(token_mask=0.7, token_drop=0.5, mask_id=3, pad_id=0, keep_ids=()), "must add up to at most 1"),
        (lambda: masking(noise=0.1), "views.noise acts on numbers, and token_drop and token_mask on token ids"),
        (lambda: masking().apply(torch.zeros(2, 3), np.arange(2), 0), "needs the attention mask. Call views.apply_to"),
        (lambda: shown(masking(), {"input_ids": torch.zeros(2, 3)}), r"whole numbers \[batch, tokens\], got torch.float32 \[2, 3\]"),
        (lambda: shown(masking(attention="mask"), sentences(2)), r"views.attention must be one of the model's inputs .* got 'mask'"),
        (lambda: shown(masking(attention="wide"), {**sentences(2), "wide": torch.ones(2, 1, 24, 24)}), r"a mask of the ids' shape \[2, 24\], got \[2, 1, 24, 24\]"),
        (lambda: shown(dropping(along=()), sentences(2)), "input 'token_type_ids' has a value for each too. Name it in views.along"),
        (lambda: shown(dropping(), sentences(2, left=True)), "padded on the right, got others. Set views.pad_side"),
        (lambda: shown(masking(), sentences(3), np.arange(2)), "2 ids for 3 samples"),
    ],
)
def test_what_can_not_be_done_is_refused_with_a_way_out(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
