"""The real Lightning: what a module learns, saves, resumes and logs under an objective."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Views
from limbeck.adapters import Numbered, attach
from limbeck.adapters.lightning import TERMS, distilling
from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import hint, kd, logit_mse, similarity_preserving, task_loss

lightning = pytest.importorskip("lightning", reason="lightning isn't installed: pip install limbeck[lightning]")
HINT = {"student": "0", "teacher": "0"}


class Lit(lightning.LightningModule):
    """A user's own: it knows nothing of distillation."""

    def __init__(self, model: nn.Module, rate: float = 0.05, all_of_it: bool = True):
        super().__init__()
        self.save_hyperparameters(ignore=["model"])
        self.model, self.rate, self.all_of_it = model, rate, all_of_it

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("right", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters() if self.all_of_it else self.model.parameters(), lr=self.rate, weight_decay=0.0)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)}


def vectors(count=64):
    return TensorDataset(torch.randn(count, 6, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3)


def net(width, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))


def fitted(folder, module, data, *, epochs=1, batch=16, resume=None, shuffle=False, **options):
    numbered = Numbered(data)
    loader = DataLoader(numbered, batch_size=batch, shuffle=shuffle, collate_fn=numbered.collate)
    usual = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(default_root_dir=folder, max_epochs=epochs, **(usual | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about workers and logging steps
        trainer.fit(module, loader, DataLoader(data, batch_size=len(data)), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_a_linear_student_recovers_a_linear_teacher(tmp_path):
    """Oracle 9, through Lightning; validation is the module's own."""
    torch.manual_seed(1)
    teacher, student, data = nn.Linear(6, 3), nn.Linear(6, 3), vectors(256)
    module = distilling(Lit)(student, 0.1, objective=attach(logit_mse(), student, data=data, teacher=teacher))
    trainer = fitted(tmp_path, module, data, epochs=60, batch=64, check_val_every_n_epoch=60)
    assert torch.allclose(student.weight, teacher.weight, atol=1e-3)
    assert trainer.callback_metrics["right"].item() == pytest.approx((student(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean().item())
    assert {"loss", "term/logit_mse"} <= trainer.callback_metrics.keys()


def test_each_epoch_sees_its_view_and_ids_are_the_samples(tmp_path, monkeypatch):
    student, data, seen = net(8, 1), vectors(), []
    objective = attach(task_loss() + kd(), student, data=data, teacher=net(16, 0), views=Views(noise=0.1, versions=2), cache=tmp_path / "cache")
    see = type(objective).see
    monkeypatch.setattr(type(objective), "see", lambda own, model, batch, ids, view=0, **more: seen.append((view, ids, batch)) or see(own, model, batch, ids, view, **more))
    fitted(tmp_path, distilling(Lit)(student, objective=objective), data, epochs=3, shuffle=True)
    assert [view for view, *_ in seen] == [0] * 4 + [1] * 4 + [0] * 4
    assert all(torch.equal(batch[0], data.tensors[0][ids]) for _, ids, batch in seen) and (tmp_path / "cache" / "manifest.json").exists()


def test_accumulation_changes_no_samples_loss_and_clipping_takes_what_terms_train(tmp_path, caplog):
    """Oracle 8, by weights after one step; relational terms say what they see."""
    found = []
    for batch, parts in ((16, 1), (4, 4)):
        student, data = net(8, 1), vectors(16)
        objective = attach(task_loss() + kd() + hint(**HINT), student, data=data, teacher=net(16, 0))
        module = distilling(Lit)(student, objective=objective)
        module.configure_optimizers = lambda module=module: torch.optim.SGD(module.parameters(), lr=1.0)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        fitted(tmp_path, module, data, batch=batch, accumulate_grad_batches=parts, gradient_clip_val=0.1)
        found.append(module.state_dict())
        moved = torch.cat([(v - before[k]).flatten() for k, v in found[-1].items()]).norm().item()
        assert moved == pytest.approx(0.1, rel=1e-3) and not torch.equal(before[f"{TERMS}.hint.weight"], found[-1][f"{TERMS}.hint.weight"])
    assert all(torch.allclose(found[0][k], found[1][k], atol=1e-6) for k in found[0])
    caplog.set_level(logging.WARNING, logger="limbeck.adapters")
    student, data = net(8, 1), vectors(16)
    objective = attach(similarity_preserving(**HINT), student, data=data, teacher=net(16, 0))
    fitted(tmp_path, distilling(Lit)(student, objective=objective), data, batch=4, accumulate_grad_batches=4)
    assert "similarity_preserving compare samples" in caplog.text


def test_a_checkpoint_resumes_and_is_one_of_the_users_own_class(tmp_path):
    data = vectors()

    def module():
        student = net(8, 1)
        return distilling(Lit)(student, objective=attach(kd() + hint(**HINT), student, data=data, teacher=net(16, 0)))

    straight, half, again = module(), module(), module()
    fitted(tmp_path, straight, data, epochs=4)
    trainer = fitted(tmp_path, half, data, epochs=2)
    path = tmp_path / "half.ckpt"
    trainer.save_checkpoint(path)
    fitted(tmp_path, again, data, epochs=4, resume=path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in straight.state_dict().items())
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"model.{k}" for k in net(8, 1).state_dict()} and set(checkpoint[TERMS]) == {f"{TERMS}.hint.weight", f"{TERMS}.hint.bias"}
    assert set(half.hparams) == set(checkpoint["hyper_parameters"]) == {"rate", "all_of_it"}
    own = Lit.load_from_checkpoint(path, model=net(8, 5), weights_only=True)
    assert all(torch.equal(v, half.model.state_dict()[k]) for k, v in own.model.state_dict().items())
    assert set(half.model.state_dict()) == set(net(8, 1).state_dict()), "the student alone"
    trainer = fitted(tmp_path, distilling(Lit)(net(8, 1), objective=attach(1.0 * task_loss(), net(8, 1), data=data)), data)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    del (plain := torch.load(tmp_path / "plain.ckpt", weights_only=True))[TERMS]
    torch.save(plain, tmp_path / "plain.ckpt")
    with pytest.raises(ConfigError, match=f"has no {TERMS}"):
        fitted(tmp_path, module(), data, epochs=4, resume=tmp_path / "plain.ckpt")


def test_what_cannot_be_right_is_refused(tmp_path):
    student, data = net(8, 1), vectors()
    objective = attach(1.0 * hint(**HINT), student, data=data, teacher=net(16, 0))
    with pytest.raises(ConfigError, match="has no module 'net' to be the student"):
        distilling(Lit)(student, objective=objective, student="net")
    with pytest.raises(ConfigError, match="needs an objective that is bound, got NoneType"):
        distilling(Lit)(student)
    with pytest.raises(ConfigError, match="optimizer lacks what terms train.*self.parameters"):
        fitted(tmp_path, distilling(Lit)(student, all_of_it=False, objective=objective), data)
    off = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", **off)
    with pytest.raises(ConfigError, match="must carry its samples' numbers, got list"):
        trainer.fit(distilling(Lit)(student, objective=objective), DataLoader(data, batch_size=16))
