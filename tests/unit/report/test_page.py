"""The file as a whole: well formed, escaped, accessible in structure, bounded, the same every time."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from limbeck.core.errors import RunError
from limbeck.report import page as pages
from limbeck.report.curves import lines
from limbeck.report.distributions import distributions
from limbeck.report.markup import rendered
from limbeck.report.page import LIMIT, page
from limbeck.report.story import Change, Changes, Confusion, Flips, Headline, Kept, Pairs, Sample, Timing
from limbeck.report.waterfall import Bar, dots, waterfall

sys.path.insert(0, str(Path(__file__).parent))
from told import EVIL, everything, flip, model, nothing, picture

VOID = {"meta", "img", "br", "hr"}


class Read(HTMLParser):
    """Elements in order, and whether each was closed where it had to be."""

    def __init__(self, data: bytes):
        super().__init__()
        self.elements, self.stack, self.text = [], [], []
        self.feed(data.decode())
        self.close()
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [a for t, a in self.elements if t == tag]


@pytest.fixture(scope="module", params=[everything, nothing], ids=["everything", "nothing"])
def read(request) -> Read:
    return Read(page(request.param()))


def test_nothing_from_data_becomes_markup(read):
    tags = {t for t, _ in read.elements}
    assert "script" not in tags and not tags & {"iframe", "object", "embed", "form", "link", "base", "foreignobject", "a:href"}
    assert all(not name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert all(i["src"].startswith("data:image/png;base64,") for i in read.all("img"))
    assert all(a["href"].startswith("#") for a in read.all("a"))
    assert "<script>alert(1)</script>" in "".join(read.text)  # it is shown, as text


def test_it_asks_for_nothing_from_outside():
    raw = page(everything()).decode()
    assert not re.search(r"(?:src|href|url|@import)\s*[=(:]\s*[\"']?\s*(?:https?:)?//", raw) and "http" not in raw.replace("http-equiv", "")
    assert "default-src 'none'" in raw.replace("&#x27;", "'")


def test_structure_for_those_who_hear_it(read):
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        assert set(f"{attributes.get('aria-labelledby', '')} {attributes.get('aria-describedby', '')}".split()) <= set(ids)
    levels = [int(t[1]) for t, _ in read.elements if t in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert [len(read.all(t)) for t in ("header", "main", "nav", "footer")] == [1, 1, 1, 1] and read.all("html") == [{"lang": "en"}]
    assert len(read.all("caption")) == len(read.all("table")) and all("scope" in a for a in read.all("th"))
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in read.all("svg"))
    drawings = sum(a.get("role") == "img" for a in read.all("svg"))
    assert drawings == len(read.all("desc")) == len(read.all("title")) - 1  # one is the page's own
    assert all(a.get("alt") for a in read.all("img"))


def test_every_section_is_there_or_says_why(read):
    names = [a["id"] for a in read.all("h2")]
    assert names == ["contract", "stages", "latencies", "slices", "flips", "confusion", "calibration", "training", "profile", "environment", "reproduce"]


def test_what_is_missing_is_said_where_it_would_stand():
    text = " ".join(Read(page(nothing())).text)
    assert text.count("Nothing is known of this.") == 7 and "Interrupted: there is no verdict yet." in text
    assert "It was stopped." in text and "Way out:" in text and "nan" not in text.lower().split() and "None" not in text


def test_the_headline_says_it_in_words():
    text = " ".join(Read(page(everything())).text)
    assert "The contract is broken." in text and "Not met: times faster." in text and "look 3 at this test split" in text
    assert "2.00×" in text and "slower" in text and "99 % interval 1.67× to 2.50×" in text  # 0.5× faster is told as slower
    same = replace(everything(), headline=Headline(size_ratio=1.004, faster=0.996))
    text = " ".join(Read(page(same)).text)
    assert "as large" in text and "as fast" in text and "ratio of medians" in text
    text = " ".join(Read(page(everything())).text)
    assert "skipped" in text and "broke" in text and "not reached" in text and "2 tries" in text
    dropped = replace(everything(), state="PASS", headline=Headline(size_ratio=2.0, kept=Kept(value=0.1, bound=0.2, kind="drop")))
    text = " ".join(Read(page(dropped)).text)
    assert "at most 0.2000" in text and "The contract holds." in text and "latency was not measured" in text


def test_equal_stories_give_equal_bytes():
    assert page(everything()) == page(everything())
    assert page(everything()) != page(replace(everything(), when="another day"))


@pytest.mark.parametrize("sample", [Sample(picture=picture(64, 3)), Sample(text="é" * 4000), Sample(tokens=tuple(range(1000)))], ids=["pictures", "texts", "tokens"])
def test_ten_thousand_flips_fit(sample):
    many = tuple(flip(i, sample) for i in range(5000))
    told = Flips(samples=100_000, both_right=90_000, both_wrong=0, lost=many, won=many, lost_total=5000, won_total=5000)
    data = page(replace(everything(), flips=told))
    assert len(data) <= LIMIT
    shown = "".join(Read(data).text)
    assert "of 5,000, evenly spread over the split" in shown and "10,000 changed sides" in shown


def test_what_doesn_t_fit_is_left_out_before_it_is_refused(monkeypatch):
    told = everything()
    whole, without = len(page(told)), len(pages._page(told, 0, 20).encode())
    monkeypatch.setattr(pages, "LIMIT", whole - 1)
    smaller = page(replace(told, flips=replace(told.flips, lost=told.flips.lost * 6, lost_total=24)))
    assert len(smaller) < whole and without < whole
    monkeypatch.setattr(pages, "LIMIT", without // 2)
    with pytest.raises(RunError, match="at most"):
        page(told)


def test_other_metrics_show_what_changed_most():
    told = Changes(column="error", samples=50, largest=(Change(index=7, before=1.0, after=3.5, sample=Sample(text="seven")), Change(index=2, before=2.0, after=1.0)), median=0.01)
    text = " ".join(Read(page(replace(everything(), flips=told))).text)
    assert "whose row (error) changed most" in text and "+2.5" in text and "−1" in text and "seven" in text


def test_confusion_is_shaded_where_it_is_wrong():
    data = page(replace(everything(), confusion=Confusion(classes=("a", "b"), before=((5, 4), (1, 4)), after=((9, 0), (0, 5)))))
    cells = [a for a in Read(data).all("td") if "--heat" in a.get("style", "")]
    assert [c["style"] for c in cells] == ["--heat:55%", "--heat:14%"]  # the final makes no mistake
    text = " ".join(Read(data).text)
    assert "Confusion of the baseline: 5 mistakes" in text and "Confusion of the final: 0 mistakes" in text


def test_many_classes_are_told_in_pairs():
    text = " ".join(Read(page(replace(everything(), confusion=Pairs(classes=100, pairs=(("cat", "dog", 3, 5), (EVIL, "cat", 1, 0)))))).text)
    assert "cat → dog" in text and "+2" in text and "There are 100 classes" in text


# --- charts


def rects(svg: str, kind: str) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in re.findall(r'(x|y|width|height)="([\d.]+)"', r)} for r in re.findall(rf'<rect[^>]*class="{kind}"/>', svg)]


def test_a_waterfall_draws_what_is_left_and_what_was_taken():
    bars = [Bar(name="baseline", value=4e6, kind="base"), Bar(name="a", value=1e6), Bar(name="b", value=3e6, kind="skipped", note="skipped"), Bar(name="c", value=5e5)]
    svg = rendered(waterfall("w", "Bytes", bars, shown=lambda v: f"{v:g}", axis="bytes"))
    (base,), steps, ghosts, (skipped,) = (rects(svg, k) for k in ("bar base", "bar step", "ghost", "bar skipped"))
    assert [s["width"] / base["width"] for s in steps] == pytest.approx([1 / 4, 1 / 8], abs=0.002)
    assert [g["width"] / base["width"] for g in ghosts] == pytest.approx([3 / 4, 1 / 8], abs=0.002)  # c is compared with a: b was left out
    assert ghosts[0]["x"] == pytest.approx(steps[0]["x"] + steps[0]["width"], abs=0.02) and skipped["width"] / base["width"] == pytest.approx(3 / 4, abs=0.002)
    assert "baseline 4e+06; a 1e+06 (−75 %); b 3e+06 (+200 %, skipped); c 500000 (−50 %)." in svg


def test_dots_stand_where_their_values_are():
    groups = [("validation", [Bar(name="baseline", value=0.9, kind="base"), Bar(name="a", value=None), Bar(name="b", value=1.0)])]
    svg = rendered(dots("d", "accuracy", groups, axis="accuracy"))
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert len(places) == 2 and places[0] < places[1] and "a on validation: –" in svg


def test_a_distribution_has_its_mass_where_the_samples_are():
    told = [Timing(name="slow", samples_ms=(1.0,) * 90 + (1.3,) * 10, turns=10), Timing(name="fast", samples_ms=(0.1,) * 100, turns=10)]
    svg = rendered(distributions("t", 340, told))
    slow, fast = (float(x) for x in re.findall(r'<line x1="([\d.]+)"[^>]*class="median"/>', svg))
    assert fast < slow and "slow: p50 1.00 ms, p90 1.03 ms, 100 inferences in 10 turns" in svg
    peak = [re.findall(r"[ML]([\d.]+) ([\d.]+)", d) for d in re.findall(r'<path d="([^"]+)"', svg)]
    for points, median in zip(peak, (slow, fast), strict=True):
        top = min(float(y) for _, y in points)
        assert any(abs(float(x) - median) < 8 for x, y in points if float(y) == top)


def test_a_line_goes_through_its_points_and_leaves_out_gaps():
    svg = rendered(lines("l", "Loss", (1.0, 2.0, 3.0), {"loss": (4.0, None, 2.0), "gone": (None, None, None)}, axis="epoch"))
    (points,) = re.findall(r'<polyline points="([^"]+)"', svg)
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points.split())
    assert x1 < x2 and y1 < y2 and "loss from 4 at epoch 1 to 2 at epoch 3" in svg and "gone" not in svg
    single = rendered(lines("l", "Loss", (1.0,), {"loss": (4.0,)}, axis="epoch"))
    assert "polyline" not in single and "circle" in single
    long = rendered(lines("l", "Loss", tuple(map(float, range(1, 3001))), {"loss": tuple(1 / k for k in range(1, 3001))}, axis="epoch"))
    assert len(re.findall(r"[\d.]+,[\d.]+", re.findall(r'points="([^"]+)"', long)[0])) == 240


def test_models_without_figures_are_drawn_as_gaps():
    bare = replace(everything(), judged=(), validation=replace(model("baseline", metric=None), p50_ms=None, size_bytes=None), steps=())
    text = " ".join(Read(page(bare)).text)
    assert "it was not measured" in text and "nothing was timed" in text and "nothing was exported yet" in text


def test_a_study_that_wasnt_made_says_so_and_why():
    text = " ".join(Read(page(replace(nothing(), studies=(("shift", {"missing": "samples are rows of a table. Name corruptions."}),)))).text)
    assert "Not made: samples are rows of a table. Name corruptions." in text
