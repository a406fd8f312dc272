"""Cut an embedding to the ids that the training split uses. Inputs stay the same ids, and the tokenizer stays: a map stands before the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.analysis.profile import profile
from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError, Interrupted, StageError, near
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import rebuild, torch_form
from limbeck.mechanics.data import arguments, batch_of, batches
from limbeck.mechanics.embeddings import vocabulary_edit, vocabulary_edits
from limbeck.mechanics.quantizers import Calls

BATCH = 64  # samples that are counted at once


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which ids keep a row of their own."""

    min_count: Annotated[
        int, Range(0, None), Hint("It is a number of times; 1 keeps every id that train has."), "how often an id must occur in train to stay; 0 keeps all, so that nothing is cut"
    ] = 1
    keep: Annotated[tuple[int, ...], Hint("Write ids in brackets, as in [101, 102]."), "ids that stay in any case: special tokens, words that will come"] = ()
    unknown: Annotated[int | None, Range(0, None), Hint("Tokenizers call it unk_token_id."), "id whose row stands for all that are cut; none: see `others`"] = None
    others: Annotated[Literal["mean", "nearest"], "what an id that is cut answers as: the mean of all that are, or the row that is nearest to its own"] = "mean"
    module: Annotated[
        str, Hint("Write its module path, as in 'bert.embeddings.word_embeddings'."), "the embedding that is cut; empty: the largest whose ids come from the samples"
    ] = ""


