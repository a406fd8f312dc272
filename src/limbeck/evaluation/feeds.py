"""What artifacts are timed on and compared by: samples of a task, inputs that the user gave, or random ones that they accept."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.core.errors import ArtifactError, ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.intake.fingerprint import spread
from limbeck.mechanics.data import batch_of, feed, flatten
from limbeck.runtimes.card import FREE_AXIS, KINDS, Feed, InputSpec, Session, fixed_batch, random_feed

SAMPLES = 64  # of a split, on which outputs are compared
SEEDS = 16  # of random inputs, on which outputs are compared
SIZES = (FREE_AXIS, 512, 64, 128, 256, 32, 224, 1024, 1, 8)  # tried, in this order, for free axes that aren't the batch
RATES = ("sr", "fs", "rate", "sample_rate", "sampling_rate", "samplerate")  # an input of one number with such a name is a sound's
POSITION = re.compile(r"(arr_)?[0-9]{1,3}")
HERTZ, NUMBERS = (16000, 8000), (1, 0, 2)
WAY = "Give inputs of your own: --inputs FILE.npz with an array for each, in Python inputs={name: array}"


@dataclass(frozen=True)
class Fed:
    """One feed, which is timed, where it comes from, and others of its kind, on which outputs are compared."""

    feed: Feed
    source: str
    others: Callable[[], Iterator[Feed]]
    compared_on: str

    def summary(self) -> dict[str, Any]:
        """The form in which `--json` shows it: a number by itself with its value."""
        return {
            "source": self.source,
            "arrays": [
                {"name": n, "dtype": str(a.dtype), "shape": list(a.shape), **({} if a.ndim else {"value": a.item() if np.isfinite(a) else None})} for n, a in self.feed.items()
            ],
        }


def as_arguments(inputs: Any) -> tuple[tuple, dict[str, Any]]:
    """What a user gives as inputs, as a module is called with it: one tensor, a tuple of them, or a dict by name; arrays become tensors.

    A path is a .npz file. Names that are numbers (`0`, or `arr_0` as numpy.savez writes them) are positions.
    """
    if isinstance(inputs, (str, Path)):
        inputs = _read(Path(inputs))
    if isinstance(inputs, Mapping) and inputs and all(POSITION.fullmatch(str(k)) for k in inputs):
        inputs = tuple(inputs[k] for k in sorted(inputs, key=lambda k: int(str(k).removeprefix("arr_"))))
    if isinstance(inputs, Mapping):
        return (), {str(k): _tensors(v) for k, v in inputs.items()}
    return tuple(_tensors(v) for v in (inputs if isinstance(inputs, (tuple, list)) else (inputs,))), {}


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ConfigError(f"there is no file of inputs {path}. Write one with numpy.savez('{path.stem}.npz', name=array).")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"0": loaded}
        with loaded as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"{path} is no file of plain arrays ({error}). Write one with numpy.savez('{path.stem}.npz', name=array); objects aren't read.") from error


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _tensors(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_tensors(v) for v in value)
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "iufb":
            raise ConfigError(f"inputs must be numbers, got an array of {value.dtype}. Convert it first.")
        return torch.from_numpy(np.array(value))
    return value


def of_inputs(inputs: Any) -> Fed:
    """Inputs that the user gave: the same are timed and compared on. Raises ConfigError if there is no tensor among them."""
    arrays = {"_".join(leaf): np.ascontiguousarray(t.detach().cpu().numpy()) if t.dim() else t.detach().cpu().numpy() for leaf, t in flatten(*as_arguments(inputs)).items()}
    if not arrays:
        raise ConfigError(f"inputs must hold at least one tensor or array, got {type(inputs).__name__}. Give a tuple of them, or a dict by name.")
    return Fed(arrays, "given", lambda: iter([arrays]), "the given inputs")


def of_task(task: Task, split: str, sessions: Sequence[Session], batch: int) -> Fed:
    """The first samples of a split; outputs are compared on 64 that are spread over it. Raises TaskError if it is empty."""
    count = len(task.split(split))
    if not count:
        raise TaskError(f"task '{task.name}' split '{split}' has no samples to evaluate on. Add samples, or name another split.")
    ids = [int(i) for i in spread(count, SAMPLES)]
    size = next((n for s in sessions if (n := fixed_batch(s))), SAMPLES)
    others = lambda: (feed(task, batch_of(task, split, ids[start : start + size])) for start in range(0, len(ids) - len(ids) % size if size < SAMPLES else len(ids), size))  # noqa: E731
    return Fed(feed(task, batch_of(task, split, [i % count for i in range(batch)])), f"samples of {split}", others, f"{len(ids)} samples of {split}")


def random(sessions: Mapping[str, Session], batch: int) -> Fed:
    """Random inputs that all these artifacts accept, found by trying sizes for their free axes and values for their single numbers.

    Raises: ArtifactError if they take different inputs, or none that was tried runs.
    """
    specs, tried, last = _joined(sessions), 0, ""
    for sized, numbers in _candidates(specs, batch):
        made = lambda seed, sized=sized, numbers=numbers: random_feed(sized, batch, seed) | numbers  # noqa: E731
        try:
            for session in sessions.values():
                session(made(0))
        except ArtifactError as error:
            if "brought its process down" in str(error):
                raise
            tried, last = tried + 1, str(error)
            continue
        return Fed(made(0), "random", lambda made=made: (made(seed) for seed in range(SEEDS)), f"{SEEDS} random inputs")
    which, takes = " and ".join(sessions), ", ".join(shown(s) for s in specs)
    raise ArtifactError(f"none of {tried} random inputs runs through {which}, which take {takes}. {WAY}; or name a task with --task. The last try: {last}")


def shown(spec: InputSpec) -> str:
    """An input as `name float32[any, 64]`."""
    return f"{spec.name} {spec.dtype}[{', '.join('any' if d is None else str(d) for d in spec.shape)}]"


def _joined(sessions: Mapping[str, Session]) -> list[InputSpec]:
    """The inputs of all: by name, or in order where no name is shared. An axis that one fixes is fixed. Raises ArtifactError for a difference."""
    (first, one), *rest = sessions.items()
    specs = {spec.name: spec for spec in one.inputs}
    for name, other in rest:
        shared = [s.name for s in other.inputs if s.name in specs]
        if not shared and len(other.inputs) == len(specs):
            specs = {old: _both(spec, theirs, first, name) for (old, spec), theirs in zip(specs.items(), other.inputs, strict=True)}
            continue
        if len(shared) < min(len(other.inputs), len(specs)):
            takes = [f"{n} takes {', '.join(map(shown, s.inputs)) or 'nothing'}" for n, s in sessions.items()]
            raise ArtifactError(f"{first} and {name} take different inputs, so they can't be compared on the same: {'; '.join(takes)}. Export both for the same inputs.")
        for theirs in other.inputs:
            specs[theirs.name] = _both(specs[theirs.name], theirs, first, name) if theirs.name in specs else theirs
    return list(specs.values())


def _both(a: InputSpec, b: InputSpec, first: str, second: str) -> InputSpec:
    if not _castable(a.dtype, b.dtype) or len(a.shape) != len(b.shape) or any(x is not None and y is not None and x != y for x, y in zip(a.shape, b.shape, strict=True)):
        difference = f"{shown(a)} in the first and {shown(b)} in the second"
        raise ArtifactError(f"{first} and {second} take different inputs, so they can't be compared on the same: {difference}. Export both for the same inputs.")
    return replace(a, shape=tuple(y if x is None else x for x, y in zip(a.shape, b.shape, strict=True)))


def _castable(fed: str, taken: str) -> bool:
    """Whether `bind` makes one of the other, as float16 of float32."""
    return np.dtype(fed).kind in KINDS.get(np.dtype(taken).kind, "") if fed != taken else True


def _candidates(specs: Sequence[InputSpec], batch: int) -> Iterator[tuple[list[InputSpec], dict[str, np.ndarray]]]:
    """Inputs with every axis sized, and the values of those that are one number; most likely first."""
    single = [spec for spec in specs if not spec.shape]
    names = {spec.axes[0] for spec in specs if spec.shape and spec.axes and spec.axes[0] and spec.shape[0] is None}
    open_ = [(spec, axis) for spec in specs for axis, size in enumerate(spec.shape) if size is None and axis and not _named(spec, axis, names)]
    states = any(_of_state(spec, axis) for spec, axis in open_)
    values = product(*((HERTZ if spec.name.lower() in RATES else NUMBERS) for spec in single))
    for numbers, size, as_batch in product(values, SIZES if open_ else SIZES[:1], (True, False) if states else (False,)):
        sized = [replace(spec, shape=tuple(_size(spec, axis, batch=batch, size=size, names=names, as_batch=as_batch) for axis in range(len(spec.shape)))) for spec in specs]
        yield sized, {spec.name: np.array(value, spec.dtype) for spec, value in zip(single, numbers, strict=True)}


def _named(spec: InputSpec, axis: int, names: set[str]) -> bool:
    return bool(spec.axes) and spec.axes[axis] is not None and spec.axes[axis] in names


def _of_state(spec: InputSpec, axis: int) -> bool:
    """Whether a free axis may be the batch though it isn't the first, as in a recurrent state [layers, batch, width]: the first is fixed, and it has no name."""
    return spec.shape[0] is not None and not (spec.axes and spec.axes[axis])


def _size(spec: InputSpec, axis: int, *, batch: int, size: int, names: set[str], as_batch: bool) -> int:
    fixed = spec.shape[axis]
    if fixed is not None:
        return fixed
    return batch if axis == 0 or _named(spec, axis, names) or (as_batch and _of_state(spec, axis)) else size


def in_whole_batches(session: Session, ask: Callable[[Feed], Mapping[str, np.ndarray]] | None = None) -> Callable[[Feed], Mapping[str, np.ndarray]]:
    """A session (or what answers in its place) that takes fewer samples than its fixed batch too: the last is repeated, and what it answers to that is left out."""
    size, ask = fixed_batch(session), ask or session
    if size is None:
        return ask

    def run(feed: Feed) -> Mapping[str, np.ndarray]:
        count = next((len(a) for a in feed.values() if a.ndim), size)
        if not 0 < count < size:
            return ask(feed)
        whole = {k: np.concatenate([a, np.repeat(a[-1:], size - count, axis=0)]) if a.ndim and len(a) == count else a for k, a in feed.items()}
        return {k: a[:count] if a.ndim and len(a) == size else a for k, a in ask(whole).items()}

    return run
