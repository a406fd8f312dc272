"""The student writes, the teacher judges: what is written and judged, exact resume, a live teacher, any causal model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck import Task, Training, Views, perplexity
from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.mechanics.build import Ensemble
from limbeck.mechanics.committee import Committee, confidence, mixed
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.families.decoder import decoder
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.on_policy import NAME, OnPolicy, Written, writing
from limbeck.mechanics.signals import CachedTeacher, SparseTeacher
from limbeck.mechanics.terms import jsd, kd, task_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog

V, T = 11, 8
IDS = np.arange(4)
PROMPTED = OnPolicy(student_share=0.5, prompt_tokens=3)


def chain(count: int, seed: int) -> torch.Tensor:
    """Each token says the next up to a coin: 3 t + 1 or 3 t + 2."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, V, (count, 1), generator=generator)]
    for _ in range(T):
        ids.append((ids[-1] * 3 + 1 + torch.randint(0, 2, (count, 1), generator=generator)) % V)
    return torch.cat(ids, 1)


def model(seed: int, *, width: int = 16, vocabulary: int = V) -> nn.Module:
    torch.manual_seed(seed)
    return decoder(vocabulary=vocabulary, width=width, layers=1, heads=2, length=T).eval()


def text_task(**changes: Any) -> Task:
    whole = chain(48, 0)
    task = Task(name="chain", models={"teacher": lambda: model(0)}, splits={"train": TensorDataset(whole[:, :-1], whole[:, 1:])}, metric=perplexity())
    return replace(task, **changes)


class Dropping(nn.Module):
    """A student with dropout, so that drawing in train mode, or with the loop's generator, would show."""

    def __init__(self):
        super().__init__()
        self.body, self.drop = model(1), nn.Dropout(0.2)

    def forward(self, ids):
        return self.drop(self.body(ids))


def written(config: OnPolicy = PROMPTED, *, task: Task | None = None, student: nn.Module | None = None, seed: int = 0) -> Written:
    task = task or text_task()
    found = writing(config, task, LiveTeacher(task, model(0)), student or model(1), seed=seed)
    assert isinstance(found, Written)
    return found


# --- what is written, what is judged ---------------------------------------------------------------------------------------------


def test_prompts_stay_and_only_what_was_written_is_labelled():
    task = text_task()
    batch = batch_of(task, "train", IDS)
    ids, labels = written(task=task).written(model(1), batch, IDS, step=4)
    assert torch.equal(ids[:, :3], batch[0][:, :3]) and ids.shape == batch[0].shape and not torch.equal(ids, batch[0])
    expected = torch.full_like(ids, -100)
    expected[:, 2:-1] = ids[:, 3:]
    assert torch.equal(labels, expected)


def test_what_it_writes_is_its_own_at_temperature_zero():
    """Greedy: each token is the likeliest by the student's own logits, asked once for the whole text."""
    student, task = model(1), text_task()
    ids, labels = written(OnPolicy(temperature=0.0, prompt_tokens=2), task=task, student=student).written(student, batch_of(task, "train", IDS), IDS, 0)
    with torch.no_grad():
        said = student(ids).argmax(-1)
    assert torch.equal(said[labels != -100], labels[labels != -100])


