"""Batches of token sequences: where ids, mask and labels stand, where each prompt ends, and the same batch with another end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.core.task import Task
from limbeck.mechanics.data import LABELS
from limbeck.mechanics.terms.task_loss import IGNORED

Place = str | int  # a key of a dict, a position in a tuple


@dataclass(frozen=True)
class Sequences:
    """The token sequences of a batch, and where they stand in it. Padding is on the right."""

    task: Task
    batch: Any
    at_ids: Place
    at_mask: Place | None  # None: the batch has no mask
    at_labels: Place
    ids: Int[Tensor, "batch time"]
    lengths: Int[Tensor, " batch"]  # tokens of each, without padding
    labels: Int[Tensor, "batch time"] | None  # the token that should follow each; −100: not judged

    def prompts(self, *, given: str = "", tokens: int = 0) -> Int[Tensor, " batch"]:
        """How many tokens of each sequence are its prompt.

        By the batch's entry `given`, else the first `tokens` ones, else those up to the first that a label follows.
        Raises: TaskError where none of these says it, or a prompt is empty or longer than its sequence.
        """
        if given:
            found = torch.as_tensor(_entry(self.task, self.batch, _place(self.batch, given)), device=self.ids.device).long().reshape(-1)
        elif tokens:
            found = self.lengths.clamp(max=tokens)
        elif self.labels is not None:
            judged = self.labels != IGNORED
            found = torch.where(judged.any(1), judged.int().argmax(1) + 1, self.lengths)
        else:
            raise TaskError(f"task '{self.task.name}': nothing says where a prompt ends. Label its tokens −100, or give on_policy.prompt_tokens or on_policy.prompt.")
        if found.shape != self.lengths.shape or bool(((found < 1) | (found > self.lengths)).any()):
            raise TaskError(
                f"task '{self.task.name}': a prompt must have from 1 to as many tokens as its sequence, got {found.tolist()[:8]} for sequences of {self.lengths.tolist()[:8]}. "
                "Check the prompts' lengths, and that no sequence is empty."
            )
        return found

    def with_ids(self, ids: Int[Tensor, "batch width"], lengths: Int[Tensor, " batch"], labels: Int[Tensor, "batch width"] | None = None) -> Any:
        """The batch with these sequences in place of its own; labels that aren't given are −100."""
        fresh: dict[Place, Any] = {self.at_ids: ids, self.at_labels: torch.full_like(ids, IGNORED) if labels is None else labels}
        if self.at_mask is not None:
            real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            fresh[self.at_mask] = real.to(_entry(self.task, self.batch, self.at_mask).dtype)
        if isinstance(self.batch, Mapping):
            return {**self.batch, **fresh}
        entries = [*self.batch, *([None] if self.at_labels == len(self.batch) else [])]
        return [fresh.get(number, value) for number, value in enumerate(entries)]


def sequences_of(task: Task, batch: Any, *, input: str = "", mask: str = "") -> Sequences:
    """What a batch says of its token sequences.

    Args:
        input: Key or position of the token ids; default: "input_ids" of a dict, the first of a tuple.
        mask: Key or position of the mask; default: "attention_mask" of a dict that has it.
    Raises: TaskError for a batch in which they can't be found, one padded on the left, labels that aren't those of the next token, and an
        entry of the sequences' shape that couldn't be continued.
    """
    if not isinstance(batch, (Mapping, tuple, list)):
        raise TaskError(f"task '{task.name}': a batch of type {type(batch).__name__} has no place for labels. Give samples as (ids, labels), or as a dict with 'input_ids'.")
    at_ids = _place(batch, input) if input else "input_ids" if isinstance(batch, Mapping) else 0
    at_mask = _place(batch, mask) if mask else "attention_mask" if isinstance(batch, Mapping) and "attention_mask" in batch else None
    at_labels, labels = _labels(batch)
    ids = _entry(task, batch, at_ids)
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point() or ids.is_complex():
        what = f"{ids.dtype} of shape {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise TaskError(f"task '{task.name}': token ids must be whole numbers [batch, time], got {what} at {at_ids!r}. Name the batch's entry as on_policy.input.")
    found = Sequences(task, batch, at_ids, at_mask, at_labels, ids, _lengths(task, batch, at_mask, ids), None if labels is None else _next_tokens(task, labels, ids))
    _refuse_others(found)
    return found


def _place(batch: Any, name: str) -> Place:
    return name if isinstance(batch, Mapping) or not name.lstrip("-").isdigit() else int(name)


def _entry(task: Task, batch: Any, place: Place) -> Any:
    there = list(batch) if isinstance(batch, Mapping) else list(range(len(batch)))
    if place not in there:
        raise TaskError(f"task '{task.name}': the batch has no entry {place!r}; it has {', '.join(map(repr, there))}. Name one of these.")
    return batch[place]


def _labels(batch: Any) -> tuple[Place, Any]:
    """Where labels stand, or would, and what stands there."""
    if isinstance(batch, Mapping):
        key = next((k for k in LABELS if k in batch), None)
        return key or "labels", batch[key] if key else None
    return (len(batch) - 1, batch[-1]) if len(batch) > 1 else (1, None)


def _lengths(task: Task, batch: Any, at_mask: Place | None, ids: Tensor) -> Tensor:
    if at_mask is None:
        return torch.full((len(ids),), ids.shape[1], device=ids.device)
    mask = _entry(task, batch, at_mask)
    lengths = torch.as_tensor(mask, device=ids.device).long().sum(1)
    if mask.shape != ids.shape or not torch.equal(mask.bool(), torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]):
        raise TaskError(f"task '{task.name}': the mask at {at_mask!r} must be 1 for tokens and then 0 for padding, which stands on the right. Pad so in Task.collate.")
    return lengths


def _next_tokens(task: Task, labels: Any, ids: Tensor) -> Tensor:
    """The labels, held to being the tokens that follow."""
    found = torch.as_tensor(labels, device=ids.device)
    if found.shape != ids.shape or found.is_floating_point():
        shapes = f"got shape {list(found.shape)} for ids {list(ids.shape)}"
        raise TaskError(f"task '{task.name}': labels must be one token for each id, {shapes}. Give each place the token that follows it.")
    judged = found[:, :-1] != IGNORED
    if bool((judged & (found[:, :-1] != ids[:, 1:])).any()):
        same = bool(((found == ids) | (found == IGNORED)).all())
        way = "They are the inputs themselves: move them one to the left in Task.collate, with −100 at the end." if same else "Label with −100 what isn't to be judged."
        raise TaskError(f"task '{task.name}': the label at t must be the token at t + 1, as every term on logits reads it. {way}")
    return found.long()


def _refuse_others(found: Sequences) -> None:
    known = {found.at_ids, found.at_mask, found.at_labels}
    entries = found.batch.items() if isinstance(found.batch, Mapping) else enumerate(found.batch)
    odd = [key for key, value in entries if key not in known and isinstance(value, Tensor) and value.shape[:2] == found.ids.shape and value.dim() > 1]
    if odd:
        raise TaskError(
            f"task '{found.task.name}': the batch's {odd[0]!r} has one entry a token, and how it goes on after a new token isn't known. "
            "Leave it out in Task.collate, or name the mask as on_policy.mask."
        )
