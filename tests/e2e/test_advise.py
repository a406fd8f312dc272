"""`limbeck advise` on a small task."""

import json

from project import limbeck, write_project

PLAN = """
[[stage]]
technique = "distill"
config = { student = "limbeck:convnet", options = { width = 6 }, training = { epochs = 20, batch_size = 16, learning_rate = 0.01 } }
"""


def test_advice_is_told_and_goes_on_where_it_stopped(tmp_path):
    folder = write_project(tmp_path / "project", plan=PLAN)
    first = limbeck("advise", "--epochs", "2", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    data = json.loads(first.stdout)
    arms = {a["arm"]: a for a in data["arms"]}
    assert "through an assistant" in arms and data["gap"]["student_parameters"] < data["gap"]["teacher_parameters"]
    assert all(a["seconds"] > 0 and (a["compared"] is None or a["compared"]["low"] <= a["compared"]["value"] <= a["compared"]["high"]) for a in arms.values())
    assert list(data["gap"]["left_open"].values()) == sorted(data["gap"]["left_open"].values())  # the hotter, the more is left open
    trained = sorted(p.name for p in (folder / "runs" / "run-advice" / "stages").iterdir())
    again = limbeck("advise", "--epochs", "2", "--json", cwd=folder)
    assert sorted(p.name for p in (folder / "runs" / "run-advice" / "stages").iterdir()) == trained
    same = json.loads(again.stdout)
    assert [(a["arm"], a["validation"], a["compared"]) for a in same["arms"]] == [(a["arm"], a["validation"], a["compared"]) for a in data["arms"]]
    shown = limbeck("advise", "--epochs", "2", cwd=folder)
    assert "does this teacher help this student?" in shown.stdout and "T = 4, weight 0.9" in shown.stdout


def test_without_a_student_it_says_how_to_name_one(tmp_path):
    folder = write_project(tmp_path / "project", plan='[[stage]]\ntechnique = "quantize"\n')
    done = limbeck("advise", cwd=folder)
    assert done.returncode == 2 and "Give --student" in done.stderr
    named = limbeck("advise", "--student", "smal", cwd=folder)
    assert named.returncode == 2 and "small" in named.stderr
