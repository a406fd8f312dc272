"""What is deployed: `package` writes it, `evidence import` brings back what it measured elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
Working = Callable[..., Any]


def register(app: typer.Typer, working: Working, leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the commands to `app`; `working` does one call of the api and prints what came of it, `leave` exits with its code."""

    @app.command()
    def package(
        folder: RunFolder,
        out: Annotated[Path | None, typer.Option(help="The folder to write; packages/RUN by default. The zip stands beside it.")] = None,
        stage: Annotated[str, typer.Option(help="final, a stage's title, baseline, or the first digits of a stage's key.")] = "final",
        baseline: Annotated[
            bool | None, typer.Option("--with-baseline/--no-baseline", help="Take the baseline along, to be timed in turn elsewhere; by default if the contract limits speedup.")
        ] = None,
        golden: Annotated[bool, typer.Option("--golden/--no-golden", help="Take golden samples along: a few of the validation split, as they are.")] = True,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Write what a run deploys: artifact, manifest, golden answers, predict.py, card, bill of materials."""
        from limbeck import api

        working(
            lambda log, stop: api.package(folder, out=out, stage=stage, baseline=baseline, samples=golden).summary(), json_=json_, debug=debug, render="package", note="packing"
        )

    evidence = typer.Typer(no_args_is_help=True, help="Evidence from another device.")
    app.add_typer(evidence, name="evidence")

    @evidence.command("import")
    def import_(
        folder: RunFolder,
        file: Annotated[Path, typer.Argument(help="What `predict.py --measure` wrote.")],
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Record it in the run; where the target says host = "imported", judge the contract with it."""
        from limbeck import api

        leave(working(lambda log, stop: api.import_evidence(folder, file), json_=json_, debug=debug, render="evidence"))


def packaged(data: Mapping[str, Any]) -> None:
    """Where the package is, and what it holds."""
    from rich.box import SIMPLE
    from rich.table import Table

    from limbeck.cli.render import console, plain, size, status_text

    out, data = console(), plain(data)
    table = Table(box=SIMPLE, padding=(0, 1))
    for column in ("file", "size"):
        table.add_column(column, overflow="fold")
    for name, count in data["files"].items():
        table.add_row(name, size(count))
    out.print(table)
    for name, why in data["absent"].items():
        out.print(f"  [yellow]without {name}[/yellow]: {why}", soft_wrap=True)
    of = "the run's verdict" if data["final"] else f"the gate of stage {data['stage']}; the contract was not judged for it"
    out.print(f"{status_text(data['verdict'])} ({of})", soft_wrap=True)
    out.print(f"package: {data['folder']} and {data['zip']}\nartifact sha256 {data['artifact']['sha256']}", soft_wrap=True)


def imported(data: Mapping[str, Any]) -> None:
    """What the evidence says, and what it changed."""
    from limbeck.cli.render import console, milliseconds, plain, status_text, verdicts_table

    out, data = console(), plain(data)
    latency = data["latency_ms"]
    out.print(f"measured on {data['machine'].get('processor')}: p50 {milliseconds(latency, 'p50')} ms, p90 {milliseconds(latency, 'p90')} ms", soft_wrap=True)
    for note in data["notes"]:
        out.print(f"  [yellow]{note}[/yellow]", soft_wrap=True)
    out.print(verdicts_table(data["contract"]))
    out.print(f"{status_text(data['verdict'])} {data['run']}" + ("" if data["used"] else ": as before"))


RENDERERS: dict[str, Callable[[Any], None]] = {"package": packaged, "evidence": imported}
