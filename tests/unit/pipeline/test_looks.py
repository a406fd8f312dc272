"""Looks at a test split: counted by data, also where it grew, and what each may still spend."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.utils.data import TensorDataset

from limbeck import testing
from limbeck.core.errors import RunError, TaskError
from limbeck.evaluation.spending import Look
from limbeck.intake.fingerprint import fingerprint
from limbeck.pipeline.looks import Looked, count_look, looked


def split(count, name="small", seed=0):
    """A task whose test split holds the first `count` of the same samples."""
    data = torch.randn(200, 3, generator=torch.Generator().manual_seed(seed))
    return testing.small_task().__class__(**{**vars(testing.small_task()), "name": name, "splits": {"test": TensorDataset(data[:count])}})


def look(root, task, run, error=0.05):
    return count_look(root, looked(task, fingerprint(task.split("test"))), run=run, artifact="a", error=error)


def lines(root):
    return [json.loads(line) for line in (root / "looks.jsonl").read_text().splitlines()]


def test_each_look_says_what_those_before_it_spent(tmp_path):
    found = [look(tmp_path, split(50), run, 0.05 / 3) for run in "abc"]
    assert [x.number for x in found] == [1, 2, 3] and [x.before for x in found] == pytest.approx([0, 0.05 / 3, 0.1 / 3])


def test_a_run_judged_again_is_the_same_look_whatever_came_after(tmp_path):
    first = look(tmp_path, split(50), "a", 0.02)
    look(tmp_path, split(50), "b", 0.02)
    assert look(tmp_path, split(50), "a", 0.02) == first == Look(1, 0.0) and len(lines(tmp_path)) == 2


def test_a_look_judged_again_at_a_lower_confidence_has_spent_more(tmp_path):
    look(tmp_path, split(50), "a", 0.01)
    look(tmp_path, split(50), "a", 0.05)
    look(tmp_path, split(50), "a", 0.01)
    assert look(tmp_path, split(50), "b").before == 0.05


def test_data_that_grew_is_the_same_series(tmp_path):
    assert [look(tmp_path, split(n), f"run {n}").number for n in (50, 120, 200, 50, 120)] == [1, 2, 3, 1, 2]
    assert look(tmp_path, split(50), "another").number == 4, "the small split again, after the larger ones"
    assert len({x.get("series", x["fingerprint"]) for x in lines(tmp_path)}) == 1 and [x["samples"] for x in lines(tmp_path)] == [50, 120, 200, 50]


@pytest.mark.parametrize("other", [split(120, seed=1), split(120, name="another task")])
def test_other_data_and_other_tasks_begin_anew(tmp_path, other):
    look(tmp_path, split(50), "a")
    assert look(tmp_path, other, "b").number == 1


def test_lines_without_task_and_samples_are_still_read(tmp_path):
    known = fingerprint(split(50).split("test"))
    old = [{"time": "2026-01-01T00:00:00+00:00", "fingerprint": known, "run": r, "artifact": "a"} for r in "ab"]
    (tmp_path / "looks.jsonl").write_text("".join(json.dumps(x) + "\n" for x in old))
    assert look(tmp_path, split(50), "a") == Look(1, 0.0)
    found = look(tmp_path, split(50), "c")
    assert found.number == 3 and found.before == pytest.approx(0.1), "what limbeck noted no error of was judged at 95 %"
    assert look(tmp_path, split(120), "d").number == 4, "the third look's line tells how many samples it had"


def test_data_that_cannot_be_read_any_more_is_said_to_be_the_tasks(tmp_path):
    class Broken(TensorDataset):
        def __getitem__(self, index):
            raise ValueError("gone")

    look(tmp_path, split(50), "a")
    task = split(120)
    broken = task.__class__(**{**vars(task), "splits": {"test": Broken(torch.zeros(120, 3))}})
    with pytest.raises(TaskError, match="its data.*gone"):
        count_look(tmp_path, looked(broken, "f"), run="b", artifact="a")
    assert len(lines(tmp_path)) == 1


def test_without_its_samples_data_is_counted_by_its_fingerprint_alone(tmp_path):
    look(tmp_path, split(50), "a")
    assert count_look(tmp_path, Looked(fingerprint="another", task="small", samples=120), run="b", artifact="a").number == 1


GOOD = {"fingerprint": "f", "run": "b", "artifact": "a"}


ODD = ({"error": None}, {"error": math.nan}, {"error": -5}, {"error": "x"}, {"samples": "5", "task": "small"}, {"run": 3}, {"series": 3})


@pytest.mark.parametrize("line", ['{"time": "2026', "[]", "{}", "\0\0", *(json.dumps(GOOD | odd) for odd in ODD)])
def test_a_line_that_is_no_look_is_named_and_nothing_is_counted_beside_it(tmp_path, line):
    """A negative error would leave more to spend than there is, one that is NaN no end of it."""
    text = json.dumps(GOOD) + "\n" + line + "\n"
    (tmp_path / "looks.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"line 2 of .*looks.jsonl is no look at a test split, got .*Bring the file back"):
        look(tmp_path, split(50), "c")
    assert (tmp_path / "looks.jsonl").read_text() == text
