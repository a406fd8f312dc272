"""`limbeck advise`: short trainings that say how to distil this teacher into this student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def advise(
        path: Annotated[Path, typer.Argument(help="The run file.")] = Path("limbeck.toml"),
        student: Annotated[str | None, typer.Option(help="A model of the task, or limbeck:<family>; the run file's distill stage says it otherwise.")] = None,
        epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split, in each training.")] = 3,
        seeds: Annotated[int, typer.Option("--seeds", "-n", min=1, help="How often each setting is tried.")] = 2,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Say whether this teacher helps this student, is too strong for it, and at which temperature and weight, from short trainings."""

        def work(log: Any, stop: Callable[[], bool]) -> Any:
            from limbeck import api

            return api.advise(path, student=student, epochs=epochs, seeds=seeds, log=log, stop=stop)

        working(work, json_=json_, debug=debug, render="advice", note="trying settings")


def advice(data: Mapping[str, Any]) -> None:
    """The settings with their differences, then the answers with their evidence."""
    from rich.box import SIMPLE
    from rich.table import Table

    from limbeck.cli.render import console, plain

    out, data = console(), plain(data)
    gap, metric = data["gap"], data["metric"]["name"]
    table = Table(title=f"{metric} on validation after {data['epochs']} epochs, {data['seeds']} seeds", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for column in ("setting", metric, "better than", "by", "interval", "seconds"):
        table.add_column(column, justify="left" if column in ("setting", "better than") else "right", no_wrap=True)
    for arm in data["arms"]:
        c = arm["compared"]
        spread = f" ± {arm['spread']:.4f}" if arm["spread"] is not None else ""
        against = (c["against"], f"{c['value']:+.4f}", f"[{c['low']:+.4f}, {c['high']:+.4f}]") if c else ("", "", "")
        table.add_row(arm["arm"], f"{arm['validation']:.4f}{spread}", *against, f"{arm['seconds']:.1f}")
    out.print(table)
    out.print(f"  teacher {gap['teacher_metric']:.4f} with {gap['teacher_parameters']:,} parameters, student {gap['student_parameters']:,}", soft_wrap=True)
    for one in data["answers"]:
        out.print(f"[bold]{one['question']}[/bold] {one['answer']}", soft_wrap=True)
        out.print(f"  [dim]{one['why']}[/dim]", soft_wrap=True)


RENDERERS: dict[str, Callable[[Any], None]] = {"advice": advice}
