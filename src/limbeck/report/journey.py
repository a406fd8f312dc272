"""The way from baseline to final: charts by stage, a table of all figures, and each stage's gate."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.report import figures
from limbeck.report.charts import figure, table
from limbeck.report.contract import badge, limits_table
from limbeck.report.markup import Html, Node, el
from limbeck.report.story import Model, Step, Story
from limbeck.report.waterfall import Bar, dots, waterfall

LONGEST = 2000  # characters of an error


def journey(story: Story) -> list[Node]:
    """Three charts side by side, then the figures, then the gates."""
    parts: list[Node] = [el("p", None, _lead(story))]
    charts = [_metric_chart(story), _sizes(story), _latencies(story)]
    parts.append(el("div", {"class": "charts"}, [c for c in charts if c]))
    if any(s.model and s.model.p50_ms is None for s in story.steps):
        parts.append(el("p", {"class": "note"}, "A stage without a latency wasn't timed: its gate looks at bytes alone, or the run is under way."))
    parts.append(_figures(story))
    if story.chosen_note:
        parts.append(el("p", {"class": "note"}, story.chosen_note))
    if story.control_note:
        parts.append(el("p", {"class": "note"}, f"No control: {story.control_note}."))
    parts += [_gates(step) for step in story.steps]
    return parts


def _lead(story: Story) -> str:
    judged = "Stages are judged on validation; baseline, final and control on test. " if story.judged else "Stages are judged on validation. "
    control = "The control is the final shape in FP32, trained as long without a teacher: what it reaches shows what the teacher was worth. "
    return judged + (control if len(story.judged) > 2 else "") + "A stage that didn't pass is left out, and the run goes on from the last that passed."


def _note(step: Step) -> str:
    return "" if step.passed else "skipped" if step.model else step.status if step.status == "not reached" else "broke"


def _bars(story: Story, pick: str) -> list[Bar]:
    base = story.judged[0] if story.judged else story.validation
    bars = [Bar(name="baseline", value=getattr(base, pick) if base else None, kind="base")]
    for step in story.steps:
        value = getattr(step.model, pick) if step.model else None
        bars.append(Bar(name=step.name, value=value, kind="step" if step.passed else "skipped", note=_note(step)))
    for model, kind in zip(story.judged[1:], ("final", "control"), strict=False):
        bars.append(Bar(name=model.name, value=getattr(model, pick), kind=kind, note="on test" if pick == "metric" else ""))
    return bars


def _metric_chart(story: Story) -> Node:
    first = story.validation.metric if story.validation else None
    steps = [Bar(name="baseline", value=first, kind="base")]
    steps += [Bar(name=s.name, value=s.model.metric if s.model else None, kind="step" if s.passed else "skipped", note=_note(s)) for s in story.steps]
    judged = [Bar(name=m.name, value=m.metric, kind=k) for m, k in zip(story.judged, ("base", "final", "control"), strict=False)]
    groups = [("validation", steps)] + ([("test", judged)] if judged else [])
    if not any(b.value is not None for _, bars in groups for b in bars):
        return el("p", {"class": "missing"}, f"No {story.metric_name} by stage: it was not measured.")
    return figure(f"{story.metric_name} by stage", dots("metric", f"{story.metric_name} by stage", groups, axis=story.metric_name))


def _sizes(story: Story) -> Node:
    title, bars = "Bytes of the artifact by stage", _bars(story, "size_bytes")
    if not any(b.value is not None for b in bars):
        return el("p", {"class": "missing"}, "No bytes by stage: nothing was exported yet.")
    return figure(title, waterfall("bytes", title, bars, shown=figures.size, axis="bytes of the artifact"))


def _latencies(story: Story) -> Node:
    bars = _bars(story, "p50_ms")
    if not any(b.value is not None for b in bars):
        return el("p", {"class": "missing"}, "No latency by stage: nothing was timed.")
    return figure("Median latency by stage", waterfall("latency", "Median latency by stage", bars, shown=figures.milliseconds, axis="median of one inference"))


def _figures(story: Story) -> Node:
    head = ("model", "on", story.metric_name, "quality kept, bound", "size", "download", "p50", "p90", "memory", "parameters", "MACs")
    rows: list[Sequence[Node]] = []
    if story.validation:
        rows.append(_row("baseline", story.validation))
    for step in story.steps:
        name: Node = step.name if step.passed else [step.name, " ", el("span", {"class": "note"}, f"({_note(step)})")]
        rows.append(_row(name, step.model) if step.model else (name, *(figures.NONE,) * 10))
    rows += [_row(m.name, m) for m in story.judged]
    return None if not rows else table("All figures by stage; – is what was not measured", head, rows, kind="figures named")


def _row(name: Node, m: Model) -> Sequence[Node]:
    return (
        name,
        m.split,
        figures.plain(m.metric),
        figures.kept(m.kept),
        figures.size(m.size_bytes),
        figures.size(m.download_bytes),
        figures.milliseconds(m.p50_ms),
        figures.milliseconds(m.p90_ms),
        figures.size(m.memory_bytes),
        figures.count(m.parameters),
        figures.count(m.macs),
    )


def _gates(step: Step) -> Html:
    """A stage's gate; closed where it passed, so that what failed is what is read."""
    tries = f", {step.tries} tries" if step.tries > 1 else ""
    took = f" in {figures.seconds(step.seconds)}{tries}" if step.seconds is not None else ""
    using = f" ({step.technique})" if step.technique != step.name else ""
    summary = el("summary", None, el("strong", None, step.name), f"{using} ", badge(step.status), el("span", {"class": "note"}, took))
    body: list[Node] = [el("p", {"class": "error"}, step.error[:LONGEST])] if step.error else []
    if step.gates:
        body.append(limits_table(f"Gate of stage {step.name}, on validation", step.gates))
    elif not step.error:
        body.append(el("p", {"class": "missing"}, "The run didn't reach this stage." if step.status == "not reached" else "The contract asks nothing of this stage."))
    return el("details", {"open": None if step.passed or step.status == "not reached" else ""}, summary, body)
