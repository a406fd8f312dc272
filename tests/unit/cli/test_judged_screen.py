"""What `evaluate` and `compare` print: the verdict first, ratios the right way round, nothing cut at 80 columns, names from outside as they are."""

import copy

import pytest

from limbeck.cli.judged import _times, judged
from limbeck.cli.progress import ConsoleLog
from limbeck.cli.render import console

SUBJECT = {
    "name": "a.onnx",
    "kind": "artifact",
    "metric": {"name": "accuracy", "value": 0.9583},
    "size_bytes": 1_200_000,
    "download_bytes": 900_000,
    "latency_ms": {"p50": 0.4, "p90": 0.5, "p99": None},
    "latency_interval_ms": {"p50": [0.39, 0.41], "p90": [0.48, None], "p99": None},
    "latency_note": None,
    "peak_memory_bytes": 5_000_000,
    "parameters": 300_000,
    "macs": 1_000_000,
    "artifact": "a.onnx",
    "runtime": "onnxruntime",
    "threads": 1,
    "kernels": {"int8": 0, "float": 12},
    "metric_interval": [0.93, 0.98],
    "retention": None,
    "drop": None,
    "disturbed": False,
    "behaviour": None,
    "studies": {},
    "agreement": None,
    "ratios": None,
    "notes": [],
    "verdicts": [],
}
SECOND = SUBJECT | {
    "name": "b.onnx",
    "size_bytes": 300_000,
    "peak_memory_bytes": 10_000_000,
    "latency_ms": {"p50": 0.2, "p90": 0.5, "p99": None},
    "kernels": {"int8": 5, "float": 7},
    "metric": {"name": "accuracy", "value": 0.9479},
    "metric_interval": [0.92, 0.97],
    "retention": {"value": 0.989, "low": 0.971, "kind": "ratio", "confidence": 0.95, "samples": 400},
    "agreement": {"max_abs": 0.25, "max_rel": 0.1, "argmax_agreement": 0.984, "inputs": "64 samples of test", "outputs": []},
    "ratios": {"size": 4.0, "speedup_p50": {"value": 2.0, "low": 1.9, "high": 2.1}},
    "verdicts": [{"gate": "retention", "status": "PASS", "limit": 0.97, "reason": "95 % bound 0.9710 on 400 samples of test"}],
}
DATA = {
    "schema": 2,
    "verdict": "PASS",
    "exit_code": 0,
    "target": {"runtime": "onnxruntime", "threads": 1, "batch": 1},
    "split": "test",
    "inputs": {"source": "samples of test", "arrays": [{"name": "image", "dtype": "float32", "shape": [1, 8]}, {"name": "sr", "dtype": "int64", "shape": [], "value": 16000}]},
    "test_looks": 2,
    "subjects": [SUBJECT, SECOND],
}


