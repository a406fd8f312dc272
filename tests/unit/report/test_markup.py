"""Text from outside stays text; numbers read as numbers."""

import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.core.errors import ConfigError
from limbeck.report import figures
from limbeck.report.markup import Html, el, escaped, rendered, shape
from limbeck.report.pictures import data_uri, png
from limbeck.report.scales import Scale, fitted
from limbeck.report.story import Kept, Picture


def test_text_is_escaped_and_markup_is_not():
    assert rendered(el("p", {"title": 'a"b'}, "<b>", Html("<i>x</i>"), None, ["&", 3])) == '<p title="a&quot;b">&lt;b&gt;<i>x</i>&amp;3</p>'
    assert rendered(el("img", {"alt": "", "src": None})) == "<img alt>" and rendered(el("td", {"x": 1.5})) == '<td x="1.5"></td>'
    assert rendered(shape("rect", {"x": 1 / 3, "y": 2.0, "class": None})) == '<rect x="0.33" y="2"/>'


@given(st.text(st.characters()))
def test_no_text_can_open_an_element_or_leave_an_attribute(text):
    found = escaped(text)
    assert not set("<>\"'") & set(found)
    found.encode()
    assert all(c in "\t\n\r" or ord(c) >= 32 for c in found)


def test_what_no_file_may_hold_is_replaced():
    assert escaped("a\x00b\ud800c\x9f\n") == "a\ufffdb\ufffdc\ufffd\n"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figures.size(216_640), "217 kB"),
        (figures.size(4_144_000), "4.14 MB"),
        (figures.size(12), "12 B"),
        (figures.size(None), "–"),
        (figures.milliseconds(0.036512), "0.0365 ms"),
        (figures.milliseconds(1234.5), "1,234 ms"),
        (figures.milliseconds(0), "0 ms"),
        (figures.times(19.13), "19.1×"),
        (figures.plain(0.98), "0.9800"),
        (figures.plain(math.nan), "nan"),
        (figures.plain(12345.678), "1.235e+04"),
        (figures.count(1_040_000), "1.04 M"),
        (figures.percent(0.9899), "99.0 %"),
        (figures.seconds(300), "5.0 min"),
        (figures.trimmed("2.00 MB"), "2 MB"),
        (figures.trimmed("0.0100 ms"), "0.01 ms"),
        (figures.trimmed("0.150 ms"), "0.15 ms"),
        (figures.trimmed("100 ms"), "100 ms"),
        (figures.asked("latency_p90_ms", 4.0), "at most 4.00 ms"),
        (figures.asked("retention", 0.95), "at least 95.0 %"),
        (figures.of_gate("speedup_p50", math.inf), "∞"),
        (figures.bound(Kept(value=1.0, bound=0.98998)), "at least 98.9 %"),
        (figures.bound(Kept(value=1.0, bound=0.99)), "at least 99.0 %"),
        (figures.bound(Kept(value=0.1, bound=0.12341, kind="drop")), "at most 0.1235"),
        (figures.kept(Kept(value=0.99, bound=0.97)), "99.0 %, at least 97.0 %"),
        (figures.kept(Kept(value=0.5, bound=0.75, kind="drop")), "drop 0.5000, at most 0.7500"),
    ],
)
def test_figures(shown, expected):
    assert shown == expected


def unpacked(data: bytes) -> tuple[dict[str, bytes], list[bytes]]:
    """A PNG's chunks, read as the standard says, each checksum compared."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert int.from_bytes(data[at + 8 + size : at + 12 + size]) == zlib.crc32(kind + body)
        chunks[kind.decode()] = body
        at += 12 + size
    width, channels = int.from_bytes(chunks["IHDR"][:4]), {0: 1, 2: 3}[chunks["IHDR"][9]]
    raw = zlib.decompress(chunks["IDAT"])
    step = width * channels + 1
    assert len(raw) == step * int.from_bytes(chunks["IHDR"][4:8])
    return chunks, [raw[i : i + step] for i in range(0, len(raw), step)]


@pytest.mark.parametrize(("width", "height", "channels"), [(3, 2, 1), (2, 3, 3), (300, 300, 3)])
def test_a_png_holds_its_pixels(width, height, channels):
    pixels = bytes(i * 7 % 256 for i in range(width * height * channels))
    chunks, rows = unpacked(png(Picture(width=width, height=height, channels=channels, pixels=pixels)))
    assert list(chunks) == ["IHDR", "IDAT", "IEND"] and all(r[0] == 0 for r in rows)
    assert b"".join(r[1:] for r in rows) == pixels


def test_a_png_of_other_pixels_is_refused():
    with pytest.raises(ConfigError, match="got 5 for 3 × 2 × 1"):
        png(Picture(width=3, height=2, channels=1, pixels=b"12345"))
    assert data_uri(Picture(width=1, height=1, channels=1, pixels=b"1")).startswith("data:image/png;base64,")


def test_a_scale_keeps_its_ends_and_order():
    scale = Scale(1, 100, 0, 50, log=True)
    assert [scale(1), scale(10), scale(100), scale(1000), scale(0.1)] == pytest.approx([0, 25, 50, 50, 0])
    assert Scale(2, 2, 0, 10)(2) == 5


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=8), st.booleans(), st.integers(2, 9))
def test_ticks_lie_within_the_axis_and_are_few(values, log, most):
    scale = fitted(values, 0, 100, log=log)
    ticks = scale.ticks(most)
    assert ticks and len(ticks) <= most + 2 and ticks == sorted(ticks)
    room = 1e-6 * (scale.high - scale.low) + 1e-9
    assert all(scale.low - room <= t <= scale.high + room for t in ticks)
    assert all(0 <= scale(v) <= 100 for v in values)


def test_whole_ticks():
    assert Scale(1, 4, 0, 1).ticks(6, whole=True) == [1, 2, 3, 4] and Scale(1, 300, 0, 1).ticks(6, whole=True) == [50, 100, 150, 200, 250, 300]
    assert Scale(1, 1, 0, 1).ticks(6, whole=True) == [1] and fitted([0.0, 4e6], 0, 1, zero=True).low == 0
