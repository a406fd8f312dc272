"""A library that isn't there, or is there and broken, is an error with a way out."""

import sys

import pytest

from limbeck.core.errors import MissingLibrary
from limbeck.core.require import require


def module(folder, name: str, text: str, monkeypatch) -> str:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_what_is_there_is_given_and_what_is_not_is_named_with_its_line():
    assert require("json").dumps([1]) == "[1]"
    with pytest.raises(MissingLibrary, match="'surely_not_there' must be installed for this, and isn't. Install it: pip install not-there"):
        require("surely_not_there", pip="not-there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError: operator torchvision::nms does not exist"),
        ("import another_that_is_not_there", "ModuleNotFoundError: No module named 'another_that_is_not_there'"),
        ("from json import nothing", "ImportError: cannot import name 'nothing'"),
        ("raise OSError('libcudart.so: cannot open')", "OSError: libcudart.so: cannot open"),
    ],
)
def test_what_is_there_and_broken_says_how(tmp_path, monkeypatch, text, said):
    name = module(tmp_path, "broken_library", text, monkeypatch)
    with pytest.raises(MissingLibrary, match="'broken_library' is installed and can't be imported") as raised:
        require(name)
    assert said in str(raised.value) and "limbeck doctor" in str(raised.value)