def test_the_divergence_is_the_teachers_on_these_tokens_alone():
    task, student, teacher = text_task(), model(1), model(0)
    judging = written(OnPolicy(student_share=1.0, beta=1.0, weight=3.0, prompt_tokens=3), task=task, student=student)
    found = judging(student, batch_of(task, "train", IDS), IDS, 0)
    assert found is not None
    objective, (ids, labels) = found
    loss, parts = objective(student, [ids, labels], IDS)
    with torch.no_grad():
        q, p = student(ids)[:, 2:-1].log_softmax(-1), teacher(ids)[:, 2:-1].log_softmax(-1)
    reverse = F.kl_div(p, q, reduction="none", log_target=True).sum(-1).mean()
    assert parts.keys() == {NAME} and torch.allclose(parts[NAME], reverse, rtol=1e-5) and torch.allclose(loss, 3 * reverse, rtol=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_the_end_token_ends_a_text_and_is_judged():
    """Every token is as likely as the end, so some end early: labels stop with it, the mask too."""
    whole = chain(16, 3)
    data = [{"input_ids": row[:-1], "attention_mask": torch.ones(T, dtype=torch.long), "labels": row[1:]} for row in whole]
    task, student = text_task(splits={"train": data}), model(1)
    nn.init.zeros_(student.head.weight)
    rows = np.arange(16)
    batch = written(OnPolicy(prompt_tokens=2, end_token=5), task=task, student=student).written(student, batch_of(task, "train", rows), rows, 1)
    early = 0
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = int(mask.sum())
        body = ids[2:length].tolist()
        assert labels[:1].tolist() == [-100] and labels[1 : length - 1].tolist() == body and (labels[length - 1 :] == -100).all()
        assert 5 not in body[:-1]
        early += length < len(mask)
    assert early > 3


def test_padded_prompts_of_several_lengths_go_on_where_they_end():
    """Continued in one padded batch as each would be alone."""
    rows = [torch.tensor(r) for r in ([1, 2, 3, 4, 5], [6, 7], [8])]
    data = [{"input_ids": r, "labels": torch.cat([r[1:], torch.tensor([-100])])} for r in rows]

    def collate(samples):
        width = max(len(s["input_ids"]) for s in samples)
        pad = lambda t, value: F.pad(t, (0, width - len(t)), value=value)  # noqa: E731
        mask = torch.stack([pad(torch.ones_like(s["input_ids"]), 0) for s in samples])
        return {"input_ids": torch.stack([pad(s["input_ids"], 0) for s in samples]), "attention_mask": mask, "labels": torch.stack([pad(s["labels"], -100) for s in samples])}

    task, student = text_task(splits={"train": data}, collate=collate), model(1)
    one = written(OnPolicy(prompt_tokens=9, max_new_tokens=3), task=task, student=student)
    together = one.written(student, collate(data), np.arange(3), 0)
    assert together["attention_mask"].sum(1).tolist() == [8, 5, 4]
    for number, sample in enumerate(data):
        alone = one.written(student, collate([sample]), np.array([number]), 0)
        length = len(sample["input_ids"]) + 3
        assert alone["input_ids"][0].tolist() == together["input_ids"][number, :length].tolist()


def test_a_batch_of_one():
    task, student = text_task(), model(1)
    both, one = (written(task=task, student=student).written(student, batch_of(task, "train", ids), ids, 2) for ids in (np.array([5, 7]), np.array([7])))
    assert torch.equal(both[0][1:], one[0])


# --- in the loop -----------------------------------------------------------------------------------------------------------------


def trained(path, config: OnPolicy | None, *, stop=lambda: False, student=None, objective=None, seed=5):
    torch.manual_seed(1)
    student, task = student or Dropping(), text_task()
    live = LiveTeacher(task, model(0))
    rewrite = writing(config, task, live, student, seed=seed) if config else None
    bound = (objective or 0.5 * task_loss() + 0.5 * kd(temperature=2)).bind(task, live, student, seed=seed)
    training = Training(epochs=2, batch_size=8, learning_rate=1e-2)
    history = fit(student, bound, training, seed=seed, checkpoint=FileCheckpoint(path, stop), log=QuietLog(), rewrite=rewrite)
    return student, history


class StopAfter:
    def __init__(self, left):
        self.left = left

    def __call__(self):
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("stop_at", [1, 4, 8])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop_at):
    straight, history = trained(tmp_path / "a", PROMPTED)
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", PROMPTED, stop=StopAfter(stop_at))
    torch.manual_seed(123)
    np.random.seed(7)
    resumed, again = trained(tmp_path / "b", PROMPTED)
    assert again == history
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in straight.state_dict().items())


def test_a_share_of_zero_changes_nothing(tmp_path):
    plain, history = trained(tmp_path / "a", None)
    same, again = trained(tmp_path / "b", OnPolicy(student_share=0.0))
    assert history == again and all(torch.equal(v, same.state_dict()[k]) for k, v in plain.state_dict().items())


def test_terms_on_labels_see_only_the_data(tmp_path):
    """At a share of 1 no step reads the data's labels; in between each figure is the mean over the steps that it was computed in."""
    _, history = trained(tmp_path / "a", OnPolicy(student_share=1.0, prompt_tokens=3))
    assert all(NAME in row and not {"task_loss", "kd"} & row.keys() for row in history) and history[0]["loss"] == history[0][NAME]
    _, mixed = trained(tmp_path / "b", PROMPTED)
    assert {"task_loss", "kd", NAME} <= mixed[0].keys() and mixed[0]["task_loss"] > 1.5, "not diluted by steps without labels"


