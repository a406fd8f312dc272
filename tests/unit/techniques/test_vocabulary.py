"""Embeddings cut to what train uses: the same ids go in, the same answers come out, and what was cut answers as the unknown."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.candidate import Blueprint, Candidate, TorchForm
from limbeck.core.errors import ConfigError, Interrupted, ReplayError, StageError
from limbeck.core.facts import Fact
from limbeck.core.task import Task
from limbeck.core.technique import card_of
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, predict
from limbeck.mechanics.edits import replay
from limbeck.mechanics.embeddings import CutEmbedding, vocabulary_edit
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.techniques.prune.blocks import Blocks, blocks
from limbeck.techniques.prune.vocabulary import Vocabulary, vocabulary
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import context, small_text_task

USED = set(range(40))  # of 60 ids and one for the unknown


def ids_task(model: type[nn.Module], high: int = 20, **options: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randint(2, high, (24, 5), generator=generator), torch.arange(24) % 3)
    make = functools.partial(model, **options)
    torch.manual_seed(1)
    return Task(models={"teacher": make}, weights={"teacher": make().state_dict()}, splits=dict.fromkeys(("train", "validation", "test"), data), metric=accuracy())


def answer(task: Task, candidate: Candidate, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return rebuild(candidate.torch_form, task)(ids)


@pytest.fixture(scope="module")
def text() -> Task:
    return small_text_task()


# ---- what is kept ----------------------------------------------------------------------------------------------------------


def test_what_train_uses_answers_as_before_bit_for_bit(text, tmp_path):
    teacher = teacher_candidate(text)
    outcome = vocabulary(teacher, Vocabulary(), context(text, tmp_path))
    train = text.split("train").tensors[0]
    assert set(train.unique().tolist()) == USED
    assert torch.equal(answer(text, outcome.candidate, train), answer(text, teacher, train))
    assert outcome.claims["rows"] == [41, 61] and outcome.claims["module"] == "tokens"  # 40 and the mean of those cut
    assert outcome.claims["table_bytes"] == 41 * 16 * 4 and outcome.claims["map_bytes"] == 61 * 4
    assert outcome.claims["uncovered"] == 0 and outcome.claims["unknown"] == "mean"
    whole = sum(p.numel() for p in rebuild(teacher.torch_form, text).parameters())
    assert outcome.claims["parameters"] == whole - 20 * 16
    assert Fact.NARROWER in outcome.candidate.facts


def test_what_was_cut_answers_as_the_unknown(text, tmp_path):
    teacher = teacher_candidate(text)
    cut = vocabulary(teacher, Vocabulary(unknown=60), context(text, tmp_path)).candidate
    ids = torch.arange(40, 60).reshape(4, 5)
    assert torch.equal(answer(text, cut, ids), answer(text, teacher, torch.full((4, 5), 60)))
    assert not torch.equal(answer(text, teacher, ids), answer(text, teacher, torch.full((4, 5), 60)))
    assert torch.equal(answer(text, cut, ids + 100), answer(text, teacher, ids + 100))  # what forward itself clamps


def test_without_an_unknown_it_is_the_mean_of_those_that_are_cut_as_often_as_seen(text, tmp_path):
    teacher, words = teacher_candidate(text), text.split("train").tensors[0]
    counts = torch.bincount(words.reshape(-1), minlength=61)
    limit = int(counts[:40].sort().values[10])
    outcome = vocabulary(teacher, Vocabulary(min_count=limit), context(text, tmp_path))
    table, whole = outcome.candidate.torch_form.weights["tokens.weight"], teacher.torch_form.weights["tokens.weight"]
    cut = counts < limit
    expected = (whole[cut].double() * counts[cut, None]).sum(0) / counts[cut].sum()
    torch.testing.assert_close(table[-1].double(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(table[:-1], whole[~cut])
    assert outcome.claims["uncovered"] == pytest.approx(counts[cut].sum().item() / counts.sum().item())


def test_what_was_cut_answers_as_the_word_that_is_nearest(text, tmp_path):
    teacher = teacher_candidate(text)
    weights = dict(teacher.torch_form.weights)
    table = weights["tokens.weight"] = weights["tokens.weight"].clone()
    table[50], table[51] = table[7] + 1e-3, table[33] - 1e-3
    near = Candidate(TorchForm(teacher.torch_form.blueprint, weights))
    outcome = vocabulary(near, Vocabulary(others="nearest"), context(text, tmp_path))
    assert outcome.claims["rows"] == [40, 61] and outcome.claims["unknown"] == "nearest"
    assert torch.equal(answer(text, outcome.candidate, torch.tensor([[50, 51, 1]])), answer(text, near, torch.tensor([[7, 33, 1]])))
    distances = (table[:, None] - table[None, :40]).double().norm(dim=2)
    assert torch.equal(outcome.candidate.torch_form.weights["tokens.row_of"].long(), distances.argmin(1))


def test_nobody_shares_the_row_of_the_padding(tmp_path):
    task = ids_task(Words)
    teacher = teacher_candidate(task)
    weights = dict(teacher.torch_form.weights)
    weights["words.weight"] = weights["words.weight"].clone()
    weights["words.weight"][25] = weights["words.weight"][1]
    cut = vocabulary(Candidate(TorchForm(teacher.torch_form.blueprint, weights)), Vocabulary(others="nearest"), context(task, tmp_path)).candidate
    rows = cut.torch_form.weights["words.row_of"]
    assert rows[1] == 0 and rows[25] != 0


def test_given_ids_stay(text, tmp_path):
    teacher = teacher_candidate(text)
    outcome = vocabulary(teacher, Vocabulary(keep=(45, 59), unknown=60), context(text, tmp_path))
    assert outcome.claims["rows"] == [43, 61]
    ids = torch.tensor([[45, 59, 1, 2]])
    assert torch.equal(answer(text, outcome.candidate, ids), answer(text, teacher, ids))


def test_gentler_until_every_word_of_train_stays():
    gentler, config, counts = card_of(vocabulary).gentler, Vocabulary(min_count=9), []
    while config is not None:
        counts.append(config.min_count)
        config = gentler(config)
    assert counts == [9, 4, 2, 1]


class Words(nn.Module):
    """Words and positions; the padding's row gets no gradient; called once or twice in a forward."""

    def __init__(self, twice: bool = False, tied: bool = False, direct: bool = False, max_norm: float | None = None):
        super().__init__()
        self.words, self.places = nn.Embedding(30, 6, padding_idx=1, max_norm=max_norm), nn.Embedding(50, 6)
        self.head, self.twice, self.direct = nn.Linear(6, 3), twice, direct
        if tied:
            self.out = nn.Linear(6, 30, bias=False)
            self.out.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(input=ids) + self.places(torch.arange(ids.shape[1]))
        x = x + self.words((ids + 3).clamp(max=29)) if self.twice else x
        x = x + x @ self.words.weight.T @ self.words.weight if self.direct else x
        return self.head(x.mean(1))


