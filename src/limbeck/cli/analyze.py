"""`limbeck analyze`: where a model's bytes, multiply-adds and time are."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json

TOP = 20  # rows of a table that nobody cut shorter


class By(StrEnum):
    """What a row stands for."""

    LAYER = "layer"
    BLOCK = "block"


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def analyze(
        subject: Annotated[str, typer.Argument(help="file.py:name of a task, a run file, or an ONNX artifact.")] = "limbeck.toml",
        task: Annotated[str | None, typer.Option("--task", help="The task whose samples an artifact is fed: file.py:name.")] = None,
        model: Annotated[str | None, typer.Option(help="Which model of the task; its teacher by default.")] = None,
        runtime: Annotated[str | None, typer.Option(envvar="LIMBECK_TARGET_RUNTIME", help="Where it is timed; the run file's, or onnxruntime.")] = None,
        threads: Annotated[int | None, typer.Option(envvar="LIMBECK_TARGET_THREADS", min=1, help="Threads that one inference may use; the run file's, or 1.")] = None,
        batch: Annotated[int | None, typer.Option(envvar="LIMBECK_TARGET_BATCH", min=1, help="Samples in one call; the run file's, or 1.")] = None,
        by: Annotated[By, typer.Option(help="Rows of the table; JSON holds both.")] = By.LAYER,
        depth: Annotated[int | None, typer.Option(min=1, help="Names of a module path that make a block.")] = None,
        top: Annotated[int, typer.Option(min=1, help="Rows of the table; JSON holds all.")] = TOP,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Show where a model's bytes, multiply-adds and time are, by layer and by block, timed on the target."""

        def work(log: Any, stop: Callable[[], bool]) -> Any:
            from limbeck import api

            found = api.analyze(subject, task=task, model=model, runtime=runtime, threads=threads, batch=batch, depth=depth, stop=stop)
            return found if json_ else {**found, "shown": {"by": str(by), "top": top}}

        working(work, json_=json_, debug=debug, render="analysis", note="counting and timing")
