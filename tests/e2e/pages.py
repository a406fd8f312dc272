"""What a page of the documentation says that can be checked: code blocks, commands, links, headings, named files."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(\s*)(`{3,})([\w-]*)\s*$")
COMMENT = re.compile(r"^\s*<!--\s*(.*?)\s*-->\s*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAMED = re.compile(r"^(?:src|tests|docs|benchmarks|examples|agents)/[\w./-]+(?:::\w+)?$")
SHELLS = ("", "bash", "sh")
STARTS = re.compile(r"^(?:\$ )?(?:\w+=(?:\"[^\"]*\"|\S*) )*(?:limbeck|python|pip|make|cd|git) ?")
AFTER = ("&&", "||", "|", ";", ">", ">>", "2>", "&")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the comments right above it, and the line of its fence."""

    line: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def file(self) -> str | None:
        """The file that its first line names, as in `# task.py`."""
        found = re.match(r"^# ([\w-]+\.(?:py|toml))(?:[ ,].*)?$", self.text.split("\n", 1)[0])
        return found[1] if found else None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    lines, i = text.split("\n"), 0
    while i < len(lines):
        opened = FENCE.match(lines[i])
        if opened:
            indent, fence, language = opened.groups()
            end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence), len(lines))
            body = "\n".join(x.removeprefix(indent) for x in lines[i + 1 : end])
            found.append(Block(i + 1, language, body + "\n", _marks(lines, i)))
            i = end
        i += 1
    return found


def _marks(lines: Sequence[str], fence: int) -> tuple[str, ...]:
    marks: list[str] = []
    for line in reversed(lines[:fence]):
        comment = COMMENT.match(line)
        if comment:
            marks.insert(0, comment[1])
        elif line.strip():
            break
    return tuple(marks)


def needs(text: str) -> list[str]:
    """What a page says that its blocks rest on: `<!-- needs: a finished run -->`."""
    return re.findall(r"<!--\s*needs:\s*(.*?)\s*-->", text)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    lines, inside = [], ""
    for line in text.split("\n"):
        fence = FENCE.match(line)
        if fence and (not inside or line.strip() == inside):
            inside = "" if inside else fence[2]
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def shell_lines(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without variables before it; what stands behind a pipe is a command of its own.

    In a block without a language only lines that begin with a known command count: it may be a listing.
    """
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").split("\n"):
        if not block.language and not STARTS.match(line):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"^\w+=", words[0]):
            words = words[1:]
        while words:
            end = next((i for i, w in enumerate(words) if w in AFTER), len(words))
            if words[:end]:
                found.append(words[:end])
            words = words[end + 1 :]
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """Every `limbeck …` of a page's shell blocks, as words after the name."""
    for block in blocks(text):
        if block.language in SHELLS and "limbeck " in block.text:
            yield from (words[1:] for words in shell_lines(block) if words[0] == "limbeck")


def spans_of(text: str) -> list[str]:
    """The code in a page's prose."""
    return SPAN.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    found: set[str] = set()
    for line in prose(text).split("\n"):
        heading = re.match(r"^#{1,6} (.+)$", line)
        if heading:
            plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading[1])
            plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
            slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
            number, one = 1, slug
            while one in found:
                one, number = f"{slug}_{number}", number + 1
            found.add(one)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links that lead nowhere, and anchors that aren't there."""
    bad = []
    for link in LINK.findall(prose(text)):
        if re.match(r"^[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text() if name else text)):
            bad.append(link)
    return bad


def missing_files(text: str) -> list[str]:
    """Files of the repository, and tests in them, that the prose names and that aren't there."""
    bad = []
    for span in spans_of(text):
        if NAMED.match(span):
            name, _, test = span.partition("::")
            path = ROOT / name
            if not path.exists() or (test and not re.search(rf"^(def|class) {test}\b", path.read_text(), re.MULTILINE)):
                bad.append(span)
    return bad


def command(words: Sequence[str]) -> Any:
    """Parse words after `limbeck` with the real parser, running nothing: the context of the command that they name.

    Raises: what the parser raises on an unknown command, option or value, or a missing argument.
    """
    import typer

    from limbeck.cli.main import app

    found, context, name, rest = typer.main.get_command(app), None, "limbeck", list(words)
    while True:
        context = found.make_context(name, rest, parent=context)
        if not isinstance(found, typer.core.TyperGroup):
            return context
        name, found, rest = found.resolve_command(context, [*context._protected_args, *context.args])


def tree() -> dict[tuple[str, ...], Any]:
    """Every command of the command line by its words, groups left out."""
    import typer

    from limbeck.cli.main import app

    found: dict[tuple[str, ...], Any] = {}

    def walk(one: Any, path: tuple[str, ...]) -> None:
        if isinstance(one, typer.core.TyperGroup):
            for name, sub in one.commands.items():
                walk(sub, (*path, name))
        else:
            found[path] = one

    walk(typer.main.get_command(app), ())
    return found


def unknown_span(span: str) -> str | None:
    """What a `limbeck …` in prose gets wrong: no such command, or no such option of it. Arguments are placeholders there."""
    words = re.sub(r"[\[\]]", "", span).split()[1:]
    known = tree()
    path = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in known), None)
    if path is None:
        groups = {p[:1] for p in known if len(p) > 1}
        return None if tuple(words) in groups or words in (["--help"], ["--version"]) else f"there is no command {' '.join(words[:2])}"
    options = {o for p in known[path].params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    wrong = [w for w in words[len(path) :] if w.startswith("-") and w.partition("=")[0] not in options]
    return f"limbeck {' '.join(path)} has no {wrong[0]}" if wrong else None
