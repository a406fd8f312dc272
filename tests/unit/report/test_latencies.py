"""The report's section on latency: bounds, warm-up, what disturbed whom."""

from limbeck.report.distributions import distributions
from limbeck.report.latencies import latencies
from limbeck.report.markup import el, rendered
from limbeck.report.story import Quantile, Timing

SAMPLES = tuple(1.0 + 0.001 * i for i in range(100))
P50, P90 = Quantile(value_ms=1.05, low_ms=1.03, high_ms=1.07), Quantile(value_ms=1.09, low_ms=1.08)


def timing(name: str, **more) -> Timing:
    return Timing(name=name, samples_ms=SAMPLES, turns=20, quantiles={"p50": P50, "p90": P90}, warm_up="16 in 0.02 s", **more)


def told(*timings: Timing) -> str:
    return rendered(el("div", None, latencies(timings)))


def test_percentiles_stand_with_their_bounds_and_none_where_there_are_too_few():
    page = told(timing("final"))
    assert "1.05 ms (1.03 to 1.07)" in page and "1.09 ms (1.08 to ?)" in page
    assert "<td>–</td>" in page, "no p99 of 100 inferences"
    assert "16 in 0.02 s" in page


def test_what_disturbed_them_is_said_once_with_the_names():
    note = "the clock fell from 3.4 to 2.1 GHz"
    page = told(timing("baseline", note=note), timing("final", note=note), timing("control"))
    assert page.count(note) == 1 and f"baseline, final: {note}." in page
    assert 'class="note"' not in told(timing("final"))


def test_a_timing_that_its_limits_ended_says_so():
    assert "decided by the contract" in told(timing("final", anytime=True))
    assert "decided by the contract" not in told(timing("final"))


def test_bounds_are_drawn_where_both_are_known():
    assert rendered(distributions("d", 700, [timing("final")])).count('class="interval"') == 1
    assert 'class="interval"' not in rendered(distributions("d", 700, [Timing(name="a", samples_ms=SAMPLES, turns=20)]))
