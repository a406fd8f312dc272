"""What is shown while work is under way: on a terminal, in a file, as JSON lines, through Python's logging."""

import io
import json
import logging
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from limbeck.cli.progress import ConsoleLog, JsonLog
from limbeck.core.events import level
from limbeck.pipeline.context import Announced, QuietLog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*, terminal: bool, clock: Clock | None = None, quiet: bool = False) -> tuple[ConsoleLog, io.StringIO]:
    out = io.StringIO()
    return ConsoleLog(console=Console(file=out, force_terminal=terminal, width=120, quiet=quiet, highlight=False), clock=clock or Clock(), quiet=quiet), out


def test_off_a_terminal_progress_is_a_line_every_few_seconds_with_the_time_left():
    clock = Clock()
    log, out = shown(terminal=False, clock=clock)
    with log:
        for step in range(101):
            log.progress(step, 400, "distilling")
            clock.now += 0.2
    lines = out.getvalue().splitlines()
    assert lines[0] == "  distilling: 6%, 5 s, about 75 s left"
    assert len(lines) == 4 and lines[-1] == "  distilling: 25%, 20 s, about 60 s left"


def test_work_that_is_resumed_is_timed_from_where_it_went_on():
    clock = Clock()
    log, out = shown(terminal=False, clock=clock)
    log.progress(300, 400, "training")
    clock.now += 10
    log.progress(350, 400, "training")
    assert out.getvalue().strip() == "training: 88%, 10 s, about 10 s left"


def test_work_of_unknown_length_is_said_without_a_share():
    clock = Clock()
    log, out = shown(terminal=False, clock=clock)
    log.progress(0, 0, "exporting x")
    clock.now += 6
    log.progress(0, 0, "exporting x")
    assert out.getvalue().strip() == "exporting x: 6 s"


def test_epochs_of_fast_training_do_not_flood_a_file():
    clock = Clock()
    log, out = shown(terminal=False, clock=clock)
    for epoch in range(1, 101):
        clock.now += 0.1
        log.event("epoch", note="distilling", epoch=epoch, loss=0.5)
    assert len(out.getvalue().splitlines()) == 2
    log.event("gate", stage="[thin]", status="PASS", verdicts=["retention: PASS (0.97 in [0.9, 1])"])
    assert "PASS [thin]: retention: PASS (0.97 in [0.9, 1])" in out.getvalue()


def test_on_a_terminal_there_is_a_bar_and_a_spinner_with_the_time():
    log, out = shown(terminal=True, clock=Clock())
    with log:
        log.progress(1, 4, "evaluating on [test]")
        log._bar.refresh()
        assert "evaluating on [test]" in out.getvalue() and "━" in out.getvalue() and "0:00:00" in out.getvalue()
        log.progress(0, 0, "measuring memory")
        log._bar.refresh()
        assert "measuring memory" in out.getvalue()
        log.event("note", text="done")
        assert log._bar.tasks == []


def test_quiet_is_quiet():
    log, out = shown(terminal=True, quiet=True)
    with log:
        log.progress(1, 2, "x")
        log.event("note", text="x")
    assert out.getvalue() == ""


def test_json_lines_have_time_level_event_and_data(capsys):
    with JsonLog() as log:
        log.event("stage", stage="thin", attempt=1)
        log.event("training diverged", note="x", back_to_step=3)
        log.progress(1, 2, "not drawn")
        logging.getLogger("limbeck.techniques").warning("technique '%s' failed to load", "x")
        logging.getLogger("limbeck.run").warning("its own line", extra={"limbeck": {}})
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("careful", stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(x["level"], x["event"]) for x in lines] == [("info", "stage"), ("warning", "training diverged"), ("warning", "log"), ("warning", "log")]
    assert lines[0]["data"] == {"stage": "thin", "attempt": 1} and lines[2]["data"]["message"] == "technique 'x' failed to load" and "careful" in lines[3]["data"]["message"]
    when = datetime.fromisoformat(lines[0]["time"])
    assert when.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - when) < timedelta(hours=1)


def test_who_listens_to_pythons_logging_hears_the_events(caplog):
    quiet = QuietLog()
    log = Announced(quiet)
    with caplog.at_level(logging.INFO, logger="limbeck"):
        log.event("stage", stage="thin")
        log.event("stage broke", error="no")
        log.progress(1, 2, "x")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("INFO", "stage stage=thin"), ("WARNING", "stage broke error=no")]
    assert caplog.records[0].limbeck == {"event": "stage", "data": {"stage": "thin"}}
    assert quiet.events == [("stage", {"stage": "thin"}), ("stage broke", {"error": "no"})]


@pytest.mark.parametrize(("event", "expected"), [("epoch", "info"), ("note", "warning"), ("error", "error")])
def test_levels(event, expected):
    assert level(event) == expected
