"""Options by environment: `LIMBECK_<TABLE>_<OPTION>` for what a run file's tables say, checked by the same rules. Flags win over it, it over the file."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import Field, convert, fields_of

PREFIX = "LIMBECK_"
SWITCHES: Mapping[str, str] = {
    "LIMBECK_JSON": "as `--json`: facts as JSON instead of tables",
    "LIMBECK_LOG_JSON": "as `--log-json`: what happens as JSON lines on stderr",
    "LIMBECK_DEBUG": "as `--debug`: the traceback of an error",
}
TOLERATED: Mapping[str, str] = {"LIMBECK_DATA": "where the project's own tests and benchmarks find real data; limbeck doesn't read it"}


@dataclass(frozen=True)
class Variable:
    """A variable, and the option that it sets."""

    name: str
    table: str
    option: Field


def variables(tables: Mapping[str, type]) -> dict[str, Variable]:
    """Every variable of these tables (name in the run file → config), by its name. An option that is a table has none: one value can't say it."""
    found = [Variable(_named(table, option), table, option) for table, config in tables.items() for option in fields_of(config) if not option.is_table]
    return {v.name: v for v in found}


def _named(table: str, option: Field) -> str:
    return f"{PREFIX}{table}_{option.name}".upper()


def check_known(tables: Mapping[str, type], environment: Mapping[str, str] | None = None) -> None:
    """Raises ConfigError for a variable that begins with LIMBECK_ and means nothing: it was mistyped, and would be missed in silence."""
    known = {*variables(tables), *SWITCHES, *TOLERATED}
    whole = {_named(table, option): f"{table}.{option.name}" for table, config in tables.items() for option in fields_of(config) if option.is_table}
    for name in os.environ if environment is None else environment:
        if name in whole:
            raise ConfigError(f"{name} is no variable that limbeck reads: {whole[name]} is a table, which one value can't say. Write it in the run file.", path=(name,))
        if name.startswith(PREFIX) and name not in known:
            raise ConfigError(f"{name} is no variable that limbeck reads. {near(name, known)} Correct its name, or unset it.", path=(name,))


def overlay(tables: Mapping[str, type], environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """By table and option, what the environment sets, checked; a variable that is empty sets nothing.

    Raises: ConfigError that opens with the variable's name.
    """
    environment = os.environ if environment is None else environment
    found: dict[str, dict[str, Any]] = {}
    for variable in variables(tables).values():
        text = environment.get(variable.name, "").strip()
        if text:
            found.setdefault(variable.table, {})[variable.option.name] = convert(variable.option, _value(text, variable.option), where=variable.name)
    return found


def in_effect(tables: Mapping[str, type], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that set something, as they are written."""
    environment = os.environ if environment is None else environment
    return {name: environment[name].strip() for name in variables(tables) if environment.get(name, "").strip()}


def _value(text: str, option: Field) -> Any:
    """Text as TOML would read it without quotes: what isn't a number, true or false stays text, for the rule to judge."""
    kinds = {k for k in (get_args(option.type) if get_origin(option.type) in (Union, types.UnionType) else (option.type,)) if k is not type(None)}
    if str in kinds or any(get_origin(kind) is Literal for kind in kinds):
        return text
    if bool in kinds:
        return {"true": True, "false": False}.get(text, text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
