"""Configs as data: from `Annotated` dataclass fields derive validation, messages, JSON schema, CLI options and docs tables.

A field reads `ratio: Annotated[float, Range(0, 1, closed="left"), Hint("…"), "fraction of channels removed"] = 0.5`:
a type, any number of constraints, an optional hint, and a line of prose.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from limbeck.core.errors import ConfigError, near

T = TypeVar("T")
Keys = tuple[str | int, ...]  # what opens a message, then the keys and positions that lead to a value
DEEPEST = 32  # levels of a table without a form of its own
LARGEST = 2**63  # whole numbers lie below it, on both sides
GREEK_MU, MICRO = "\u03bc", "\u00b5"  # they look alike, and keyboards give either
QUANTITY = re.compile(r"\s*([+-]?\d{1,19}(?:\.\d{1,19})?)\s*([^\W\d_]+|%)\s*")
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
class Unit:
    """A quantity that may also be written as text with a unit, as in "3 ms". `scales`: what one of each unit is, in the field's own."""

    scales: tuple[tuple[str, str], ...]
    example: str

    @property
    def names(self) -> str:
        return ", ".join(name for name, _ in self.scales)


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
    unit: Unit | None = None

    @property
    def is_table(self) -> bool:
        """Whether its value is a table of names that the user chooses."""
        return any(_is_table(kind) for kind in (self.type, *get_args(self.type)))

    @property
    def type_name(self) -> str:
        return _type_name(self.type) + (f', or text as in "{self.unit.example}"' if self.unit else "")

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
        unit=next((e for e in extras if isinstance(e, Unit)), None),
    )


def parse(config: type[T], data: Any, *, where: str) -> T:
    """A config from plain data (TOML, JSON), checked. `where` opens each message, as in `prune.ratio must be …`.

    Raises: ConfigError for an unknown key, a missing one, a wrong type or unit, or a value outside its range; its `path` leads there.
    """
    return _parse(config, data, (where,))


def convert(field: Field, value: Any, *, where: str) -> Any:
    """One option's value, checked and converted as `parse` does it. `where` opens the message. Raises: as `parse`."""
    return _option(field, value, (where,))


def validate(config: T, *, where: str) -> T:
    """The same config, if each value has its type and keeps its constraints (dataclasses inside it too)."""
    return _validate(config, (where,))


def _parse(config: type[T], data: Any, path: Keys) -> T:
    if isinstance(data, config):
        return _validate(data, path)
    if not isinstance(data, Mapping):
        raise ConfigError(f"{_place(path)} must be a table of options, got {data!r}. Write its options as keys.", path=path)
    known = {f.name: f for f in fields_of(config)}
    for key in data:
        if key not in known:
            raise ConfigError(f"{_place((*path, str(key)))} is not an option, got {data[key]!r}. {near(str(key), known)}", path=(*path, str(key)))
    values = {}
    for field in known.values():
        own = (*path, field.name)
        if field.name in data:
            values[field.name] = _option(field, data[field.name], own)
        elif field.required:
            raise ConfigError(f"{_place(own)} is missing; it is {field.type_name}: {field.doc}. Add it.", path=path)
    try:
        made = config(**values)
    except ConfigError as error:  # a rule over several values, which the config holds itself
        raise ConfigError(str(error), path=(*path, *error.path[1:])) from error
    return _validate(made, path)


def _option(field: Field, value: Any, path: Keys) -> Any:
    return _convert(field.type, value, field, path) if field.is_table else _entry(field.type, value, field, path)


def _validate(config: T, path: Keys) -> T:
    for field in fields_of(type(config)):
        _convert(field.type, getattr(config, field.name), field, (*path, field.name))
    return config


def _place(path: Keys) -> str:
    return str(path[0]) + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path[1:])


def _wrong(path: Keys, rule: str, value: Any, way: str) -> ConfigError:
    return ConfigError(f"{_place(path)} must be {rule}, got {_short(value)}. {way}".strip(), path=path)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number with more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _quantity(text: str, field: Field, path: Keys) -> int | float:
    """Text such as "5 MB" as a number in the field's own unit."""
    unit = field.unit or Unit((), "")
    found, scales = QUANTITY.fullmatch(text.replace(GREEK_MU, MICRO)), dict(unit.scales)
    if not found or found[2] not in scales:
        raise _wrong(path, f"a number, or text in {unit.names}", text, f'Write it as in "{unit.example}".')
    amount = Fraction(found[1]) * Fraction(scales[found[2]])
    if int not in (field.type, *get_args(field.type)):
        return float(amount)
    if amount.denominator != 1:
        raise _wrong(path, f"a whole number of {unit.scales[0][0]}", text, f'Write it as in "{unit.example}".')
    return int(amount)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data from which `parse` gives an equal config."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields_of(type(config))}


