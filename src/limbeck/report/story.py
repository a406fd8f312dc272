"""All that a report tells of a run, as plain frozen data. A section that has nothing to tell is a `Missing` with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Missing:
    """Why a section has nothing to show; it stands where the section would."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of the baseline's quality: a ratio (at least `bound`), or a drop (at most `bound`)."""

    value: float
    bound: float
    kind: str = "ratio"
    confidence: float | None = None
    samples: int | None = None
    split: str = ""
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One candidate's figures on one split. None where a figure was not measured."""

    name: str
    split: str = ""
    metric: float | None = None
    kept: Kept | None = None
    size_bytes: int | None = None
    download_bytes: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    memory_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    int8: int | None = None
    floats: int | None = None  # kernels that run in float
    operators: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One verdict: of the contract, or of a stage's gate."""

    gate: str
    status: str
    reason: str
    limit: float | None = None
    measured: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of the plan: what came of it. `status` is a verdict, or `not reached`; only what passed was gone on from."""

    name: str
    technique: str
    status: str
    model: Model | None = None
    gates: tuple[Limit, ...] = ()
    seconds: float | None = None
    tries: int = 1
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "PASS"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The verdict and the figures that carry it; `faster` with its 99 % interval."""

    size_ratio: float | None = None
    faster: float | None = None
    faster_low: float | None = None
    faster_high: float | None = None
    kept: Kept | None = None
    looks: int | None = None
    looks_note: str = ""  # what that number means for the verdicts on quality
    reason: str = ""  # of a refusal or an interruption
    fix: str = ""
    closest: str = ""


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A percentile with its bounds, each one-sided at 99 %; None where the samples give none."""

    value_ms: float
    low_ms: float | None = None
    high_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One artifact's inferences, in milliseconds, taken in turn with the others'."""

    name: str
    samples_ms: tuple[float, ...]
    turns: int
    quantiles: Mapping[str, Quantile] = field(default_factory=dict)  # p50, p90, p99, where the samples give them
    note: str = ""  # what else is in the figures
    anytime: bool = False  # whether their number depends on them
    warm_up: str = ""  # what went before


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What another device measured of an artifact of this run; `used` if the contract rests on it."""

    machine: str
    p50_ms: float | None = None
    p90_ms: float | None = None
    memory_bytes: int | None = None
    used: bool = False
    when: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Pixels for a thumbnail: rows × columns × 1 or 3 channels, 8 bits each."""

    width: int
    height: int
    channels: int
    pixels: bytes


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a sample shows of itself: one of a picture, a text, token ids, or a few numbers."""

    picture: Picture | None = None
    text: str = ""
    tokens: tuple[int, ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    note: str = ""  # what was left out, such as the rest of a long text


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A test sample that the final model answers otherwise than the baseline. Labels are shown names; empty where they aren't known."""

    index: int
    label: str = ""
    before: str = ""
    after: str = ""
    sample: Sample | None = None


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Samples that were right and became wrong, and the other way round."""

    samples: int
    both_right: int
    both_wrong: int
    lost: tuple[Flip, ...]
    won: tuple[Flip, ...]
    lost_total: int
    won_total: int
    p_value: float | None = None  # McNemar, reported alone
    why_no_samples: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A sample whose row of the metric changed much."""

    index: int
    before: float
    after: float
    sample: Sample | None = None


@dataclass(frozen=True, kw_only=True)
class Changes:
    """For a metric that isn't right-or-wrong: the samples whose rows changed most, in the column named."""

    column: str
    samples: int
    largest: tuple[Change, ...]
    median: float  # of the absolute change over all samples
    why_no_samples: str = ""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts [label][answer] of one model over the same classes."""

    classes: tuple[str, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """For many classes: the pairs (label, answer) that are mistaken most, with counts before and after."""

    classes: int
    pairs: tuple[tuple[str, str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One slice of test: both metrics, and what is kept of the baseline's; None with a note that says why."""

    name: str
    samples: int
    baseline: float | None = None
    final: float | None = None
    kept: Kept | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Every slice, with bounds that hold together at this confidence; `whole` is the split itself, `agreement` a share of equal answers."""

    parts: tuple[Part, ...]
    confidence: float
    whole: Kept | None = None
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One model's expected calibration error with its upper bound, and its bins: mean confidence, share right, samples.

    histogram: Samples right and samples wrong by how sure the model was, in equal bins from 0 to 1; empty where a run didn't keep them.
    """

    name: str
    ece: float
    high: float | None
    bins: tuple[tuple[float, float, int], ...]
    histogram: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Baseline and final, or final alone; how much larger the final's error is, and at most."""

    models: tuple[Reliability, ...]
    increase: float | None = None
    increase_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassKept:
    """One class of validation: how many samples it has, and how many of them teacher and student have right."""

    name: str
    samples: int
    teacher: int
    student: int


Column = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training: a value an epoch, by name.

    terms: the loss and what it is made of. shares: of the gradient, by term. validation: the metric of the student, and of its teacher.
    watched: fractions on validation (agreement, missed, forgotten, calibration error). others: weights and temperatures that trained.
    classes: those of which the student has the smallest part of the teacher's recall, of `classes_total`, at the end.
    """

    title: str
    epochs: tuple[float, ...]
    terms: Mapping[str, Column]
    validation: Column = ()
    note: str = ""
    shares: Mapping[str, Column] = field(default_factory=dict)
    teacher: Column = ()
    watched: Mapping[str, Column] = field(default_factory=dict)
    others: Mapping[str, Column] = field(default_factory=dict)
    classes: tuple[ClassKept, ...] = ()
    classes_total: int = 0


@dataclass(frozen=True, kw_only=True)
class Layer:
    path: str
    kind: str
    parameters: int
    macs: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One model's layers, in its own order."""

    name: str
    layers: tuple[Layer, ...] | Missing
    parameters: int | None = None
    macs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Shell commands, in order, and what else must be the same."""

    commands: tuple[str, ...]
    note: str = ""
    plan: Any = None
    contract: Any = None


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run, told. `state` is a verdict, REFUSED, `under way` or `interrupted`."""

    run: str
    task: str
    state: str
    when: str
    target: str
    metric_name: str
    headline: Headline
    contract: tuple[Limit, ...]
    steps: tuple[Step, ...]
    judged: tuple[Model, ...]  # baseline, final and control on test; empty before the verdict
    validation: Model | None  # the baseline on validation, which stages are compared with
    timings: tuple[Timing, ...] | Missing
    flips: Flips | Changes | Missing
    confusion: Confusion | Pairs | Missing
    curves: tuple[Curve, ...] | Missing
    profiles: tuple[Profile, ...] | Missing
    environment: tuple[tuple[str, str], ...]
    fingerprints: tuple[tuple[str, str], ...]
    reproduce: Reproduce
    slices: Slices | Missing = Missing("Slices are judged with the contract, on test; this run has none, or did not come so far.")
    calibration: Calibration | Missing = Missing("Calibration is judged with the contract, on test; this run did not come so far, or keeps no confidences.")
    studies: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # by name, in order: figures as the summary has them
    elsewhere: tuple[Elsewhere, ...] = ()
    control_note: str = ""
    teacher_note: str = ""  # what validation says against the teacher itself
    chosen_note: str = ""  # why the final isn't the last that passed
    contract_note: str = ""
