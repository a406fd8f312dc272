"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", envvar="LIMBECK_JSON", help="Print facts as JSON instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", envvar="LIMBECK_DEBUG", help="Show the traceback of an error.")]