def test_positions_are_no_words_however_many_they_are(tmp_path):
    task = ids_task(Words)
    assert vocabulary(teacher_candidate(task), Vocabulary(), context(task, tmp_path)).claims["module"] == "words"


def test_ids_of_every_call_are_counted(tmp_path):
    task = ids_task(Words, twice=True)
    outcome = vocabulary(teacher_candidate(task), Vocabulary(), context(task, tmp_path))
    seen = set(task.split("train").tensors[0].unique().tolist())
    assert outcome.claims["rows"] == [len(seen | {i + 3 for i in seen} | {1}) + 1, 30]


def test_the_padding_keeps_its_row_and_gets_no_gradient(tmp_path):
    task = ids_task(Words)
    candidate = vocabulary(teacher_candidate(task), Vocabulary(), context(task, tmp_path)).candidate
    model = rebuild(candidate.torch_form, task)
    assert (model.words.padding_idx, model.words.num_embeddings, model.words.padding_row) == (1, 30, 0)
    model.train()(torch.tensor([[1, 1, 5, 29]])).sum().backward()
    grown = model.words.weight.grad.abs().sum(1) > 0
    assert not grown[0] and grown[model.words.row_of[5]] and grown[-1]


class Repeating:
    """Views that put ids into play which no sample has."""

    versions = 3

    def apply_to(self, task, batch, ids, views):
        return (torch.where(torch.arange(batch[0].shape[1]) == 0, 20 + int(views[0]), batch[0]),), {}


def test_words_of_every_view_are_counted(tmp_path):
    task = ids_task(Words)
    plain = vocabulary(teacher_candidate(task), Vocabulary(), context(task, tmp_path)).claims["rows"][0]
    viewed = Task(models=task.models, weights=task.weights, splits=task.splits, metric=task.metric, views=Repeating())
    assert vocabulary(teacher_candidate(viewed), Vocabulary(), context(viewed, tmp_path)).claims["rows"][0] >= plain + 2


def test_a_bert_of_hugging_face(text, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 90}
    make = lambda: transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=3, **sizes))  # noqa: E731
    torch.manual_seed(0)
    task = Task(models={"teacher": make}, weights={"teacher": make().state_dict()}, splits=text.splits, metric=accuracy(), outputs=lambda raw: {"logits": raw.logits})
    teacher, train = teacher_candidate(task), text.split("train").tensors[0]
    outcome = vocabulary(teacher, Vocabulary(unknown=60), context(task, tmp_path))
    assert outcome.claims["module"] == "bert.embeddings.word_embeddings" and outcome.claims["rows"] == [41, 61]
    assert torch.equal(answer(task, outcome.candidate, train).logits, answer(task, teacher, train).logits)


# ---- what can be done with it ----------------------------------------------------------------------------------------------


