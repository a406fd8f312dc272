"""The contract checks, public: a plug-in's author runs against their own technique, term or runtime what limbeck runs against its own.

    from limbeck.testing import check_technique
    def test_mine(tmp_path): check_technique(mine, tmp_path)

Each check raises CheckFailed with what broke. A check that can't apply is exempted on the card, with the reason.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from limbeck.analysis.profile import profile
from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError
from limbeck.core.facts import Fact
from limbeck.core.fields import fields_of, json_schema, parse, to_dict
from limbeck.core.task import Task
from limbeck.core.technique import Budget, Card, Function, Outcome, card_of
from limbeck.evaluation import quality
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.build import rebuild, runnable, teacher_candidate
from limbeck.mechanics.data import arguments, batch_of, example, feed, predict
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.objective import Term
from limbeck.mechanics.signals import LiveTeacher
from limbeck.pipeline.context import FileCheckpoint, QuietLog, RunContext, StageRng
from limbeck.runtimes import parity
from limbeck.runtimes.card import Runtime
from limbeck.runtimes.onnxruntime import ONNXRUNTIME


class CheckFailed(AssertionError):
    """A contract check that did not hold."""


class SmallNet(nn.Module):
    """Three convolutions with batch norm, a mean over all places, a linear layer."""

    def __init__(self, width: int = 16):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))


def small_task(*, samples: int = 96, seed: int = 0) -> Task:
    """A task that is learnt in a second: which quarter of an 8×8 image is brightest. Its teacher is trained a little, deterministically."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3 * samples, 1, 8, 8, generator=generator)
    labels = torch.arange(3 * samples) % 4
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1.5
    parts = {name: TensorDataset(images[i * samples : (i + 1) * samples], labels[i * samples : (i + 1) * samples]) for i, name in enumerate(("train", "validation", "test"))}
    return Task(name="quarters", models={"teacher": SmallNet, "small": lambda: SmallNet(8)}, weights={"teacher": _trained(parts["train"], seed)}, splits=parts, metric=accuracy())


def small_text_task(*, samples: int = 96, seed: int = 0) -> Task:
    """A task that is learnt in a second: which of three words a sentence of eight has. Train uses 40 of 60 words; its teacher has four layers."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3 * samples) % 3
    words = torch.randint(3, 40, (3 * samples, 8), generator=generator)
    words[samples:] = torch.randint(3, 60, (2 * samples, 8), generator=generator)
    words[torch.arange(3 * samples), torch.randint(8, (3 * samples,), generator=generator)] = labels
    parts = {name: TensorDataset(words[i * samples : (i + 1) * samples], labels[i * samples : (i + 1) * samples]) for i, name in enumerate(("train", "validation", "test"))}
    teacher = functools.partial(encoder, vocabulary=60, classes=3, width=16, layers=4, heads=2, length=8)
    weights = {"teacher": _trained(parts["train"], seed, teacher)}
    return Task(name="words", models={"teacher": teacher, "small": functools.partial(teacher, layers=2)}, weights=weights, splits=parts, metric=accuracy())


def _trained(data: TensorDataset, seed: int, factory: Callable[[], nn.Module] = SmallNet) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, (samples, labels) = factory(), data.tensors
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(15):
            loss = nn.functional.cross_entropy(model(samples), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def context(task: Task, folder: Path, *, seed: int = 0, train: bool = True) -> RunContext:
    """What a technique sees of a run, without a run: live teacher, scratch in `folder`."""
    teacher = teacher_candidate(task)
    judge = lambda c: quality.rows_of_module(rebuild((c or teacher).torch_form, task), task, "validation")  # noqa: E731
    return RunContext(
        task=task,
        signals=LiveTeacher(task, rebuild(teacher.torch_form, task)),
        rng=StageRng.of(seed),
        checkpoint=FileCheckpoint(folder / f"checkpoint-{seed}-{train}.safetensors"),
        log=QuietLog(),
        round_to=4,
        scratch=folder,
        judge=judge,
        timer=lambda c: float("nan"),
        answerer=lambda c, apart: LiveTeacher(task, runnable(c.form, task), apart=apart),
        budget=Budget(train=train),
    )


def check_technique(function: Function, folder: Path, *, task: Task | None = None, config: Any = None) -> None:
    """Every contract check of a technique. `config` defaults to the card's example. Raises CheckFailed."""
    card = card_of(function)
    task = task or (small_text_task() if card.checked_on == "tokens" else small_task())
    checks: dict[str, Callable[[Card, Any, Task, Path], None]] = {
        "config": _config,
        "messages": _messages,
        "seed": _seed,
        "zero": _zero,
        "shapes": _shapes,
        "claims": _claims,
        "hooks": _hooks,
        "facts": _facts,
        "structure": _structure,
        "export": _export,
    }
    odd = card.exempt.keys() - checks.keys()
    _holds(not odd, f"{card.name} is exempt from {sorted(odd)}, which are no checks; there is {sorted(checks)}")
    _holds(all(len(reason) > 10 for reason in card.exempt.values()), f"{card.name}: every exemption needs a reason")
    for name, check in checks.items():
        if name not in card.exempt:
            check(card, config or card.example(), task, folder)


