"""On-policy distillation of language models: the student writes, the teacher judges each token that it wrote.

Agarwal et al. 2024 (GKD), arXiv:2306.13649, algorithm 1; with reverse KL, Gu et al. 2024 (MiniLLM), arXiv:2306.08543, without its policy
gradient: what was drawn is taken as given, and no gradient flows through the drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Hint, Range
from limbeck.core.task import Task
from limbeck.core.technique import Reads, Selective, Signals
from limbeck.mechanics.data import arguments, batch_of, predict
from limbeck.mechanics.generate import chosen, continued, uniforms
from limbeck.mechanics.objective import BoundObjective, Objective
from limbeck.mechanics.sequences import Sequences, sequences_of
from limbeck.mechanics.terms.jsd import jsd
from limbeck.mechanics.terms.task_loss import IGNORED, main_output
from limbeck.mechanics.train import Rewrite

NAME = "on_policy"


@dataclass(frozen=True, kw_only=True)
class OnPolicy:
    """The student continues a batch's prompts itself, and learns what the teacher says of each token that it wrote."""

    student_share: Annotated[
        float, Range(0, 1), Hint("It is a fraction of the steps; the rest learn from the data."), "share of the steps whose continuation the student writes (the paper's λ)"
    ] = 0.5
    beta: Annotated[float, Range(0, 1), "divergence on what it wrote: 0 is forward KL, 1 reverse KL, between them JSD"] = 0.5
    weight: Annotated[float, Range(0, None, closed="neither"), "what that divergence is multiplied with"] = 1.0
    temperature: Annotated[float, Range(0, None), "of the student's draws; 0 always takes the likeliest token"] = 1.0
    max_new_tokens: Annotated[int, Range(0, None), "tokens that it writes at most; 0: to the end of the batch's longest sample"] = 0
    prompt_tokens: Annotated[int, Range(0, None), "tokens of each sample that are its prompt; 0: those up to the first that is labelled"] = 0
    prompt: Annotated[str, "entry of the batch that holds each prompt's length, instead"] = ""
    input: Annotated[str, "entry of the batch that holds token ids; empty: `input_ids`, or the first"] = ""
    mask: Annotated[str, "entry of the batch that holds the padding mask; empty: `attention_mask`, if there is one"] = ""
    end_token: Annotated[int | None, Range(0, None), "the token after which a text is finished; none: it isn't"] = None


@dataclass(frozen=True)
class Written:
    """Puts what the student wrote in place of a step's batch, and the teacher's judgement in place of its objective."""

    config: OnPolicy
    judge: BoundObjective
    seed: int

    def __call__(self, model: nn.Module, batch: Any, ids: np.ndarray, step: int) -> tuple[BoundObjective, Any] | None:
        """None where the step learns from the data. What is drawn follows from (seed, step, sample) alone."""
        return (self.judge, self.written(model, batch, ids, step)) if chosen(self.seed, step, self.config.student_share) else None

    def written(self, model: nn.Module, batch: Any, ids: np.ndarray, step: int) -> Any:
        """The batch with the student's own continuations; labelled are the tokens that it wrote, and only these.

        Raises: TaskError if there is no room for a single token.
        """
        config, task = self.config, self.judge.task
        found = sequences_of(task, batch, input=config.input, mask=config.mask)
        prompts = found.prompts(given=config.prompt, tokens=config.prompt_tokens)
        room = torch.full_like(prompts, config.max_new_tokens) if config.max_new_tokens else found.ids.shape[1] - prompts
        if not bool((room > 0).any()):
            full = f"the prompts fill all {found.ids.shape[1]} tokens, so the student can't write any"
            raise TaskError(f"task '{task.name}': {full}. Give on_policy.max_new_tokens, or shorter prompts.")
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            uniform = uniforms(self.seed, step, ids, int(room.max()))
            text, lengths = continued(_answering(model, found), found.ids, prompts, room=room, uniform=uniform, temperature=config.temperature, end=config.end_token)
        finally:
            for module, training in modes.items():
                module.training = training
        return found.with_ids(text, lengths, _labels(text, prompts, lengths))


