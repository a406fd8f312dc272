"""A training in a line, live and at the end."""

from limbeck.cli.training import ended, epoch

ROW = {
    "note": "distilling",
    "epoch": 4.0,
    "loss": 1.5,
    "kd": 1.0,
    "weight of kd": 0.5,
    "share of kd": 0.75,
    "validation": 0.8,
    "teacher": 0.9,
    "agreement": 0.7,
    "missed": 0.125,
    "forgotten": 0.05,
    "worst_class": 3,
    "worst_class_kept": 0.5,
}


def test_an_epoch_says_terms_with_their_pull_and_validation_beside_the_teacher():
    assert epoch(ROW) == (
        "loss 1.5000, kd 1.0000 (75% of the pull), weight of kd 0.5000, validation 0.8000 (teacher 0.9000), agrees with it on 70.0%, "
        "missed of its right answers 12.5%, forgotten since the best epoch 5.0%"
    )
    assert epoch({"epoch": 1, "note": "x", "loss": 0.5}) == "loss 0.5000"


def test_the_end_is_told_of_the_epoch_whose_weights_were_kept():
    told = ended([{**ROW, "kept": 1.0}, {"epoch": 5.0, "loss": 1.0, "validation": 0.1, "stopped": 1.0}])
    assert told.startswith("epoch 4 of 2: validation 0.8000 (teacher 0.9000)") and "class 3 kept least of its recall (50.0%); of the gradient: kd 75%" in told
    assert told.endswith("the guard against forgetting ended it")
    assert ended([{"epoch": 1.0, "loss": 1.0}]) == "epoch 1 of 1: ", "a run of the past may know nothing of validation"