def _holds(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def _ran(card: Card, config: Any, task: Task, folder: Path, *, seed: int = 0, train: bool = True) -> Outcome:
    for left in folder.glob("checkpoint-*"):
        left.unlink()
    return card.function(teacher_candidate(task), config, context(task, folder, seed=seed, train=train))


def _config(card: Card, config: Any, task: Task, folder: Path) -> None:
    again = parse(card.config, to_dict(config), where=card.name)
    _holds(again == config, f"{card.name}: its config doesn't survive to_dict and parse: {config} became {again}")
    _holds(json_schema(card.config)["type"] == "object", f"{card.name}: its config has no JSON schema")
    _holds(all(f.doc for f in fields_of(card.config)), f"{card.name}: every option needs a line of prose")


def _messages(card: Card, config: Any, task: Task, folder: Path) -> None:
    for field in fields_of(card.config):
        for rule in field.constraints:
            bad = (rule.high if rule.high is not None else rule.low if rule.low is not None else 0) + (1 if rule.high is not None else -1)
            try:
                parse(card.config, to_dict(config) | {field.name: type(field.default)(bad) if isinstance(field.default, (int, float)) else bad}, where=card.name)
            except ConfigError as error:
                _holds(f"{card.name}.{field.name}" in str(error) and "must be" in str(error), f"{card.name}.{field.name}: the message doesn't say where and what: {error}")
            else:
                raise CheckFailed(f"{card.name}.{field.name} = {bad} breaks '{rule}' and was taken")


def _seed(card: Card, config: Any, task: Task, folder: Path) -> None:
    first, second = (_ran(card, config, task, folder).candidate.torch_form for _ in range(2))
    same = first.blueprint.to_json() == second.blueprint.to_json() and all(torch.equal(first.weights[k], second.weights[k]) for k in first.weights)
    _holds(same, f"{card.name}: the same seed gave other bits")


def _zero(card: Card, config: Any, task: Task, folder: Path) -> None:
    _holds(card.zero is not None, f"{card.name} has no zero strength; give the card `zero`, or an exemption with its reason")
    zero = card.zero() if card.zero else config
    before, batch = teacher_candidate(task), batch_of(task, "test", range(8))
    after = card.function(before, zero, context(task, folder)).candidate
    a, b = _outputs(before, task, batch), _outputs(after, task, batch)
    _holds(all(torch.equal(a[k], b[k]) for k in a), f"{card.name}: zero strength changes the outputs")


def _outputs(candidate: Candidate, task: Task, batch: Any) -> dict[str, Tensor]:
    with torch.no_grad():
        return predict(task, rebuild(candidate.torch_form, task), batch)


def _shapes(card: Card, config: Any, task: Task, folder: Path) -> None:
    batch = batch_of(task, "test", range(5))
    before, after = _outputs(teacher_candidate(task), task, batch), _outputs(_ran(card, config, task, folder).candidate, task, batch)
    _holds({k: (v.shape, v.dtype) for k, v in before.items()} == {k: (v.shape, v.dtype) for k, v in after.items()}, f"{card.name}: names, shapes or dtypes of the outputs changed")


def _claims(card: Card, config: Any, task: Task, folder: Path) -> None:
    outcome = _ran(card, config, task, folder)
    model = rebuild(outcome.candidate.torch_form, task)
    counted = profile(model, *arguments(task, batch_of(task, "train", [0])))
    for name in ("parameters", "macs"):
        claimed = outcome.claims.get(name, getattr(counted, name))
        _holds(claimed == getattr(counted, name), f"{card.name} claims {claimed} {name}, a fresh count gives {getattr(counted, name)}")


def _hooks(card: Card, config: Any, task: Task, folder: Path) -> None:
    """A technique's own module must come back as the blueprint rebuilds it: the hooks of both are counted."""
    form = _ran(card, config, task, folder).candidate.torch_form
    first, second = (rebuild(form, task) for _ in range(2))
    count = lambda m: [len(x._forward_hooks) + len(x._forward_pre_hooks) for x in m.modules()]  # noqa: E731
    before = count(first)
    with torch.no_grad():
        predict(task, first, batch_of(task, "train", [0, 1]))
    _holds(before == count(first) == count(second), f"{card.name}: a forward pass of its candidate leaves hooks behind")


def _facts(card: Card, config: Any, task: Task, folder: Path) -> None:
    before = teacher_candidate(task)
    _holds(card.needs <= before.facts | card.gives, f"{card.name} needs {sorted(card.needs)}, which no first stage could have")
    after = _ran(card, config, task, folder).candidate
    _holds(card.gives <= after.facts, f"{card.name} says that it gives {sorted(card.gives)}, its candidate has {sorted(after.facts)}")
    _holds(not card.breaks & after.facts, f"{card.name} says that it breaks {sorted(card.breaks)}, its candidate still has {sorted(after.facts)}")


def _structure(card: Card, config: Any, task: Task, folder: Path) -> None:
    trained, twin = (_ran(card, config, task, folder, train=t).candidate for t in (True, False))
    shapes = [{k: v.shape for k, v in c.torch_form.weights.items()} for c in (trained, twin)]
    _holds(shapes[0] == shapes[1], f"{card.name}: without training it gives other shapes, so timing its untrained twin says nothing")


def _export(card: Card, config: Any, task: Task, folder: Path) -> None:
    candidate = _ran(card, config, task, folder).candidate
    check_runtime(ONNXRUNTIME, folder, task=task, candidate=candidate)


def check_runtime(runtime: Runtime, folder: Path, *, task: Task | None = None, candidate: Candidate | None = None) -> None:
    """A runtime exports the same bytes twice, answers for any batch, and agrees with torch. Raises CheckFailed."""
    task = task or small_task()
    candidate = candidate or teacher_candidate(task)
    artifacts = [runtime.export(example(task, rebuild(candidate.torch_form, task)), folder / f"{runtime.name}-{i}") for i in range(2)]
    first, second = ([f.read_bytes() for f in a.files()] for a in artifacts)
    _holds(first == second, f"{runtime.name}: exporting twice gave other bytes")
    session, module = runtime.load(artifacts[0], 1), rebuild(candidate.torch_form, task)
    quantized = Fact.QUANTIZED in candidate.facts
    for count in (1, 3, 48):
        batch = batch_of(task, "test", range(count))
        with torch.no_grad():
            expected = {k: v.numpy() for k, v in predict(task, module, batch).items()}
        same = parity(expected, session(feed(task, batch)))
        _holds(quantized or (same["max_rel"] or 0.0) <= 1e-3, f"{runtime.name}: at batch {count} the artifact differs from torch by {same['max_rel']}")
    _holds(not quantized or (same["argmax_agreement"] or 0.0) >= 0.97, f"{runtime.name}: the int8 artifact answers otherwise than its simulation: {same}")
    _holds(artifacts[0].size_bytes > 0 and {"int8", "float"} <= runtime.describe(artifacts[0]).keys(), f"{runtime.name}: describe doesn't say what runs in int8 and what in float")


def check_term(term: Term, *, task: Task | None = None) -> None:
    """A term is finite and a scalar, gives the student a gradient and the teacher none, changes nobody's weights, draws its own from
    the seed alone, trains all that it has, and is 0 where student and teacher agree, if it says so.

    task: one with a teacher, and a student beside it if the two should differ; its paths are those that the term taps.
    """
    task = task or small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    names = [name for name in task.models if name != task.teacher] or [task.teacher]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        factory = task.model(names[0])
        student = factory() if callable(factory) else factory[0]()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    bind = lambda model: (1.0 * term).bind(task, LiveTeacher(task, teacher), model, seed=3)  # noqa: E731
    bound, again, ids = bind(student), bind(student), np.arange(8)
    same = {k: bool(torch.equal(v, again.module.state_dict()[k])) for k, v in bound.module.state_dict().items()}
    _holds(all(same.values()), f"{term.name} begins with other weights under the same seed: {[k for k, equal in same.items() if not equal]}")
    with torch.no_grad():  # as if it had trained a little: what holds it to its start pulls only then
        for p in student.parameters():
            p += 1e-2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    loss, _ = bound(student.train(), batch_of(task, "train", ids), ids)
    _holds(loss.dim() == 0 and math.isfinite(loss.item()), f"{term.name} must give a finite scalar, got {loss}")
    loss.backward()
    _holds(any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters()), f"{term.name} gives the student no gradient")
    idle = [name for name, p in bound.module.named_parameters() if p.requires_grad and p.grad is None]
    _holds(not idle, f"{term.name} gives {idle} no gradient: what doesn't train must not require one")
    _holds(all(p.grad is None for p in teacher.parameters()) and not teacher.training, f"{term.name} sends a gradient into the teacher, or puts it in train mode")
    _holds(all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items()), f"{term.name} changes the teacher")
    if term.teacher and term.agrees:
        twin = copy.deepcopy(teacher)
        value = bind(twin)(twin.eval(), batch_of(task, "train", ids), ids)[0].item()
        _holds(abs(value) < 1e-5, f"{term.name} must be 0 where student and teacher agree, got {value}")


__all__ = ["CheckFailed", "check_runtime", "check_technique", "check_term", "context", "small_task", "small_text_task"]
