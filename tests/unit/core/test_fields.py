"""Configs as data: parsing, messages, schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, Unit, fields_of, json_schema, parse, table, to_dict, validate


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: Annotated[int, Range(1, 5), "how many"] = 2


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: Annotated[str, "what it is called"]
    ratio: Annotated[float, Range(0, 1, closed="left"), Hint("For 12 % write 0.12."), "a fraction"] = 0.5
    mode: Annotated[Literal["a", "b"], "which"] = "a"
    inner: Annotated[Inner, "nested"] = field(default_factory=Inner)
    many: Annotated[tuple[Inner, ...], "a list of them"] = ()
    limit: Annotated[int | None, Range(0, None, closed="neither"), "a limit"] = None
    on: bool = False


def test_round_trip():
    config = Outer(name="x", ratio=0.25, many=(Inner(count=3), Inner()), limit=7)
    assert parse(Outer, to_dict(config), where="outer") == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "ratio": 1.2}, "outer.ratio must be in [0, 1), got 1.2. For 12 % write 0.12."),
        ({"name": "x", "ratio": float("nan")}, "outer.ratio must be in [0, 1), got nan"),
        ({"name": "x", "ratio": True}, "outer.ratio must be a number, got True"),
        ({"name": "x", "ratoi": 1}, "outer.ratoi is not an option, got 1. Did you mean 'ratio'?"),
        ({}, "outer.name is missing; it is text: what it is called. Add it."),
        ({"name": 3}, "outer.name must be text, got 3"),
        ({"name": "x", "mode": "c"}, "outer.mode must be one of 'a', 'b', got 'c'"),
        ({"name": "x", "inner": {"count": 9}}, "outer.inner.count must be in [1, 5], got 9"),
        ({"name": "x", "inner": 4}, "outer.inner must be a table of options, got 4"),
        ({"name": "x", "many": [{"count": 0}]}, "outer.many[0].count must be in [1, 5], got 0"),
        ({"name": "x", "many": "ab"}, "outer.many must be a list, got 'ab'"),
        ({"name": "x", "limit": 0}, "outer.limit must be > 0, got 0"),
        ({"name": "x", "limit": 1.5}, "outer.limit must be a whole number, got 1.5"),
        ({"name": "x", "on": 1}, "outer.on must be true or false, got 1"),
        ([], "outer must be a table of options, got []"),
    ],
)
def test_messages_say_where_rule_value_and_way_out(data, message):
    with pytest.raises(ConfigError) as error:
        parse(Outer, data, where="outer")
    assert message in str(error.value)


def test_an_instance_built_by_hand_is_validated_too():
    with pytest.raises(ConfigError, match=r"outer.inner.count must be in \[1, 5\], got 0"):
        validate(Outer(name="x", inner=Inner(count=0)), where="outer")


def test_integers_are_numbers_but_become_floats():
    assert isinstance(parse(Outer, {"name": "x", "ratio": 0}, where="outer").ratio, float)


def test_schema_and_table_derive_from_the_same_fields():
    schema = json_schema(Outer)
    assert schema["required"] == ["name"] and schema["additionalProperties"] is False
    assert schema["properties"]["ratio"] == {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "description": "a fraction", "default": 0.5}
    assert schema["properties"]["mode"]["enum"] == ["a", "b"]
    rows = table(Outer).splitlines()
    assert len(rows) == 2 + len(fields_of(Outer)) and "| `ratio` | a number | `0.5` | in [0, 1) | a fraction |" in rows


@dataclass(frozen=True, kw_only=True)
class Tabled:
    each: Annotated[Mapping[str, float] | None, Range(0, 1), Unit((("%", "0.01"),), "97 %"), "a share for each name"] = None
    free: Annotated[Mapping[str, Any], "anything"] = field(default_factory=dict)


def test_a_table_of_names_holds_values_that_keep_the_rules_of_its_option():
    config = parse(Tabled, {"each": {"a b": "50 %", "c": 1}, "free": {"x": [1]}}, where="t")
    assert config.each == {"a b": 0.5, "c": 1.0} and parse(Tabled, to_dict(config), where="t") == config
    wrong = [({"a": 2}, "t.each.a must be in [0, 1], got 2"), ({"a": "5 MB"}, "t.each.a must be a number, or text in %")]
    for bad, says in (*wrong, (0.5, "t.each must be a table"), ({"a": None}, "t.each.a must be")):
        with pytest.raises(ConfigError, match=re.escape(says)):
            parse(Tabled, {"each": bad}, where="t")
    assert [f.is_table for f in fields_of(Tabled)] == [True, True] and not any(f.is_table for f in fields_of(Outer))


def test_a_table_of_names_in_schema_and_docs():
    schema = json_schema(Tabled)["properties"]
    entry = schema["each"]["anyOf"][0]["additionalProperties"]
    assert (entry["minimum"], entry["maximum"]) == (0, 1) and {"type": "null"} in schema["each"]["anyOf"] and "minimum" not in schema["each"]
    assert schema["free"]["type"] == "object" and "additionalProperties" not in schema["free"]
    assert "table, each entry a number, or none" in table(Tabled)
