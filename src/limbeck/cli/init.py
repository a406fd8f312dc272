"""`limbeck init`: from flags and, on a terminal, questions, to the files of a first run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json

Working = Callable[..., Any]
Text = str | None
Words = list[str] | None


def register(app: typer.Typer, working: Working, leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def init(
        folder: Annotated[Path, typer.Argument(help="Where task.py and limbeck.toml are written.")] = Path("."),
        model: Annotated[Text, typer.Option(help="file.py:Class, a transformers folder or name, timm:NAME, file.onnx; none: one is trained on your data.")] = None,
        weights: Annotated[Text, typer.Option(help="The state dict of the model, .safetensors or .pt; none: the model loads its own, or is trained.")] = None,
        data: Annotated[Text, typer.Option(help="A folder of images, a CSV or TSV file, or file.py:name that gives the splits.")] = None,
        train_teacher: Annotated[bool | None, typer.Option("--train-teacher/--no-train-teacher", help="Without weights: write a script that trains a teacher.")] = None,
        text: Annotated[Text, typer.Option(help="CSV: the column that holds the text; none: a table of numbers.")] = None,
        label: Annotated[Text, typer.Option(help="CSV: the column that holds the label.")] = None,
        ignore: Annotated[Words, typer.Option(help="CSV: a column that the model doesn't see; may be given again.")] = None,
        split_column: Annotated[Text, typer.Option(help="CSV: the column that says train, validation or test; none: a split by hash.")] = None,
        classes: Annotated[Words, typer.Option(help="A class, in the order of the model's outputs; given once for each.")] = None,
        kind: Annotated[Text, typer.Option(help="What the labels are: classification or regression.")] = None,
        image_size: Annotated[Text, typer.Option(help="Images: pixels to which each side is resized.")] = None,
        normalise: Annotated[Text, typer.Option(help="Images: train (its own figures), imagenet, or none (0 to 1).")] = None,
        output: Annotated[Text, typer.Option(help="ONNX: which of several outputs is judged.")] = None,
        metric: Annotated[Text, typer.Option(help="accuracy, macro_f1, roc_auc; r2, mae, mse.")] = None,
        limit: Annotated[Words, typer.Option(help="A limit of the contract, as in retention=0.97 or size_ratio=4; may be given again.")] = None,
        slice_: Annotated[Words, typer.Option("--slice", help="A column whose values are looked at by themselves; may be given again.")] = None,
        runtime: Annotated[Text, typer.Option(help="Where the result will run.")] = None,
        threads: Annotated[Text, typer.Option(help="Threads that one inference may use.")] = None,
        epochs: Annotated[Text, typer.Option(help="Epochs of training.")] = None,
        defaults: Annotated[bool, typer.Option("--defaults", "-y", help="Ask nothing: take the default of what isn't given.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
        json_: Json = False,
        debug: Debug = False,
    ) -> None:
        """Write task.py and limbeck.toml for a model and data of your own; asks on a terminal, else takes flags and defaults."""
        teach = None if train_teacher is None else "yes" if train_teacher else "no"
        given = {"model": model, "weights": weights, "data": data, "train_teacher": teach, "text": text, "label": label, "ignore": ignore, "split_column": split_column}
        given |= {"classes": classes, "kind": kind, "image_size": image_size, "normalise": normalise, "output": output, "metric": metric, "limit": limit, "slice": slice_}
        given |= {"runtime": runtime, "threads": threads, "epochs": epochs}
        ask = None if defaults or not (sys.stdin.isatty() and sys.stderr.isatty()) else _asked

        def work(log: Any, stop: Callable[[], bool]) -> Any:
            from limbeck import api

            return api.init(folder, given, ask=ask, force=force)

        leave(working(work, json_=json_, debug=debug, render="init", quiet=True))


def _asked(question: Any, problem: str) -> str:
    """Put one question on stderr and read the answer; an empty one is the default. Ctrl-C and Ctrl-D leave."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False, emoji=False)
    if problem:
        console.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    console.print(f"[bold]{escape(question.text)}[/]{escape(choices)}\n  [dim]{escape(question.consequence)}[/]", soft_wrap=True)
    shown = f" [dim]{escape('[' + question.default + ']')}[/]" if question.default is not None else ""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # here Ctrl-C leaves at once: nothing is under way
    try:
        while True:
            answer = console.input(f"{question.flag.removeprefix('--')}{shown}: ").strip()
            if answer or question.default is not None:
                return answer or str(question.default)
    except EOFError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def _render(data: Mapping[str, Any]) -> None:
    from limbeck.cli.render import console, plain

    out, data = console(), plain(data)
    where = Path(data["folder"])
    out.print("[bold]Decided[/]")
    for one in data["decided"]:
        out.print(f"  {one['key']} = {one['value']}  [dim]{one['how']}[/]", soft_wrap=True)
    for key, value in data["data"].items():
        if key != "samples" and value:
            out.print(f"  {key}: {', '.join(map(str, value)) if isinstance(value, list) else value}", soft_wrap=True)
    out.print(f"  samples: {', '.join(f'{count} {split}' for split, count in data['data']['samples'].items())}")
    teacher = data["teacher"]
    if teacher["validation"] is not None:
        out.print(f"  the teacher: {teacher['metric']} {teacher['validation']:.3f} on samples of validation")
    for note in data["notes"]:
        out.print(f"[yellow]note[/] {note}", soft_wrap=True)
    out.print(f"[bold]Written[/] {', '.join(data['written'])} in {where}", soft_wrap=True)
    here = "" if where == Path.cwd() else f"cd {where} && "
    out.print(f"[bold]Next[/]    {here}{' && '.join(data['next'])}", soft_wrap=True)


RENDERERS: dict[str, Callable[[Any], None]] = {"init": _render}
