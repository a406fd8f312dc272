"""The real Trainer: what it learns, accumulates, saves, resumes and logs under an objective."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from limbeck import Views
from limbeck.adapters import attach
from limbeck.adapters.huggingface import SAMPLE_ID, TERMS_FILE, distilling
from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import hint, kd, logit_mse, similarity_preserving, task_loss

transformers = pytest.importorskip("transformers", reason="transformers isn't installed: pip install limbeck[huggingface]")
pytest.importorskip("accelerate", reason="accelerate isn't installed: pip install limbeck[huggingface]")


class Columns(Dataset):
    """Dicts, as the Trainer takes them; one column that the model doesn't know."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, i):
        return {**{k: v[i] for k, v in self.columns.items()}, "note": "a word"}


class Linear(nn.Module):
    def __init__(self, inputs=6, classes=3):
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def vectors(count=64):
    generator = torch.Generator().manual_seed(0)
    return Columns(x=torch.randn(count, 6, generator=generator), labels=torch.arange(count) % 3)


def sentences(count):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 32, (count, 7), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.4, -100)
    return Columns(input_ids=ids, labels=labels, attention_mask=torch.ones_like(ids))


def llama(width, seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 16}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2))


HINT = {"student": "model.layers.0", "teacher": "model.layers.0"}


def trainer(folder, model, data, objective, *, evaluated=None, shift_labels=False, **options):
    usual = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no", "lr_scheduler_type": "constant"}
    arguments = transformers.TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True, use_cpu=True, seed=0, **(usual | options))
    return distilling(transformers.Trainer)(model=model, args=arguments, train_dataset=data, eval_dataset=evaluated, objective=objective, shift_labels=shift_labels)


def test_a_linear_student_recovers_a_linear_teacher(tmp_path):
    """Oracle 9, through the Trainer; and evaluation is the model's own."""
    torch.manual_seed(1)
    data, teacher, student = vectors(256), Linear(), Linear()
    options = {"learning_rate": 0.1, "num_train_epochs": 100, "per_device_train_batch_size": 64, "lr_scheduler_type": "linear", "logging_steps": 100}
    made = trainer(tmp_path, student, data, attach(logit_mse(), student, data=data, teacher=teacher), evaluated=vectors(9), **options)
    made.train()
    x = data.columns["x"]
    assert torch.allclose(student.layer.weight, teacher.layer.weight, atol=1e-3)
    assert torch.equal(student(x)["logits"].argmax(1), teacher(x)["logits"].argmax(1))
    expected = nn.functional.cross_entropy(student(vectors(9).columns["x"])["logits"], vectors(9).columns["labels"]).item()
    assert made.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert made.evaluate(made.train_dataset)["eval_loss"] > 0 and len(made.predict(made.train_dataset).predictions) == 256


