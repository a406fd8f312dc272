"""mixup and CutMix: the partner follows from (id, view), and both labels count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.metric import Metric
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
from limbeck.mechanics.terms import dkd, kd, label_smoothing, nkd, task_loss
from limbeck.mechanics.terms.label_smoothing import label_smoothing_rows
from limbeck.mechanics.terms.logits import rows_of
from limbeck.mechanics.train import fit
from limbeck.mechanics.views import Viewer, Views
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, small_task

COUNT, SIDE = 60, 8
KINDS = [Views(mixup=1.0), Views(cutmix=1.0), Views(mixup=0.3, cutmix=0.4, crop=2, flip=True, noise=0.1, erase=0.5, versions=3)]


def task_of(views: Views, *, labels: torch.Tensor | None = None, dtype: torch.dtype = torch.float64, **fields: Any) -> Task:
    x = torch.randn(COUNT, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x * 40 + 128).clamp(0, 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    return Task(metric=fields.pop("metric", accuracy()), splits={"train": TensorDataset(x, torch.arange(COUNT) % 5 if labels is None else labels)}, views=views, **fields)


def shown(task: Task, ids: np.ndarray, view: int = 0):
    return Viewer(task).see(batch_of(task, "train", ids), ids, view)


def plain(task: Task, ids: np.ndarray, view: int = 0) -> torch.Tensor:
    """What the recipe without its mixing shows."""
    return replace(task.views, mixup=0.0, cutmix=0.0).apply(task.split("train").tensors[0][ids], ids, view)


@pytest.mark.parametrize("views", KINDS)
def test_own_and_partner_are_seen_under_the_same_recipe_and_blended_by_lambda_or_pasted_by_area(views):
    task, ids = task_of(views), np.random.default_rng(0).permutation(COUNT)
    seen = shown(task, ids, 2)
    own, other, share = plain(task, ids, 2), plain(task, seen.mixed.partners, 2), seen.mixed.share
    blended = share.view(-1, 1, 1, 1) * own + (1 - share).view(-1, 1, 1, 1) * other
    pasted = (seen.args[0] == other).all(1) & ~(own == other).all(1)
    from_own = (seen.args[0] == own).all(1)
    cut = (pasted | from_own).flatten(1).all(1)
    for i in range(COUNT):
        if cut[i]:
            if seen.mixed.partners[i] != ids[i]:
                assert share[i].item() == 1 - pasted[i].sum().item() / SIDE**2  # the area as it was pasted
            rows, columns = pasted[i].any(1).nonzero(), pasted[i].any(0).nonzero()
            assert int(pasted[i].sum()) == (len(rows) and (rows[-1] - rows[0] + 1).item() * (columns[-1] - columns[0] + 1).item())
        else:
            assert torch.equal(seen.args[0][i], blended[i]) and (share[i] * 256).item() == round((share[i] * 256).item())
    assert views.mixup != 1.0 or cut.float().mean() < 0.2
    assert views.cutmix != 1.0 or cut.all()


def test_each_kind_has_its_share_and_lambda_and_partners_are_even():
    n = 3000
    data = TensorDataset(torch.randn(n, 1, 4, 4), torch.zeros(n, dtype=torch.long))
    task = replace(task_of(Views(mixup=0.5, cutmix=0.25)), splits={"train": data})
    mixed = shown(task, np.arange(n)).mixed
    own = mixed.partners == np.arange(n)
    assert stats.binomtest(int((~own).sum()), n, 0.75 * (n - 1) / n).pvalue > 1e-4
    whole = shown(replace(task, views=Views(mixup=1.0)), np.arange(n)).mixed
    assert stats.kstest(whole.share.numpy(), "uniform").statistic < 0.03
    assert stats.kstest(whole.partners / n, "uniform").statistic < 0.03
    assert abs(np.corrcoef(whole.partners, np.arange(n))[0, 1]) < 0.06 and abs(np.corrcoef(whole.partners, whole.share.numpy())[0, 1]) < 0.06
    other = shown(replace(task, views=Views(mixup=1.0)), np.arange(n), 1).mixed
    assert (other.partners != whole.partners).mean() > 0.99


def test_the_partner_depends_on_sample_and_view_and_not_on_the_batch():
    task = task_of(KINDS[2])
    whole = shown(task, np.arange(COUNT), 1)
    for ids in (np.array([44, 3, 17]), np.array([3])):
        part = shown(task, ids, 1 + 3)
        assert torch.equal(part.args[0], whole.args[0][ids]) and np.array_equal(part.mixed.partners, whole.mixed.partners[ids])
        assert torch.equal(part.mixed.share, whole.mixed.share[ids]) and torch.equal(part.mixed.batch[1], whole.mixed.batch[1][ids])
    args, kwargs = task.views.apply_to(task, batch_of(task, "train", [5, 9]), np.array([5, 9]), 1)  # without a viewer, samples are read one by one
    assert torch.equal(args[0], whole.args[0][[5, 9]]) and kwargs == {}


def test_eight_bits_are_mixed_in_whole_numbers_and_other_whole_numbers_are_refused():
    task = task_of(Views(mixup=1.0), dtype=torch.uint8)
    ids = np.arange(COUNT)
    seen = shown(task, ids)
    own, other, level = plain(task, ids).long(), plain(task, seen.mixed.partners).long(), (seen.mixed.share * 256).long().view(-1, 1, 1, 1)
    assert seen.args[0].dtype == torch.uint8 and torch.equal(seen.args[0].long(), (own * level + other * (256 - level) + 128) // 256)
    with pytest.raises(ConfigError, match="views.mixup must get floating-point numbers or 8-bit pixels, got torch.int64"):
        shown(task_of(Views(mixup=1.0), dtype=torch.int64), ids)
    assert shown(task_of(Views(cutmix=1.0), dtype=torch.int64), ids).args[0].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_are_kept(dtype):
    for views in KINDS:
        assert shown(task_of(views, dtype=dtype), np.arange(8)).args[0].dtype == dtype


# --- labels ------------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, classes: int = 5):
        super().__init__()
        self.head = nn.Linear(2 * SIDE * SIDE, classes, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def one_step(task: Task, term, classes: int = 5):
    torch.manual_seed(0)
    student, ids = Net(classes), np.arange(0, COUNT, 3)
    bound = (1.0 * term).bind(task)
    loss, _ = bound(student, batch_of(task, "train", ids), ids, 1)
    seen = bound.see(student, batch_of(task, "train", ids), ids, 1)
    return loss.item(), seen, ids


@pytest.mark.parametrize("views", KINDS)
def test_task_loss_mixes_the_losses_of_both_labels(views):
    labels = torch.arange(COUNT) % 5
    labels[::7] = -100
    task = task_of(views, labels=labels)
    loss, seen, ids = one_step(task, task_loss())
    own, other = (F.cross_entropy(seen.student["logits"], labels[which], reduction="none") for which in (ids, seen.mixed.partners))
    share = seen.mixed.share
    assert loss == pytest.approx((share * own + (1 - share) * other).mean().item(), rel=1e-12)
    assert (labels[seen.mixed.partners] == -100).any() and (labels[ids] == -100).any()
    soft = [F.one_hot(labels[which].clamp(min=0), 5) * (labels[which] != -100)[:, None] for which in (ids, seen.mixed.partners)]
    mixture = share[:, None] * soft[0] + (1 - share)[:, None] * soft[1]
    assert loss == pytest.approx(-(mixture * seen.student["logits"].log_softmax(1)).sum(1).mean().item(), rel=1e-12)


def test_values_one_logit_and_the_tasks_own_loss_are_mixed_too():
    values = torch.randn(COUNT, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    metric = Metric(name="mse", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0, target="value")
    loss, seen, ids = one_step(task_of(Views(mixup=1.0), labels=values, metric=metric), task_loss())
    own, other = ((seen.student["logits"] - values[which]).square().mean(1) for which in (ids, seen.mixed.partners))
    assert loss == pytest.approx(seen.mixed.blend(own, other).mean().item(), rel=1e-12)

    bits = torch.arange(COUNT) % 2
    bits[::5] = -100
    loss, seen, ids = one_step(task_of(Views(cutmix=1.0), labels=bits), task_loss(), classes=1)
    z = seen.student["logits"][:, 0]
    own, other = (torch.where(bits[w] == -100, 0.0, F.softplus(torch.where(bits[w] == 1, -z, z))) for w in (ids, seen.mixed.partners))
    assert loss == pytest.approx(seen.mixed.blend(own, other).mean().item(), rel=1e-12)

    absolute = lambda outputs, batch: (outputs["logits"][:, 0] - batch[1]).abs()  # noqa: E731
    loss, seen, ids = one_step(task_of(Views(mixup=1.0), loss=absolute), task_loss())
    own, other = ((seen.student["logits"][:, 0] - torch.from_numpy(which % 5)).abs() for which in (ids, seen.mixed.partners))
    assert loss == pytest.approx(seen.mixed.blend(own, other).mean().item(), rel=1e-12)


def test_label_smoothing_mixes_and_leaves_out_what_has_no_label():
    labels = torch.arange(COUNT) % 5
    labels[::4] = -100
    loss, seen, ids = one_step(task_of(Views(mixup=1.0), labels=labels), label_smoothing(smoothing=0.2))
    each = [torch.where(labels[w] == -100, 0.0, label_smoothing_rows(seen.student["logits"], labels[w].clamp(min=0), smoothing=0.2)) for w in (ids, seen.mixed.partners)]
    assert loss == pytest.approx(seen.mixed.blend(*each).mean().item(), rel=1e-12)


@pytest.mark.parametrize("term", [dkd(), nkd()])
def test_terms_that_can_only_have_one_label_are_refused_when_bound(term):
    task = replace(small_task(), views=Views(mixup=0.5, cutmix=0.5))
    with pytest.raises(ConfigError, match=rf"{term.name} reads one label a sample; views.mixup and cutmix mix two samples.* Take task_loss or label_smoothing"):
        (1.0 * kd() + 0.5 * term).bind(task, LiveTeacher(task, SmallNet()))
    (1.0 * term).bind(replace(task, views=Views(flip=True)), LiveTeacher(task, SmallNet()))


def test_a_term_that_reads_labels_without_saying_so_is_refused_when_it_runs():
    _, seen, _ = one_step(task_of(Views(mixup=1.0)), task_loss())
    with pytest.raises(TaskError, match="mine reads one label a row, and samples were mixed in twos"):
        rows_of(seen, "mine", seen.student["logits"], labelled=True)
    assert rows_of(seen, "mine", seen.student["logits"], labelled=False)[0].all()


def test_labels_that_stand_by_place_are_refused():
    token = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0, target="token")
    for views, fields, message in (
        (Views(mixup=1.0), {"metric": token}, "labels tokens, each for itself"),
        (Views(cutmix=1.0), {"labels": torch.zeros(COUNT, SIDE, SIDE)}, r"views.cutmix mixes labels by area, and labels of shape \[2, 8, 8\] stand by place"),
        (Views(token_drop=0.1, pad_id=0, keep_ids=()), {"metric": token}, "Take views.token_mask"),
    ):
        with pytest.raises(ConfigError, match=message):
            (1.0 * task_loss()).bind(task_of(views, **fields))
    with pytest.raises(ConfigError, match="Task.views must be a limbeck.Views, got dict"):
        (1.0 * task_loss()).bind(replace(task_of(Views()), views={"flip": True}))


# --- caches, memory, sizes ---------------------------------------------------------------------------------------------------

EVERY = {
    "crop, flip, shift": Views(crop=2, flip=True, shift=1, versions=2),
    "noise": Views(noise=0.3, versions=2),
    "erase": Views(erase=0.7, versions=2),
    "colour": Views(brightness=0.4, contrast=0.4, black=(-6.0,), white=(6.0,), versions=2),
    "time mask": Views(time_mask=3, versions=2),
    "mixup": Views(mixup=1.0, versions=2),
    "cutmix": Views(cutmix=1.0, versions=2),
    "all": Views(crop=1, flip=True, brightness=0.3, black=(-6.0,), white=(6.0,), noise=0.1, erase=0.5, mixup=0.5, cutmix=0.5, versions=2),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_cached_teacher_is_the_live_one_bit_for_bit_and_sees_what_the_student_sees(name, tmp_path):
    task = replace(small_task(), views=EVERY[name])
    given: list[torch.Tensor] = []
    teacher = SmallNet().eval()
    live = LiveTeacher(task, teacher)
    cached = CachedTeacher(tmp_path, live, {}, dtype="float32", batch_size=32)
    student = SmallNet(8)
    student.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    teacher.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    for view in (0, 1):
        for ids in (np.arange(32), np.arange(32, 64)):  # batches of the cache's own shape: Oracle 8
            given.clear()
            seen = {kind: (1.0 * kd()).bind(task, source).see(student, batch_of(task, "train", ids), ids, view) for kind, source in (("live", live), ("cached", cached))}
            assert torch.equal(seen["live"].teacher["logits"], seen["cached"].teacher["logits"])
            assert all(torch.equal(given[0], other) for other in (given[1], given[-1]))
            shuffled = np.random.default_rng(0).permutation(ids)
            again = (1.0 * kd()).bind(task, cached).see(student, batch_of(task, "train", shuffled), shuffled, view)
            assert torch.equal(again.teacher["logits"], seen["cached"].teacher["logits"][shuffled - ids[0]])
            assert torch.equal(again.args[0], seen["cached"].args[0][shuffled - ids[0]])


def test_a_cache_under_one_recipe_is_refused_under_another_whatever_its_identity_says(tmp_path):
    task = replace(small_task(), views=Views(mixup=1.0))
    CachedTeacher(tmp_path, LiveTeacher(task, SmallNet()), {"views": None})
    with pytest.raises(ConfigError, match="views"):
        CachedTeacher(tmp_path, LiveTeacher(replace(task, views=Views(mixup=0.5)), SmallNet()), {"views": None})


def test_training_under_mixing_learns_and_reads_the_data_once_and_a_copy_of_the_objective_shares_it(tmp_path):
    class Counted(TensorDataset):
        reads = 0

        def __getitem__(self, index):
            type(self).reads += 1
            return super().__getitem__(index)

    base = small_task()
    task = replace(base, views=Views(mixup=0.5, cutmix=0.5, versions=2), splits={**base.splits, "train": Counted(*base.split("train").tensors)})
    bound = (1.0 * task_loss()).bind(task)
    assert replace(bound, signals=None).viewer is bound.viewer and replace(bound, task=base).viewer.task is base
    history = fit(SmallNet(8), bound, Training(epochs=8, batch_size=32, learning_rate=1e-2), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog())
    assert Counted.reads <= len(task.split("train")) + 8  # the whole split once, and a few samples when it is bound
    assert history[-1]["task_loss"] < history[0]["task_loss"] - 0.1


class Ragged:
    """Series of several lengths, padded to the batch."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return torch.ones(2, 8 + index % 2), 0


