"""`limbeck repeat`: one run file under several seeds, each beside its student without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.options import Debug, Json


def register(app: typer.Typer, working: Callable[..., Any], leave: Callable[[dict[str, Any]], None]) -> None:
    """Add the command to `app`."""

    @app.command()
    def repeat(
        path: Annotated[Path, typer.Argument(help="The run file.")] = Path("limbeck.toml"),
        seeds: Annotated[int, typer.Option("--seeds", "-n", min=1, help="How many seeds, from the file's run.seed on.")] = 3,
        name: Annotated[str | None, typer.Option(help="What the runs' folders begin with, instead of the file's run.name.")] = None,
        json_: Json = False,
        log_json: Annotated[bool, typer.Option("--log-json", envvar="LIMBECK_LOG_JSON", help="Write what happens to stderr as JSON lines.")] = False,
        debug: Debug = False,
    ) -> None:
        """Carry out a run file under several seeds, each with its control without a teacher, and compare; called again, it goes on."""
        from limbeck import api

        work = lambda log, stop: api.repeat(path, seeds=seeds, name=name, log=log, stop=stop)  # noqa: E731
        leave(working(work, json_=json_, debug=debug, render="repeated", log_json=log_json))


def repeated(data: Mapping[str, Any]) -> None:
    """A row a seed, the means, and the difference with its interval."""
    from rich.box import SIMPLE
    from rich.table import Table

    from limbeck.cli.render import console, plain, status_text

    out, data = console(), plain(data)
    metric = data["metric"]["name"] or "metric"
    table = Table(title=f"{metric} on test, a run a seed; validation after the last epoch and after the best", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for column in ("run", "verdict", "final", "control", "final: last, best", "control: last, best"):
        table.add_column(column, justify="left" if column in ("run", "verdict") else "right", no_wrap=True)
    for one in data["runs"]:
        own = [t for t in one["trainings"] if t["stage"] != "control"]
        beside = [t for t in one["trainings"] if t["stage"] == "control"]
        table.add_row(one["run"], status_text(one["verdict"]), _figure(one["final"]), _figure(one["control"]), _epochs(own), _epochs(beside))
    table.add_row("mean ± spread", "", _mean(data["final"]), _mean(data["control"]), "", "")
    out.print(table)
    for one in data["runs"]:
        if one["note"] and data["difference"]:
            out.print(f"  {one['run']}: {one['note']}", soft_wrap=True)
    out.print(_difference(data), soft_wrap=True)
    out.print(f"  {data['test_looks']} looks at this test split so far; no figure here chose a weight or an epoch by it", soft_wrap=True)


def _difference(data: Mapping[str, Any]) -> str:
    found = data["difference"]
    if found is None:
        return str(data["difference_note"])
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] > 1 else ''}"
    sure = "above 0" if found["low"] > 0 else "below 0" if found["high"] < 0 else "0 is within it"
    interval = f"{found['confidence']:.0%} interval {found['low']:+.4f} to {found['high']:+.4f}"
    told = f"final over control (above 0: the final is better): [bold]{found['value']:+.4f}[/bold], {interval} over samples and {seeds}: {sure}"
    return told + (f" ({data['difference_note']})" if data["difference_note"] else "")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _mean(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{found['mean']:.4f}" + (f" ± {found['spread']:.4f}" if found["spread"] is not None else "")


def _epochs(trainings: list[Mapping[str, Any]]) -> str:
    """Of the last training: a star stands at what was kept."""
    if not trainings:
        return "–"
    last, best, kept = (trainings[-1][k] for k in ("last", "best", "kept"))
    ends = [f"{_figure(one['validation'])}{'*' if one['epoch'] == kept['epoch'] else ''}" for one in (last, best)]
    return f"{ends[0]}, {ends[1]} ({best['epoch']})"


RENDERERS: dict[str, Callable[[Any], None]] = {"repeated": repeated}
