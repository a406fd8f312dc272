"""How long single inferences took: the drawing, percentiles with their bounds, what went before and what disturbed it."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.report.charts import both_widths, figure, table
from limbeck.report.distributions import TAIL, distributions
from limbeck.report.figures import NONE, milliseconds, trimmed
from limbeck.report.markup import Node, el
from limbeck.report.story import Quantile, Timing

NAMES = ("p50", "p90", "p99")


def latencies(told: Sequence[Timing]) -> list[Node]:
    """Everything that was timed in turn, side by side."""
    lead = "All were timed in turn in one process, so that what slows the machine slows each of them. Full line: median; dashed: 90th percentile; the bar on either: its bounds. "
    lead += f"The axis leaves out the fastest and the slowest {TAIL} %."
    if any(t.anytime for t in told):
        lead += " How long was decided by the contract's limits: until they were settled, or the time was over. The bounds allow for that."
    rows = [(t.name, *(_quantile(t.quantiles.get(name)) for name in NAMES), f"{len(t.samples_ms):,}", f"{t.turns:,}", t.warm_up or NONE) for t in told]
    caption = "Percentiles of single inferences, each with its bounds, each one-sided at 99 %; none where the inferences are too few for it"
    shown = table(caption, ("model", *NAMES, "inferences", "turns", "warm-up"), rows, kind="figures small")
    drawn = figure("How long single inferences took", *both_widths(lambda ident, width: distributions(ident, width, told), "timing"))
    return [el("p", None, lead), *_disturbed(told), drawn, shown]


def _quantile(one: Quantile | None) -> str:
    if one is None:
        return NONE
    low, high = (trimmed(milliseconds(bound)).removesuffix(" ms") if bound is not None else "?" for bound in (one.low_ms, one.high_ms))
    return f"{milliseconds(one.value_ms)} ({low} to {high})"


def _disturbed(told: Sequence[Timing]) -> list[Node]:
    """What is in the figures besides the model, said once for those of whom it is said alike."""
    by_note: dict[str, list[str]] = {}
    for t in told:
        if t.note:
            by_note.setdefault(t.note, []).append(t.name)
    return [el("p", {"class": "note"}, f"{', '.join(names)}: {note}.") for note, names in by_note.items()]
