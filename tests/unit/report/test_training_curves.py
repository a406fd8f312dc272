"""The training section: terms, shares, validation beside the teacher's, and the classes that lost most."""

import re

from limbeck.pipeline.chapters import classes_kept, curve
from limbeck.report.curves import curve as drawn
from limbeck.report.story import Curve

ROWS = [
    {"epoch": 1.0, "loss": 3.0, "kd": 2.0, "task_loss": 1.0, "weight of kd": 0.5, "share of kd": 0.75, "share of task_loss": 0.25, "validation": 0.6, "teacher": 0.9},
    {"epoch": 2.0, "loss": 2.0, "kd": 1.0, "task_loss": 1.0, "weight of kd": 0.4, "share of kd": 0.5, "share of task_loss": 0.5, "validation": 0.8, "teacher": 0.9}
    | {"agreement": 0.7, "missed": 0.2, "worst_class": 1, "worst_class_kept": 0.25, "classes": [[0, 10, 9, 9], [1, 10, 8, 2], [2, 5, 0, 1]], "kept": 1.0},
    {"epoch": 3.0, "loss": 2.0, "kd": 1.0, "task_loss": 1.0, "validation": 0.5, "teacher": 0.9, "forgotten": 0.4, "classes": [[0, 10, 9, 0]], "stopped": 1.0},
]


def test_each_column_finds_its_chart():
    told = curve("distill: training", ROWS, names=("cat", "dog"))
    assert list(told.terms) == ["loss", "kd", "task_loss"] and list(told.shares) == ["kd", "task_loss"] and list(told.others) == ["weight of kd"]
    assert told.shares["kd"] == (0.75, 0.5, None) and told.teacher == (0.9, 0.9, 0.9) and told.validation == (0.6, 0.8, 0.5)
    assert told.watched["forgotten since the best epoch"] == (None, None, 0.4) and set(told.watched) >= {"agreement with the teacher"}
    assert [(c.name, c.teacher, c.student) for c in told.classes] == [("dog", 8, 2), ("cat", 9, 9), ("2", 0, 1)], "of the epoch whose weights were kept, worst first"
    assert told.note == "The guard ended it after epoch 3, which had forgotten 40.0% of what was right after epoch 2."


def test_a_worse_teacher_and_the_best_epoch_are_said():
    rows = [{"epoch": 1.0, "loss": 1.0, "validation": 0.9, "teacher": 0.7, "ahead_of_teacher": 0.1, "kept": 1.0}, {"epoch": 2.0, "loss": 1.0, "validation": 0.8, "teacher": 0.7}]
    told = curve("t", rows)
    assert (
        told.note
        == "The weights are those of epoch 1, the best on validation. The teacher is worse on validation (0.7) than the student (0.9): its answers may hold the student back."
    )


def test_rows_of_before_are_told_as_they_were():
    told = curve("t", [{"epoch": 1.0, "loss": 1.0, "task_loss": 1.0, "validation": 0.5}])
    assert told == Curve(title="t", epochs=(1.0,), terms={"task_loss": (1.0,)}, validation=(0.5,))


def test_the_page_draws_four_charts_and_names_the_class():
    text = drawn("c", curve("distill", ROWS, names=("cat", "dog")), "accuracy").text
    assert len(re.findall('<svg viewBox="0 0 340', text)) == 4 and "Share of the gradient" in text
    assert "Class by class: dog kept least, 2 of 8" in text and "0.250" in text and "accuracy of the teacher" in text
    assert "kd from 0.75 at epoch 1 to 0.5 at epoch 2" in text
    alone = drawn("c", curve("t", [{"epoch": 1.0, "loss": 1.0, "validation": 0.5}]), "accuracy").text
    assert len(re.findall('<svg viewBox="0 0 340', alone)) == 2 and "Class by class" not in alone


def test_a_class_that_the_teacher_never_has_right_comes_last():
    assert [c.name for c in classes_kept([[0, 5, 0, 0], [1, 5, 5, 5], [2, 5, 4, 1]])] == ["2", "1", "0"]
