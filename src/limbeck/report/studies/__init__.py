"""How the report tells each study: a title, and what stands below it. One file a study, one line here, by the study's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from limbeck.report.markup import Node

Tell = Callable[[Mapping[str, Any]], list[Node]]
MISSING = "missing"  # where a study wasn't made, the key of its reason
TELL: Mapping[str, tuple[str, Tell]] = {}
