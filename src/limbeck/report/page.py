"""A story as one HTML file: no script, no request, light or dark as the reader's system is, at most 2 MB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.errors import RunError
from limbeck.report import calibration, closing, contract, headline, journey, latencies, layers, mistakes, samples, slices
from limbeck.report.charts import table
from limbeck.report.curves import curve
from limbeck.report.figures import milliseconds, size
from limbeck.report.markup import Html, Node, el, rendered
from limbeck.report.story import Changes, Confusion, Elsewhere, Flips, Missing, Pairs, Story
from limbeck.report.studies import MISSING, TELL

LIMIT = 2_000_000  # bytes of the file
FITS = ((24, 200), (12, 100), (6, 60), (0, 20))  # samples each way and layers shown: the first that keeps the limit
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
Section = tuple[str, str, list[Node]]


def page(story: Story) -> bytes:
    """The file. Equal stories give equal bytes.

    Raises: RunError if even without samples it would be larger than 2 MB.
    """
    for most_samples, most_layers in FITS:
        found = _page(story, most_samples, most_layers).encode()
        if len(found) <= LIMIT:
            return found
    raise RunError(
        f"the report of run '{story.run}' would have {len(found):,} bytes without any sample; at most {LIMIT:,} are allowed. Its plan or its texts are too long to show."
    )


def _page(story: Story, most_samples: int, most_layers: int) -> str:
    found = _sections(story, most_samples, most_layers)
    title = f"{story.task or story.run}: {story.state}"
    head = el(
        "head",
        None,
        el("meta", {"charset": "utf-8"}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", None, f"limbeck report, {title}"),
        el("style", None, Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    links = el("nav", {"aria-label": "Contents"}, el("ul", None, [el("li", None, el("a", {"href": f"#{ident}"}, name)) for ident, name, _ in found]))
    run = el("p", {"class": "eyebrow"}, "limbeck report · run ", el("strong", None, story.run), f" · {story.when}" if story.when else None)
    top = el("header", None, run, el("h1", None, story.task or story.run), headline.headline(story))
    main = el("main", {"id": "main"}, [_section(*section) for section in found])
    foot = el("footer", None, el("p", None, "Written by limbeck from the records of the run. Verdicts are those of the run; this page measures nothing."))
    skip = el("a", {"class": "skip", "href": "#main"}, "To the content")
    return "<!DOCTYPE html>\n" + rendered(el("html", {"lang": "en"}, head, el("body", None, skip, top, links, main, foot))) + "\n"


def _section(ident: str, name: str, body: list[Node]) -> Html:
    return el("section", {"aria-labelledby": ident}, el("h2", {"id": ident}, name), body)


def _sections(story: Story, most_samples: int, most_layers: int) -> list[Section]:
    models = [*((story.judged[0],) if story.judged else (story.validation,) if story.validation else ()), *(s.model for s in story.steps if s.model), *story.judged[1:]]
    return [
        ("contract", "Contract", _contract(story)),
        ("stages", "Stage by stage", journey.journey(story)),
        ("latencies", "Latency", [*_told(story.timings, latencies.latencies), _elsewhere(story.elsewhere)]),
        ("slices", "Slices", _told(story.slices, slices.slices)),
        ("flips", "Samples that changed", _told(story.flips, lambda told: _flips(told, most_samples))),
        ("confusion", "Confusion", _told(story.confusion, _confusion)),
        ("calibration", "Calibration", _told(story.calibration, calibration.calibration)),
        *_studies(story),
        ("training", "Training", [_warned(story.teacher_note), *_told(story.curves, lambda told: [curve(f"curve-{i}", c, story.metric_name) for i, c in enumerate(told)])]),
        ("profile", "Profile", [*_told(story.profiles, lambda told: layers.profiles(told, most_layers)), el("h3", None, "Kernels"), layers.kernels(models)]),
        ("environment", "Environment and data", closing.environment(story)),
        ("reproduce", "How to reproduce", closing.reproduce(story.reproduce)),
    ]


def _studies(story: Story) -> list[Section]:
    """A section each study; those that weren't made are named with the reason."""
    known = [(name, data) for name, data in story.studies if name in TELL]
    return [(f"study-{name}", TELL[name][0], _not_made(data[MISSING]) if MISSING in data else TELL[name][1](data)) for name, data in known]


def _not_made(why: str) -> list[Node]:
    return [el("p", {"class": "missing"}, f"Not made: {why.rstrip('.')}.")]


def _warned(note: str) -> Node:
    """What the reader should know before the rest."""
    return el("p", {"class": "error"}, note[:1].upper() + note[1:] + ".") if note else None


def _told(told: Any, tell: Callable[[Any], list[Node]]) -> list[Node]:
    """What a section tells, or why it doesn't."""
    if isinstance(told, Missing):
        return [el("p", {"class": "missing"}, told.why)]
    return tell(told)


def _contract(story: Story) -> list[Node]:
    if not story.contract:
        return [el("p", {"class": "missing"}, "The run doesn't say what its contract asks.")]
    drawn = "In the drawings the dashed line is the limit, the shaded side keeps it, the dot is what was measured and the bar its interval. "
    note = el("p", {"class": "note"}, drawn + story.contract_note)
    return [contract.limits_table("The contract's limits and their verdicts", story.contract), note]


def _elsewhere(told: Sequence[Elsewhere]) -> Node:
    """Timings that another device wrote, where any were brought in."""
    if not told:
        return None
    rows = [(e.machine, milliseconds(e.p50_ms), milliseconds(e.p90_ms), size(e.memory_bytes), "yes" if e.used else "no, shown alone", e.when) for e in told]
    return table("Measured on another device, and imported", ("machine", "p50", "p90", "memory", "used by the contract", "when"), rows, kind="figures")


def _flips(told: Flips | Changes, most: int) -> list[Node]:
    return samples.flips(told, most) if isinstance(told, Flips) else samples.changes(told, most)


def _confusion(told: Confusion | Pairs) -> list[Node]:
    return mistakes.confusion(told) if isinstance(told, Confusion) else mistakes.pairs(told)
