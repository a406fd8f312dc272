"""The interview from model to limits, and the files that follow from it: written only when they have been seen to work."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.contract import QUALITY, Contract, Target
from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import fields_of, parse
from limbeck.core.files import write
from limbeck.core.metric import Metric
from limbeck.intake import metrics
from limbeck.intake.starting import csvfile, family, huggingface, images, onnx, own_data, own_module, table, text, timm
from limbeck.intake.starting.parts import DataPart, ModelPart
from limbeck.intake.starting.proof import prove
from limbeck.intake.starting.questions import ALL, DATA, EPOCHS, KIND, LABEL, LIMIT, METRIC, MODEL, RUNTIME, TEXT, THREADS, Ask, Interview, whole
from limbeck.intake.starting.runfile import settings, usual_epochs
from limbeck.intake.starting.taskfile import task_source, trainer_source

CLASS_METRICS = ("accuracy", "macro_f1", "roc_auc")
VALUE_METRICS = ("r2", "mae", "mse")
RETENTIONS = (0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # the first that so many samples can show is the default
DROPS = {"r2": 0.02, "mae": 0.05, "mse": 0.05}  # in standard deviations of the label, or its variance, what may be lost by default


@dataclass(frozen=True)
class Model:
    """What was said of the model, before the data is known."""

    kind: str
    entry: str
    part: ModelPart | None = None
    wanted: Mapping[str, Any] | None = None


def begin(folder: Path, given: Mapping[str, Any], *, ask: Ask | None = None, force: bool = False) -> dict[str, Any]:
    """Settle what a first run needs, and write it: what was decided, what was written, what comes next.

    Args:
        given: answers by the question's key (see `questions.ALL`); None is not given.
        ask: puts a question to somebody; None where nobody can be asked, then defaults hold.
        force: overwrite files.
    Raises: ConfigError, TaskError, MissingLibrary: nothing is written then.
    """
    _check_keys(given)
    folder = folder.resolve()
    _refuse_overwriting(folder, ("task.py", "limbeck.toml"), force)
    interview = Interview({k: v for k, v in given.items() if v is not None}, ask)
    model = interview.settle(MODEL, lambda words: _model(words, folder, interview))
    early = model.part or (own_module.part(model.entry, folder, interview) if model.kind == "own" else None)
    data = interview.settle(DATA, lambda words: _data_place(words, folder))
    part = _data(data, folder, interview, model)
    made = early or _made(model, part, folder, interview)
    metric = interview.settle(METRIC, lambda words: _metric(words, part), default="accuracy" if part.kind == "class" else "r2", choices=CLASS_METRICS + VALUE_METRICS)
    contract = interview.settle(LIMIT, lambda words: _limits(words, metric), default=_usual_limits(part, metric))
    _note_provable(contract, part, interview)
    runtime = interview.settle(RUNTIME, lambda words: _runtime(words, made))
    threads = interview.settle(THREADS, whole(1, 1024))
    epochs = interview.settle(EPOCHS, whole(0, 100_000), default=str(usual_epochs(part.count["train"])))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-") or "run"
    files = {"task.py": task_source(part, made, name=name, metric=metric.name, folder=folder), **part.files}
    if not made.trained:
        files["train_teacher.py"] = trainer_source(part, made, epochs=epochs)
    _refuse_overwriting(folder, files, force)
    proof = prove(files, folder, trained=made.trained)
    if proof.note:
        interview.note(proof.note)
    Target(runtime=runtime, threads=threads)
    files["limbeck.toml"] = settings(part, made, contract, name=name, runtime=runtime, threads=threads, epochs=epochs, parameters=proof.parameters)
    for path, content in files.items():
        write(folder / path, content.encode())
    train = [] if made.trained else ["python train_teacher.py"]
    return {
        "schema": 1,
        "exit_code": 0,
        "folder": str(folder),
        "decided": interview.decided,
        "data": {**part.shown, "samples": dict(part.count)},
        "teacher": {"parameters": proof.parameters, "trained": made.trained, "metric": metric.name, "validation": proof.metric},
        "written": sorted(files),
        "notes": interview.notes,
        "next": [*train, "limbeck run"],
    }


def _check_keys(given: Mapping[str, Any]) -> None:
    known = [q.key for q in (*ALL, onnx.OUTPUT)]
    for key in given:
        if key not in known:
            raise ConfigError(f"init has no question '{key}'. {near(key, known)}")


def _refuse_overwriting(folder: Path, names: Any, force: bool) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise ConfigError(f"{folder / there[0]} is there already. Give --force to overwrite it, or another folder.")


def _model(words: str, folder: Path, interview: Interview) -> Model:
    """The kind of a model by how it is named. What can be loaded without the data is loaded here, so that it is asked for again if it can't."""
    if words in ("none", ""):
        return Model("none", "")
    if words.startswith("timm:"):
        return Model("timm", words, wanted=timm.wanted(words))
    if words.endswith(".onnx"):
        path = Path(words)
        if not path.is_file():
            raise ConfigError(f"there is no ONNX file {words}. Check the path.")
        return Model("onnx", words, wanted=onnx.wanted(path))
    if ":" in words:
        return Model("own", own_module.importable(words, folder, "--model"))
    if words.endswith((".pt", ".pth", ".safetensors", ".bin")):
        raise ConfigError(f"{words} holds weights, and no network that they belong to. Name that with --model file.py:Class, and this with --weights.")
    part, wanted = huggingface.part(words, folder, interview)
    return Model("transformers", words, part=part, wanted=wanted)


