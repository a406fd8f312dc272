"""Write what the documentation derives from code: option tables and the command line's help. `--check` fails if any is stale."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.core.contract import Contract, Target
from limbeck.core.fields import table
from limbeck.core.plan import Gate, Recovery, Stage, Training
from limbeck.intake.runfile import RunOptions, TaskEntry
from limbeck.mechanics.views import Views
from limbeck.techniques import cards

DOCS = Path(__file__).parent
MARK = re.compile(r"<!-- config -->(?:.*?<!-- /config -->)?", re.DOTALL)
TABLES = (
    ("[task]", TaskEntry),
    ("[contract]", Contract),
    ("[target]", Target),
    ("[run]", RunOptions),
    ("[[stage]]", Stage),
    ("[stage.gate]", Gate),
    ("[stage.recovery]", Recovery),
    ("training", Training),
    ("Views", Views),
)
COMMANDS = ("demo", "run", "status", "runs", "diff", "rollback", "verify", "gc", "export", "import", "evaluate", "compare", "techniques", "runtimes")


def pages() -> dict[Path, str]:
    """Every generated page, by path."""
    found = {}
    for name, card in cards().items():
        path = DOCS / "techniques" / f"{name}.md"
        if path.exists():
            block = f"<!-- config -->\n{table(card.config)}\n<!-- /config -->"
            found[path] = MARK.sub(lambda _, b=block: b, path.read_text())
    found[DOCS / "reference.md"] = "\n\n".join(("# Reference", "Generated from the code by `make docs`.", *_options(), *_help())) + "\n"
    return found


def _options() -> list[str]:
    return ["## The run file", *(part for title, config in TABLES for part in (f"### `{title}`", (config.__doc__ or "").strip().split("\n")[0], table(config)))]


def _help() -> list[str]:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    shown = [(c, runner.invoke(app, [c, "--help"], prog_name="limbeck").output) for c in COMMANDS]
    return ["## The command line", *(f"### `limbeck {name}`\n\n```text\n{_plain(text)}\n```" for name, text in shown)]


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def main() -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} is stale; run `make docs`\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