@technique(
    version=1,
    needs={Fact.TORCH, Fact.FLOAT_WEIGHTS},
    gives={Fact.NARROWER},
    data=Data.INPUTS,
    paper="arXiv:2010.05609",
    recovers=True,
    pays=True,
    gentler=lambda config: replace(config, min_count=config.min_count // 2) if config.min_count > 1 else None,
    zero=lambda: Vocabulary(min_count=0),
    checked_on="tokens",
)
def vocabulary(candidate: Candidate, config: Vocabulary, context: Context) -> Outcome:
    """Cut the embedding to the ids that the training split uses; the model takes the same ids as before.

    Claims: `parameters` and `macs` of one sample afterwards, `rows` ([kept, of]), `table_bytes`, `map_bytes` (4 for each id), `module`,
    `uncovered` (fraction of train's tokens whose id was cut), `unknown` (the id, "mean" or "nearest").
    Raises: ConfigError for a module or an id that isn't there; StageError if the embedding is tied or used elsewhere, or nothing can go.
    """
    if config.min_count == 0:
        return Outcome(candidate)
    form, task = candidate.torch_form, context.task
    batch, model = batch_of(task, "train", [0, 1]), rebuild(form, task)
    path, calls = _embedding(model, task, config.module)
    whole: Any = model.get_submodule(path)
    _refuse_other_uses(model, path, task, batch)
    seen = _counted(model, whole, calls, context)
    kept = _kept(whole, seen, config)
    padding = None if whole.padding_idx is None else int(np.searchsorted(kept, whole.padding_idx))
    edit = vocabulary_edit(path, len(kept) + _by_mean(config), padding)
    cut_(model, edit, kept, seen, config)
    smaller = torch_form(model, form.blueprint.edited(edit), task, batch)
    size, table = profile(model, *arguments(task, batch_of(task, "train", [0]))), model.get_submodule(path)
    context.log.event("vocabulary cut", module=path, rows=edit["rows"], of=whole.num_embeddings)
    cut = np.ones(whole.num_embeddings, dtype=bool)
    cut[kept] = False
    claims = {
        "parameters": size.parameters,
        "macs": size.macs,
        "module": path,
        "rows": [edit["rows"], whole.num_embeddings],
        "table_bytes": table.get_parameter("weight").nbytes,
        "map_bytes": table.get_buffer("row_of").nbytes,
        "uncovered": float(seen[cut].sum() / max(seen.sum(), 1)),
        "unknown": config.others if config.unknown is None else config.unknown,
    }
    return Outcome(replace(candidate, form=smaller, facts=candidate.facts | {Fact.NARROWER}), claims)


@torch.no_grad()
def cut_(model: nn.Module, edit: Mapping[str, Any], kept: np.ndarray, seen: np.ndarray, config: Vocabulary) -> None:
    """Make the edit on `model` and fill in its numbers: the rows of the ids that stay, in order, and where each id finds its own.

    A mean is the last row: of those that are cut, each as often as it was seen (all alike if none was). Nobody shares the padding's row.
    """
    whole = model.get_submodule(edit["module"]).get_parameter("weight").detach()
    vocabulary_edits(model, [edit])
    table: Any = model.get_submodule(edit["module"])
    cut = np.setdiff1d(np.arange(len(whole)), kept)
    rows = whole[torch.from_numpy(kept)]
    if _by_mean(config):
        often = torch.from_numpy(seen[cut].astype(np.float64) if seen[cut].any() else np.ones(len(cut)))
        rows = torch.cat([rows, ((whole[torch.from_numpy(cut)].double() * often[:, None]).sum(0) / often.sum()).to(whole.dtype)[None]])
    table.weight.copy_(rows)
    table.row_of.fill_(len(kept) if config.unknown is None else int(np.searchsorted(kept, config.unknown)))
    if config.unknown is None and config.others == "nearest":
        table.row_of[torch.from_numpy(cut)] = _nearest(whole[torch.from_numpy(cut)], rows, edit["padding_row"])
    table.row_of[torch.from_numpy(kept)] = torch.arange(len(kept), dtype=torch.int32)


def _by_mean(config: Vocabulary) -> bool:
    """Whether a row is added for what is cut."""
    return config.unknown is None and config.others == "mean"


def _nearest(cut: Tensor, rows: Tensor, padding_row: int | None) -> Tensor:
    """For each vector the row at the least Euclidean distance, the first of equals; never the padding's."""
    lengths = rows.double().square().sum(1)
    if padding_row is not None:
        lengths[padding_row] = torch.inf
    return torch.cat([(lengths - 2 * part.double() @ rows.double().T).argmin(1) for part in cut.split(1024)]).to(torch.int32)


def _kept(whole: nn.Embedding, seen: np.ndarray, config: Vocabulary) -> np.ndarray:
    """The ids that stay, in order. Raises ConfigError for an id that isn't one, StageError if all stay."""
    for name, ids in (("keep", config.keep), ("unknown", () if config.unknown is None else (config.unknown,))):
        for one in ids:
            if not 0 <= one < whole.num_embeddings:
                raise ConfigError(f"vocabulary.{name} must be ids below {whole.num_embeddings}, got {one}. The embedding has a row for each of those.")
    always = [*config.keep, *([] if config.unknown is None else [config.unknown]), *([] if whole.padding_idx is None else [whole.padding_idx])]
    kept = np.union1d(np.flatnonzero(seen >= config.min_count), np.asarray(always, dtype=np.int64))
    if len(kept) + _by_mean(config) >= whole.num_embeddings:
        raise StageError(f"vocabulary can't cut a row: {len(kept)} of {whole.num_embeddings} ids stay at min_count {config.min_count}. Raise min_count, or leave the stage out.")
    return kept


def _embedding(model: nn.Module, task: Task, asked: str) -> tuple[str, int]:
    """The embedding to cut, and how often a forward calls it. Its ids follow the samples when these are turned round; positions don't."""
    found = {path: module for path, module in model.named_modules() if type(module) is nn.Embedding}
    if asked and asked not in found:
        raise ConfigError(f"vocabulary.module must name an nn.Embedding of the model, got '{asked}'. {near(asked, found)}")
    order = range(min(5, len(task.split("train"))))
    forth, back = (_taken(model, found, task, batch_of(task, "train", ids)) for ids in (order, order[::-1]))
    able = [p for p in found if forth[p] and (p == asked or not all(torch.equal(a, b) for a, b in zip(forth[p], back[p], strict=True)))]
    able = [p for p in able if not asked or p == asked]
    if not able:
        named = f"'{asked}' isn't called" if asked else "it has no nn.Embedding whose ids come from the samples"
        raise StageError(f"{type(model).__name__} has no vocabulary to cut: {named}. Name one in vocabulary.module, or leave the stage out.")
    path = max(able, key=lambda p: found[p].weight.numel())
    if found[path].max_norm is not None:
        raise StageError(f"'{path}' has max_norm, which changes its rows while it runs. Build it without, or leave the stage out.")
    return path, len(forth[path])


def _taken(model: nn.Module, embeddings: Mapping[str, nn.Module], task: Task, batch: Any) -> dict[str, list[Tensor]]:
    """What each embedding is called with in one forward."""
    taken: dict[str, list[Tensor]] = {path: [] for path in embeddings}
    handles = [m.register_forward_pre_hook(lambda m, args, kwargs, p=path: taken[p].append(_ids(args, kwargs).clone()), with_kwargs=True) for path, m in embeddings.items()]
    try:
        _run(model, *arguments(task, batch))
    finally:
        for handle in handles:
            handle.remove()
    return taken


def _ids(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """What an embedding was called with."""
    return args[0] if args else kwargs["input"]


def _refuse_other_uses(model: nn.Module, path: str, task: Task, batch: Any) -> None:
    """Raises StageError if another module has this weight too, or a forward reads it otherwise than by looking ids up."""
    weight = model.get_submodule(path).get_parameter("weight")
    tied = [f"{name}.{key}".lstrip(".") for name, m in model.named_modules() for key, p in m._parameters.items() if p is weight and name != path]
    way = "Untie them (a copy of the weight each) before training, or leave the stage out."
    if tied:
        raise StageError(f"'{path}' shares its weight with '{tied[0]}', whose outputs would lose classes. {way}")
    used: list[str] = []

    def on_call(module: str, operator: str, ordinal: int, run: Callable[[], Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
        if module != path and any(isinstance(v, Tensor) and (v is weight or v._base is weight) for v in (*args, *kwargs.values())):
            used.append(f"{module}:{operator}".lstrip(":"))
        return run()

    watching = Calls(on_call)
    handles = [h for name, m in model.named_modules() for h in _entering(m, name, watching.stack)]
    try:
        with watching:
            _run(model, *arguments(task, batch))
    finally:
        for handle in handles:
            handle.remove()
    if used:
        raise StageError(f"the weight of '{path}' is also read by '{used[0]}', not only where ids are looked up. {way}")


def _entering(module: nn.Module, path: str, stack: list[str]) -> tuple[Any, Any]:
    return module.register_forward_pre_hook(lambda m, args: stack.append(path)), module.register_forward_hook(lambda m, args, output: stack.pop() and None)


class _Enough(BaseException):
    """All ids of this batch were seen: the rest of the forward isn't needed. No code of the model's may catch it."""


def _counted(model: nn.Module, embedding: nn.Module, calls: int, context: Context) -> np.ndarray:
    """How often the training split, under all its views, gives each id to the embedding."""
    task, total = context.task, len(context.task.split("train"))
    seen = np.zeros(embedding.get_parameter("weight").shape[0], dtype=np.int64)

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen[:] += np.bincount(_ids(args, kwargs).reshape(-1).numpy(), minlength=len(seen))
        if calls == 1:
            raise _Enough

    handle = embedding.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for ids, batch in batches(task, "train", size=BATCH):
            for view in range(task.views.versions if task.views else 1):
                args, kwargs = task.views.apply_to(task, batch, ids, np.full(len(ids), view)) if task.views else arguments(task, batch)
                _run(model, args, kwargs)
            if context.checkpoint.stop_requested():
                raise Interrupted("stopped while ids were counted; nothing was changed. Run the same command again to go on.")
            context.log.progress(int(ids[-1]) + 1, total, "counting ids")
    finally:
        handle.remove()
    return seen


def _run(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except _Enough:
        pass
