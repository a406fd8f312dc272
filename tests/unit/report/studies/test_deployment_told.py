"""The report's sections on columns, kernels and saturation: what is said and drawn is what the figures say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "studies"))
import deployment_figures as made

from limbeck.report.markup import rendered
from limbeck.report.studies import TELL


def told(name: str, data: dict) -> str:
    return rendered(TELL[name][1](data))


def test_columns_and_what_lies_between_them():
    text = told("columns", made.columns())
    assert all(value in text for value in ("0.9500", "0.9400", "0.9300", "-0.0200 to 0.0400", "99.00 %", "0.2500"))
    assert "None of 2 tensors is over its tolerance" in text and "candidate, in torch → candidate, deployed" in text


def test_the_first_tensor_over_its_tolerance_is_named():
    bad = made.row("conv2", 23.0, 23.0, stage="file")
    text = told("columns", made.columns(made.row("conv1", 0.0, 1.0), bad, first=bad))
    assert re.search(r"First over its tolerance: <code>conv2</code> \(Conv, QuantizeLinear\), tensor <code>t_conv2</code>: 23 steps off; the exported file", text)
    other = made.row("conv1", 0.0, 3.0, stage="runtime")
    assert "3 steps off; the runtime&#x27;s kernels" in told("columns", made.columns(other, first=other))
    scaled = made.row("conv1", 0.5, 0.5, stage="file", grid="scale 0.2, simulated with 0.1")
    assert "scale 0.2, simulated with 0.1; the exported file" in told("columns", made.columns(scaled, first=scaled))


def test_each_layer_is_drawn_at_its_distance_over_its_tolerance():
    text = told("columns", made.columns(made.row("a", 0.0, 1.0), made.row("b", 0.1, 10.0, stage="runtime"), made.row("c", None, 1e-4, unit="relative")))
    wide = text[text.index('id="columns-layers-w-t"') :]
    limit = float(re.search(r'<line x1="([\d.]+)"[^>]*class="limit"', wide)[1])
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', wide)]
    assert places[1] == limit and places[3] > limit and places[5] < limit < places[4]  # deployed of a, b and c; c's file isn't finite
    assert places[0] < places[2] == places[5] < limit and "c: file not finite, runtime 1.0e-04" in text


def test_layers_that_are_not_known_say_why():
    text = told("columns", made.columns(layers={"missing": "no <file> of ONNX"}))
    assert "no &lt;file&gt; of ONNX" in text and "<svg" not in text


def test_many_layers_are_drawn_in_order_the_furthest_of_them():
    rows = [made.row(f"l{i:02}", 0.0, 1.0 if i % 2 else 0.0) for i in range(90)]
    text = told("columns", made.columns(*rows))
    narrow = text[text.index('id="columns-layers-n-d"') :].split("</desc>")[0]
    named = re.findall(r"l(\d\d):", narrow)
    assert len(named) == 40 and named == sorted(named) and all(int(n) % 2 for n in named) and "90 tensors" in text


def test_kernels_by_kind_and_those_that_are_float_in_silence():
    text = told("kernels", made.kernels(silent=True))
    wide = text[text.index('id="kernels-kinds-w-t"') :]
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', wide)][:3]
    assert widths[0] == 2 * widths[1] == 6 * widths[2] or abs(widths[0] - 2 * widths[1]) < 0.1 > abs(widths[1] - 3 * widths[2])
    assert 'class="verdict error"' in text and "stored as integers" in text and "conv1" in text and "3.00 kB (75.0 %) saved" in text
    calm = told("kernels", made.kernels())
    assert 'class="verdict error"' not in calm and "though their weights" not in calm and "layout" not in calm.split("<details")[0]


def test_saturation_with_what_was_measured_and_the_remedy():
    text = told("saturation", made.saturation())
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)', text)
    assert rows[:4] == [("measured here", "0.9000"), ("without VNNI", "0.8000"), ("without VNNI, large weights together", "0.7000"), ("7-bit weights", "0.9000")]
    assert "7 of 80" in text and "1.000 %" in text and "reduce_range = true" in text and "A CPU, with VNNI" in text


def test_saturation_where_there_is_none():
    text = told("saturation", made.saturation(risky=False))
    assert "No pair of its weights can saturate" in text and "<table" not in text and "A CPU" in text
