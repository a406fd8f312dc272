"""Stories for tests: one that tells everything, with text that would break a page that doesn't escape it."""

from __future__ import annotations

from dataclasses import replace

from limbeck.report.story import (
    Calibration,
    ClassKept,
    Confusion,
    Curve,
    Elsewhere,
    Flip,
    Flips,
    Headline,
    Kept,
    Layer,
    Limit,
    Missing,
    Model,
    Part,
    Picture,
    Profile,
    Quantile,
    Reliability,
    Reproduce,
    Sample,
    Slices,
    Step,
    Story,
    Timing,
)

EVIL = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}\x00\x1b\ud800"
NOTHING = Missing("Nothing is known of this.")


def model(name: str, factor: float = 1.0, *, split: str = "validation", metric: float | None = 0.98) -> Model:
    kept = Kept(value=factor, bound=factor - 0.01, confidence=0.95, samples=500, split=split)
    whole = {"parameters": 1000, "macs": 90_000, "int8": 2, "floats": 3, "operators": {"Conv": 3, EVIL: 2}}
    sizes = {"size_bytes": int(4e6 * factor), "download_bytes": int(3e6 * factor), "p50_ms": 2 * factor, "p90_ms": 3 * factor, "memory_bytes": 1000}
    return Model(name=name, split=split, metric=metric, kept=kept, **sizes, **whole)


def picture(side: int = 8, channels: int = 1) -> Picture:
    return Picture(width=side, height=side, channels=channels, pixels=bytes(i % 256 for i in range(side * side * channels)))


def flip(index: int, sample: Sample | None = None) -> Flip:
    return Flip(index=index, label=EVIL, before="3", after=EVIL, sample=sample)


def everything() -> Story:
    """Every section filled; what comes from data is EVIL wherever text may stand."""
    passed = Limit(gate="retention", status="PASS", reason=EVIL, limit=0.95, measured=0.99, low=0.97)
    failed = Limit(gate="speedup_p50", status="FAIL", reason=EVIL, limit=4.0, measured=2.0, low=1.9, high=2.1)
    quantiles = {"p50": Quantile(value_ms=0.35, low_ms=0.34, high_ms=0.36), "p90": Quantile(value_ms=0.55, low_ms=0.5)}
    steps = (
        Step(name=EVIL, technique="distill", status="PASS", model=model(EVIL, 0.5), gates=(passed,), seconds=3.0),
        Step(name="prune", technique="prune", status="FAIL", model=model("prune", 0.4), gates=(failed,), seconds=300.0, tries=2),
        Step(name="broken", technique="quantize", status="FAIL", error=EVIL),
        Step(name="later", technique="quantize", status="not reached"),
    )
    samples = (Sample(picture=picture()), Sample(text=EVIL, note=EVIL), Sample(tokens=(1, 2, 3)), Sample(numbers=((EVIL, 1.5),)))
    told = tuple(flip(i, s) for i, s in enumerate(samples))
    counts = ((5, 1), (0, 4))
    epochs = (1.0, 2.0, 3.0)
    layers = (Layer(path=EVIL, kind=EVIL, parameters=10, macs=20), Layer(path="head", kind="Linear", parameters=5, macs=5))
    return Story(
        run=EVIL,
        task=EVIL,
        state="FAIL",
        when="2026-01-02 03:04 UTC",
        target=EVIL,
        metric_name=EVIL,
        headline=Headline(size_ratio=2.0, faster=0.5, faster_low=0.4, faster_high=0.6, kept=steps[0].model.kept, looks=3, closest=EVIL),
        contract=(
            passed,
            failed,
            Limit(gate=EVIL, status="UNVERIFIED", reason=EVIL, limit=1.0),
            Limit(gate="max_drop", status="INCONCLUSIVE", reason="", limit=0.1, measured=0.1, low=0.2),
        ),
        steps=steps,
        judged=(model("baseline", split="test"), model("final", 0.5, split="test"), model("control", 0.6, split="test")),
        validation=model("baseline"),
        timings=tuple(
            Timing(name=n, samples_ms=tuple(0.1 * k + 0.001 * i for i in range(500)), turns=100, quantiles=quantiles, note=EVIL if k == 2 else "", warm_up="16 in 0.1 s")
            for k, n in ((1, "baseline"), (2, "final"), (3, "control"))
        ),
        flips=Flips(samples=100, both_right=80, both_wrong=10, lost=told, won=told[:1], lost_total=4, won_total=6, p_value=0.5),
        confusion=Confusion(classes=(EVIL, "b"), before=counts, after=((4, 2), (1, 3))),
        slices=Slices(
            parts=(
                Part(name=EVIL, samples=80, baseline=0.9, final=0.8, kept=Kept(value=0.89, bound=0.8)),
                Part(name="day", samples=400, baseline=0.9, final=0.9, kept=Kept(value=1.0, bound=0.97)),
                Part(name="dusk", samples=60, baseline=0.0, final=0.1, kept=Kept(value=-0.1, bound=0.02, kind="drop")),
                Part(name="none", samples=0, note=EVIL),
            ),
            confidence=0.95,
            whole=Kept(value=0.98, bound=0.96),
            agreement=0.97,
        ),
        calibration=Calibration(
            models=(
                Reliability(name="baseline", ece=0.02, high=0.03, bins=((0.5, 0.5, 30), (0.9, 0.88, 31))),
                Reliability(name="final", ece=0.08, high=None, bins=((0.99, 0.9, 61),)),
            )
        ),
        curves=(
            Curve(
                title=EVIL,
                epochs=epochs,
                terms={"loss": (3.0, 2.0, None), EVIL: (1.0, 1.0, 1.0)},
                shares={EVIL: (0.25, None, 0.5), "kd": (0.75, None, 0.5)},
                validation=(0.1, None, 0.3),
                teacher=(0.4, 0.4, 0.4),
                watched={"agreement with the teacher": (0.5, 0.6, 0.7)},
                others={f"weight of {EVIL}": (1.0, 0.9, 0.8)},
                classes=(ClassKept(name=EVIL, samples=10, teacher=8, student=2), ClassKept(name="b", samples=10, teacher=0, student=0)),
                classes_total=40,
                note=EVIL,
            ),
        ),
        profiles=(Profile(name="baseline", layers=layers, parameters=15, macs=25), Profile(name="final", layers=NOTHING)),
        environment=(("system", EVIL), (EVIL, "1")),
        fingerprints=(("train", EVIL),),
        reproduce=Reproduce(commands=(EVIL,), note=EVIL, plan={"a": [EVIL]}, contract={"retention": 0.9}),
        elsewhere=(Elsewhere(machine=EVIL, p50_ms=1.0, used=True, when=EVIL),),
        control_note=EVIL,
        teacher_note=EVIL,
        contract_note=EVIL,
    )


def nothing() -> Story:
    """A run of which next to nothing is known."""
    bare = {"headline": Headline(reason="It was stopped.", fix="Start it again."), "contract": (), "steps": (), "judged": (), "validation": None, "elsewhere": ()}
    gaps = dict.fromkeys(("timings", "slices", "flips", "confusion", "calibration", "curves", "profiles"), NOTHING)
    return replace(everything(), state="interrupted", environment=(), fingerprints=(), control_note="", teacher_note="", contract_note="", **bare, **gaps)
