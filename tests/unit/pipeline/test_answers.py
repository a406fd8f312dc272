"""A run's choice: keep the teacher's answers or ask again, and how; told in the journal, kept for the next start."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import limbeck
from limbeck import Contract, Gate, Plan, Stage, Views
from limbeck.core.technique import Reads
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import CachedTaps, CachedTeacher, Joined, LiveTeacher, SparseTeacher
from limbeck.mechanics.terms import kd
from limbeck.pipeline import answers
from limbeck.pipeline.answers import Answers, Choice, chosen
from limbeck.pipeline.context import QuietLog
from limbeck.pipeline.journal import Journal
from limbeck.testing import small_task

PLENTY = 10**12
KD, WHOLE, TAPS = Reads(softened={"kd": 4.0}), Reads(("logit_mse",)), Reads(taps=("features.5",))
BOTH = Reads(softened={"kd": 4.0}, taps=("features.5",))


def live(task=None) -> LiveTeacher:
    task = task or small_task()
    return LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))


class Language(nn.Module):
    """An embedding whose row is the answer: `sure` decides how much of the mass few words hold."""

    def __init__(self, sure: float):
        super().__init__()
        self.table = nn.Embedding(16, 3000)
        self.table.weight.data = torch.randn(16, 3000, generator=torch.Generator().manual_seed(0)) + sure * (torch.arange(3000) < 8)

    def forward(self, ids):
        return self.table(ids)


def language(sure: float, length=lambda i: 5) -> LiveTeacher:
    ids = [torch.randint(0, 16, (length(i),), generator=torch.Generator().manual_seed(i)) for i in range(20)]
    data = TensorDataset(torch.stack(ids), torch.stack(ids)) if len({len(i) for i in ids}) == 1 else [(i, i) for i in ids]
    pad = lambda samples: (nn.utils.rnn.pad_sequence([s[0] for s in samples], batch_first=True),)  # noqa: E731
    task = replace(small_task(), models={}, weights={}, splits={"train": data}, collate=None if isinstance(data, TensorDataset) else pad)
    return LiveTeacher(task, Language(sure))


@pytest.mark.parametrize(
    ("reads", "budget", "expected"),
    [
        (KD, PLENTY, Choice("float16", "", 0, 2 * 4 * 96, "4 values a sample")),
        (KD, 2 * 4 * 96 - 1, Choice("live", "", 0, 0, "4 values a sample: 0.00 GB, and 0.00 may be taken")),
        (TAPS, PLENTY, Choice("", "float16", 0, 2 * 96 * 32 * 64, "features alone are read")),
        (TAPS, 2 * 96 * 32 * 64 - 1, Choice("", "int8", 0, 96 * 32 * 64, "features alone are read")),
        (TAPS, 96 * 32 * 64 - 1, Choice("", "live", 0, 0, "features would weigh 0.00 GB as int8, and 0.00 may be taken")),
        (BOTH, 96 * 32 * 64 + 2 * 4 * 96, Choice("float16", "int8", 0, 96 * 32 * 64 + 2 * 4 * 96, "4 values a sample")),
        (BOTH, 96 * 32 * 64, Choice("live", "live", 0, 0, "features would weigh 0.00 GB as int8, and 0.00 may be taken")),
        (KD, 0, Choice("live", "", 0, 0, "4 values a sample: 0.00 GB, and 0.00 may be taken")),
    ],
)
def test_what_fits_is_kept_at_the_precision_that_fits(reads, budget, expected):
    teacher = live().tapped(reads.taps) if reads.taps else live()
    assert chosen(reads, teacher, budget, PLENTY) == expected
    assert chosen(reads, teacher, PLENTY, budget) == expected, "room on the disk limits as the budget does"


def test_views_multiply_the_bytes():
    assert chosen(KD, live(replace(small_task(), views=Views(flip=True, versions=5))), PLENTY, PLENTY).bytes == 5 * 2 * 4 * 96


def test_a_large_vocabulary_is_kept_sparse_where_few_words_hold_the_mass():
    sharp = chosen(KD, language(40.0), PLENTY, PLENTY)
    assert (sharp.outputs, sharp.k, sharp.bytes) == ("sparse", 10, 20 * 5 * 36) and "3000 classes, and 10 hold all but" in sharp.why
    assert chosen(KD, language(25.0), PLENTY, PLENTY).k == 0, "at temperature 4 the rest share much more"
    assert chosen(Reads(softened={"kd": 1.0}), language(25.0), PLENTY, PLENTY).k == 10
    flat = chosen(KD, language(0.0), PLENTY, PLENTY)
    assert flat.outputs == "live" and flat.why.endswith("15000 values a sample, more than 4096, and its 100 largest leave more than 5% of the mass to the rest")
    whole = chosen(Reads(("logit_mse",), {"kd": 4.0}), language(40.0), PLENTY, PLENTY)
    assert whole.outputs == "live" and whole.why.endswith("more than 4096, and logit_mse reads all of them")


def test_samples_of_several_sizes_are_asked_live_and_large_values_kept_whole():
    assert chosen(KD, language(40.0, length=lambda i: 3 + i), PLENTY, PLENTY) == Choice("live", "", 0, 0, "'logits' differs in size between samples")
    teacher = live()
    teacher.model.head.bias.data[0] = -1e5
    assert chosen(KD, teacher, PLENTY, PLENTY).outputs == "float32"


def source(folder, teacher=None, budget=PLENTY) -> Answers:
    return Answers(teacher or live(), folder / "cache", {"teacher": "words" if teacher else "images"}, budget, QuietLog(), Journal(folder / "journal.jsonl"), lambda: False)


def test_each_choice_gives_its_source_and_stands_in_the_journal_once_if_it_is_not_the_usual_one(tmp_path):
    made = [source(tmp_path).serving(reads) for reads in (KD, TAPS, BOTH, TAPS)]
    assert [type(m) for m in made] == [CachedTeacher, CachedTaps, Joined, CachedTaps]
    assert isinstance(source(tmp_path, language(40.0)).serving(KD), SparseTeacher)
    assert isinstance(source(tmp_path, budget=0).serving(BOTH), LiveTeacher)
    kept = [line["data"] for line in Journal(tmp_path / "journal.jsonl").lines if line["event"] == "teacher's answers"]
    assert [(k["outputs"], k["features"]) for k in kept] == [("", "float16"), ("float16", "float16"), ("sparse", ""), ("live", "live")]


def test_a_choice_stays_whatever_the_disk_has_room_for_later(tmp_path, monkeypatch):
    assert isinstance(source(tmp_path).serving(KD), CachedTeacher)
    monkeypatch.setattr(answers, "_room", lambda folder: 0)
    assert isinstance(source(tmp_path).serving(KD), CachedTeacher), "a run that goes on would have got other answers"
    assert isinstance(source(tmp_path).serving(TAPS), LiveTeacher)


def test_terms_of_kd_alone_train_from_the_sparse_cache(tmp_path):
    teacher = language(40.0)
    bound = (1.0 * kd(temperature=4)).bind(replace(teacher.task, metric=small_task().metric), source(tmp_path, teacher))
    student = Language(0.0)
    loss, _ = bound(student, batch_of(teacher.task, "train", [7, 3]), np.array([7, 3]))
    loss.backward()
    assert loss > 1 and student.table.weight.grad is not None and not student.table.weight.grad.isnan().any()


def test_a_run_keeps_features_and_says_so(tmp_path):
    terms = [{"name": "task_loss", "weight": 0.5}, {"name": "hint", "weight": 1.0, "options": {"student": "features.5"}}]
    config = {"student": "small", "terms": terms, "training": {"epochs": 1, "batch_size": 32}}
    plan = Plan(stages=(Stage(technique="distill", config=config, gate=Gate(pays="bytes", shrink=1.0, retention=0.0)),), control=False)

    def told(name: str, **options) -> list[dict]:
        limbeck.compress(small_task(), Contract(size_ratio=1.5), plan, root=tmp_path, name=name, timing_seconds=0.1, proof=limbeck.Proof(studies="none"), **options)
        lines = [json.loads(line) for line in (tmp_path / name / "journal.jsonl").read_text().splitlines()]
        return [line["data"] for line in lines if line["event"] == "teacher's answers"]

    assert [(t["features"], t["bytes"]) for t in told("kept")] == [("float16", 2 * 96 * 32 * 64)]
    assert len(list((tmp_path / "kept" / "cache").rglob("view0.0.0.npy"))) == 1
    assert [t["features"] for t in told("live", cache_bytes=0)] == ["live"] and not list((tmp_path / "live" / "cache").rglob("*.npy"))
