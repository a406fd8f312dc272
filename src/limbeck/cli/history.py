"""The commands that look back: runs, rollback, diff, gc, export, import, verify."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
Working = Callable[..., Any]


def register(app: typer.Typer, working: Working, leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the commands to `app`; `working` does one call of the api and prints what came of it, `leave` exits with its code."""

    @app.command()
    def runs(root: Annotated[Path, typer.Argument(help="The folder of runs.")] = Path("runs"), json_: Json = False, debug: Debug = False) -> None:
        """List the runs below a folder: verdict, or under way or interrupted, stages, size, last event."""
        from limbeck import api

        working(lambda log, stop: api.runs(root), json_=json_, debug=debug, render="runs")

    @app.command()
    def rollback(
        folder: RunFolder,
        to: Annotated[str, typer.Option(help="A stage's title, baseline, or the first digits of a stage's key.")],
        out: Annotated[Path | None, typer.Option(help="Also write the stage's artifact here.")] = None,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Bring back the exact bytes of what a stage made; HEAD.json points to it."""
        from limbeck import api

        working(lambda log, stop: api.rollback(folder, to, out=out), json_=json_, debug=debug, render="rollback")

    @app.command()
    def diff(
        a: Annotated[str, typer.Argument(help="A run folder, or RUN@STAGE.")],
        b: Annotated[str, typer.Argument(help="Another.")],
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Show what changed between two runs or two stages: plan, config, edits, evidence, verdicts, versions."""
        from limbeck import api

        working(lambda log, stop: api.diff(a, b), json_=json_, debug=debug, render="diff")

    @app.command()
    def gc(folder: RunFolder, delete: Annotated[bool, typer.Option("--delete", help="Delete them.")] = False, json_: Json = False, debug: Debug = False) -> None:
        """List what no record of a run needs; delete it on request."""
        from limbeck import api

        working(lambda log, stop: api.gc(folder, delete=delete), json_=json_, debug=debug, render="gc")

    @app.command()
    def export(folder: RunFolder, file: Annotated[Path, typer.Argument(help="The zip to write.")], json_: Json = False, debug: Debug = False) -> None:
        """Write a whole run as one zip; equal runs give equal bytes."""
        from limbeck import api

        working(lambda log, stop: api.export_run(folder, file), json_=json_, debug=debug, render="exported")

    @app.command("import")
    def import_(
        file: Annotated[Path, typer.Argument(help="A zip that export wrote.")],
        root: Annotated[Path, typer.Option(help="The folder of runs.")] = Path("runs"),
        name: Annotated[str | None, typer.Option(help="The run's folder, instead of its own name.")] = None,
        limit_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes that it may unpack at most; 64 GB by default.")] = None,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Place an exported run, every byte of it checked first; whole, or not at all."""
        from limbeck import api

        working(lambda log, stop: api.import_run(file, root=root, name=name, limit_bytes=limit_bytes), json_=json_, debug=debug, render="imported")

    @app.command()
    def verify(
        folder: Annotated[Path, typer.Argument(metavar="RUN|PACKAGE", help="A run folder, or a package: its folder or its zip.")], json_: Json = False, debug: Debug = False
    ) -> None:
        """Hash every byte of a run's evidence or of a package, ask a package for its golden answers, and name what doesn't hold; exit 3 if anything doesn't."""
        from limbeck import api

        leave(working(lambda log, stop: api.verify(folder), json_=json_, debug=debug, render="verify"))


def followed(folder: Path, stop: Callable[[], bool], *, json_: bool) -> dict[str, Any] | None:
    """Print a run's events as they come, then its summary; as JSON lines the summary is the last line, and nothing is left to print."""
    from limbeck import api
    from limbeck.cli.lookback import event_line

    for event in api.follow(folder, stop=stop):
        typer.echo(json.dumps(event, ensure_ascii=False) if json_ else event_line(event))
    summary = api.status(folder)
    if not json_:
        return summary
    typer.echo(json.dumps({"event": "summary", **summary}, ensure_ascii=False))
    return None