def json_schema(config: type) -> dict[str, Any]:
    """JSON Schema (2020-12) of a config."""
    properties = {}
    for field in fields_of(config):
        schema = _ruled(_schema(field.type), field) if not field.is_table else _table_schema(field)
        properties[field.name] = schema | ({"description": field.doc} if field.doc else {}) | ({} if field.required else {"default": _plain(field.default)})
    required = [f.name for f in fields_of(config) if f.required]
    return {"type": "object", "additionalProperties": False, "properties": properties} | ({"required": required} if required else {})


def _ruled(schema: dict[str, Any], field: Field) -> dict[str, Any]:
    """The schema of a value, with the unit that it may be written in and the rules that it keeps."""
    if field.unit:
        text = {"type": "string", "pattern": f"^ *[+-]?[0-9]+([.][0-9]+)? *({'|'.join(name for name, _ in field.unit.scales)}) *$"}
        schema = {"anyOf": [*schema.get("anyOf", [schema]), text]}
    for rule in field.constraints:
        if rule.low is not None:
            schema["minimum" if rule.closed in ("both", "left") else "exclusiveMinimum"] = rule.low
        if rule.high is not None:
            schema["maximum" if rule.closed in ("both", "right") else "exclusiveMaximum"] = rule.high
    return schema


def _table_schema(field: Field) -> dict[str, Any]:
    """The schema of an option that is a table: its rules are those of each entry."""
    kinds = get_args(field.type) if get_origin(field.type) in (Union, types.UnionType) else (field.type,)
    made = []
    for kind in kinds:
        entry = _schema(get_args(kind)[1]) if get_args(kind) else {}
        made.append({"type": "null"} if kind is type(None) else {"type": "object", "additionalProperties": _ruled(entry, field)} if entry else _schema(kind))
    return {"anyOf": made} if len(made) > 1 else made[0]


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
    if value == "":
        return '""'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def _convert(kind: Any, value: Any, field: Field, path: Keys) -> Any:
    """`value` as `kind`, or a ConfigError; range rules apply to numbers, also inside tuples."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        for option in kinds[:-1]:
            try:
                return _convert(option, value, field, path)
            except ConfigError:
                continue
        return _convert(kinds[-1], value, field, path)
    if kind is Any:
        return _plain_data(value, path)
    if origin is Literal:
        if not isinstance(value, (str, int, float)) or value not in args:
            raise _wrong(path, f"one of {', '.join(map(repr, args))}", value, field.hint or near(str(value), map(str, args)))
        return value
    if origin is tuple:
        return _entries(value, args, field, path)
    if _is_table(kind):
        if not isinstance(value, Mapping):
            raise _wrong(path, "a table", value, field.hint or "Write it as key = value pairs.")
        return {k: _entry(args[1], v, field, (*path, str(k))) for k, v in value.items()} if args else dict(value)
    if dataclasses.is_dataclass(kind):
        return _parse(typing.cast(type, kind), value, path)
    return _scalar(kind, value, field, path)


def _is_table(kind: Any) -> bool:
    return kind is dict or get_origin(kind) in (dict, Mapping)


def _entry(kind: Any, value: Any, field: Field, path: Keys) -> Any:
    """One entry of a table, which may be written in the option's unit."""
    return _convert(kind, _quantity(value, field, path) if field.unit and isinstance(value, str) else value, field, path)


def _plain_data(value: Any, path: Keys) -> Any:
    """`value`, if it is what JSON can say too: a config is kept with the run, and hashed."""
    if len(path) > DEEPEST:
        raise ConfigError(f"{_place(path[:4])}… is nested more than {DEEPEST} levels deep. Make it flatter.", path=path[:4])
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _plain_data(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _plain_data(inner, (*path, number))
    elif isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, "a finite number", value, "JSON has no other.")
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        raise _wrong(path, "text, a number, true, false, a list or a table", value, "Write it as text.")
    return value


def _entries(value: Any, args: tuple, field: Field, path: Keys) -> tuple:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _wrong(path, "a list", value, field.hint or "Write it in brackets.")
    inner = args[0] if len(args) == 2 and args[1] is Ellipsis else None
    if inner is None and len(args) != len(value):
        raise ConfigError(f"{_place(path)} must have {len(args)} entries, got {len(value)}.", path=path)
    return tuple(_convert(inner or args[i], v, field, (*path, i)) for i, v in enumerate(value))


def _scalar(kind: Any, value: Any, field: Field, path: Keys) -> Any:
    way = field.hint or " ".join(([f"It means: {field.doc}."] if field.doc else []) + ([f'Write it as in "{field.unit.example}".'] if field.unit else []))
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise _wrong(path, SCALARS.get(kind, (kind.__name__, ""))[0], value, way)
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise _wrong(path, "a number below 2^63", value, way)
    if isinstance(value, str) and "\0" in value:
        raise _wrong(path, "text without NUL", value, way)
    for rule in field.constraints:
        if isinstance(value, (int, float)) and not rule.admits(value):
            raise _wrong(path, str(rule), value, way)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, "a finite number", value, way)
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
    if _is_table(kind) and args:
        return f"table, each entry {_type_name(args[1])}" if args[1] in SCALARS else "table"
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