def _data_place(words: str, folder: Path) -> str | Path:
    path = Path(words)
    if path.is_dir():
        return path
    if path.suffix.lower() in (".csv", ".tsv"):
        if not path.is_file():
            raise ConfigError(f"there is no file {words}. Check the path.")
        return path
    if ":" in words:
        return own_module.importable(words, folder, "--data")
    raise ConfigError(f"must be a folder of images, a .csv or .tsv file, or file.py:name, got {words!r}. Check the path.")


def _data(data: str | Path, folder: Path, interview: Interview, model: Model) -> DataPart:
    wanted = model.wanted or {}
    if isinstance(data, str):
        return own_data.part(data, folder, interview)
    if model.kind == "transformers" and data.is_dir():
        raise ConfigError(f"--data {data}: a transformers text classifier reads texts, and this is a folder. Give a CSV file of texts, or splits of your own (file.py:name).")
    if data.is_dir():
        return images.part(data, folder, interview, wanted)
    found = csvfile.read(data)
    column = _text_column(found, interview, model)
    label = _label_column(found, interview, column)
    if column:
        return text.part(found, folder, interview, text=column, label=label, wanted=wanted)
    if model.kind in ("transformers", "timm"):
        raise ConfigError(f"--data {data}: {model.entry} can't read a table of numbers. Name the text column with --text, or another model.")
    kind = interview.settle(KIND, lambda words: _kind(words, found, label), default=_usual_kind(found, label))
    return table.part(found, folder, interview, label=label, kind="value" if kind == "regression" else "class")


def _text_column(found: csvfile.Table, interview: Interview, model: Model) -> str | None:
    columns = [name for name in found.columns if found.textual(name)]
    usual = csvfile.guess(columns, csvfile.TEXTS) or (max(columns, key=lambda c: sum(map(len, found.values[c]))) if columns else None)
    if model.kind == "transformers" and usual is None:
        usual = csvfile.guess(found.columns, csvfile.TEXTS)
    given = interview.given.get("text")
    if usual is None and given is None and model.kind != "transformers":
        return None
    name = interview.settle(TEXT, str, default=usual, choices=(*found.columns, "none"))
    return None if name == "none" and "none" not in found.columns else name


def _label_column(found: csvfile.Table, interview: Interview, column: str | None) -> str:
    others = tuple(name for name in found.columns if name != column)
    usual = csvfile.guess(others, csvfile.LABELS) or (others[0] if column and len(others) == 1 else None)
    return interview.settle(LABEL, str, default=usual, choices=others)


def _usual_kind(found: csvfile.Table, label: str) -> str | None:
    values = csvfile.looks_like_values(found, label)
    return None if values is None else "regression" if values else "classification"


def _kind(words: str, found: csvfile.Table, label: str) -> str:
    if words == "regression" and not found.numeric(label):
        odd = next(v for v in found.values[label] if csvfile.as_number(v) is None)
        raise ConfigError(f"the label '{label}' isn't always a number (as {odd!r}), so no value can be come close to. Take classification, or name another label.")
    if words == "classification" and csvfile.looks_like_values(found, label) and len(set(found.values[label])) > len(found.rows) / 2:
        raise ConfigError(f"the label '{label}' has {len(set(found.values[label]))} different values in {len(found.rows)} rows: these are no classes. Take regression.")
    return words


