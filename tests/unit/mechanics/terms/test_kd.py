"""kd with a temperature that changes; kd itself is held in test_objective.py."""

import pytest
import torch
from said import logits, quarters, seen

from limbeck.core.errors import ConfigError
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.signals import LiveTeacher, SparseTeacher
from limbeck.mechanics.terms import ALL, kd
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term


def test_it_keeps_the_contract():
    check_term(kd(temperature_end=1.0), task=quarters())
    check_term(kd(temperature=8, temperature_end=2, schedule="cosine", standardize=True), task=quarters())


@pytest.mark.parametrize(
    ("schedule", "done", "temperature"),
    [("linear", 0.0, 8), ("linear", 0.25, 6.5), ("linear", 1.0, 2), ("cosine", 0.0, 8), ("cosine", 0.25, 8 - 6 * 0.1464466094), ("cosine", 0.5, 5), ("cosine", 1.0, 2)],
)
def test_the_temperature_goes_from_its_start_to_its_end(schedule, done, temperature):
    s, t = logits(0), logits(1)
    term = kd(temperature=8, temperature_end=2, schedule=schedule)
    assert term.function(seen(s, t, done=done)).item() == pytest.approx(kd_loss(s, t, temperature=temperature).item(), rel=1e-8)
    assert term.tells(seen(s, t, done=done)) == {"temperature": pytest.approx(temperature)}


def test_without_an_end_it_stays_and_nothing_is_told():
    s, t = logits(0), logits(1)
    assert kd(temperature=3).function(seen(s, t, done=0.9)).item() == pytest.approx(kd_loss(s, t, temperature=3).item(), rel=1e-12)
    assert kd().tells is None and kd().reads == 4.0


def test_a_sparse_cache_cannot_serve_it(tmp_path):
    task = quarters()
    live = LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))
    sparse = SparseTeacher(tmp_path, live, {"teacher": "t"}, 2, (4.0,))
    (1.0 * kd(temperature=4)).bind(task, sparse)
    with pytest.raises(ConfigError, match="kd reads the teacher's whole outputs; a sparse cache holds"):
        (1.0 * kd(temperature=4, temperature_end=1)).bind(task, sparse)


def test_a_history_shows_it(tmp_path):
    task = quarters()
    live = LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))
    torch.manual_seed(0)
    student = SmallNet(8)
    bound = (1.0 * kd(temperature=6, temperature_end=2)).bind(task, live, student)
    history = fit(student, bound, Training(epochs=2, batch_size=24), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog())
    assert [row["temperature of kd"] for row in history] == [pytest.approx(6 - 4 * 1.5 / 8), pytest.approx(6 - 4 * 5.5 / 8)], "the mean over an epoch's four steps"


def test_its_options_from_data():
    objective = objective_of([Entry(name="kd", options={"temperature": 4, "temperature_end": 1, "schedule": "cosine"})], ALL)
    assert objective.terms[0][1].reads == "outputs"
    for options in ({"temperature_end": 0}, {"temperature_end": -1}):
        with pytest.raises(ConfigError, match="temperature_end must be > 0"):
            objective_of([Entry(name="kd", options=options)], ALL)
        with pytest.raises(ConfigError, match="kd.temperature_end must be > 0"):
            kd(**options)
