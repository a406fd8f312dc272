"""An embedding with fewer rows behind a map from ids, so that a model's inputs stay what they were; the edit that puts it in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ReplayError, near

Edit = Mapping[str, Any]


class CutEmbedding(nn.Module):
    """Takes the ids that the whole embedding took; several of them may share a row.

    num_embeddings: how many ids it takes, not how many rows it has. padding_row: one that gets no gradient; None: all do.
    """

    row_of: Tensor

    def __init__(self, whole: nn.Embedding, rows: int, padding_row: int | None):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = whole.num_embeddings, whole.embedding_dim, whole.padding_idx
        self.padding_row = padding_row
        weight = whole.weight.new_full((rows, whole.embedding_dim), float("nan"))
        self.weight = nn.Parameter(weight, requires_grad=whole.weight.requires_grad)
        self.register_buffer("row_of", torch.zeros(whole.num_embeddings, dtype=torch.int32))

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(self.row_of.index_select(0, input.reshape(-1)).reshape(input.shape), self.weight, self.padding_row)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings} ids in {len(self.weight)} rows, {self.embedding_dim}"


def vocabulary_edit(path: str, rows: int, padding_row: int | None) -> Edit:
    """The edit that leaves so many rows of the embedding at `path`. Which ids share which is a buffer."""
    return {"edit": "vocabulary", "module": path, "rows": rows, "padding_row": padding_row}


def vocabulary_edits(model: nn.Module, edits: list[Edit]) -> None:
    """Replay `vocabulary`: each embedding gets fewer rows, NaN until the weights are loaded.

    Raises: ReplayError if the module isn't there, is no embedding, or has fewer rows than are to stay.
    """
    for edit in edits:
        known, path, rows, padding_row = dict(model.named_modules()), edit["module"], edit["rows"], edit["padding_row"]
        whole = known.get(path)
        if whole is None:
            raise ReplayError(f"there is no module '{path}' in {type(model).__name__}. {near(str(path), known)}")
        if type(whole) is not nn.Embedding:
            raise ReplayError(f"'{path}' is a {type(whole).__name__}, not nn.Embedding. The factory differs from the blueprint's, or it is cut already.")
        if type(rows) is not int or not 1 <= rows <= whole.num_embeddings:
            raise ReplayError(f"'{path}' has {whole.num_embeddings} rows; those that stay must be 1 to that many, got {str(rows)[:80]}. The factory differs from the blueprint's.")
        if padding_row is not None and (type(padding_row) is not int or not 0 <= padding_row < rows):
            raise ReplayError(f"the padding of '{path}' must be one of its {rows} rows, got {str(padding_row)[:80]}. The blueprint was damaged.")
        cut = CutEmbedding(whole, rows, padding_row)
        for parent in known.values():
            for name, child in parent._modules.items():
                if child is whole:
                    parent._modules[name] = cut
