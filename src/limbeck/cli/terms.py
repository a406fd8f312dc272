"""`limbeck terms`: what an objective may be made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json

FLAGS = {"teacher": "teacher", "labels": "labels", "relational": "the batch's company", "trains": "a module of its own"}


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def terms(name: Annotated[str | None, typer.Argument(help="One term, with its options.")] = None, json_: Json = False, debug: Debug = False) -> None:
        """List the terms that an objective may be made of, or show one."""
        from limbeck import api

        working(lambda log, stop: api.terms(name), json_=json_, debug=debug, render="terms")


def listed(data: Mapping[str, Any]) -> None:
    """All terms as a table, or one with its options."""
    from rich.markdown import Markdown
    from rich.table import Table

    from limbeck.cli.render import console, plain

    out = console()
    if "terms" not in data:
        shown = plain(data)
        out.print(f"[bold]{shown['name']}[/bold]: {shown['summary']}")
        out.print(f"needs: {_needs(data) or '–'}  paper: {_papers(data) or '–'}")
        out.print(Markdown(data["table"]))
        return
    table = Table()
    for column in ("name", "what it does", "needs", "paper"):
        table.add_column(column, no_wrap=column == "name")
    for term in plain(data["terms"]):
        table.add_row(term["name"], term["summary"], _needs(term), _papers(term))
    out.print(table)


def _needs(term: Mapping[str, Any]) -> str:
    return "depends on its options" if term["teacher"] is None else ", ".join(word for key, word in FLAGS.items() if term[key])


def _papers(term: Mapping[str, Any]) -> str:
    return ", ".join(term["papers"])


RENDERERS: dict[str, Callable[[Any], None]] = {"terms": listed}
