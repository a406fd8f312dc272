"""What a term says of itself: read off its factory's signature and prose, so that nothing is written twice."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from limbeck.core.errors import ConfigError
from limbeck.core.fields import fields_of, json_schema, table
from limbeck.mechanics.objective import Term
from limbeck.mechanics.terms.entry import Factory, options_of

SOURCE = re.compile(r"^[ \t]*Source:(.*?)(?=^[ \t]*$|\bDiffers:|^[ \t]*(?:Args|Returns|Raises):|\Z)", re.DOTALL | re.MULTILINE)
ARXIV = re.compile(r"arXiv:\d{4}\.\d{4,5}")


@dataclass(frozen=True)
class TermCard:
    """A term, as lists and pages show it.

    papers: the source, as "arXiv:…"; in words if it isn't there. teacher, labels, relational: as in `Term`; trains: whether it trains or keeps something of
    its own. These four are None for a term that can't be built without knowing the models.
    """

    name: str
    summary: str
    papers: tuple[str, ...]
    options: type
    teacher: bool | None
    labels: bool | None
    relational: bool | None
    trains: bool | None


def card(factory: Factory) -> TermCard:
    """The card of a term, at its default options; layers that it must be given are stood in for."""
    term = _built(factory)
    flags = (term.teacher, term.labels, term.relational, term.builds is not None) if term else (None, None, None, None)
    return TermCard(factory.__name__, _summary(factory), _papers(factory), options_of(factory), *flags)


def told(card: TermCard) -> dict[str, Any]:
    """A card as plain data, its options as JSON schema and as a Markdown table."""
    flags = {"teacher": card.teacher, "labels": card.labels, "relational": card.relational, "trains": card.trains}
    return {"name": card.name, "summary": card.summary, "papers": list(card.papers), **flags, "options": json_schema(card.options), "table": table(card.options)}


def _summary(factory: Factory) -> str:
    """The first line of its prose, up to the way to the formula."""
    first = inspect.cleandoc(factory.__doc__ or "").split("\n")[0]
    return first.split("; see `")[0].rstrip(".:")


def _papers(factory: Factory) -> tuple[str, ...]:
    """From the "Source:" of its own prose, or else of the functions that stand beside it, the first that has one."""
    beside = [f for _, f in sorted(vars(sys.modules[factory.__module__]).items(), key=_line) if inspect.isfunction(f) and f.__module__ == factory.__module__]
    for function in (factory, *beside):
        found = SOURCE.search(function.__doc__ or "")
        if found:
            return tuple(dict.fromkeys(ARXIV.findall(found[1]))) or (" ".join(found[1].split()).rstrip("."),)
    return ()


def _line(item: tuple[str, Any]) -> int:
    return item[1].__code__.co_firstlineno if inspect.isfunction(item[1]) else 0


def _built(factory: Factory) -> Term | None:
    required = {f.name: _stand_in(f.type) for f in fields_of(options_of(factory)) if f.required}
    try:
        return factory(**required)
    except ConfigError:  # it wants more than any layer's name
        return None


def _stand_in(kind: Any) -> Any:
    """A value of this type for an option that has no default: a layer's name, or what holds one."""
    if get_origin(kind) is tuple:
        return (_stand_in(get_args(kind)[0]),)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**{f.name: _stand_in(f.type) for f in fields_of(kind) if f.required})
    return 1 if kind in (int, float) else "layer"
