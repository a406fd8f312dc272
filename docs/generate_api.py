"""The API page: signatures and docstrings of every public name. `docs/generate.py` writes and checks it."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import limbeck
from limbeck import api, runtimes, testing
from limbeck.core.fields import fields_of, table
from limbeck.core.technique import card_of
from limbeck.mechanics import families, terms
from limbeck.mechanics.terms.entry import options_of
from limbeck.techniques import ALL as TECHNIQUES

SECTION = re.compile(r"^(Args|Returns|Raises|Source|Yields): ?", re.MULTILINE)
QUOTED = re.compile(r"(`[^`]*`)")
INTRO = """# API

Generated from signatures and docstrings by `make docs`. What stands here is public: a name that comes, goes or changes is in the changelog.
What doesn't is private and may change any day.

`import limbeck` loads no torch; names resolve when they are first used."""


def page() -> str:
    """The whole page."""
    parts = [INTRO]
    for title, why, names in _groups():
        parts.append(f"## {title}\n\n{why}")
        parts.extend(_entry(shown, value) for shown, value in names)
    return "\n\n".join(parts).rstrip() + "\n"


def _groups() -> Iterator[tuple[str, str, Sequence[tuple[str, Any]]]]:
    own = {name: getattr(limbeck, name) for name in limbeck.__all__}
    verbs = {"analyze", "compare", "compress", "evaluate", "run", "status", "package", "report", "Run", "Package"}
    described = {"Task", "Metric", "Views", "Contract", "Target", "Plan", "Stage", "Gate", "Recovery", "Training", "Proof"}
    described |= {"by_column", "by_label", "image_shifts", "series_shifts", "text_shifts", "token_shifts"}
    metrics = {n for n, v in own.items() if getattr(v, "__module__", "") == "limbeck.intake.metrics"}
    rest = own.keys() - verbs - described - metrics
    yield "Verbs", "What a person asks for, and what comes back.", _named(own, own.keys() & verbs)
    yield "Task, contract, plan", "What a run is given. In a run file the same options stand under the same names.", _named(own, own.keys() & described)
    yield "Metrics", "What a task is judged by; each returns a `Metric`.", _named(own, metrics)
    yield "What techniques and verdicts are made of", "Needed to write a technique, or to read a verdict in Python.", _named(own, rest)
    more = {n: f for n, f in vars(api).items() if inspect.isfunction(f) and n in api.__all__ and n not in own}
    yield "limbeck.api", "What else the command line does, one call a command; each returns what its `--json` prints.", [(f"limbeck.api.{n}", f) for n, f in sorted(more.items())]
    yield (
        "limbeck.techniques",
        "The techniques, each a function with a card. Their options stand on their pages.",
        [(f"limbeck.techniques: {card_of(f).name}", f) for f in TECHNIQUES],
    )
    yield (
        "limbeck.mechanics.terms",
        "Terms of an objective: `0.1 * task_loss() + 0.9 * kd(temperature=4)`. Options are given by keyword.",
        [(f"limbeck.mechanics.terms.{f.__name__}", f) for f in terms.ALL],
    )
    yield (
        "limbeck.mechanics.families",
        "Architectures that limbeck brings as students, `limbeck:<name>` in a run file.",
        [(f"limbeck.family('{f.__name__}')", f) for f in families.ALL],
    )
    yield "limbeck.runtimes", "Runtimes, and what is done with them.", [(f"limbeck.runtimes.{n}", getattr(runtimes, n)) for n in runtimes.__all__ if n != "ALL"]
    yield "limbeck.testing", (testing.__doc__ or "").strip().split("\n")[0], [(f"limbeck.testing.{n}", getattr(testing, n)) for n in testing.__all__]


def _named(own: dict[str, Any], names: Any) -> list[tuple[str, Any]]:
    return [(f"limbeck.{name}", own[name]) for name in sorted(names, key=lambda n: (n.lower(), n))]


def _entry(name: str, value: Any) -> str:
    """Heading, signature, prose, and of a class its fields and methods."""
    parts = [f"### `{name}`"]
    if inspect.isclass(value):
        parts += [_prose(value.__doc__ if not (value.__doc__ or "").startswith(f"{value.__name__}(") else ""), *_class(value)]
    elif value in terms.ALL:
        options = options_of(value)
        parts += [_prose(inspect.getdoc(value)), table(options) if fields_of(options) else ""]
    elif inspect.isroutine(value):
        parts += [f"```py\n{_signature(value.__name__, value)}\n```", _prose(inspect.getdoc(value))]
    else:
        parts.append(f"A type: `{value}`.")
    return "\n\n".join(p for p in parts if p)


def _class(cls: type) -> Iterator[str]:
    if issubclass(cls, enum.Enum):
        yield "Values: " + ", ".join(f"`{m.value}`" for m in cls) + "."
        return
    if dataclasses.is_dataclass(cls):
        yield _fields(cls)
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield f"```py\n{_signature(cls.__name__, vars(cls)['__init__'])}\n```"
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        static = isinstance(member, (staticmethod, classmethod))
        function = member.__func__ if static else member
        if isinstance(function, property) or type(function).__name__ == "cached_property":
            doc = inspect.getdoc(function) or ""
            yield f"`.{name}`" + (f": {_inline(' '.join(doc.split()))}" if doc else "")
        elif inspect.isfunction(function):
            yield f"```py\n{cls.__name__ if static else ''}.{_signature(name, function)}\n```"
            yield _prose(inspect.getdoc(function))


def _fields(cls: Any) -> str:
    """A dataclass's options as a table where each has a line of prose, else its signature."""
    try:
        if all(f.doc for f in fields_of(cls)):
            return table(cls)
    except (TypeError, NameError, ValueError):
        pass  # its types aren't those of a config
    lines = [f"    {f.name}: {f.type}{_default(f)}," for f in dataclasses.fields(cls) if not f.name.startswith("_")]
    return "```py\n" + "\n".join([f"{cls.__name__}(", *lines, ")"]) + "\n```"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {_value(field.default)}" if isinstance(field.default, (str, int, float, bool, tuple, type(None))) else " = …"
    return " = …" if field.default_factory is not dataclasses.MISSING else ""


