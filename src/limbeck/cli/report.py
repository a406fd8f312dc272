"""`limbeck report`: a run as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def report(
        folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")] = Path("runs/run"),
        out: Annotated[Path | None, typer.Option(help="The file to write; by default report.html in the run's folder.")] = None,
        task: Annotated[str | None, typer.Option("--task", help="The task whose test samples are shown: file.py:name; by default that of the run's own run file.")] = None,
        no_samples: Annotated[bool, typer.Option("--no-samples", help="Leave the samples themselves out.")] = False,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Write a run as one HTML file: verdicts, charts, what changed sides, training, profile, how to reproduce."""
        from limbeck import api

        leave(working(lambda log, stop: api.report(folder, out=out, task=task, samples=not no_samples), json_=json_, debug=debug, render="report"))


def written(data: Mapping[str, Any]) -> None:
    """Where the report is, and whether it shows samples."""
    from limbeck.cli.render import console, plain, size, status_text

    out, shown = console(), plain(data)
    out.print(f"{status_text(shown['state'])} {shown['file']}, {size(shown['size_bytes'])}", soft_wrap=True)
    if shown["samples_note"]:
        out.print(f"  [yellow]no samples: {shown['samples_note']}[/yellow]", soft_wrap=True)


RENDERERS: dict[str, Callable[[Any], None]] = {"report": written}
