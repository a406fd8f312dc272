"""The contract checks over everything that is listed: ours by the same door as anyone's."""

import pytest

from limbeck import techniques
from limbeck.core.technique import card_of
from limbeck.runtimes import ALL as RUNTIMES
from limbeck.testing import check_runtime, check_technique


@pytest.mark.parametrize("function", techniques.ALL, ids=lambda f: card_of(f).name)
def test_techniques(function, tmp_path):
    check_technique(function, tmp_path)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda r: r.name)
def test_runtimes(runtime, tmp_path):
    check_runtime(runtime, tmp_path)