def _signature(name: str, function: Callable[..., Any]) -> str:
    """As the source has it: annotations as they are written, one parameter a line if it is long."""
    parameters, starred = [], False
    for p in inspect.signature(function).parameters.values():
        if p.name in ("self", "cls"):
            continue
        if p.kind is p.KEYWORD_ONLY and not starred:
            parameters.append("*")
        starred = starred or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        written = "" if p.annotation is p.empty else f": {_written(p.annotation)}"
        default = "" if p.default is p.empty else f" = {_value(p.default)}" if written else f"={_value(p.default)}"
        parameters.append(f"{prefix}{p.name}{written}{default}")
    back = inspect.signature(function).return_annotation
    end = "" if back is inspect.Signature.empty else f" -> {_written(back)}"
    line = f"{name}({', '.join(parameters)}){end}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {p},\n" for p in parameters) + f"){end}"


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _value(value: Any) -> str:
    if inspect.isfunction(value):
        return "…"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _prose(doc: str | None) -> str:
    """A docstring as Markdown: its sections in bold, their entries as a list."""
    lines = textwrap.dedent("    " + inspect.cleandoc(doc or "")).strip().split("\n") if doc else []
    out: list[str] = []
    listed = False
    for line in lines:
        found = SECTION.match(line)
        if found:
            listed = True
            out += ["", f"**{found[1]}:** {_inline(line[found.end() :])}".rstrip(), ""]
        elif listed and re.match(r"^    \S[^:]*: ", line):
            key, _, text = line.strip().partition(": ")
            out.append(f"- `{key}`: {_inline(text)}")
        elif listed and line.startswith("    ") and out and out[-1] == "":
            out[-2] += f" {_inline(line.strip())}"
        elif listed and line.strip() and out and out[-1]:
            out[-1] += f" {_inline(line.strip())}"
        elif re.match(r"^[a-z_]+(, [a-z_]+)*: ", line):
            key, _, text = line.partition(": ")
            out += ["" if out and not out[-1].startswith("- ") else None, f"- `{key}`: {_inline(text)}"]  # type: ignore[list-item]
        elif line.startswith("    ") and out and out[-1] and out[-1].startswith("- "):
            out[-1] += f" {_inline(line.strip())}"
        else:
            out.append(_inline(line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(x for x in out if x is not None)).strip()


def _inline(text: str) -> str:
    """What Markdown would take for a tag or for emphasis, escaped outside of code."""
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in QUOTED.split(text))


def undocumented() -> list[str]:
    """Public names without a docstring of their own."""
    found = []
    for _, _, names in _groups():
        for name, value in names:
            doc = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
            if (inspect.isclass(value) or inspect.isroutine(value)) and (not doc or doc.startswith(f"{getattr(value, '__name__', '')}(")):
                found.append(name)
    return found


__all__ = ["page", "undocumented"]
