"""limbeck: make a trained neural network small and fast, and prove that nobody will notice.

Names resolve lazily: `import limbeck` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.api import Run, compare, compress, evaluate, run, status
    from limbeck.core.candidate import Artifact, ArtifactForm, Blueprint, Candidate, TorchForm
    from limbeck.core.contract import Contract, Target
    from limbeck.core.errors import LimbeckError, Refusal, StageError
    from limbeck.core.evidence import Evidence, Status, Verdict
    from limbeck.core.facts import Data, Fact
    from limbeck.core.fields import Hint, Range
    from limbeck.core.metric import Metric
    from limbeck.core.plan import Gate, Plan, Recovery, Stage, Training
    from limbeck.core.proof import Proof
    from limbeck.core.task import Task
    from limbeck.core.technique import Context, Outcome, technique
    from limbeck.intake.metrics import accuracy, cosine, macro_f1, mae, mse, perplexity, r2, roc_auc, top_k
    from limbeck.intake.slices import by_column, by_label
    from limbeck.mechanics.families import family
    from limbeck.mechanics.onnx import onnx_model
    from limbeck.mechanics.shifts import image_shifts, series_shifts, text_shifts, token_shifts
    from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
    from limbeck.mechanics.views import Views
    from limbeck.package.package import Package

_HOME = {
    "limbeck.api": ("Run", "compare", "compress", "evaluate", "run", "status"),
    "limbeck.core.candidate": ("Artifact", "ArtifactForm", "Blueprint", "Candidate", "TorchForm"),
    "limbeck.core.contract": ("Contract", "Target"),
    "limbeck.core.errors": ("LimbeckError", "Refusal", "StageError"),
    "limbeck.core.evidence": ("Evidence", "Status", "Verdict"),
    "limbeck.core.facts": ("Data", "Fact"),
    "limbeck.core.fields": ("Hint", "Range"),
    "limbeck.core.metric": ("Metric",),
    "limbeck.core.plan": ("Gate", "Plan", "Recovery", "Stage", "Training"),
    "limbeck.core.proof": ("Proof",),
    "limbeck.core.task": ("Task",),
    "limbeck.core.technique": ("Context", "Outcome", "technique"),
    "limbeck.intake.metrics": ("accuracy", "cosine", "macro_f1", "mae", "mse", "perplexity", "r2", "roc_auc", "top_k"),
    "limbeck.intake.slices": ("by_column", "by_label"),
    "limbeck.mechanics.families": ("family",),
    "limbeck.mechanics.onnx": ("onnx_model",),
    "limbeck.mechanics.shifts": ("image_shifts", "series_shifts", "text_shifts", "token_shifts"),
    "limbeck.mechanics.signals": ("CachedTeacher", "LiveTeacher"),
    "limbeck.mechanics.views": ("Views",),
    "limbeck.package.package": ("Package",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "ArtifactForm",
    "Blueprint",
    "CachedTeacher",
    "Candidate",
    "Context",
    "Contract",
    "Data",
    "Evidence",
    "Fact",
    "Gate",
    "Hint",
    "LimbeckError",
    "LiveTeacher",
    "Metric",
    "Outcome",
    "Package",
    "Plan",
    "Proof",
    "Range",
    "Recovery",
    "Refusal",
    "Run",
    "Stage",
    "StageError",
    "Status",
    "Target",
    "Task",
    "TorchForm",
    "Training",
    "Verdict",
    "Views",
    "accuracy",
    "by_column",
    "by_label",
    "compare",
    "compress",
    "cosine",
    "evaluate",
    "family",
    "image_shifts",
    "macro_f1",
    "mae",
    "mse",
    "onnx_model",
    "perplexity",
    "r2",
    "roc_auc",
    "run",
    "series_shifts",
    "status",
    "technique",
    "text_shifts",
    "token_shifts",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'limbeck' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
