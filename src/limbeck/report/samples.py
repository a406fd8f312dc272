"""The samples whose answer changed, shown themselves: pictures, texts, tokens or numbers."""

from __future__ import annotations

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el
from limbeck.report.pictures import data_uri
from limbeck.report.story import Change, Changes, Flip, Flips, Sample


def flips(told: Flips, most: int) -> list[Node]:
    """Right → wrong first: that is what somebody will notice. At most `most` samples each way."""
    outcome = (
        ("final right", f"{told.both_right:,}", f"{told.won_total:,}", f"{told.both_right + told.won_total:,}"),
        ("final wrong", f"{told.lost_total:,}", f"{told.both_wrong:,}", f"{told.lost_total + told.both_wrong:,}"),
    )
    foot = ("all", f"{told.both_right + told.lost_total:,}", f"{told.won_total + told.both_wrong:,}", f"{told.samples:,}")
    counts = table("Samples of test, by who is right", ("samples", "baseline right", "baseline wrong", "all"), outcome, kind="figures small", foot=foot)
    changed = told.lost_total + told.won_total
    lead = f"Of {told.samples:,} test samples {changed:,} changed sides: {told.lost_total:,} right → wrong, {told.won_total:,} wrong → right."
    chance = f" McNemar's test: p = {told.p_value:.3g} (reported alone; no verdict rests on it)." if told.p_value is not None else ""
    parts: list[Node] = [el("p", None, lead + chance), counts]
    if changed and told.why_no_samples:
        parts.append(el("p", {"class": "missing"}, f"The samples themselves are not shown: {told.why_no_samples}"))
    parts += _group("Right → wrong", told.lost, told.lost_total, most)
    return parts + _group("Wrong → right", told.won, told.won_total, most)


def _group(title: str, found: tuple[Flip, ...], total: int, most: int) -> list[Node]:
    shown = found[:most]
    text = f"All {total:,} of them." if total == len(shown) else f"{len(shown):,} of {total:,}, evenly spread over the split."
    if not total:
        return [el("h3", None, title), el("p", None, "None.")]
    if any(f.sample for f in shown):
        return [el("h3", None, title), el("p", {"class": "note"}, text), el("ul", {"class": "samples"}, [_flip(f) for f in shown])]
    if any(f.label for f in shown):
        rows = [(f"sample {f.index}", f.label, f.before, f.after) for f in shown]
        return [el("h3", None, title), table(f"{title}. {text}", ("test sample", "label", "baseline says", "final says"), rows, kind="figures small")]
    names = ", ".join(str(f.index) for f in shown)
    return [
        el("h3", None, title),
        el("p", {"class": "note"}, text),
        el("p", None, f"Their numbers in test: {names}." if shown else "Their numbers are left out to keep this file small."),
    ]


def _flip(flip: Flip) -> Html:
    said = f"test sample {flip.index}" + (f", labelled {flip.label}: baseline says {flip.before}, final says {flip.after}" if flip.label else "")
    rows = [("label", flip.label), ("baseline", flip.before), ("final", flip.after)] if flip.label else []
    answers = el("dl", None, [[el("dt", None, k), el("dd", None, v)] for k, v in rows]) if rows else None
    return el("li", None, shown(flip.sample, said) if flip.sample else None, el("p", {"class": "number"}, f"sample {flip.index}"), answers)


def changes(told: Changes, most: int) -> list[Node]:
    """For other metrics: what each sample's row was, and became."""
    lead = (
        f"The metric isn't right or wrong, so these are the samples of {told.samples:,} whose row ({told.column}) changed most; the median change is {figures.plain(told.median)}."
    )
    parts: list[Node] = [el("p", None, lead)]
    largest = told.largest[:most]
    if told.why_no_samples:
        parts.append(el("p", {"class": "missing"}, f"The samples themselves are not shown: {told.why_no_samples}"))
    rows = [(f"sample {c.index}", figures.plain(c.before), figures.plain(c.after), f"{c.after - c.before:+.4g}".replace("-", "−")) for c in largest]
    parts.append(table(f"Largest changes of {told.column}, baseline to final", ("test sample", "baseline", "final", "change"), rows, kind="figures small"))
    if any(c.sample for c in largest):
        parts.append(el("ul", {"class": "samples"}, [_change(c) for c in largest if c.sample]))
    return parts


def _change(change: Change) -> Html:
    said = f"test sample {change.index}"
    rows = [("baseline", figures.plain(change.before)), ("final", figures.plain(change.after))]
    answers = el("dl", None, [[el("dt", None, k), el("dd", None, v)] for k, v in rows])
    return el("li", None, shown(change.sample, said) if change.sample else None, el("p", {"class": "number"}, f"sample {change.index}"), answers)


def shown(sample: Sample, said: str) -> Html:
    """A sample as itself. A picture's text alternative is what is known of it."""
    note = el("p", {"class": "note"}, sample.note) if sample.note else None
    if sample.picture:
        small = max(sample.picture.width, sample.picture.height) < 48
        return el("div", {"class": "sample"}, el("img", {"src": data_uri(sample.picture), "alt": said, "class": "pixels" if small else None, "width": 88, "height": 88}), note)
    if sample.text:
        return el("blockquote", {"class": "sample", "dir": "auto"}, sample.text, note)
    if sample.tokens:
        return el("div", {"class": "sample"}, el("p", {"class": "note"}, "token ids"), el("p", {"class": "tokens"}, " ".join(map(str, sample.tokens))), note)
    numbers = el("dl", None, [[el("dt", None, k), el("dd", None, f"{v:.4g}")] for k, v in sample.numbers])
    return el("div", {"class": "sample numbers"}, numbers, note)
