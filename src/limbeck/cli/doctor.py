"""`limbeck doctor`: this machine, what is installed on it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def doctor(root: Annotated[Path, typer.Option(help="Where runs are kept: its disk is looked at.")] = Path("runs"), json_: Json = False, debug: Debug = False) -> None:
        """Show this machine, the runtimes and extras that are found, and what is known to be wrong; exit 3 if something needed is broken."""
        from limbeck import api

        leave(working(lambda log, stop: api.doctor(root), json_=json_, debug=debug, render="doctor", note="reading the machine, loading each library"))
