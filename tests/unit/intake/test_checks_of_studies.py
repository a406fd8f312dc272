"""What studies will read at the verdict is looked at before anything is spent."""

from dataclasses import replace

import pytest

import limbeck
from limbeck.core.errors import TaskError
from limbeck.intake.checks import check
from limbeck.testing import small_task


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"shifts": {"fog": 3}}, r"shifts must be a dict of functions.*\['fog'\]"),
        ({"shifts": [abs]}, "shifts must be a dict of functions"),
        ({"outside": [1, 2]}, "outside must be a dict"),
        ({"outside": {"stream": iter([1, 2])}}, r"outside\['stream'\]"),
    ],
)
def test_what_can_not_be_is_refused_at_once(fields, words):
    with pytest.raises(TaskError, match=words):
        check(replace(small_task(), **fields))


def test_what_can_be_passes():
    check(replace(small_task(), shifts=limbeck.image_shifts(), outside={"none": [], "some": [(1, 2)]}))