def padded(samples):
    longest = max(x.shape[1] for x, _ in samples)
    return torch.stack([F.pad(x, (0, longest - x.shape[1])) for x, _ in samples]), torch.zeros(len(samples))


@pytest.mark.parametrize("views", [Views(noise=0.1), Views(shift=1), Views(mixup=1.0)])
def test_padding_to_the_batch_may_not_decide_a_view(views):
    task = Task(metric=accuracy(), splits={"train": Ragged()}, collate=padded, views=views)
    with pytest.raises(ConfigError, match=r"views must get samples of one size; one is \[2, 8\], and this batch holds \[2, 9\]"):
        shown(task, np.array([0, 1]))
    with pytest.raises(ConfigError, match="samples of one size"):
        task.views.apply_to(task, batch_of(task, "train", [1, 3]), np.array([1, 3]), 0)
    tokens = replace(task, views=Views(token_mask=0.1, mask_id=1, keep_ids=()), splits={"train": [(torch.ones(4 + i).long(), 0) for i in range(3)]})
    tokens = replace(tokens, collate=lambda rows: (torch.stack([F.pad(x, (0, 6 - len(x))) for x, _ in rows]), torch.zeros(len(rows))))
    assert shown(tokens, np.arange(3)).args[0].shape == (3, 6)