def test_its_loss_is_that_of_our_own_loop_bit_for_bit(tmp_path):
    """On each batch that it draws, under the view of its epoch."""
    torch.manual_seed(1)
    data, teacher, student = vectors(), Linear(), Linear()
    objective = attach(0.1 * task_loss() + 0.9 * kd(), student, data=data, teacher=teacher, views=Views(noise=0.1, versions=2), outputs=lambda raw: {"logits": raw["logits"]})
    made, seen = trainer(tmp_path, student, data, objective, num_train_epochs=3), []
    inner = made.compute_loss

    def watched(model, inputs, **options):
        loss, before = inner(model, inputs, **options), len(seen)
        ids = inputs[SAMPLE_ID].numpy()
        batch = {"x": data.columns["x"][ids], "labels": data.columns["labels"][ids]}
        own, _ = objective(student, batch, ids, view=(before // 8) % 2)
        seen.append((loss.item(), own.item(), ids))
        return loss

    made.compute_loss = watched
    made.train()
    assert len(seen) == 24 and all(theirs == own for theirs, own, _ in seen)
    assert all(sorted(np.concatenate([ids for *_, ids in seen[i : i + 8]])) == list(range(64)) for i in (0, 8, 16))


def stepped(folder, batch, accumulated, *, term=None):
    """The weights, and the projector's, after one epoch of eleven samples in one step of SGD; masked tokens, a model that takes num_items_in_batch."""
    data, student = sentences(11), llama(8, 1)
    objective = attach(term or 0.5 * task_loss() + kd() + hint(**HINT), student, data=data, teacher=llama(16, 0), target="token")
    options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.1}
    made = trainer(folder, student, data, objective, shift_labels=True, **options)
    made.train()
    assert made.state.global_step == 1
    return {**student.state_dict(), **objective.module.state_dict()}, made.state.log_history[0]


def test_accumulation_changes_no_samples_loss(tmp_path):
    """Oracle 8: 4 + 4 + 3 samples, each with another number of labelled tokens, are the eleven at once; with clipping over all that trains."""
    (whole, told), (parts, again) = stepped(tmp_path, 11, 1), stepped(tmp_path, 4, 3)
    assert all(torch.allclose(whole[k], parts[k], atol=1e-6) for k in whole)
    for name in ("term/task_loss", "term/kd", "term/hint", "grad_norm"):
        assert told[name] == pytest.approx(again[name], rel=1e-5), name
    assert told["loss"] == pytest.approx(0.5 * told["term/task_loss"] + told["term/kd"] + told["term/hint"], rel=1e-4)
    start = attach(1.0 * hint(**HINT), llama(8, 1), data=sentences(11), teacher=llama(16, 0), target="token").module.state_dict()
    assert not torch.equal(start["hint.weight"], whole["hint.weight"])
    moved = torch.cat([(whole[k] - {**llama(8, 1).state_dict(), **start}[k]).flatten() for k in whole]).norm().item()
    assert moved == pytest.approx(0.1, rel=1e-3), "the norm over student and projector together is what is clipped"


def test_terms_that_compare_samples_say_that_they_see_a_part(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="limbeck.adapters")
    stepped(tmp_path, 11, 1, term=similarity_preserving(**HINT))
    assert not caplog.records
    stepped(tmp_path, 4, 3, term=similarity_preserving(**HINT))
    assert "similarity_preserving compare samples" in caplog.text and "accumulated over 3" in caplog.text


def test_checkpoints_resume_with_what_terms_train_and_the_model_is_the_student_alone(tmp_path):
    data = sentences(24)

    def made(folder, steps):
        student = llama(8, 1)
        objective = attach(kd() + hint(**HINT), student, data=data, teacher=llama(16, 0), target="token", cache=tmp_path / "cache")
        return trainer(folder, student, data, objective, num_train_epochs=3, max_steps=steps, save_strategy="steps", save_steps=4, shift_labels=True), student, objective

    straight, student, objective = made(tmp_path / "a", 9)
    straight.train()
    first, _, _ = made(tmp_path / "b", 4)
    first.train()
    resumed, again, bound = made(tmp_path / "b", 9)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 9
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in student.state_dict().items())
    assert all(torch.equal(v, bound.module.state_dict()[k]) for k, v in objective.module.state_dict().items())
    checkpoint = tmp_path / "a" / "checkpoint-8"
    assert set(load_file(checkpoint / TERMS_FILE)) == {"hint.weight", "hint.bias"}
    straight.save_model(str(tmp_path / "saved"))
    student.save_pretrained(str(tmp_path / "pretrained"))
    for folder in (checkpoint, tmp_path / "saved", tmp_path / "pretrained"):
        assert set(load_file(folder / "model.safetensors")) <= set(llama(8, 1).state_dict())
        transformers.LlamaForCausalLM.from_pretrained(str(folder))
    (checkpoint / TERMS_FILE).unlink()
    with pytest.raises(ConfigError, match=f"has no {TERMS_FILE}"):
        made(tmp_path / "a", 9)[0].train(resume_from_checkpoint=str(checkpoint))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([{"x": torch.zeros(6), "labels": 0}])


def test_what_cannot_be_right_is_refused(tmp_path):
    student, data = Linear(), vectors()
    objective = attach(1.0 * task_loss(), student, data=data)
    with pytest.raises(ConfigError, match="has 9 training samples, the objective's task 64"):
        trainer(tmp_path, student, vectors(9), objective)
    with pytest.raises(ConfigError, match="must be map-style.*got Stream"):
        trainer(tmp_path, student, Stream(), objective, max_steps=1)
    made = trainer(tmp_path, student, data, objective)
    made.data_collator = lambda samples: {k: torch.stack([torch.as_tensor(s[k]) for s in samples]) for k in ("x", "labels")}
    with pytest.raises(ConfigError, match="no 'sample_id'.*the data_collator drops it"):
        made.train()
    student = llama(8, 1)
    objective = attach(1.0 * hint(**HINT), student, data=data, teacher=llama(16, 0), collate=lambda _: {"input_ids": torch.ones(2, 4, dtype=torch.long)})
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    given = (torch.optim.SGD(student.parameters(), lr=0.1), None)
    with pytest.raises(ConfigError, match="the optimizer that was given lacks what terms train"):
        distilling(transformers.Trainer)(model=student, args=arguments, train_dataset=data, objective=objective, optimizers=given).create_optimizer()


def one_epoch(folder):
    """Two steps of eight samples over all processes: what is left, and what was logged."""
    data, student = sentences(16), llama(8, 1)
    objective = attach(0.1 * kd() + hint(**HINT) + similarity_preserving(**HINT), student, data=data, teacher=llama(16, 0), target="token")
    size = 8 // int(os.environ.get("WORLD_SIZE", "1"))
    made = trainer(folder, student, data, objective, per_device_train_batch_size=size, optim="sgd", learning_rate=0.1, shift_labels=True)
    made.train()
    return {**student.state_dict(), **objective.module.state_dict()}, [row for row in made.state.log_history if "loss" in row]


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    """Terms that compare samples, and a projector, under DistributedDataParallel."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", __file__, str(tmp_path)], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    weights, rows = one_epoch(tmp_path / "one")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(found[0][0][k], found[1][0][k]) and torch.allclose(weights[k], found[0][0][k], atol=1e-6) for k in weights)
    for row, other in zip(rows, found[0][1], strict=True):
        assert {k: v for k, v in row.items() if k != "epoch"} == pytest.approx({k: v for k, v in other.items() if k != "epoch"}, rel=1e-4)


if __name__ == "__main__":
    torch.save(one_epoch(sys.argv[1]), f"{sys.argv[1]}/{os.environ['RANK']}.pt")
