"""Configs as data: from `Annotated` dataclass fields derive validation, messages, JSON schema, CLI options and docs tables.

A field reads `ratio: Annotated[float, Range(0, 1, closed="left"), Hint("…"), "fraction of channels removed"] = 0.5`:
a type, any number of constraints, an optional hint, and a line of prose.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from limbeck.core.errors import ConfigError, near

T = TypeVar("T")
SCALARS: dict[type, tuple[str, str]] = {bool: ("true or false", "boolean"), int: ("a whole number", "integer"), float: ("a number", "number"), str: ("text", "string")}


@dataclass(frozen=True)
class Range:
    """A number between two ends; `None` leaves a side open. `closed` names the ends that belong to it."""

    low: float | None
    high: float | None
    closed: Literal["both", "left", "right", "neither"] = "both"

    def admits(self, value: float) -> bool:
        if isinstance(value, float) and math.isnan(value):
            return False
        over = self.low is None or value > self.low or (value == self.low and self.closed in ("both", "left"))
        under = self.high is None or value < self.high or (value == self.high and self.closed in ("both", "right"))
        return over and under

    def __str__(self) -> str:
        if self.high is None:
            return f"{'≥' if self.closed in ('both', 'left') else '>'} {self.low:g}" if self.low is not None else "any number"
        if self.low is None:
            return f"{'≤' if self.closed in ('both', 'right') else '<'} {self.high:g}"
        return f"in {'[' if self.closed in ('both', 'left') else '('}{self.low:g}, {self.high:g}{']' if self.closed in ('both', 'right') else ')'}"


@dataclass(frozen=True)
class Hint:
    """The way out, shown when the value breaks the rule."""

    text: str


@dataclass(frozen=True)
class Field:
    """One option of a config, as everything that is derived from configs sees it."""

    name: str
    type: Any
    default: Any
    required: bool
    constraints: tuple[Range, ...]
    hint: str
    doc: str

    @property
    def type_name(self) -> str:
        return _type_name(self.type)

    @property
    def rule(self) -> str:
        return " and ".join(str(c) for c in self.constraints)


@cache
def fields_of(config: type) -> tuple[Field, ...]:
    """The options of a config dataclass, in the order in which they are written."""
    hints = typing.get_type_hints(config, include_extras=True)
    return tuple(_field(f, hints[f.name]) for f in dataclasses.fields(config) if f.init)


def _field(raw: dataclasses.Field, hint: Any) -> Field:
    kind, extras = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is typing.Annotated else (hint, ())
    has_factory = raw.default_factory is not dataclasses.MISSING
    default = raw.default_factory() if has_factory else raw.default  # type: ignore[misc]
    return Field(
        name=raw.name,
        type=kind,
        default=None if default is dataclasses.MISSING else default,
        required=default is dataclasses.MISSING,
        constraints=tuple(e for e in extras if isinstance(e, Range)),
        hint=" ".join(e.text for e in extras if isinstance(e, Hint)),
        doc=" ".join(e for e in extras if isinstance(e, str)),
    )


def parse(config: type[T], data: Any, *, where: str) -> T:
    """A config from plain data (TOML, JSON), checked. `where` opens each message, as in `prune.ratio must be …`.

    Raises: ConfigError for an unknown key, a missing one, a wrong type or a value outside its range.
    """
    if isinstance(data, config):
        return validate(data, where=where)
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a table of options, got {data!r}. Write its options as keys.")
    known = {f.name: f for f in fields_of(config)}
    for key in data:
        if key not in known:
            raise ConfigError(f"{where}.{key} is not an option, got {data[key]!r}. {near(str(key), known)}")
    values = {}
    for field in known.values():
        if field.name in data:
            values[field.name] = _convert(field.type, data[field.name], field, where=f"{where}.{field.name}")
        elif field.required:
            raise ConfigError(f"{where}.{field.name} is missing; it is {field.type_name}: {field.doc}. Add it.")
    return validate(config(**values), where=where)


def validate(config: T, *, where: str) -> T:
    """The same config, if each value has its type and keeps its constraints (dataclasses inside it too)."""
    for field in fields_of(type(config)):
        _convert(field.type, getattr(config, field.name), field, where=f"{where}.{field.name}")
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data from which `parse` gives an equal config."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields_of(type(config))}


def json_schema(config: type) -> dict[str, Any]:
    """JSON Schema (2020-12) of a config."""
    properties = {}
    for field in fields_of(config):
        schema = _schema(field.type)
        for rule in field.constraints:
            if rule.low is not None:
                schema["minimum" if rule.closed in ("both", "left") else "exclusiveMinimum"] = rule.low
            if rule.high is not None:
                schema["maximum" if rule.closed in ("both", "right") else "exclusiveMaximum"] = rule.high
        properties[field.name] = schema | ({"description": field.doc} if field.doc else {}) | ({} if field.required else {"default": _plain(field.default)})
    required = [f.name for f in fields_of(config) if f.required]
    return {"type": "object", "additionalProperties": False, "properties": properties} | ({"required": required} if required else {})


def table(config: type) -> str:
    """A Markdown table of a config's options: what the documentation shows."""
    rows = ["| option | type | default | rule | meaning |", "| --- | --- | --- | --- | --- |"]
    for f in fields_of(config):
        default = "required" if f.required else f"`{_toml(_plain(f.default))}`"
        rows.append(f"| `{f.name}` | {f.type_name} | {default} | {f.rule} | {f.doc} |".replace("  ", " "))
    return "\n".join(rows)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def _convert(kind: Any, value: Any, field: Field, *, where: str) -> Any:
    """`value` as `kind`, or a ConfigError; range rules apply to numbers, also inside tuples."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        for option in kinds[:-1]:
            try:
                return _convert(option, value, field, where=where)
            except ConfigError:
                continue
        return _convert(kinds[-1], value, field, where=where)
    if kind is Any:
        return value
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, args))}, got {value!r}. {field.hint or near(str(value), map(str, args))}".strip())
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, got {value!r}. {field.hint or 'Write it in brackets.'}")
        inner = args[0] if len(args) == 2 and args[1] is Ellipsis else None
        if inner is None and len(args) != len(value):
            raise ConfigError(f"{where} must have {len(args)} entries, got {len(value)}.")
        return tuple(_convert(inner or args[i], v, field, where=f"{where}[{i}]") for i, v in enumerate(value))
    if kind is dict or origin in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, got {value!r}. {field.hint or 'Write it as key = value pairs.'}")
        return {k: _convert(args[1], v, field, where=f"{where}.{k}") for k, v in value.items()} if args else dict(value)
    if dataclasses.is_dataclass(kind):
        return parse(typing.cast(type, kind), value, where=where)
    return _scalar(kind, value, field, where=where)


def _scalar(kind: Any, value: Any, field: Field, *, where: str) -> Any:
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} must be {SCALARS.get(kind, (kind.__name__, ''))[0]}, got {value!r}. {field.hint or field.doc}".strip())
    for rule in field.constraints:
        if isinstance(value, (int, float)) and not rule.admits(value):
            raise ConfigError(f"{where} must be {rule}, got {value!r}. {field.hint or field.doc}".strip())
    return float(value) if kind is float else value


def _type_name(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        names = [_type_name(a) for a in args if a is not type(None)]
        return " or ".join(names) + (", or none" if type(None) in args else "")
    if origin is Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin is tuple:
        return f"list of {_type_name(args[0])}"
    if kind in SCALARS:
        return SCALARS[kind][0]
    return "table" if dataclasses.is_dataclass(kind) or kind is dict or origin is not None else getattr(kind, "__name__", "any")


def _schema(kind: Any) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if a is type(None) else _schema(a) for a in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0])}
    if kind in SCALARS:
        return {"type": SCALARS[kind][1]}
    if dataclasses.is_dataclass(kind):
        return json_schema(typing.cast(type, kind))
    return {"type": "object"} if kind is dict or origin is not None else {}
