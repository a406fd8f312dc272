"""The sparse cache: oracle 3, its bytes, its rounding, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher, SparseTeacher
from limbeck.mechanics.sparse import TOP_CLASSES, TOP_IDS, Layout, kd_top_rows, top_name, top_of
from limbeck.mechanics.terms import hint, jsd, kd, logit_mse, task_loss
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.testing import small_task

IDENTITY = {"teacher": "t"}
TOKENS, VOCABULARY = 6, 8192


def logits(seed: int, rows: int, classes: int, spread: float = 3.0) -> torch.Tensor:
    return spread * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(3, 40), temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]))
def test_oracle_3_the_kl_of_the_top_is_never_above_the_full_one_and_grows_with_k(seed, classes, temperature):
    student, teacher = logits(seed, 4, classes), logits(seed + 1, 4, classes)
    full, before = kd_rows(student, teacher, temperature=temperature), torch.zeros(4, dtype=torch.float64)
    for k in range(1, classes):
        got = kd_top_rows(student, *top_of(teacher, k, temperature=temperature), temperature=temperature)
        assert (got >= before - 1e-10).all() and (got <= full + 1e-10).all(), k
        before = got
    assert torch.allclose(before, full, atol=1e-10), "with a tail of one class it is the full divergence"


def test_it_is_zero_where_both_agree_and_has_the_gradient_of_what_it_says():
    student = logits(0, 3, 7).requires_grad_()
    ids, top = top_of(student.detach(), 3, temperature=2.0)
    assert kd_top_rows(student, ids, top, temperature=2.0).abs().max() < 1e-12
    ids, top = top_of(logits(1, 3, 7), 3, temperature=2.0)
    assert torch.autograd.gradcheck(lambda s: kd_top_rows(s, ids, top, temperature=2.0), student)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_that_is_sure_loses_neither_the_tail_nor_its_gradient(dtype):
    """1 − the mass of the k would round to zero where the tail is summed; half precision is computed in single."""
    student = logits(0, 6, 50, spread=1.0)
    student[:, 3] += 25
    teacher = logits(1, 6, 50)
    teacher[:, 3] += 10
    ids, top = top_of(teacher, 4, temperature=1.0)
    given_ = student.to(dtype).requires_grad_()
    exact = given_.detach().double().requires_grad_()
    q = torch.log_softmax(exact, -1)
    tail = q.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    expected = (top.exp() * (top - torch.cat([q.gather(-1, ids), tail], -1))).sum(-1)
    got = kd_top_rows(given_, ids, top, temperature=1.0)
    assert torch.allclose(got.double(), expected, rtol=1e-5)
    (got.sum().backward(), expected.sum().backward())
    assert given_.grad is not None and exact.grad is not None and torch.allclose(given_.grad.double(), exact.grad, rtol=1e-2, atol=1e-3 if dtype == torch.bfloat16 else 1e-5)


def test_the_value_by_hand():
    """Teacher (½, ¼, ⅛, ⅛), student uniform, k = 1: KL of (½, ½) from (¼, ¾) = ½ ln 2 + ½ ln ⅔."""
    teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    got = kd_top_rows(torch.zeros(1, 4, dtype=torch.float64), *top_of(teacher, 1, temperature=1.0), temperature=1.0)
    assert got.item() == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.sampled_from([3, 11, 256, 257, 5000]), k=st.sampled_from([1, 2, 7]), spread=st.sampled_from([0.01, 3.0, 30.0]))
def test_packed_rows_keep_the_ids_and_the_probabilities_within_half_precision(seed, classes, k, spread):
    k, temperatures = min(k, classes - 1), (0.5, 1.0, 4.0)
    given_ = logits(seed, 5, classes, spread).float()
    layout = Layout(classes, k, temperatures)
    rows = layout.packed(given_)
    answers = layout.answers(rows)
    assert rows.shape == (5, layout.row_bytes) and rows.dtype == np.uint8 and answers[TOP_CLASSES] == classes
    for temperature in temperatures:
        ids, expected = top_of(given_, k, temperature=temperature)
        got = answers[top_name(temperature)]
        assert torch.equal(answers[TOP_IDS], ids) and got.exp().sum(-1).allclose(torch.ones(5), atol=1e-5)
        largest = top_of(given_, k, temperature=1.0)[1][:, :-1].abs().amax() / temperature + expected[:, -1].abs().amax()
        assert ((got - expected).exp() - 1).mul(expected.exp()).abs().max() <= 2**-10 * (largest + 1) + 1e-4


@pytest.mark.parametrize(("classes", "most"), [(8192, 37), (50257, 41), (262144, 44)])
def test_bytes_a_row_at_ten_of_them(classes, most):
    assert Layout(classes, 10, (1.0,)).row_bytes == most <= 44


def test_a_layout_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"k must be in \[1, 3\] for 4 classes, got 4"):
        Layout(4, 4, (1.0,))
    with pytest.raises(ConfigError, match=r"temperatures must name at least one number > 0, got \(\)"):
        Layout(4, 2, ())
    with pytest.raises(ConfigError, match="holds up to 33554432 classes"):
        Layout(1 << 26, 2, (1.0,))


class Tokens(nn.Module):
    """A next-token model that is sure: an embedding and a head."""

    def __init__(self, vocabulary: int = VOCABULARY, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.table, self.head = nn.Embedding(64, 16), nn.Linear(16, vocabulary)
        self.head.weight.data *= 8

    def forward(self, ids):
        return self.head(self.table(ids))


def language(samples: int = 50):
    ids = torch.randint(0, 64, (samples, TOKENS), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, -1] = -100
    data = TensorDataset(ids, labels)
    return replace(small_task(), models={"teacher": Tokens}, weights={}, splits={"train": data, "validation": data, "test": data})


def sparse(folder, task, **options) -> SparseTeacher:
    return SparseTeacher(folder, LiveTeacher(task, Tokens()), IDENTITY, **{"k": 10, "temperatures": (1.0, 4.0), "shard": 20} | options)


def test_real_files_take_at_most_44_bytes_a_token(tmp_path):
    task = language(400)
    teacher = sparse(tmp_path, task, temperatures=(1.0,), shard=4096)
    teacher.teacher(np.array([0]), 0, (), {})
    written = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert teacher.layout.row_bytes == 37 and written / (400 * TOKENS) <= 37.5, "arrays, records and manifest together"


def test_kd_and_forward_kl_on_tokens_are_those_of_the_top(tmp_path):
    """Oracle 8: cached = live within the quantization bound; tokens labelled −100 are left out in both."""
    task = language()
    student, ids = Tokens(seed=1), np.array([41, 3, 20, 19])
    batch = batch_of(task, "train", ids)
    objective = 1.0 * kd(temperature=4) + 1.0 * jsd(beta=0.0, temperature=1)
    bound = objective.bind(task, sparse(tmp_path, task))
    _, parts = bound(student, batch, ids)
    teacher = Tokens()(batch[0])[:, :-1].flatten(0, 1).detach()
    for label, temperature in (("kd", 4.0), ("jsd", 1.0)):
        top = top_of(teacher, 10, temperature=temperature)
        expected = kd_top_rows(student(batch[0])[:, :-1].flatten(0, 1), *top, temperature=temperature).mean().item()
        assert parts[label].item() == pytest.approx(expected, rel=2e-3), label
    full = objective.bind(task, LiveTeacher(task, Tokens()))(student, batch, ids)[1]
    assert all(parts[label] <= full[label] * 1.002 for label in parts)
    loss, _ = bound(student, batch, ids)
    loss.backward()
    assert student.head.weight.grad is not None and student.head.weight.grad.isfinite().all() and student.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (kd(temperature=2), "kd_2 softens with temperature 2; a sparse cache holds the 10 largest probabilities for forward KL at temperature 1, 4. Build the cache with that"),
        (kd(temperature=4, standardize=True), "kd_2 reads the teacher's whole outputs; a sparse cache"),
        (jsd(beta=1.0, temperature=4), "jsd reads the teacher's whole outputs"),
        (jsd(beta=0.0, skew=0.1, temperature=4), "jsd reads the teacher's whole outputs"),
        (logit_mse(), "logit_mse reads the teacher's whole outputs"),
        (hint(student="table", teacher="table"), "the teacher's 'table' is tapped"),
    ],
)
def test_every_other_pair_of_term_and_cache_is_refused_when_bound(tmp_path, term, reason):
    task = language()
    with pytest.raises(ConfigError, match=reason):
        (0.5 * task_loss() + 0.5 * kd(temperature=4) + 1.0 * term).bind(task, sparse(tmp_path, task), Tokens())
    assert (1.0 * kd(temperature=4) + 0.0 * term).bind(task, sparse(tmp_path, task)), "a term of weight zero asks for nothing"


def test_another_k_or_temperature_or_vocabulary_is_refused(tmp_path):
    task = language()
    sparse(tmp_path, task)
    with pytest.raises(ConfigError, match="made with another k: 10, now 20"):
        sparse(tmp_path, task, k=20)
    with pytest.raises(ConfigError, match=r"made with another temperatures: \[1.0, 4.0\], now \[2.0\]"):
        sparse(tmp_path, task, temperatures=(2.0,))
    ids = np.arange(4)
    with pytest.raises(TaskError, match=r"student \(4, 6, 9000\) and teacher \(4, 6, 8192\). Classes \(or a vocabulary\) must agree .*give the student 8192"):
        (1.0 * kd()).bind(task, sparse(tmp_path, task))(Tokens(9000), batch_of(task, "train", ids), ids)


def test_a_dense_cache_of_a_vocabulary_says_what_would_do(tmp_path):
    task = language()
    with pytest.raises(ConfigError, match="49152 values a sample; a dense cache holds up to 4096. Take a SparseTeacher for forward KL, or the teacher live"):
        CachedTeacher(tmp_path, LiveTeacher(task, Tokens()), IDENTITY).teacher(np.array([0]), 0, (), {})