def writing(config: OnPolicy, task: Task, signals: Signals, model: nn.Module, *, seed: int) -> Rewrite | None:
    """What `fit` takes as `rewrite`; None if the student's share is 0.

    Args:
        signals: The teacher; where it is a cache, the model behind that is asked, since nobody knows beforehand what will be written.
    Raises: ConfigError for a task with views; TaskError if sequences and prompts can't be found in a batch, a model isn't causal or doesn't
        give logits for each token, or both have different vocabularies.
    """
    if not config.student_share:
        return None
    if task.views:
        raise ConfigError("on_policy needs samples as they are: a view of what the student has yet to write can't be replayed. Leave Task.views out, or on_policy.")
    live = signals.serving(Reads((NAME,), live=True)) if isinstance(signals, Selective) else signals
    objective: Objective = config.weight * replace(jsd(beta=config.beta), name=NAME)
    found = Written(config, objective.bind(task, live, model, seed=seed), seed)
    _fitting(found, task, live, model)
    return found


def _labels(text: Tensor, prompts: Tensor, lengths: Tensor) -> Tensor:
    """At each place the token that follows, where the student wrote it; −100 elsewhere."""
    following = torch.cat([text[:, 1:], torch.full_like(text[:, :1], IGNORED)], 1).long()
    place = torch.arange(text.shape[1], device=text.device)
    return following.masked_fill((place < prompts[:, None] - 1) | (place >= lengths[:, None] - 1), IGNORED)


def _answering(model: nn.Module, found: Sequences) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda ids, lengths: main_output(found.task, predict(found.task, model, found.with_ids(ids, lengths)))


def _fitting(written: Written, task: Task, live: Signals, model: nn.Module) -> None:
    """Both models can be asked token by token: refused before training if they can't."""
    batch, rows = batch_of(task, "train", [0, 1]), np.array([0, 1])
    found = sequences_of(task, batch, input=written.config.input, mask=written.config.mask)
    found.prompts(given=written.config.prompt, tokens=written.config.prompt_tokens)

    def teacher(ids: Tensor, lengths: Tensor) -> Tensor:
        args, kwargs = arguments(task, found.with_ids(ids, lengths))
        return main_output(task, live.teacher(rows, 0, args, kwargs))

    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            sizes = {who: _vocabulary(who, answer, found) for who, answer in (("teacher", teacher), ("student", _answering(model, found)))}
    finally:
        for module, training in modes.items():
            module.training = training
    if len(set(sizes.values())) > 1:
        raise TaskError(
            f"task '{task.name}': the teacher's vocabulary has {sizes['teacher']} tokens, the student's {sizes['student']}; a token must mean the same to both. "
            f"Give the student {sizes['teacher']} tokens and the teacher's tokenizer, or distill without on_policy by terms on features."
        )
    end = written.config.end_token
    if end is not None and end >= sizes["student"]:
        raise ConfigError(f"on_policy.end_token must be below {sizes['student']}, the vocabulary's size, got {end}. Tokenizers call it eos_token_id.")


def _vocabulary(who: str, answer: Callable[[Tensor, Tensor], Tensor], found: Sequences) -> int:
    """The size of a model's vocabulary, if its logits at a place hang on no later token."""
    width, name = found.ids.shape[1], found.task.name
    full = torch.full_like(found.lengths, width)
    logits = answer(found.ids, full)
    if logits.dim() != 3 or tuple(logits.shape[:2]) != tuple(found.ids.shape):
        wanted = f"logits for each token, [{len(full)}, {width}, vocabulary]"
        raise TaskError(f"task '{name}': on_policy needs {wanted}, got {list(logits.shape)} of the {who}. Let Task.outputs give all of them, unmoved.")
    if width > 1:
        other = found.ids.clone()
        other[:, -1] = torch.where(other[:, -1] == 0, 1, 0)
        if not torch.allclose(logits[:, :-1], answer(other, full)[:, :-1], atol=1e-3):
            raise TaskError(f"task '{name}': the {who} isn't causal: another last token changes what it says before. Writing needs a model that looks back alone.")
    return logits.shape[-1]
