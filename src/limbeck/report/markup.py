"""HTML that can't be broken by what it shows: text is escaped wherever it enters, and only `Html` passes as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no HTML file may hold these
VOID = frozenset({"meta", "img", "br", "hr", "col"})


@dataclass(frozen=True)
class Html:
    """Markup that this package wrote."""

    text: str


Node: TypeAlias = "Html | str | int | Iterable[Node] | None"
Attributes: TypeAlias = Mapping[str, "str | int | float | None"]


def escaped(text: object) -> str:
    """Text as it may stand in an element or a quoted attribute; what no HTML file may hold becomes U+FFFD."""
    return html.escape(UNPRINTABLE.sub("\ufffd", str(text)), quote=True)


def rendered(node: Node) -> str:
    """The markup of a node; None is nothing."""
    if node is None:
        return ""
    if isinstance(node, Html):
        return node.text
    if isinstance(node, (str, int)):
        return escaped(node)
    return "".join(rendered(child) for child in node)


def el(name: str, attributes: Attributes | None = None, *children: Node) -> Html:
    """An element. An attribute of None is left out; one of "" stands alone."""
    shown = "".join(f' {key}="{escaped(_number(value))}"' if value != "" else f" {key}" for key, value in (attributes or {}).items() if value is not None)
    return Html(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{rendered(children)}</{name}>")


def shape(name: str, attributes: Attributes, *children: Node) -> Html:
    """An SVG element; empty ones close themselves."""
    shown = "".join(f' {key}="{escaped(_number(value))}"' for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{shown}>{rendered(children)}</{name}>" if children else f"<{name}{shown}/>")


def _number(value: str | int | float | None) -> str | int | None:
    """Coordinates to a hundredth, so that they are short and the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
