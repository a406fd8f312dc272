"""deep_supervision: be your own teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from said import quarters
from taps_said import sentences
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, Interrupted
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.taps import tapped
from limbeck.mechanics.terms import ALL, deep_supervision, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term

IDS = np.arange(8)


def bound_to(term, task, student):
    return (1.0 * term).bind(task, None, student, seed=3)


def test_it_keeps_the_contract_and_needs_neither_teacher_nor_labels():
    check_term(deep_supervision(), task=quarters())
    check_term(deep_supervision(layers=("features.2", "features.5"), deepest="features.8"), task=quarters())
    check_term(deep_supervision(layers=("layers.0", "in:norm")), task=sentences())
    check_term(
        deep_supervision(), task=Task(**{**vars(quarters()), "models": {"teacher": quarters().models["teacher"], "small": lambda: resnet(channels=1, classes=4, widths=(4, 8, 8))}})
    )
    assert not deep_supervision().teacher and not deep_supervision().labels and not deep_supervision().relational


def test_it_is_the_papers_sum_written_out():
    """Equations 1 to 4: (1 − α) · cross-entropy + α · KL to the deepest answer + λ · distance to the deepest features, over the branches."""
    task, student = quarters(), SmallNet(8).eval()
    batch, (alpha, T, lam) = batch_of(task, "train", IDS), (0.3, 2.5, 0.4)
    bound = bound_to(deep_supervision(layers=("features.2", "features.5"), alpha=alpha, temperature=T, hint=lam), task, student)
    value = bound(student, batch, IDS)[0].item()
    with tapped(student, ["features.2", "features.5", "in:head"]) as seen:
        answer = student(batch[0])
    expected = 0.0
    for path, branch in zip(("features.2", "features.5"), bound.module["deep_supervision"], strict=True):
        features = branch.widen(branch.narrow(seen[path]).mean((2, 3)))
        z = branch.classify(features)
        expected += (1 - alpha) * F.cross_entropy(z, batch[1])
        expected += alpha * T**2 * F.kl_div((z / T).log_softmax(1), (answer / T).softmax(1), reduction="batchmean")
        expected += lam * (features - seen["in:head"]).square().mean()
    assert value == pytest.approx(expected.item(), rel=1e-5)


def test_the_deepest_layer_teaches_and_does_not_learn():
    task, student = quarters(), SmallNet(8).eval()
    bound = bound_to(deep_supervision(layers=("features.5",), alpha=1.0, hint=1.0), task, student)
    bound(student, batch_of(task, "train", IDS), IDS)[0].backward()
    assert student.head.weight.grad is None and student.features[6].weight.grad is None, "what stands behind the branch gets nothing"
    assert student.features[3].weight.grad.abs().max() > 0 and student.features[0].weight.grad.abs().max() > 0
    assert all(p.grad is not None for p in bound.parameters()) and set(student.state_dict()) == set(SmallNet(8).state_dict())


def test_without_labels_their_part_is_left_out_and_one_sample_is_a_batch():
    task, student = quarters(), SmallNet(8).eval()
    bound = bound_to(deep_supervision(), task, student)
    image, label = batch_of(task, "train", [0])
    unlabelled = bound(student, image, np.arange(1))[0]
    unlabelled.backward()
    assert torch.isfinite(student.features[0].weight.grad).all()
    ignored = bound(student, [image, torch.full_like(label, -100)], np.arange(1))[0]
    assert unlabelled.item() == pytest.approx(ignored.item(), rel=1e-6) and bound(student, [image, label], np.arange(1))[0].item() > unlabelled.item()


def test_a_batch_is_the_mean_of_its_halves():
    """Oracle 8."""
    for task, make, term in ((quarters(), lambda: SmallNet(8), deep_supervision()), (sentences(), sentences().models["small"], deep_supervision(layers=("layers.0",)))):
        student = make().eval()
        bound = bound_to(term, task, student)
        value = lambda ids, bound=bound, student=student, task=task: bound(student, batch_of(task, "train", ids), ids)[0].item()  # noqa: E731
        assert value(np.arange(8)) == pytest.approx((value(np.arange(4)) + value(np.arange(4, 8))) / 2, rel=1e-5)


def test_padding_tells_nothing():
    task = sentences()
    student = task.models["small"]().eval()
    bound = bound_to(deep_supervision(layers=("layers.0",)), task, student)
    batch = batch_of(task, "train", IDS)
    before = bound(student, batch, IDS)[0].item()
    batch["input_ids"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], 3)
    assert bound(student, batch, IDS)[0].item() == pytest.approx(before, rel=1e-5)


class Tagger(nn.Module):
    """A class for each token."""

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second, self.head = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        return self.head(self.second(self.first(self.embed(input_ids)).relu()).relu())


def tags() -> Task:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 10, (16, 5), generator=generator)
    mask = (torch.arange(5)[None] < torch.randint(2, 6, (16, 1), generator=generator)).long()
    label = torch.where(mask.bool(), ids % 3, -100)
    samples = [{"input_ids": i, "attention_mask": m, "labels": t} for i, m, t in zip(ids, mask, label, strict=True)]
    return Task(metric=replace(accuracy(), target="token"), splits={"train": samples}, models={"teacher": Tagger, "small": Tagger})


def test_a_token_model_gets_an_answer_for_each_token_and_padding_counts_for_nothing():
    task = tags()
    torch.manual_seed(0)
    student = Tagger()
    bound = bound_to(deep_supervision(layers=("first",)), task, student)
    batch = batch_of(task, "train", IDS)
    value = bound(student, batch, IDS)[0]
    value.backward()
    (branch,) = bound.module["deep_supervision"]
    assert branch.classify.out_features == 3 and student.first.weight.grad.abs().max() > 0
    other = {**batch, "input_ids": torch.where(batch["attention_mask"].bool(), batch["input_ids"], 7)}
    assert bound(student, other, IDS)[0].item() == pytest.approx(value.item(), rel=1e-5)
    with pytest.raises(ConfigError, match=r"needs class logits of samples.* or of tokens"):
        bound_to(deep_supervision(layers=("first",), deepest="first"), Task(**{**vars(task), "outputs": lambda raw: {"logits": raw[:, :, None]}}), student)


def test_layers_are_chosen_evenly_and_those_that_do_not_fit_are_refused():
    task = quarters()
    bound = bound_to(deep_supervision(branches=3), task, SmallNet(8))
    assert [bound.matched[p] for p in bound.objective.chosen] == ["features.2", "features.3", "features.6", "in:head"]
    with pytest.raises(ConfigError, match="there is no module 'features.99' to tap"):
        bound_to(deep_supervision(layers=("features.99",)), task, SmallNet(8))
    values = Task(metric=accuracy(), splits={"train": TensorDataset(torch.randn(8, 4), torch.randn(8, 1))}, models={})
    with pytest.raises(ConfigError, match="deep_supervision needs class logits"):
        bound_to(deep_supervision(layers=("0",)), values, nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)))


def test_a_custom_loss_sees_the_branches_answers():
    asked = []

    def loss(outputs, batch):
        asked.append(outputs["logits"].detach())
        return F.cross_entropy(outputs["logits"], batch[1], reduction="none")

    task, student = Task(**{**vars(quarters()), "loss": loss}), SmallNet(8).eval()
    bound = bound_to(deep_supervision(branches=2), task, student)
    bound(student, batch_of(task, "train", IDS), IDS)
    assert len(asked) == 2 and not any(torch.equal(a, student(batch_of(task, "train", IDS)[0])) for a in asked)


def test_a_training_that_is_stopped_and_resumed_ends_with_the_same_bits_and_branches_learn(tmp_path):
    task = quarters()

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (1.0 * task_loss() + 1.0 * deep_supervision()).bind(task, None, student, seed=1)
        history = fit(student, bound, Training(epochs=3, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict() | bound.module.state_dict(), history

    straight, history = trained(tmp_path / "a")
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed, again = trained(tmp_path / "b")
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items()) and again == history
    assert history[-1]["deep_supervision"] < history[0]["deep_supervision"]


def test_bad_options_are_refused():
    for options, message in (({"branches": 0}, "branches must be ≥ 1"), ({"alpha": 1.5}, r"alpha must be in \[0, 1\]"), ({"temperature": 0}, "temperature must be > 0")):
        with pytest.raises(ConfigError, match=message):
            objective_of([Entry(name="deep_supervision", options=options)], ALL)
    with pytest.raises(ConfigError, match="deep_supervision needs branches ≥ 1"):
        deep_supervision(hint=-1)


def test_a_branch_takes_maps_tokens_and_vectors():
    assert arguments(quarters(), batch_of(quarters(), "train", [0]))[0][0].dim() == 4
    task = Task(metric=accuracy(), splits={"train": TensorDataset(torch.randn(8, 4), torch.zeros(8).long())}, models={})
    student = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    bound = bound_to(deep_supervision(branches=1), task, student)
    assert torch.isfinite(bound(student, batch_of(task, "train", IDS), IDS)[0])
