"""What the user's code is, as a hash: so that a changed model class or metric isn't taken for the one that was measured."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

from limbeck.core.task import Task


def task_identity(task: Task) -> str:
    """SHA-256 over the bytecode of all that a task calls: factories, metric, collate, inputs, outputs, loss, slices.

    Follows functions and classes of the same module; comments and line numbers don't count, libraries count by their version
    elsewhere.
    """
    parts: list[Any] = [
        task.models,
        task.metric.rows,
        task.metric.reduce,
        task.metric.name,
        task.metric.direction,
        task.collate,
        task.inputs,
        task.outputs,
        task.loss,
        task.slices,
        task.ensemble,
        task.teacher,
    ]
    state = hashlib.sha256()
    for line in _lines(parts, set()):
        state.update(line.encode() + b"\n")
    return state.hexdigest()


def _lines(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, (types.FunctionType, types.MethodType, type)):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, types.MethodType):
        yield from _lines(value.__func__, seen)
    elif isinstance(value, types.FunctionType):
        yield from _function(value, seen)
    elif isinstance(value, type):
        yield from _class(value, seen)
    elif isinstance(value, types.CodeType):
        yield from _code(value)
    elif isinstance(value, functools.partial):
        yield from _lines([value.func, list(value.args), value.keywords], seen)
    elif isinstance(value, dict) or type(value).__name__ == "mappingproxy":
        for key in value:
            yield f"key {key!r}"
            yield from _lines(value[key], seen)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _lines(entry, seen)
    elif isinstance(value, (str, int, float, bool, bytes, type(None))):
        yield repr(value)
    else:
        yield f"instance of {type(value).__qualname__}"


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    yield from _code(function.__code__)
    yield from _lines([list(function.__defaults__ or ()), function.__kwdefaults__ or {}], seen)
    for cell in function.__closure__ or ():
        yield from _lines(cell.cell_contents, seen)
    for name in _names(function.__code__):
        used = function.__globals__.get(name)
        if isinstance(used, (types.FunctionType, type)) and used.__module__ == function.__module__:
            yield from _lines(used, seen)
        elif isinstance(used, (str, int, float, bool, tuple)):
            yield f"{name} = {used!r}"


def _class(kind: type, seen: set[int]) -> Iterator[str]:
    yield kind.__qualname__
    for parent in kind.__mro__[1:]:
        if parent.__module__ == kind.__module__:
            yield from _lines(parent, seen)
    for name, member in sorted(vars(kind).items()):
        function = inspect.unwrap(member) if isinstance(member, types.FunctionType) else getattr(member, "__func__", None)
        if isinstance(function, types.FunctionType) and function.__module__ == kind.__module__:
            yield name
            yield from _lines(function, seen)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _code(code: types.CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)
