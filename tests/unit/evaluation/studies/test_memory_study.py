"""Memory: computed from the graph, planned by the runtime, measured of the process."""

from dataclasses import replace
from pathlib import Path

import pytest
from device_models import broken, setting

from limbeck.core.errors import Interrupted
from limbeck.evaluation.studies import MISSING, Side, taken
from limbeck.evaluation.studies.memory import MEMORY, POINTS, _thinned
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, feed
from limbeck.runtimes import runtime
from limbeck.testing import small_task


def test_each_figure_says_where_it_is_from(tmp_path: Path):
    found = taken(setting(tmp_path, batch=5), (MEMORY,))["memory"]
    for name, hidden in {"baseline": 2000, "candidate": 200}.items():
        one = found["models"][name]
        assert one["weights"] == {"bytes": 65 * hidden * 4, "how": "computed"}
        assert (one["activations"]["bytes"], one["activations"]["how"], one["activations"]["inputs_bytes"]) == ((64 + hidden) * 5 * 4, "computed", 64 * 5 * 4)
        assert one["activations"]["at"][0]["name"] == "up" and one["course"] == [(64 + hidden) * 20, (hidden + 1) * 20]
        assert one["planned"]["how"] == "planned" and one["planned"]["bytes"] >= hidden * 5 * 4 and one["resident"]["how"] == "measured"
        assert one["resident"]["bytes"] >= one["resident"]["loading_bytes"] > 0
    assert found["batch"] == 5 and found["models"]["baseline"]["resident"]["bytes"] > 65 * 2000 * 4


def test_torch_tells_no_plan_and_says_why(tmp_path: Path):
    task = small_task()
    artifact = runtime("torch").export(example(task, rebuild(teacher_candidate(task).torch_form, task)), tmp_path / "torch")
    given = replace(setting(tmp_path, baseline=False), candidate=Side(artifact=artifact), feed=feed(task, batch_of(task, "test", [0])))
    one = taken(given, (MEMORY,))["memory"]["models"]["candidate"]
    assert one["planned"] is None and "plans none ahead" in one["planned_why"] and one["activations"]["bytes"] == 2 * 32 * 64 * 4


def test_what_does_not_load_and_a_stop(tmp_path: Path):
    given = setting(tmp_path, baseline=False)
    assert "can't be loaded" in taken(replace(given, candidate=Side(artifact=broken(tmp_path / "broken"))), (MEMORY,))["memory"][MISSING]
    with pytest.raises(Interrupted):
        taken(replace(given, stop=lambda: True), (MEMORY,))


def test_a_long_course_keeps_its_peaks():
    live = [0] * 10 * POINTS
    live[777] = 5
    thin = _thinned(live)
    assert len(thin) == POINTS and max(thin) == 5 and thin.index(5) == 77 and _thinned([1, 2]) == [1, 2]
