"""Line and column of a key in a TOML file, in whichever way it is written."""

import tomllib

import pytest

from limbeck.core.errors import ConfigError
from limbeck.intake.places import located, place

TEXT = '''# "[x]"
[task]
entry = "task.py:task"   # not = here
"quo ted"."ä" = 'a"b'

[contract]
text = """
[[stage]]
\\"""
a = 1"""
raw = \'\'\'[x]\'\'\'
ratio = 1_000.5 # [

[[stage]]
technique = "prune"
config = { ratio = 0.3, ignore = ["a", # one
    'b',
  [ 3 ] ], "k.e" = {} }
[stage.recovery]
training . epochs = 2
[[stage.more]]
x = 1
[[stage.more]]
x = 2
[[ stage ]]
technique = "quantize"
  [ stage . recovery ]
  when = 2020-01-01 00:00:00
'''


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("task",), (2, 1)),
        (("task", "entry"), (3, 1)),
        (("task", "quo ted", "ä"), (4, 11)),
        (("contract", "text"), (7, 1)),
        (("contract", "raw"), (11, 1)),
        (("contract", "ratio"), (12, 1)),
        (("stage", 0), (14, 1)),
        (("stage", 0, "technique"), (15, 1)),
        (("stage", 0, "config", "ratio"), (16, 12)),
        (("stage", 0, "config", "ignore", 1), (17, 5)),
        (("stage", 0, "config", "ignore", 2, 0), (18, 5)),
        (("stage", 0, "config", "k.e"), (18, 12)),
        (("stage", 0, "recovery", "training", "epochs"), (20, 12)),
        (("stage", 0, "more", 1, "x"), (24, 1)),
        (("stage", 1, "technique"), (26, 1)),
        (("stage", 1, "recovery", "when"), (28, 3)),
        (("stage", 1, "recovery", "missing", "deeper"), (27, 3)),
        (("nothing",), None),
    ],
)
def test_the_place_of_a_key(keys, expected):
    tomllib.loads(TEXT)
    assert place(TEXT, keys) == expected


def test_lines_that_end_as_on_windows():
    assert place(TEXT.replace("\n", "\r\n"), ("stage", 0, "config", "ignore", 1)) == (17, 5)


def test_an_error_is_told_with_its_place(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[a]\nb = { c = 1 }\n")
    with pytest.raises(ConfigError, match=r"^x\.toml:2:7: thing\.c is bad$") as error, located(path, under=("a", "b")):
        raise ConfigError("thing.c is bad", path=("thing", "c"))
    assert error.value.path == ("thing", "c")
    with pytest.raises(ConfigError, match=r"^x\.toml: all is bad$"), located(path):
        raise ConfigError("x.toml.all is bad", path=("x.toml", "all"))
