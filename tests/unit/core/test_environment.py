"""Variables of the environment, judged by the rules of the options that they set."""

from __future__ import annotations

import pytest

from limbeck.core.environment import SWITCHES, check_known, in_effect, overlay, variables
from limbeck.core.errors import ConfigError
from limbeck.core.fields import fields_of
from limbeck.intake.runfile import TABLES


def test_every_option_of_the_three_tables_has_a_variable():
    found = variables(TABLES)
    assert {"LIMBECK_RUN_ROOT", "LIMBECK_TARGET_THREADS", "LIMBECK_CONTRACT_SIZE_BYTES"} <= found.keys()
    assert len(found) == sum(not option.is_table for config in TABLES.values() for option in fields_of(config))


def test_an_option_that_is_a_table_has_none_and_says_so():
    with pytest.raises(ConfigError, match="CONTRACT_SLICE_RETENTION is no variable .* is a table, which one value can't say. Write it in the run file"):
        check_known(TABLES, {"LIMBECK_CONTRACT_SLICE_RETENTION": "0.9"})


@pytest.mark.parametrize(
    ("name", "text", "table", "option", "value"),
    [
        ("LIMBECK_RUN_ROOT", "elsewhere/runs", "run", "root", "elsewhere/runs"),
        ("LIMBECK_RUN_NAME", "7", "run", "name", "7"),
        ("LIMBECK_RUN_SEED", " 12 ", "run", "seed", 12),
        ("LIMBECK_RUN_CONTROL", "false", "run", "control", False),
        ("LIMBECK_RUN_TIMING_SECONDS", "3", "run", "timing_seconds", 3.0),
        ("LIMBECK_TARGET_THREADS", "2", "target", "threads", 2),
        ("LIMBECK_TARGET_HOST", "imported", "target", "host", "imported"),
        ("LIMBECK_CONTRACT_SIZE_BYTES", "5 MB", "contract", "size_bytes", 5_000_000),
        ("LIMBECK_CONTRACT_RETENTION", "97 %", "contract", "retention", 0.97),
        ("LIMBECK_CONTRACT_LATENCY_P90_MS", "0.5s", "contract", "latency_p90_ms", 500.0),
        ("LIMBECK_CONTRACT_SIZE_RATIO", "1e1", "contract", "size_ratio", 10.0),
    ],
)
def test_text_becomes_what_toml_would_say(name, text, table, option, value):
    got = overlay(TABLES, {name: text})[table][option]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("LIMBECK_TARGET_THREADS", "many", "a whole number, got 'many'"),
        ("LIMBECK_TARGET_THREADS", "0", "in [1, 1024], got 0"),
        ("LIMBECK_TARGET_THREADS", "1.5", "a whole number, got 1.5"),
        ("LIMBECK_CONTRACT_SIZE_BYTES", "5 ms", "text in B, kB, MB"),
        ("LIMBECK_CONTRACT_RETENTION", "nan", "got nan"),
        ("LIMBECK_CONTRACT_RETENTION", "97", "for 97 % write 0.97"),
        ("LIMBECK_RUN_CONTROL", "yes", "true or false, got 'yes'"),
        ("LIMBECK_TARGET_HOST", "remote", "one of 'local', 'imported'"),
    ],
)
def test_a_bad_value_is_refused_by_the_variables_name(name, text, said):
    with pytest.raises(ConfigError) as caught:
        overlay(TABLES, {name: text})
    assert str(caught.value).startswith(f"{name} must be") and said in str(caught.value)


def test_an_unknown_variable_is_refused_with_near_names_and_known_ones_are_not():
    with pytest.raises(ConfigError, match="LIMBECK_RUN_ROT is no variable.*Did you mean.*'LIMBECK_RUN_ROOT'"):
        check_known(TABLES, {"LIMBECK_RUN_ROT": "x"})
    check_known(TABLES, {"LIMBECK_DATA": "x", "PATH": "y", "limbeck_run_rot": "z", **dict.fromkeys(SWITCHES, "1"), **dict.fromkeys(variables(TABLES), "1")})


def test_what_is_empty_sets_nothing_and_what_has_effect_is_listed_as_written():
    environment = {"LIMBECK_RUN_ROOT": "", "LIMBECK_RUN_SEED": "3", "LIMBECK_CONTRACT_SIZE_BYTES": "5 MB", "LIMBECK_DATA": "x"}
    assert overlay(TABLES, environment) == {"run": {"seed": 3}, "contract": {"size_bytes": 5_000_000}}
    assert in_effect(TABLES, environment) == {"LIMBECK_RUN_SEED": "3", "LIMBECK_CONTRACT_SIZE_BYTES": "5 MB"}
