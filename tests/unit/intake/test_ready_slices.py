"""Slices by label and by column: each sample in the one that its value says, names that read well, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import limbeck
from limbeck import by_column, by_label
from limbeck.core.errors import ConfigError, TaskError
from limbeck.evaluation.slices import masks_of
from limbeck.testing import small_task


class Rows:
    classes = ("no", "yes")

    def __init__(self):
        self.data = [{"x": torch.zeros(2), "age": a, "site": s, "label": i % 2} for i, (a, s) in enumerate(zip((10, 20, 30, 40, 50, 60), "aabbcc", strict=True))]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict:
        return self.data[i]


def masks(slices, data=None) -> dict[str, list[bool]]:
    task = replace(small_task(samples=8), splits={"test": data or Rows()}, slices=slices)
    return {name: mask.tolist() for name, mask in masks_of(task, "test").items()}


def test_one_slice_a_label():
    task = replace(small_task(samples=12), slices=by_label(4))
    found = masks_of(task, "test")
    labels = np.array([int(y) for _, y in task.splits["test"]])
    assert list(found) == ["label 0", "label 1", "label 2", "label 3"] and all((mask == (labels == i)).all() for i, mask in enumerate(found.values()))


def test_labels_have_the_names_of_their_classes():
    assert masks(by_label(["no", "yes"])) == masks(by_label(Rows())) == {"no": [True, False] * 3, "yes": [False, True] * 3}
    assert masks(by_label(["young"], target="age"))["young"] == [False] * 6


def test_one_slice_a_value():
    assert masks(by_column("site", values=["a", "c"])) == {"site = a": [True, True, False, False, False, False], "site = c": [False] * 4 + [True] * 2}
    assert list(by_column("site", data=Rows())) == ["site = a", "site = b", "site = c"]


def test_ranges_hold_every_sample_once():
    found = masks(by_column("age", edges=[20, 50]))
    assert list(found) == ["age < 20", "20 ≤ age < 50", "age ≥ 50"]
    assert np.sum(list(found.values()), axis=0).tolist() == [1] * 6 and found["age ≥ 50"] == [False] * 4 + [True] * 2


def test_bins_hold_about_as_many_samples():
    found = masks(by_column("age", data=Rows(), bins=3))
    assert [sum(m) for m in found.values()] == [2, 2, 2]
    assert len(by_column("age", data=Rows(), bins=2)) == 2


def test_positions_and_functions_are_columns_too():
    task = replace(small_task(samples=8), slices=by_column(lambda batch: batch[0].mean((1, 2, 3)), edges=[0.3], name="brightness") | by_column(1, values=[2]))
    found = masks_of(task, "test")
    bright = np.array([float(x.mean()) >= 0.3 for x, _ in task.splits["test"]])
    assert (found["brightness ≥ 0.3"] == bright).all() and (found["brightness < 0.3"] == ~bright).all() and found["column 1 = 2"].sum() == 2


def test_they_join_into_one_table_and_are_public():
    slices = by_label(2) | by_column("site", values=["a"])
    assert len(slices) == 3 and {"by_label", "by_column"} <= set(limbeck.__all__)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: by_label(0), "by_label.classes"),
        (lambda: by_label(small_task(samples=8).splits["test"]), "by_label.classes"),
        (lambda: by_label(["a", "a"]), "'a' twice"),
        (lambda: by_column("age"), "one of values, edges and data"),
        (lambda: by_column("age", values=[1], edges=[2]), "one of values, edges and data"),
        (lambda: by_column("age", values=[1], bins=2), "bins with data alone"),
        (lambda: by_column("age", edges=[3, 2]), "must rise"),
        (lambda: by_column("age", edges=[1, float("nan")]), "must rise"),
        (lambda: by_column("age", values=range(60)), "60 values"),
        (lambda: by_column("age", values=[1, 1]), "twice"),
        (lambda: by_column("site", data=Rows(), bins=3), "a column of numbers"),
        (lambda: by_column(len, data=Rows()), "a function of a batch"),
    ],
)
def test_what_is_refused(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(TaskError, match="'aeg'"):
        by_column("aeg", data=Rows())
    with pytest.raises(TaskError, match="slice 'aeg = 1'"):
        masks(by_column("aeg", values=[1]))
    with pytest.raises(TaskError, match="no labels"):
        masks(by_label(2), data=[torch.zeros(2)] * 4)