def test_it_draws_in_eval_mode_and_leaves_modes_as_they_were():
    student = Dropping().train()
    student.body.eval()
    found, state = written(student=student), torch.get_rng_state()
    batch = batch_of(text_task(), "train", IDS)
    first, second = (found.written(student, batch, IDS, 3) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(torch.get_rng_state(), state)
    assert student.training and student.drop.training and not student.body.training


def test_the_student_comes_closer_to_the_teacher(tmp_path):
    """Reverse KL on its own continuations alone, from random weights: it falls to less than a third, and on the data too."""
    task, teacher, student = text_task(), model(0, width=32), model(1, width=32)
    with torch.no_grad():
        teacher.head.weight *= 8  # far from uniform
    live = LiveTeacher(task, teacher)
    rewrite = writing(OnPolicy(student_share=1.0, beta=1.0, prompt_tokens=2), task, live, student, seed=0)
    bound = (1.0 * jsd(beta=1)).bind(task, live, student)
    batch, rows = batch_of(task, "train", np.arange(48)), np.arange(48)
    before = bound(student, batch, rows)[0].item()
    training = Training(epochs=40, batch_size=24, learning_rate=1e-2)
    history = fit(student, bound, training, seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog(), rewrite=rewrite)
    assert history[-1][NAME] < history[0][NAME] / 3 and bound(student, batch, rows)[0].item() < before / 2


class Breaking(nn.Module):
    """Gives NaN in train mode at its third step, once."""

    def __init__(self):
        super().__init__()
        self.body, self.steps = model(1), 0

    def forward(self, ids):
        self.steps += self.training
        return self.body(ids) * (torch.nan if self.training and self.steps == 3 else 1.0)


def test_a_nan_goes_back_and_the_same_is_drawn_again(tmp_path):
    student, history = trained(tmp_path / "a", OnPolicy(student_share=1.0, prompt_tokens=3), student=Breaking())
    assert len(history) == 2 and all(torch.isfinite(p).all() for p in student.parameters())


def test_weights_of_nan_write_something_and_the_loss_is_nan():
    student = model(1)
    found = written(OnPolicy(student_share=1.0, prompt_tokens=3), student=student)
    with torch.no_grad():
        student.head.weight.fill_(torch.nan)
    judged = found(student, batch_of(text_task(), "train", IDS), IDS, 0)
    assert judged is not None and torch.isnan(judged[0](student, judged[1], IDS)[0])


# --- the teacher is asked live ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CachedTeacher, SparseTeacher])
def test_a_cache_is_passed_by(tmp_path, kind):
    task, student = text_task(), model(1)
    live = LiveTeacher(task, model(0))
    cache = kind(tmp_path / "cache", live, {}, **({"k": 3} if kind is SparseTeacher else {}))
    found = writing(PROMPTED, task, cache, student, seed=0)
    assert isinstance(found, Written) and found.judge.signals is live
    assert not list((tmp_path / "cache").glob("*.npy")), "nothing was cached for it"


@pytest.mark.parametrize("join", ["probabilities", "confidence"])
def test_joined_teachers_are_asked_live_and_not_by_the_datas_labels(tmp_path, join):
    """What two members say of what was written, joined: as if they had been asked of it alone, past their cache."""
    task, student, members = text_task(), model(1), [model(0), model(7)]
    live = LiveTeacher(task, Ensemble(members, "outputs"), apart=True)
    source = Committee(task, Ensemble(members, "outputs"), CachedTeacher(tmp_path / "cache", live, {}, "float32"), join)
    judging = writing(OnPolicy(student_share=1.0, beta=1.0, prompt_tokens=3), task, source, student, seed=0)
    assert isinstance(judging, Written)
    batch = judging.written(student, batch_of(task, "train", IDS), IDS, 0)
    with torch.no_grad():
        logits = torch.stack([member(batch[0]) for member in members])
        weights = confidence(logits, None)[..., None] if join == "confidence" else 0.5
        expected = mixed(logits, weights).log_softmax(-1)
        q = student(batch[0]).log_softmax(-1)
    reverse = F.kl_div(expected, q, reduction="none", log_target=True).sum(-1)[:, 2:-1].mean()
    assert judging.judge(student, batch, IDS)[0].item() == pytest.approx(reverse.item(), rel=1e-4)


# --- Hugging Face's models -------------------------------------------------------------------------------------------------------


def hugging_face(kind: str, seed: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)).eval()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=V, max_position_embeddings=16, **sizes)).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_hugging_face_model_writes_what_its_own_generate_writes(kind):
    """Greedy, from prompts of one length, beside `generate` with its cache of keys and values."""
    whole = chain(8, 0)
    data = [{"input_ids": r[:-1], "attention_mask": torch.ones(T, dtype=torch.long), "labels": r[1:]} for r in whole]
    task = text_task(splits={"train": data}, outputs=lambda raw: {"logits": raw.logits})
    teacher, student = hugging_face(kind, 0), hugging_face(kind, 1)
    config = OnPolicy(student_share=1.0, temperature=0.0, prompt_tokens=3)
    found = writing(config, task, LiveTeacher(task, teacher), student, seed=0)
    assert isinstance(found, Written)
    batch = batch_of(task, "train", IDS)
    objective, fresh = found(student, batch, IDS, 0) or (None, None)
    theirs = student.generate(batch["input_ids"][:, :3], attention_mask=batch["attention_mask"][:, :3], max_new_tokens=T - 3, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert fresh is not None and torch.equal(fresh["input_ids"], theirs)
    loss, _ = objective(student, fresh, IDS)
    loss.backward()
    assert loss.item() > 0 and all(p.grad is None for p in teacher.parameters())


# --- refusals --------------------------------------------------------------------------------------------------------------------


def refused(error, message, config=PROMPTED, *, task=None, teacher=None, student=None):
    task = task or text_task()
    with pytest.raises(error, match=message):
        writing(config, task, LiveTeacher(task, teacher or model(0)), student or model(1), seed=0)


def test_vocabularies_that_differ_are_refused_with_both_sizes():
    refused(TaskError, "teacher's vocabulary has 11 tokens, the student's 13.*Give the student 11 tokens", student=model(1, vocabulary=13))


def test_off_policy_vocabularies_that_differ_are_refused_with_both_sizes():
    task, student = text_task(), model(1, vocabulary=13)
    for term in (jsd(), kd()):
        bound = (1.0 * term).bind(task, LiveTeacher(task, model(0)), student)
        with pytest.raises(TaskError, match=r"student \(4, 8, 13\) and teacher \(4, 8, 11\).*vocabulary\) must agree.*give the student 11"):
            bound(student, batch_of(task, "train", IDS), IDS)


def test_what_cannot_write_is_refused():
    seeing = encoder(vocabulary=V, classes=V, width=16, layers=1, heads=2, length=T)
    refused(TaskError, r"logits for each token, \[2, 8, vocabulary\], got \[2, 11\] of the student", student=seeing)
    refused(TaskError, "needs logits for each token.*of the teacher", task=text_task(outputs=lambda raw: {"logits": raw[:, :-1]}))

    class Sideways(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model(1)

        def forward(self, ids):
            return self.body(ids) + self.body(ids).mean(1, keepdim=True)

    refused(TaskError, "the student isn't causal", student=Sideways())


def test_views_prompts_without_an_end_and_no_room_are_refused():
    refused(ConfigError, "Leave Task.views out", task=text_task(views=Views(noise=0.1)))
    refused(ConfigError, "end_token must be below 11", OnPolicy(prompt_tokens=2, end_token=11))
    bare = text_task(splits={"train": TensorDataset(chain(8, 0))})
    refused(TaskError, "nothing says where a prompt ends", OnPolicy(), task=bare)
    task, student = text_task(), model(1)
    full = written(OnPolicy(prompt_tokens=8), task=task, student=student)
    with pytest.raises(TaskError, match="the prompts fill all 8 tokens.*max_new_tokens"):
        full.written(student, batch_of(task, "train", IDS), IDS, 0)


def test_unlabelled_text_is_enough():
    task, student = text_task(splits={"train": TensorDataset(chain(8, 0))}), model(1)
    fresh = written(OnPolicy(prompt_tokens=2), task=task, student=student).written(student, batch_of(task, "train", IDS), IDS, 0)
    assert len(fresh) == 2 and (fresh[1][:, 1:-1] == fresh[0][:, 2:]).all()
