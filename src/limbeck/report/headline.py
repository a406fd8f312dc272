"""The first screen: the verdict in words and the figures that carry it."""

from __future__ import annotations

from limbeck.report import figures
from limbeck.report.contract import badge
from limbeck.report.markup import Html, Node, el
from limbeck.report.story import Kept, Model, Story

SAID = {
    "PASS": "The contract holds.",
    "FAIL": "The contract is broken.",
    "INCONCLUSIVE": "Not settled: more samples must decide.",
    "ANOMALOUS": "Too good to be true: look for a leak or a broken baseline.",
    "UNVERIFIED": "Not shown: what is promised was not measured.",
    "REFUSED": "Refused before anything was trained.",
    "under way": "Under way: there is no verdict yet.",
    "interrupted": "Interrupted: there is no verdict yet.",
}
LEADS = {"FAIL": "Not met", "INCONCLUSIVE": "Not settled", "ANOMALOUS": "Too good", "UNVERIFIED": "Not measured"}
ALIKE = 0.005  # a ratio this near to 1 is told as no change


def headline(story: Story) -> Html:
    """Verdict, what became smaller, faster and worse, and on what that rests."""
    head, state = story.headline, story.state
    text = [el("p", {"class": "verdict"}, badge(state), " ", el("span", None, SAID.get(state, state)))]
    if broken := [figures.title(x.gate).lower() for x in story.contract if x.status == state and state in LEADS]:
        text.append(el("p", None, f"{LEADS[state]}: {', '.join(broken)}."))
    if head.reason:
        text.append(el("p", None, head.reason))
    if head.fix:
        text.append(el("p", None, el("strong", None, "Way out: "), head.fix))
    if head.closest:
        text.append(el("p", None, head.closest))
    body: list[Node] = [*text, el("dl", {"class": "tiles"}, _tiles(story)) if len(story.judged) > 1 else None]
    if head.looks is not None:
        which = head.looks_note.rstrip(".") or f"look {head.looks} at this test split"
        body.append(el("p", {"class": "note"}, f"Judged on test, {which}. {story.target}."))
    return el("div", {"class": "headline"}, body)


def _tiles(story: Story) -> list[Html]:
    head, (first, final) = story.headline, story.judged[:2]
    faster = None
    if head.faster is not None:
        bounds = [b for b in (head.faster_low, head.faster_high) if b]
        ends = sorted(1 / b for b in bounds) if head.faster < 1 else bounds
        sure = f"99 % interval {figures.times(ends[0])} to {figures.times(ends[1])}" if len(ends) == 2 else "ratio of medians"
        faster = (*_ratio(head.faster, "faster", "slower", "as fast"), sure, f"{figures.milliseconds(first.p50_ms)} → {figures.milliseconds(final.p50_ms)} (p50)")
    tiles = [_tile(*_ratio(head.size_ratio, "smaller", "larger", "as large"), None, f"{figures.size(first.size_bytes)} → {figures.size(final.size_bytes)}")]
    tiles.append(_tile(*faster) if faster else _tile("faster", figures.NONE, None, "latency was not measured"))
    tiles.append(_kept(head.kept, first, final, story.metric_name))
    if first.memory_bytes is not None and final.memory_bytes is not None:
        ratio = first.memory_bytes / final.memory_bytes if final.memory_bytes > 0 else None
        tiles.append(
            _tile(*_ratio(ratio, "less memory", "more memory", "as much memory"), None, f"{figures.size(first.memory_bytes)} → {figures.size(final.memory_bytes)} at peak")
        )
    return tiles


def _ratio(value: float | None, better: str, worse: str, alike: str) -> tuple[str, str]:
    """What a ratio is called, and how large it is: below 1 it is the other word's."""
    if value and abs(value - 1) < ALIKE:
        return alike, figures.times(value)
    return (worse, figures.times(1 / value)) if value and value < 1 else (better, figures.times(value))


def _kept(kept: Kept | None, first: Model, final: Model, metric: str) -> Html:
    change = f"{metric} {figures.plain(first.metric)} → {figures.plain(final.metric)}"
    if kept is None:
        return _tile("quality kept", figures.NONE, "not measured", change)
    at = f" at {kept.confidence:.0%} confidence".replace("%", " %") if kept.confidence else ""
    if kept.kind == "ratio":
        return _tile("quality kept", figures.percent(kept.value), f"{figures.bound(kept)}{at}", change)
    return _tile(f"drop in {metric}", figures.plain(kept.value), f"{figures.bound(kept)}{at}", change)


def _tile(name: str, value: str, sure: str | None, change: str) -> Html:
    rest = [el("dd", {"class": "sure"}, sure)] if sure else []
    return el("div", None, el("dt", None, name), el("dd", {"class": "figure"}, value), rest, el("dd", {"class": "note"}, change))