def test_cut_shortened_and_quantized_deploys_the_small_table_and_the_map(text, tmp_path):
    """Convolutions and linear layers round to int8 afterwards; the table stays FP32, and the map is as large as it is."""
    cut = vocabulary(teacher_candidate(text), Vocabulary(unknown=60), context(text, tmp_path))
    shorter = blocks(cut.candidate, Blocks(), context(text, tmp_path)).candidate
    rounded = quantize(shorter, Quantize(samples=32), context(text, tmp_path)).candidate
    assert [e["edit"] for e in Blueprint.from_json(rounded.torch_form.blueprint.to_json()).edits[:3]] == ["vocabulary", "drop", "quantize"]
    artifact = ONNXRUNTIME.export(example(text, rebuild(rounded.torch_form, text)), tmp_path)
    tables = {(onnx.helper.tensor_dtype_to_np_dtype(t.data_type).name, tuple(t.dims)) for t in onnx.load(artifact.path).graph.initializer}
    assert ("float32", (41, 16)) in tables and ("int32", (61,)) in tables and ("float32", (61, 16)) not in tables and ("int8", (64, 16)) in tables
    ids = text.split("test").tensors[0]
    with torch.no_grad():
        expected = predict(text, rebuild(rounded.torch_form, text), batch_of(text, "test", range(len(ids))))["logits"]
    got = ONNXRUNTIME.load(artifact, 1)({"0": ids.numpy()})["logits"]
    assert (got.argmax(1) == expected.argmax(1).numpy()).mean() >= 0.97


def test_it_trains_on(text, tmp_path):
    candidate = vocabulary(teacher_candidate(text), Vocabulary(min_count=12), context(text, tmp_path)).candidate
    model = rebuild(candidate.torch_form, text)
    assert "tokens.weight" in dict(model.named_parameters()) and "tokens.row_of" not in dict(model.named_parameters())
    F.cross_entropy(model.train()(text.split("train").tensors[0]), text.split("train").tensors[1]).backward()
    assert model.tokens.weight.grad[-1].abs().sum() > 0


# ---- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "config", "error", "words"),
    [
        ({"tied": True}, Vocabulary(), StageError, r"shares its weight with 'out\.weight'.*Untie"),
        ({"direct": True}, Vocabulary(), StageError, "also read by"),
        ({"max_norm": 1.0}, Vocabulary(), StageError, "max_norm"),
        ({}, Vocabulary(module="word"), ConfigError, r"vocabulary\.module must name .* 'words'"),
        ({}, Vocabulary(keep=(30,)), ConfigError, r"vocabulary\.keep must be ids below 30, got 30"),
        ({}, Vocabulary(unknown=99), ConfigError, r"vocabulary\.unknown must be ids below 30, got 99"),
        ({}, Vocabulary(keep=tuple(range(30))), StageError, "can't cut a row"),
        ({}, Vocabulary(module="places"), None, ""),
    ],
)
def test_what_can_not_be_cut_is_refused_with_its_reason(options, config, error, words, tmp_path):
    task = ids_task(Words, **options)
    if error is None:
        assert vocabulary(teacher_candidate(task), config, context(task, tmp_path)).claims["rows"] == [6, 50]
        return
    with pytest.raises(error, match=words):
        vocabulary(teacher_candidate(task), config, context(task, tmp_path))


def test_a_model_without_words_is_refused(tmp_path):
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.head = nn.Embedding(9, 3), nn.Linear(3, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(ids[:, :3].float() + self.places(torch.arange(5)).mean(0))

    task = ids_task(Numbers)
    with pytest.raises(StageError, match=r"has no nn\.Embedding whose ids come from the samples"):
        vocabulary(teacher_candidate(task), Vocabulary(), context(task, tmp_path))


def test_a_stop_while_counting_leaves_nothing_behind(text, tmp_path):
    asked = context(text, tmp_path)
    stopped = type(asked)(**{**vars(asked), "checkpoint": type(asked.checkpoint)(Path(tmp_path / "c"), lambda: True)})
    with pytest.raises(Interrupted, match="counted"):
        vocabulary(teacher_candidate(text), Vocabulary(), stopped)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (vocabulary_edit("word", 5, None), "no module 'word'"),
        (vocabulary_edit("head", 5, None), "a Linear, not nn.Embedding"),
        (vocabulary_edit("words", 31, None), "must be 1 to that many"),
        (vocabulary_edit("words", 5, 5), "one of its 5 rows"),
        ({"edit": "vocabulary", "module": "words"}, "malformed"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit, words):
    with pytest.raises(ReplayError, match=words):
        replay(Words(), [edit])


def test_cutting_twice_is_refused_with_what_it_is(tmp_path):
    model = replay(Words(), [vocabulary_edit("words", 5, None)])
    assert isinstance(model.words, CutEmbedding) and np.isnan(model.words.weight.detach().numpy()).all()
    with pytest.raises(ReplayError, match="cut already"):
        replay(model, [vocabulary_edit("words", 4, None)])


def test_an_id_that_is_none_is_an_error_as_before():
    model = replay(Words(), [vocabulary_edit("words", 5, None)])
    with pytest.raises((IndexError, RuntimeError)):
        model.words(torch.tensor([-1]))
