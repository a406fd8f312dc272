"""Slices of a task without a function of one's own: one a label, one a value or a range of a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError, TaskError
from limbeck.intake.classes import names_of
from limbeck.mechanics.data import labels

Column = str | int | Callable[[Any], Any]
Slices = dict[str, Callable[[Any], np.ndarray]]
MOST = 50  # values of a column that make a slice each


def by_label(classes: int | Sequence[str] | Any, *, target: str | int | None = None) -> Slices:
    """One slice a class, for `Task(slices=by_label(…))`.

    Args:
        classes: How many there are, their names in the order of their numbers, or a data set that names them in `.classes`.
            Slices are called `label 3`, or by the class's name.
        target: Key or position of the labels in the batch; default: the last of a tuple, or the usual name in a dict.
    Raises: ConfigError if there is no class, or the data set doesn't name them.
    """
    if isinstance(classes, int):
        names: Sequence[str] = [f"label {i}" for i in range(classes)]
    else:
        names = classes if isinstance(classes, (list, tuple)) else names_of(classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"by_label.classes must be a number, a list of names, or a data set with `classes`, got {classes!r}. With ten classes write by_label(10).")
    _told_apart("by_label.classes", list(names))
    return {name: partial(_labelled, number, None if target is None else str(target)) for number, name in enumerate(names)}


def by_column(column: Column, *, values: Sequence[Any] = (), edges: Sequence[float] = (), data: Any = None, bins: int = 0, name: str = "") -> Slices:
    """One slice a value, or a range, of a column of the batch, for `Task(slices=by_column("age", edges=[30, 60]))`.

    Say one of `values` and `edges`, or give `data` to take them from: its distinct values, or with `bins` ranges that hold about
    as many samples each.

    Args:
        column: A key of a dict batch, a position in a tuple batch, or a function of the batch that gives one value a sample.
        values: Those that make a slice each, called `site = north`.
        edges: Rising; they cut ranges called `age < 30`, `30 ≤ age < 60` and `age ≥ 60`.
        data: A data set whose samples have the column; each is read once, now. Not for a function.
        name: What the column is called in the slices' names; default: its key.
    Raises: ConfigError if it isn't said how to slice, edges don't rise, or there are more than 50 values; TaskError if a sample has no such column.
    """
    name = name or (getattr(column, "__name__", "value") if callable(column) else str(column) if isinstance(column, str) else f"column {column}")
    if sum((bool(len(values)), bool(len(edges)), data is not None)) != 1 or (bins and data is None):
        raise ConfigError(f"by_column({name!r}) takes one of values, edges and data, and bins with data alone. Write by_column({name!r}, edges=[30, 60]).")
    if data is not None:
        found = _read(column, data, name)
        if bins:
            edges = _quantiles(found, bins, name)
        else:
            values = np.unique(found).tolist()
    if len(edges):
        return _ranges(column, [float(e) for e in edges], name)
    if len(values) > MOST:
        raise ConfigError(f"by_column({name!r}) has {len(values):,} values, and more than {MOST} slices say nothing. Give bins=4, edges, or the values that matter.")
    slices = {f"{name} = {_shown(value)}": partial(_equal, column, value) for value in values}
    _told_apart(f"by_column({name!r}).values", [f"{name} = {_shown(value)}" for value in values])
    return slices


def _labelled(number: int, target: str | None, batch: Any) -> np.ndarray:
    found = labels(batch, target)
    if found is None:
        raise TaskError(f"by_label finds no labels in a batch of type {type(batch).__name__}. Give samples as (input, label), a dict with 'labels', or target=….")
    return np.asarray(found).reshape(len(found)) == number


def _equal(column: Column, value: Any, batch: Any) -> np.ndarray:
    return _values(column, batch) == value


def _between(column: Column, low: float, high: float, batch: Any) -> np.ndarray:
    found = _values(column, batch)
    return (found >= low) & (found < high)


def _values(column: Column, batch: Any) -> np.ndarray:
    """One value a sample of a batch."""
    found = column(batch) if callable(column) else batch[column]
    values = np.asarray(found)
    return values.reshape(len(values)) if values.ndim else values


def _read(column: Column, data: Any, name: str) -> np.ndarray:
    """The column of every sample of a data set."""
    if callable(column):
        raise ConfigError(f"by_column({name!r}) is a function of a batch, and data gives single samples. Give values or edges.")
    try:
        return np.asarray([np.asarray(data[i][column]).item() for i in range(len(data))])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise TaskError(f"by_column({name!r}): a sample of the data has no single value there ({type(error).__name__}: {error}). Name another key or position.") from error


def _quantiles(values: np.ndarray, bins: int, name: str) -> list[float]:
    if bins < 2 or values.dtype.kind not in "iuf" or not len(values):
        raise ConfigError(f"by_column({name!r}).bins must be at least 2, of a column of numbers, got {bins} of {values.dtype}. Leave bins out for one slice a value.")
    edges = sorted({float(f"{e:.4g}") for e in np.nanquantile(values, np.arange(1, bins) / bins)})
    return [e for e in edges if values.min() < e <= values.max()] or [float(values.max())]


def _ranges(column: Column, edges: list[float], name: str) -> Slices:
    if any(not high > low for low, high in pairwise(edges)) or not np.isfinite(edges).all():
        raise ConfigError(f"by_column({name!r}).edges must rise, got {edges}. Sort them, and write each once.")
    made: Slices = {f"{name} < {edges[0]:g}": partial(_between, column, -np.inf, edges[0])}
    made |= {f"{low:g} ≤ {name} < {high:g}": partial(_between, column, low, high) for low, high in pairwise(edges)}
    return made | {f"{name} ≥ {edges[-1]:g}": partial(_from, column, edges[-1])}


def _from(column: Column, low: float, batch: Any) -> np.ndarray:
    return _values(column, batch) >= low


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else f"{value:g}" if isinstance(value, float) else str(value)


def _told_apart(where: str, names: Sequence[str]) -> None:
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} has '{twice}' twice, and slices are told apart by their names. Write each once.")