def _made(model: Model, data: DataPart, folder: Path, interview: Interview) -> ModelPart:
    """The part of a model that depends on the data."""
    if model.kind == "none":
        return family.part(data, interview)
    if model.kind == "timm":
        if data.shape not in ("image", "other"):
            raise ConfigError(f"--model {model.entry} reads images, and the data are {data.shape}. Give a folder of images, or another model.")
        return timm.part(model.entry, folder, interview, data)
    return onnx.part(Path(model.entry), folder, interview)


def _metric(words: str, data: DataPart) -> Metric:
    metric: Metric = getattr(metrics, words)()
    if metric.target != data.kind:
        fitting = CLASS_METRICS if data.kind == "class" else VALUE_METRICS
        raise ConfigError(f"'{words}' judges {'classes' if metric.target == 'class' else 'values'}, and the labels are {KINDS[data.kind]}. Take {', '.join(fitting)}.")
    if words == "roc_auc" and data.outputs > 2:
        raise ConfigError(f"'roc_auc' is for two classes, and there are {data.outputs}. Take macro_f1 or accuracy.")
    return metric


KINDS = {"class": "classes", "value": "values (regression)"}


def _usual_limits(data: DataPart, metric: Metric) -> str:
    if metric.ratio:
        stages = 2 if data.shape in ("image", "other") else 1  # which share what may be lost
        kept = next((r for r in RETENTIONS if r ** (1 / stages) <= _likely(data)), RETENTIONS[-1])
        return f"retention={kept:g}, size_ratio=4"
    unit = {"r2": 1.0, "mae": data.spread, "mse": data.spread**2}[metric.name]
    return f"max_drop={DROPS[metric.name] * unit:.3g}, size_ratio=4"


def _provable(data: DataPart) -> float:
    """The bound on what is kept of a perfect student, by the smaller of validation and test: n / (n + z²), z = 1.645 for 95 %."""
    count = min(data.count["validation"], data.count["test"])
    return count / (count + 1.645**2)


def _likely(data: DataPart) -> float:
    """The bound of a good student, which answers 4 % of the samples otherwise and loses 1 % by it."""
    count = min(data.count["validation"], data.count["test"])
    return min(_provable(data), 0.99 - 1.645 * math.sqrt(0.04 / count))


def _note_provable(contract: Mapping[str, Any], data: DataPart, interview: Interview) -> None:
    kept, most = contract.get("retention"), _provable(data)
    if isinstance(kept, float) and (kept < RETENTIONS[0] or kept > most):
        count = min(data.count["validation"], data.count["test"])
        told = f"{count} samples of validation or test prove at most that {most:.3f} is kept"
        interview.note(f"{told}, so retention={kept:g} can't be PASS: it will be INCONCLUSIVE." if kept > most else f"{told}; retention={kept:g} leaves room for that.")


def _limits(words: list[str], metric: Metric) -> dict[str, Any]:
    """Limits by name, as a contract takes them. Raises ConfigError for what a contract refuses, or this metric gives no meaning to."""
    values: dict[str, Any] = {}
    whole_numbers = {f.name for f in fields_of(Contract) if "whole" in f.type_name}
    for word in words:
        key, _, number = word.partition("=")
        key, number = key.strip(), number.strip()
        if not number:
            raise ConfigError(f"a limit is name=number, got {word!r}. Write it as in retention=0.97.")
        try:
            values[key] = int(number) if key in whole_numbers else float(number)
        except ValueError:
            values[key] = number  # a number with a unit, or what the contract will refuse
    contract = parse(Contract, values, where="contract")
    if contract.retention is not None and not metric.ratio:
        raise ConfigError(f"retention is a ratio, which means nothing for '{metric.name}'. Limit how much may be lost instead, as in max_drop={DROPS.get(metric.name, 0.02):g}.")
    if not any(key in QUALITY for key in values):
        raise ConfigError(f"limits on {', '.join(values)} alone would let the quality fall freely. Add {'retention=0.97' if metric.ratio else 'max_drop=0.02'}.")
    return values


def _runtime(words: str, model: ModelPart) -> str:
    if not model.torch and words != "onnxruntime":
        raise ConfigError(f"the teacher is an ONNX file, which {words} doesn't run; the baseline is that file. Take onnxruntime.")
    return words
