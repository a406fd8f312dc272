"""The command line: parse, one call of the api, render. Exit codes: 0 PASS, 2 usage, 3 FAIL, 4 not settled, 5 refused, 130 interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from limbeck.cli import advise as advising
from limbeck.cli import analyze as analyzing
from limbeck.cli import doctor as doctoring
from limbeck.cli import history
from limbeck.cli import init as beginning
from limbeck.cli import package as packaging
from limbeck.cli import repeat as repeating
from limbeck.cli import report as reporting
from limbeck.cli import terms as terming
from limbeck.cli.options import Debug, Json
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import LimbeckError
from limbeck.core.fields import Field, fields_of, parse
from limbeck.core.proof import Proof
from limbeck.core.secrets import masked_text

app = typer.Typer(name="limbeck", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})

LogJson = Annotated[bool, typer.Option("--log-json", envvar="LIMBECK_LOG_JSON", help="Write what happens to stderr as JSON lines (UTC time, level, event, data), without a bar.")]
TaskOption = Annotated[str | None, typer.Option("--task", help="The task whose data and metric judge it: file.py:name.")]
Split = Annotated[str, typer.Option(help="The split to judge on; a look at test is counted.")]
Runtime = Annotated[str, typer.Option(envvar="LIMBECK_TARGET_RUNTIME", help="Where a task's model is exported to.")]
Threads = Annotated[int, typer.Option(envvar="LIMBECK_TARGET_THREADS", min=1, help="Threads that one inference may use.")]
Batch = Annotated[int, typer.Option(envvar="LIMBECK_TARGET_BATCH", min=1, help="Samples in one timed inference.")]
TimingSeconds = Annotated[
    float, typer.Option("--timing-seconds", envvar="LIMBECK_RUN_TIMING_SECONDS", min=0.001, max=600, help="Seconds for which each model is timed; a narrow claim takes more.")
]
Studies = Annotated[str, typer.Option("--studies", envvar="LIMBECK_PROOF_STUDIES", help="Studies beside the limits: `all`, `none`, or names separated by commas.")]
Limit = Annotated[list[str] | None, typer.Option("--limit", help="A limit of the contract, as in retention=0.97 or slice_retention.night=0.95; may be given again.")]


Inputs = Annotated[Path | None, typer.Option("--inputs", help="What is timed instead: a .npz file with an array for each input, by name.")]


@app.callback()
def limbeck() -> None:
    """Make a trained neural network small and fast, and prove that nobody will notice."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's files and its run are written.")] = Path("limbeck-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="In under a minute: shorter training; gates on bytes and retention only.")] = False,
    json_: Json = False,
    log_json: LogJson = False,
    debug: Debug = False,
) -> None:
    """Compress a digit classifier, from teacher to verdict, on data that comes with scikit-learn."""
    from limbeck.demo.prepare import prepare

    def work(log: Any, stop: Callable[[], bool]) -> Any:
        from limbeck import api

        return _told(api.run(prepare(folder, quick=quick, log=log), log=log, stop=stop), log)

    _leave(_working(work, json_=json_, debug=debug, render="run", log_json=log_json))


