"""What a term says of itself, and the list that `limbeck terms` prints."""

import json
from typing import Annotated

import pytest
from typer.testing import CliRunner

from limbeck import api
from limbeck.cli.main import app
from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range, fields_of
from limbeck.mechanics.objective import Term
from limbeck.mechanics.terms import ALL
from limbeck.mechanics.terms.card import card


def mine(*, layer: str, share: Annotated[float, Range(0, 1), "how much"] = 0.5) -> Term:
    """Something of mine; see `mine_loss`.

    Source: A & B 2020, arXiv:2001.00001, eq. 1, after arXiv:1901.00002. Differs: from arXiv:1801.00003 in all.
    """
    return Term("mine", lambda seen: seen.student["logits"].sum(), teacher=True, relational=share > 0, student_taps=(layer,))


def printed(*, layer: str) -> Term:
    """From a book.

    Source: C 1999, *A Book*,
    page 3.
    """
    return Term("printed", lambda seen: seen.student["logits"].sum(), student_taps=(layer,))


def choosy(*, layer: str) -> Term:
    """Wants a layer that exists."""
    raise ConfigError(f"choosy.layer must be a real one, got {layer!r}.")


def test_all_is_read_off_signature_and_prose():
    found = card(mine)
    assert (found.name, found.summary, found.papers) == ("mine", "Something of mine", ("arXiv:2001.00001", "arXiv:1901.00002"))
    assert (found.teacher, found.labels, found.relational, found.trains) == (True, False, True, False)
    assert [(f.name, f.required, f.doc) for f in fields_of(found.options)] == [("layer", True, ""), ("share", False, "how much")]


def test_a_source_that_is_no_preprint_stands_in_words():
    assert card(printed).papers == ("C 1999, *A Book*, page 3",)


def test_a_term_that_needs_more_than_a_layers_name_does_not_say_what_it_reads():
    found = card(choosy)
    assert (found.teacher, found.labels, found.relational, found.trains) == (None, None, None, None)


@pytest.mark.parametrize("factory", ALL, ids=lambda f: f.__name__)
def test_every_term_says_what_it_does_whence_it_comes_and_what_each_option_means(factory):
    found = card(factory)
    assert found.name == factory.__name__ and len(found.summary) > 10
    assert found.papers or found.name == "task_loss", "a term has a source"
    assert all(f.doc for f in fields_of(found.options)), "every option needs a line of prose"


def test_the_list_and_one_term_as_data():
    listed = {t["name"]: t for t in api.terms()["terms"]}
    assert list(listed) == sorted(listed) == [f.__name__ for f in ALL]
    one = api.terms("dkd")
    assert one == {"schema": 1, **listed["dkd"]}
    assert one["papers"] == ["arXiv:2203.08679"] and one["labels"] and one["teacher"] and not one["relational"] and not one["trains"]
    assert one["options"]["properties"]["beta"] == {"type": "number", "minimum": 0, "default": 2.0, "description": one["options"]["properties"]["beta"]["description"]}
    assert "| `warm_up` | a number | `0.0` | in [0, 1] |" in one["table"]
    assert listed["retain"]["trains"] and not listed["retain"]["teacher"] and listed["pearson"]["relational"]


def test_the_command():
    run = lambda *words: CliRunner().invoke(app, ["terms", *words], env={"COLUMNS": "160"})  # noqa: E731
    assert json.loads(run("--json").stdout) == api.terms() and json.loads(run("jsd", "--json").stdout) == api.terms("jsd")
    shown = run().stdout
    assert all(f.__name__ in shown for f in ALL) and "arXiv:2203.08679" in shown and "teacher, labels" in shown
    one = run("margin_mse").stdout
    assert one.startswith("margin_mse: Match the margins") and "needs: teacher" in one and "positive" in one
    wrong = run("dkk")
    assert wrong.exit_code == 2 and "there is no term 'dkk'. Did you mean 'dkd'" in wrong.stderr
