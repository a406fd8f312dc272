"""Golden answers: kept in one spelling, compared within tolerances."""

import io

import numpy as np
import pytest

from limbeck.core.errors import RunError
from limbeck.package.golden import FLOAT_REL, INT8_REL, differences, npz, samples_of, tolerances

SAMPLES = [{"logits": np.array([[1.0, -2.0, 4.0]], np.float32), "label": np.array([2])}, {"logits": np.array([[0.0, 3.0, 1.0]], np.float32), "label": np.array([1])}]


def changed(name, value):
    return [{**SAMPLES[0], name: value}, SAMPLES[1]]


def test_numpy_reads_what_was_written_and_equal_arrays_give_equal_bytes():
    raw = npz(SAMPLES)
    assert raw == npz([{k: v.copy() for k, v in s.items()} for s in SAMPLES])
    with np.load(io.BytesIO(raw)) as file:
        assert sorted(file.files) == ["0/label", "0/logits", "1/label", "1/logits"]
    again = samples_of(raw, where="x")
    assert all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for a, b in zip(SAMPLES, again, strict=True) for k in a)


def test_what_is_no_npz_is_an_error_of_ours():
    with pytest.raises(RunError, match="holds no samples"):
        samples_of(b"nothing", where="golden/inputs.npz")


@pytest.mark.parametrize(("quantized", "limit"), [(False, FLOAT_REL), (True, INT8_REL)])
def test_the_tolerance_is_a_share_of_the_largest_magnitude(quantized, limit):
    allowed = tolerances(SAMPLES[0], quantized=quantized)
    just, over = (np.array([[1.0, -2.0, 4.0 + f * limit * 4.0]], np.float32) for f in (0.9, 1.1))
    assert differences(SAMPLES, changed("logits", just), allowed)[1] == []
    worst, beyond = differences(SAMPLES, changed("logits", over), allowed)
    assert worst == pytest.approx(1.1 * limit, rel=1e-2) and "'logits' differs by" in beyond[0]


def test_whole_numbers_must_be_equal_where_the_arithmetic_is_float():
    other = changed("label", np.array([0]))
    assert differences(SAMPLES, SAMPLES, tolerances(SAMPLES[0], quantized=False)) == (0.0, [])
    assert "50.0%" in differences(SAMPLES, other, tolerances(SAMPLES[0], quantized=False))[1][0]


@pytest.mark.parametrize("value", [np.array([[np.nan, -2.0, 4.0]]), np.array([[np.inf, -2.0, 4.0]]), np.array([[1.0, -2.0]]), None])
def test_nan_infinity_and_shapes_are_never_near(value):
    got = changed("logits", value) if value is not None else [{"label": s["label"]} for s in SAMPLES]
    assert differences(SAMPLES, got, tolerances(SAMPLES[0], quantized=True))[1]
    same = [{"logits": np.array([[np.nan, np.inf]])}]
    assert differences(same, same, {"logits": {"max_rel": 0.0}}) == (0.0, [])
