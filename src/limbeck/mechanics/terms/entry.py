"""A term as data: its name, its weight, its options, as a run file says it. A term's keyword arguments are its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Annotated, Any, get_type_hints

from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import Range, parse
from limbeck.mechanics.objective import Objective, Term
from limbeck.mechanics.terms.focus import focused
from limbeck.mechanics.window import Window

Factory = Callable[..., Term]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One term of an objective."""

    name: Annotated[str, "a term; `limbeck terms` lists them"]
    weight: Annotated[float, Range(0, None), "what its value is multiplied with; 0 leaves it out"] = 1.0
    output: Annotated[str, "which of several outputs it acts on; empty: the one called logits, or the only one"] = ""
    teacher_output: Annotated[str, "the teacher's output, where it is called otherwise"] = ""
    labels: Annotated[str, "which entry of the batch holds its labels: the key of a dict, the position in a tuple; empty: the usual one"] = ""
    start: Annotated[float, Range(0, 1), "share of the training after which it begins to pull"] = 0.0
    end: Annotated[float, Range(0, 1), "share of the training after which it no longer pulls"] = 1.0
    warmup: Annotated[float, Range(0, 1), "share of the training over which its weight rises from 0, after its start"] = 0.0
    options: Annotated[dict[str, Any], "the term's own options"] = field(default_factory=dict)


def options_of(factory: Factory) -> type:
    """A term's keyword arguments as a config: what is parsed, validated and documented."""
    hints = get_type_hints(factory, include_extras=True)
    made: list[Any] = []
    for name, parameter in inspect.signature(factory).parameters.items():
        made.append((name, hints[name]) if parameter.default is parameter.empty else (name, hints[name], field(default=parameter.default)))
    return make_dataclass(factory.__name__, made, frozen=True, kw_only=True, namespace={"__doc__": factory.__doc__})


def named(name: str, known: Sequence[Factory]) -> Factory:
    """The term of this name. Raises ConfigError with near names."""
    found = {factory.__name__: factory for factory in known}
    if name not in found:
        raise ConfigError(f"there is no term '{name}'. {near(name, found)} `limbeck terms` lists them.")
    return found[name]


def objective_of(entries: Sequence[Entry], known: Sequence[Factory], *, where: str = "terms") -> Objective:
    """The objective that entries describe. Raises ConfigError for an unknown term, an unknown option or a bad value."""
    weighted = []
    for number, entry in enumerate(entries):
        factory = named(entry.name, known)
        options = parse(options_of(factory), entry.options, where=f"{where}[{number}].options")
        term = focused(factory(**vars(options)), output=entry.output, teacher_output=entry.teacher_output, labels=entry.labels)
        weighted.append((entry.weight, replace(term, window=_window(entry, f"{where}[{number}]"))))
    return Objective(tuple(weighted))


def _window(entry: Entry, where: str) -> Window:
    if entry.end <= entry.start:
        raise ConfigError(f"{where}.end must be after start ({entry.start:g}), got {entry.end:g}. Both are shares of the training: 0.5 is its middle.")
    return Window(start=entry.start, end=entry.end, warmup=entry.warmup)
