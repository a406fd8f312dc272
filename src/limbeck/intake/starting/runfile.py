"""The run file that is written: the contract as it was given, and stages with settings for this much data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.intake.starting.family import student
from limbeck.intake.starting.parts import DataPart, ModelPart
from limbeck.intake.starting.source import quoted

STEPS = 2_000  # of training that a small student needs to come near its teacher
BATCHES = ((1_000, 16), (4_000, 32))  # training samples up to which batches are so small; else 64
RATIO = 0.3  # channels that pruning takes where no student is trained
WORTH = 4  # times that a teacher is larger than a student of limbeck's before it is worth training one


def batch_size(samples: int) -> int:
    return next((size for most, size in BATCHES if samples <= most), 64)


def usual_epochs(samples: int) -> int:
    """Passes over so many samples that come to about 2,000 steps; from 5 to 60."""
    return min(60, max(5, round(STEPS * batch_size(samples) / samples)))


def settings(data: DataPart, model: ModelPart, contract: Mapping[str, Any], *, name: str, runtime: str, threads: int, epochs: int, parameters: int | None) -> str:
    """The text of limbeck.toml.

    Args:
        contract: limit → value, as given.
        parameters: of the teacher, where they can be counted: a student is trained only if that makes it much smaller.
    """
    limits = "".join(f"{key} = {_value(value)}{NOTES.get(key, '')}\n" for key, value in contract.items())
    stages = _distilled(data, epochs) if _student_pays(data, model, parameters) else _pruned(data, epochs)
    return (
        "# Carried out by `limbeck run`.\n\n"
        f'[task]\nentry = "task.py:task"\n\n[contract]  # all of it must hold, on the exported artifact\n{limits}\n'
        f"[target]\nruntime = {quoted(runtime)}\nthreads = {threads}\n\n[run]\nname = {quoted(name)}  # the folder below runs/\n\n{stages}"
    )


NOTES = {
    "retention": "  # the lower 95 % bound of its metric / the teacher's",
    "max_drop": "  # how much worse than the teacher its metric may be, in the metric's own unit",
    "size_ratio": "  # times smaller than the teacher",
    "speedup_p50": "  # times faster than the teacher, in the median",
}


def _value(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


def _student_pays(data: DataPart, model: ModelPart, parameters: int | None) -> bool:
    found = student(data)
    if not model.torch or (found and parameters is None):
        return True
    return found is not None and parameters is not None and parameters >= WORTH * _parameters(data)


def _parameters(data: DataPart) -> int:
    from limbeck.mechanics.families import family

    found = student(data)
    if found is None:
        return 0
    name, options = found
    fixed = {"image": ("channels",), "tokens": ("length",), "numbers": ("features",), "other": ()}[data.shape]
    made = family(name)(**{key: data.figures[key] for key in fixed}, classes=data.outputs, **options)
    return sum(p.numel() for p in made.parameters())


def _distilled(data: DataPart, epochs: int) -> str:
    name, options = student(data) or ("mlp", {})
    words = ", ".join(f"{key} = {value}" for key, value in options.items())
    term = "" if data.kind == "class" else ', term = "logit_mse"'
    text = (
        "# A small network learns from the labels and from what the teacher says.\n[[stage]]\n"
        f'technique = "distill"\n[stage.config]\nstudent = "limbeck:{name}"  # or the name of a model of your own in Task.models\noptions = {{ {words} }}\n'
        + (f"{term.removeprefix(', ')}\n" if term else "")
        + f"[stage.config.training]\nepochs = {epochs}\nbatch_size = {batch_size(data.count['train'])}\n"
    )
    if data.shape == "image":
        return text + "\n# Then weights and activations go to 8-bit integers; left out by its gate if that doesn't pay.\n" + QUANTIZE
    return text + '\n# No quantize stage: in a student this small, 8-bit integers cost more than they save. To try it, add\n# [[stage]]\n# technique = "quantize"\n'


def _pruned(data: DataPart, epochs: int) -> str:
    return (
        "# Whole channels go; then it learns again from the teacher. Gentler ratios follow if the gate says no.\n[[stage]]\n"
        f'technique = "prune"\non_fail = "refine"\n[stage.config]\nratio = {RATIO}  # of the channels\n[stage.recovery.training]\n'
        f"epochs = {max(1, epochs // 2)}\nbatch_size = {batch_size(data.count['train'])}\nlearning_rate = 0.001\n"
        "\n# Then weights and activations go to 8-bit integers; left out by its gate if that doesn't pay.\n" + QUANTIZE
    )


QUANTIZE = '[[stage]]\ntechnique = "quantize"\n'