@pytest.fixture
def shown(monkeypatch, capsys):
    def show(data, *, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        judged(data)
        return capsys.readouterr().out

    return show


def row(text: str, label: str) -> list[str]:
    """The words of the row that begins so."""
    return next(line for line in text.splitlines() if line.strip().startswith(label)).split()


APART, ALIKE = "2.00× faster", "can't be told apart"


@pytest.mark.parametrize(("second", "said"), [((0.1, 0.2), APART), ((0.1, 0.5), ALIKE), ((None, 0.2), APART), ((0.1, None), ALIKE)])
def test_a_ratio_of_percentiles_whose_bounds_overlap_or_are_not_known_is_not_told(shown, second, said):
    first = SUBJECT | {"latency_ms": {"p50": 0.4, "p90": 0.4, "p99": None}, "latency_interval_ms": {"p90": [0.3, 0.5]}}
    other = SECOND | {"latency_ms": {"p50": 0.2, "p90": 0.2, "p99": None}, "latency_interval_ms": {"p90": list(second)}}
    assert said in " ".join(row(shown(DATA | {"subjects": [first, other]}), "p90 ms"))


def test_two_models_side_by_side(shown):
    text = shown(DATA)
    assert text.splitlines()[0] == "PASS b.onnx against a.onnx" and text.index("retention") < text.index("baseline a.onnx") < text.index("p50 ms")
    assert row(text, "accuracy") == ["accuracy", "0.9583", "0.9479", "-0.0104"]
    assert " ".join(row(text, "bounds")) == "bounds [0.930, 0.980] [0.920, 0.970] kept 0.989 ≥ 0.971"
    assert " ".join(row(text, "p50 ms")) == "p50 ms 0.400 0.200 2.00× faster [1.90, 2.10]" and " ".join(row(text, "p90 ms")) == "p90 ms 0.500 0.500 can't be told apart"
    assert " ".join(row(text, "size")) == "size 1.20 MB 300 kB 4.00× smaller" and " ".join(row(text, "memory")) == "memory 5.00 MB 10.0 MB 2.00× larger"
    assert " ".join(row(text, "int8 kernels")) == "int8 kernels 0 of 12 5 of 12 of what multiplies"
    assert "inputs: image float32[1, 8], sr = 16000" in text and "on 64 samples of test outputs differ by 0.25 at most (0.1 of the largest), argmax agrees on 98.4%" in text
    assert "p99" not in text, "no row for what was measured of neither"


def test_a_table_fits_eighty_columns_whole(shown):
    text = shown(DATA)
    assert "…" not in text and max(len(line.rstrip()) for line in text.splitlines() if "×" in line or "bounds" in line) <= 80
    assert len(text.splitlines()) <= 33, "about one screen"


def test_bounds_of_percentiles_where_there_is_room(shown):
    assert "0.400 [0.390, 0.410]" in shown(DATA, columns=120) and "0.500 [0.480, –]" in shown(DATA, columns=120) and "0.390" not in shown(DATA)


def test_one_model_by_itself(shown):
    text = shown(DATA | {"verdict": None, "subjects": [SUBJECT]})
    assert text.splitlines()[0] == "artifact a.onnx: 300,000 weights, 1,000,000 multiply-adds"
    assert " ".join(row(text, "accuracy")) == "accuracy 0.9583 [0.930, 0.980], each bound at 95 %"
    assert " ".join(row(text, "p50")) == "p50 ms 0.400 [0.390, 0.410], each bound at 99 %" and row(text, "p90")[3:5] == ["[0.480,", "–],"]
    assert "faster" not in text and "differ" not in text


def test_notes_names_and_what_was_not_measured(shown):
    data = copy.deepcopy(DATA) | {"verdict": "UNVERIFIED", "inputs": {"source": "random", "arrays": []}, "test_looks": None}
    second = data["subjects"][1]
    second |= {"name": "[red]b[/red].onnx", "notes": ["output '[bold]y' is NaN"], "latency_note": "load 9", "kernels": None, "peak_memory_bytes": None}
    second |= {"metric": {"name": None, "value": None}, "metric_interval": None, "retention": {"value": 0.01, "low": 0.03, "kind": "drop"}}
    second |= {"agreement": {"max_abs": None, "max_rel": None, "argmax_agreement": None, "inputs": "16"}}
    text = shown(data)
    assert "candidate [red]b[/red].onnx" in text and "note: output '[bold]y' is NaN" in text and "timed on random inputs" in text and "latency of the candidate: load 9" in text
    assert " ".join(row(text, "memory")) == "memory 5.00 MB –"
    assert " ".join(row(text, "int8 kernels")) == "int8 kernels 0 of 12 – of what multiplies" and "drop 0.0100 ≤ 0.0300" in text
    assert "on 16 outputs differ by NaN or infinity" in text and "look" not in text


def test_a_ratio_is_told_the_right_way_round():
    assert _times(0.5, "faster", "slower", 0.4, 0.8) == "2.00× slower [1.25, 2.50]"
    assert _times(1.5, "smaller", "larger") == "1.50× smaller" and _times(0.999, "smaller", "larger") == "the same"
    assert _times(1.001, "faster", "slower", 0.99, 1.02) == "1.00× faster [0.99, 1.02]"


def test_a_name_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]):
    """`task.py:two: 3 weights` is a task called two."""
    console().print("baseline task.py:two: 3 weights")
    ConsoleLog().event("warning", message="task.py:two: too few")
    told = capsys.readouterr()
    assert told.out == "baseline task.py:two: 3 weights\n" and "task.py:two: too few" in told.err