@app.command()
def run(
    path: Annotated[Path, typer.Argument(help="The run file.")] = Path("limbeck.toml"),
    name: Annotated[str | None, typer.Option(help="The run's folder, instead of the file's run.name.")] = None,
    json_: Json = False,
    log_json: LogJson = False,
    debug: Debug = False,
) -> None:
    """Carry out a run file; an interrupted run goes on where it stopped."""

    def work(log: Any, stop: Callable[[], bool]) -> Any:
        from limbeck import api

        return _told(api.run(path, name=name, log=log, stop=stop), log)

    _leave(_working(work, json_=json_, debug=debug, render="run", log_json=log_json))


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="The run folder.")] = Path("runs/run"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what happens as it comes, until the verdict; as JSON, one line an event.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show a run: its verdict, or how far it has come."""
    from limbeck import api

    work = (lambda log, stop: history.followed(folder, stop, json_=json_)) if follow else (lambda log, stop: api.status(folder))
    _working(work, json_=json_ and not follow, debug=debug, render="run", quiet=json_)


@app.command()
def evaluate(
    subject: Annotated[str, typer.Argument(help="An artifact, file.py:name of a task, a run folder (or folder@stage), or a package.")],
    task: TaskOption = None,
    model: Annotated[str | None, typer.Option(help="Which model of the task; its teacher by default.")] = None,
    limit: Limit = None,
    split: Split = "test",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    timing_seconds: TimingSeconds = 2.0,
    studies: Studies = "all",
    inputs: Inputs = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Judge one artifact or model: metric with interval, latency, bytes, memory."""

    def work(log: Any, stop: Callable[[], bool]) -> Any:
        from limbeck import api

        return api.evaluate(
            subject,
            task=task,
            split=split,
            model=model,
            contract=_contract(limit),
            target=Target(runtime=runtime, threads=threads, batch=batch),
            proof=Proof(studies=studies),
            inputs=inputs,
            timing_seconds=timing_seconds,
            stop=stop,
        )

    _leave(_working(work, json_=json_, debug=debug, render="judged", note="judging: metric, latency, memory"))


@app.command()
def compare(
    baseline: Annotated[str, typer.Argument(help="What is judged against: an artifact, file.py:name of a task, a run folder (or folder@stage), or a package.")],
    candidate: Annotated[str, typer.Argument(help="What is judged: any of these.")],
    task: TaskOption = None,
    limit: Limit = None,
    split: Split = "test",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    timing_seconds: TimingSeconds = 2.0,
    studies: Studies = "all",
    inputs: Inputs = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a candidate against a baseline: non-inferiority on the same samples, and timed in turn."""

    def work(log: Any, stop: Callable[[], bool]) -> Any:
        from limbeck import api

        return api.compare(
            baseline,
            candidate,
            task=task,
            split=split,
            contract=_contract(limit),
            target=Target(runtime=runtime, threads=threads, batch=batch),
            proof=Proof(studies=studies),
            inputs=inputs,
            timing_seconds=timing_seconds,
            stop=stop,
        )

    _leave(_working(work, json_=json_, debug=debug, render="judged", note="judging both: metric, latency in turn, memory"))


@app.command()
def techniques(name: Annotated[str | None, typer.Argument(help="One technique, with its options.")] = None, json_: Json = False, debug: Debug = False) -> None:
    """List the techniques, or show one."""
    from limbeck import api

    _working(lambda log, stop: api.techniques(name), json_=json_, debug=debug, render="techniques")


@app.command()
def runtimes(json_: Json = False, debug: Debug = False) -> None:
    """List the runtimes, and which are installed."""
    from limbeck import api

    _working(lambda log, stop: api.runtimes(), json_=json_, debug=debug, render="runtimes")


@app.command(name="studies")
def studies_(json_: Json = False, debug: Debug = False) -> None:
    """List the studies: what can be shown of an artifact beside its contract's limits."""
    from limbeck import api

    _working(lambda log, stop: api.studies(), json_=json_, debug=debug, render="studies")


def _contract(limits: list[str] | None) -> Contract | None:
    """A contract from words such as `size_ratio=4` and `size_bytes=5MB`, over what the environment sets. Raises ConfigError as the contract does."""
    from limbeck.core.environment import overlay
    from limbeck.core.errors import ConfigError

    values: dict[str, Any] = overlay({"contract": Contract}).get("contract", {})
    if not limits and not values:
        return None
    known = {f.name: f for f in fields_of(Contract)}
    for word in limits or ():
        key, _, text = word.partition("=")
        table, dot, slice_ = key.partition(".")
        if dot and table in known and known[table].is_table:  # a slice's name may hold '=' itself
            slice_, _, text = word.removeprefix(f"{table}.").rpartition("=")
            if not slice_:
                raise ConfigError(f"--limit {word} must name a slice and a number. Write it as in {table}.night=0.95.")
            values[table] = dict(values.get(table) or {}) | {slice_: _limit(known[table], word, text)}
        elif key in known and known[key].is_table:
            raise ConfigError(f"--limit {word} must name a slice. Write it as in {key}.night=0.95, once for each.")
        else:
            values[key] = _limit(known.get(key), word, text)
    return parse(Contract, values, where="contract")


def _limit(option: Field | None, word: str, text: str) -> Any:
    """The value of a limit: a number, or text with a unit (or what the contract will refuse, naming the units that fit)."""
    from limbeck.core.errors import ConfigError

    try:
        return int(text) if option and "whole" in option.type_name else float(text)
    except ValueError:
        if text and option and option.unit:
            return text
        raise ConfigError(f"--limit {word} must be name=number, got {text!r}. Write it as in retention=0.97.") from None


def _working(work: Callable[[Any, Callable[[], bool]], Any], *, json_: bool, debug: bool, render: str, log_json: bool = False, note: str = "", quiet: bool = False) -> Any:
    """Do the work with progress on stderr, print what came of it, and turn errors into messages and exit codes."""
    from limbeck.cli.progress import ConsoleLog, JsonLog, Shown, stdout_kept

    stopped = threading.Event()
    previous = {s: signal.signal(s, lambda *_: _interrupt(stopped)) for s in (signal.SIGINT, signal.SIGTERM)}
    log: Shown = JsonLog() if log_json else ConsoleLog(quiet=json_ or quiet)
    try:
        with log, stdout_kept() if json_ else nullcontext():
            if note:
                log.progress(0, 0, note)
            _check_environment()
            data = work(log, stopped.is_set)
    except LimbeckError as error:
        if debug:
            raise
        if log_json:
            log.event("error", kind=type(error).__name__, message=str(error), exit_code=error.exit_code)
            raise typer.Exit(error.exit_code) from None
        _complain(error)
    except KeyboardInterrupt:
        message = "interrupted. Run the same command again to go on."
        if log_json:
            log.event("error", kind="Interrupted", message=message, exit_code=130)
        else:
            typer.echo(message, err=True)
        raise typer.Exit(130) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if data is None:  # it was printed as it came
        return None
    if json_:
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        from limbeck.cli import anatomy, judged, lookback, machine
        from limbeck.cli import render as renderers

        rooms = (renderers, judged, advising, lookback, anatomy, machine, beginning, packaging, repeating, reporting, terming)
        {name: show for room in rooms for name, show in room.RENDERERS.items()}[render](data)
    return data


def _check_environment() -> None:
    from limbeck import api

    api.check_environment()


def _told(result: Any, log: Any) -> dict[str, Any]:
    """A run's summary, after saying where its folder is."""
    log.event("done", folder=str(result.folder), verdict=result.verdict)
    return result.summary


def _interrupt(stopped: threading.Event) -> None:
    """The first signal asks for a checkpoint; the second leaves at once."""
    if stopped.is_set():
        raise KeyboardInterrupt
    stopped.set()


def _complain(error: LimbeckError) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(f"{type(error).__name__}: ", style="bold red").append(masked_text(str(error)), style="default not bold"), soft_wrap=True)
    raise typer.Exit(error.exit_code)


def _leave(data: dict[str, Any]) -> None:
    code = data.get("exit_code") or 0
    if code:
        raise typer.Exit(code)


history.register(app, _working, _leave)
beginning.register(app, _working, _leave)
analyzing.register(app, _working, _leave)
doctoring.register(app, _working, _leave)
packaging.register(app, _working, _leave)
advising.register(app, _working, _leave)
repeating.register(app, _working, _leave)
reporting.register(app, _working, _leave)
terming.register(app, _working, _leave)


def _traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python shows of an error that nobody caught, secrets masked."""
    typer.echo(masked_text("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def main() -> None:
    """The entry point of the command `limbeck`. Threads that wait don't spin: beside another busy process they would crawl."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    sys.excepthook = _traceback
    sys.exit(typer.main.get_command(app)())  # app() would put typer's own hook in
