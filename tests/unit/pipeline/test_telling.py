"""A run folder read into a story: finished, refused, under way, of the past; with the user's samples, or the reason why not."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from limbeck import api
from limbeck.core.errors import ConfigError, RunError, TaskError
from limbeck.core.seal import sealed
from limbeck.intake.classes import class_names
from limbeck.pipeline import chapters, flips, samples, telling
from limbeck.pipeline.flips import Shower
from limbeck.pipeline.reading import opened
from limbeck.pipeline.verify import verify
from limbeck.report.story import Changes, Confusion, Missing, Pairs
from limbeck.testing import small_task

sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
from project import PLAN, write_project

PAST = Path(__file__).parents[2] / "golden" / "runs" / "0.1.0"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with a finished run, its control too."""
    longer = PLAN.replace("epochs = 3, batch_size = 16", "epochs = 6, batch_size = 16, learning_rate = 5e-3")
    folder = write_project(tmp_path_factory.mktemp("told"), plan=longer)
    assert api.run(folder / "limbeck.toml").verdict in ("PASS", "FAIL", "INCONCLUSIVE")
    return folder


@pytest.fixture
def run(project, tmp_path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "p")) / "runs" / "run"


@pytest.fixture(scope="module")
def story(project):
    return telling.tell(project / "runs" / "run")


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def rewrite(path: Path, **changes) -> None:
    """A summary changed and hashed again, as its own limbeck would have written it."""
    path.write_bytes(sealed({**json.loads(path.read_text()), **changes}))


def rows_of(folder: Path, name: str) -> dict:
    past, summary = opened(folder), summary_of(folder)
    data = summary["environment"]["data"]
    rows = flips.kept_rows(past, chapters.mark_of(past, summary[name]["artifact"]), data["test"], data["code"])
    assert rows is not None
    return rows


# --- a finished run


def test_the_story_says_what_the_summary_says(project, story):
    summary = summary_of(project / "runs" / "run")
    assert (story.run, story.task, story.state) == ("run", "quarters", summary["verdict"])
    assert [m.name for m in story.judged] == ["baseline", "final", "control"] and [s.name for s in story.steps] == ["distill", "prune", "quantize"]
    for model, name in zip(story.judged, ("baseline", "final", "control"), strict=True):
        assert (model.metric, model.size_bytes, model.p50_ms) == (summary[name]["metric"]["value"], summary[name]["size_bytes"], summary[name]["latency_ms"]["p50"])
    assert [(x.gate, x.status, x.measured) for x in story.contract] == [(v["gate"], v["status"], v["measured"]) for v in summary["contract"]]
    assert story.headline.size_ratio == summary["ratios"]["size"] and story.headline.looks == summary["test_looks"] == 1
    assert story.judged[1].kept.bound == summary["retention"]["low"]
    assert story.validation.metric == opened(project / "runs" / "run").lines[1]["data"]["metric"]
    assert story.validation.size_bytes == story.judged[0].size_bytes and story.validation.int8 == 0


def test_flips_are_those_of_the_rows(project, story):
    folder = project / "runs" / "run"
    before, after = (rows_of(folder, n)["correct"].astype(bool) for n in ("baseline", "final"))
    told = story.flips
    assert told.lost_total == int((before & ~after).sum()) > 0 and told.won_total == int((~before & after).sum())
    assert told.both_right + told.both_wrong + told.lost_total + told.won_total == told.samples == 96
    assert {f.index for f in told.lost} <= set(np.flatnonzero(before & ~after).tolist()) and len(told.lost) == min(told.lost_total, 24)
    images, labels = small_task().split("test").tensors
    for flip in told.lost:
        assert flip.label == str(int(labels[flip.index])) == flip.before != flip.after
        assert (flip.sample.picture.width, flip.sample.picture.height, flip.sample.picture.channels) == (8, 8, 1)
        image = images[flip.index, 0].numpy().astype(float)
        stretched = np.rint((image - image.min()) * 255 / (image.max() - image.min())).astype(np.uint8)
        assert flip.sample.picture.pixels == stretched.tobytes()


def test_confusion_adds_up(story):
    for matrix, model in ((story.confusion.before, story.judged[0]), (story.confusion.after, story.judged[1])):
        assert sum(map(sum, matrix)) == 96
        assert sum(matrix[i][i] for i in range(4)) / 96 == pytest.approx(model.metric)


def test_what_was_timed_in_turn_is_shown(story):
    assert [t.name for t in story.timings] == ["baseline", "final", "control"]
    for timing, model in zip(story.timings, story.judged, strict=True):
        assert np.quantile(timing.samples_ms, 0.5) == pytest.approx(model.p50_ms) and timing.turns > 7
    assert story.headline.faster_low <= story.headline.faster <= story.headline.faster_high


def test_every_training_has_its_curve(story):
    assert [c.title for c in story.curves] == ["distill: training", "prune: recovery", "control: training without a teacher"]
    assert [len(c.epochs) for c in story.curves] == [6, 2, 8]
    assert list(story.curves[0].terms) == ["loss", "kd", "task_loss"] and list(story.curves[2].terms) == ["task_loss"]  # a sum of one term is left out
    assert all(len(c.validation) == len(c.epochs) for c in story.curves[:2])


def test_layers_add_up_to_their_totals(story):
    assert [p.name for p in story.profiles] == ["baseline", "final"]
    for profile in story.profiles:
        assert sum(x.parameters for x in profile.layers) == profile.parameters and sum(x.macs for x in profile.layers) == profile.macs


def test_the_way_to_do_it_again(story):
    commands = story.reproduce.commands
    assert "limbeck run limbeck.toml --name run" in commands and commands[0].startswith("pip install 'limbeck==") and "+cpu" not in commands[0]
    assert story.reproduce.plan["stages"][0]["technique"] == "distill" and story.reproduce.contract == {"retention": 0.3, "size_ratio": 1.5, "confidence": 0.95}
    assert dict(story.fingerprints).keys() == {"train", "validation", "test", "code"} and dict(story.environment)["seed"] == "0"


# --- the file


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(project, run, tmp_path):
    first = api.report(project / "runs" / "run", out=tmp_path / "a.html")
    again = api.report(run, out=tmp_path / "b.html")
    assert first["sha256"] == again["sha256"] and (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert first["samples"] and first["samples_note"] is None and first["size_bytes"] == (tmp_path / "a.html").stat().st_size < 400_000
    assert str(project) not in (tmp_path / "a.html").read_text()


def test_the_report_stands_beside_the_run_and_disturbs_nothing(run, tmp_path):
    before = api.export_run(run, tmp_path / "before.zip")
    found = api.report(run)
    assert found["file"] == str(run / "report.html")
    checked = verify(run)
    assert checked["clean"] and not checked["notes"]
    assert "report.html" not in [f["file"] for f in api.gc(run, delete=True)["files"]] and (run / "report.html").exists()
    after = api.export_run(run, tmp_path / "after.zip")
    assert after["files"] == before["files"]
    assert api.run(run.parents[1] / "limbeck.toml").summary["verdict"] == summary_of(run)["verdict"] and (run / "report.html").exists()


def test_out_must_be_a_file(run, tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        api.report(run, out=tmp_path)
    with pytest.raises(ConfigError, match="no run folder"):
        api.report(tmp_path / "none")


def test_a_damaged_run_has_no_report(run):
    rows = rows_of(run, "final")
    assert rows
    for path in (run / "objects").rglob("*"):
        if path.is_file() and path.read_bytes()[:2] == b"PK":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RunError, match="was changed"):
        api.report(run)
    assert not (run / "report.html").exists()


# --- whose samples


def test_samples_can_be_left_out(run):
    found = api.report(run, samples=False)
    assert not found["samples"] and "on request" in found["samples_note"] and b"data:image" not in Path(found["file"]).read_bytes()


def test_a_run_without_its_run_file_says_so_and_takes_a_task(run):
    (run.parents[1] / "limbeck.toml").unlink()
    found = api.report(run)
    assert not found["samples"] and "its run file is not where it was; name the task with --task" in found["samples_note"]
    assert api.report(run, task=small_task())["samples"]


def test_another_task_s_data_is_not_shown(run):
    other = replace(small_task(), splits=dict(small_task(seed=1).splits))
    found = api.report(run, task=other)
    assert not found["samples"] and "fingerprint differs" in found["samples_note"]


def test_a_task_that_broke_is_told(run):
    (run.parents[1] / "task.py").write_text("raise ValueError('gone')")
    assert "can't be loaded any more (TaskError)" in api.report(run)["samples_note"]
    with pytest.raises(TaskError, match="gone"):
        api.report(run, task=f"{run.parents[1] / 'task.py'}:task")


@pytest.mark.parametrize("place", ["x/limbeck.toml", "../other/limbeck.toml", "/absolute"])
def test_code_that_came_with_a_run_is_not_run(run, tmp_path, place):
    """An imported zip may bring any file and any summary; only the run file beside the folder of runs names code."""
    folder = (run / place).parent if not place.startswith("/") else tmp_path / "evil"
    folder.mkdir(exist_ok=True)
    mark = tmp_path / "ran"
    (folder / "task.py").write_text(f"open({str(mark)!r}, 'w')\nfrom limbeck.testing import small_task\ntask = small_task()\n")
    (folder / "limbeck.toml").write_text('[task]\nentry = "task.py:task"\n[contract]\nretention = 0.9\n[run]\nroot = ".."\n')
    summary = summary_of(run)
    file = place if not place.startswith("/") else str(folder / "limbeck.toml")
    found = telling._own_task(opened(run), {**summary["task"], "run_file": file})
    assert found[0] is None and "name the task with --task" in found[1] and not mark.exists()


def test_a_run_file_that_keeps_its_runs_elsewhere_isn_t_taken(run):
    file = run.parents[1] / "limbeck.toml"
    file.write_text(file.read_text().replace("[run]", '[run]\nroot = "elsewhere"'))
    assert "keeps its runs elsewhere" in api.report(run)["samples_note"]


# --- runs without a verdict, refused runs, runs of the past


@pytest.mark.parametrize("lines", [1, 2, 4, 6])
def test_a_run_under_way_is_told_as_far_as_it_came(run, lines):
    (run / "summary.json").unlink()
    journal = run / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:lines]))
    story = telling.tell(run)
    assert story.state == "interrupted" and story.judged == () and isinstance(story.flips, Missing)
    assert [s.status for s in story.steps] == (["PASS"] * max(lines - 3, 0) + ["not reached"] * 3)[:3]
    assert {x.gate for x in story.contract} == {"retention", "size_ratio"}
    text = Path(api.report(run)["file"]).read_text()
    assert "Interrupted: there is no verdict yet." in text and ("measured on the untrained twin" in text) == (lines >= 3)
    if lines >= 4:
        assert story.steps[0].model.size_bytes == summary_like(story, "distill") and [c.title for c in story.curves][:1] == ["distill: training"]


def summary_like(story, name: str) -> int:
    return next(s.model.size_bytes for s in story.steps if s.name == name)


def test_a_refused_run_says_why(tmp_path):
    folder = write_project(tmp_path, contract="retention = 0.3\nsize_ratio = 5000")
    assert api.run(folder / "limbeck.toml").verdict == "REFUSED"
    story = telling.tell(folder / "runs" / "run")
    assert story.state == "REFUSED" and story.headline.reason and story.headline.fix
    assert {x.gate: x.status for x in story.contract} == {"retention": "not judged", "size_ratio": "FAIL"}
    text = Path(api.report(folder / "runs" / "run")["file"]).read_text()
    assert "Refused before anything was trained." in text and "5000" in text.replace(",", "")


def test_a_stage_that_broke_and_one_that_failed_are_told_so(tmp_path):
    plan = """
[[stage]]
technique = "distill"
config = { student = "small", training = { epochs = 1, batch_size = 16 } }
gate = { pays = "bytes", shrink = 50.0, retention = 0.1 }

[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.1 }
on_fail = "stop"
"""
    folder = write_project(tmp_path, plan=plan, run="control = false")
    api.run(folder / "limbeck.toml")
    story = telling.tell(folder / "runs" / "run")
    assert [s.status for s in story.steps] == ["FAIL", "PASS"] and "didn't go on from it" in story.curves[0].note
    text = Path(api.report(folder / "runs" / "run")["file"]).read_text()
    assert "skipped" in text and "No control: the plan says control = false." in text


def test_a_run_in_which_nothing_passed_says_that_nothing_changed(run):
    """As a stage-less summary has it: the final is the baseline."""
    summary = summary_of(run)
    rewrite(run / "summary.json", final=summary["baseline"], control=None)
    story = telling.tell(run)
    assert story.headline.reason == story.flips.why == telling.UNCHANGED and isinstance(story.timings, Missing)
    assert isinstance(story.confusion, Confusion) and story.confusion.before == story.confusion.after


def test_a_run_of_the_past_says_what_it_didn_t_keep(tmp_path):
    story = telling.tell(PAST)
    assert story.state == "PASS" and isinstance(story.confusion, Missing) and "labels and answers" in story.confusion.why
    assert all(isinstance(p.layers, Missing) for p in story.profiles) and story.flips.lost_total == 26
    assert "doesn't say which run file" in story.flips.why_no_samples and story.flips.lost[0].label == ""
    assert "limbeck.compress" in story.reproduce.note
    assert api.report(PAST, out=tmp_path / "r.html")["size_bytes"] < 200_000


# --- rows of any kind


def test_classes_come_from_labels_and_answers_where_there_is_no_correct():
    before = {"predicted": np.array([0, 1, 2, 2]), "target": np.array([0, 1, 2, 0])}
    told = flips.flips(before, {**before, "predicted": np.array([0, 2, 2, 0])}, Shower(names=("a", "b" * 100), why="none."))
    assert (told.lost_total, told.won_total) == (1, 1) and told.lost[0].label == "b" * 60 and told.lost[0].after == "2" and told.why_no_samples == "none."


def test_ten_thousand_flips_are_thinned_evenly():
    before, after = np.zeros(20_000, dtype=np.int8), np.zeros(20_000, dtype=np.int8)
    before[::2] = 1
    told = flips.flips({"correct": before}, {"correct": after}, Shower())
    assert told.lost_total == 10_000 and len(told.lost) == 24 and told.lost[12].index == 10_000 and told.lost[0].index == 0


def test_numbers_that_changed_most_come_first():
    before = {"target": np.arange(5.0), "error": np.array([1.0, 1, 1, 1, 1])}
    told = flips.flips(before, {**before, "error": np.array([1.0, 1.5, 9, 1, 0])}, Shower())
    assert isinstance(told, Changes) and told.column == "error" and [c.index for c in told.largest] == [2, 4, 1] and told.median == 0.5
    several = {"predicted": np.array([[1.0, 2], [3, 4]]), "target": np.array([[1.0, 2], [3, 4]])}
    told = flips.flips(several, {**several, "predicted": np.array([[1.0, 2], [4, 3]])}, Shower())
    assert told.column == "predicted" and [c.index for c in told.largest] == [1] and told.largest[0].before == 3.5


def test_rows_that_say_nothing_are_told_so():
    words = {"word": np.array(["a", "b"])}
    assert "no numbers that changed" in flips.flips(words, words, Shower()).why
    assert flips.flips(None, words, Shower()).why == flips.confusion(words, None, Shower()).why == flips.NO_ROWS
    assert "fewer" not in flips.confusion(words, words, Shower()).why and isinstance(flips.confusion(words, words, Shower()), Missing)


def test_rows_of_other_units_show_no_sample():
    rows = {"correct": np.array([1, 0, 1])}
    told = flips.flips(rows, {"correct": np.array([0, 1, 1])}, Shower(show=lambda i: pytest.fail("shown"), count=7))
    assert "3 rows for 7 samples" in told.why_no_samples and told.lost[0].sample is None


@pytest.mark.parametrize(("classes", "kind"), [(20, Confusion), (21, Pairs)])
def test_few_classes_make_a_matrix_and_many_make_pairs(classes, kind):
    labels = np.arange(classes)
    wrong = labels.copy()
    wrong[3] = 4
    rows = {"correct": (labels == wrong).astype(int), "predicted": wrong, "target": labels}
    told = flips.confusion({**rows, "predicted": labels}, rows, Shower())
    assert isinstance(told, kind)
    if isinstance(told, Pairs):
        assert told.pairs == (("3", "4", 0, 1),) and told.classes == 21
    else:
        assert told.after[3][4] == 1 and told.before[3][3] == 1 and sum(map(sum, told.after)) == 20


# --- samples of any kind


class Texts:
    classes = ("ham", "spam")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"text": f"<b>message {index}</b>" + "x" * 300, "input_ids": torch.arange(100) + index, "labels": index % 2}


def task_of(data):
    return replace(small_task(), splits={"test": data, "train": data})


def test_text_is_shown_as_text():
    shown = samples.sample(task_of(Texts()), "test", 3)
    assert shown.text.startswith("<b>message 3</b>x") and len(shown.text) == 280 and "of 316 characters" in shown.note
    assert class_names(task_of(Texts()), "test") == ("ham", "spam") and class_names(small_task(), "test") == ()


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        (torch.arange(70).repeat(5, 1), lambda s: len(s.tokens) == 64 and "of 70" in s.note),
        (torch.linspace(0, 1, 60).view(5, 12), lambda s: len(s.numbers) == 10 and "of 12 numbers" in s.note and not s.picture),
        (torch.full((5, 3, 6, 5), 200, dtype=torch.uint8), lambda s: s.picture.channels == 3 and s.picture.height == 6 and set(s.picture.pixels) == {200}),
        (torch.full((5, 6, 5, 3), 0.5), lambda s: (s.picture.channels, s.picture.width) == (3, 5) and set(s.picture.pixels) == {128}),
        (torch.rand(5, 30, 300), lambda s: (s.picture.width, s.picture.height) == (64, 6)),
        (torch.full((5, 1, 4, 4), float("nan")), lambda s: set(s.picture.pixels) == {0}),
        (torch.rand(5, 2, 8, 8), lambda s: len(s.numbers) == 10),
    ],
    ids=["tokens", "numbers", "bytes", "channels last", "large", "nan", "two channels"],
)
def test_arrays_are_shown_as_what_they_are(inputs, seen):
    assert seen(samples.sample(task_of(TensorDataset(inputs, torch.zeros(5))), "test", 2))


def test_a_thumbnail_keeps_the_mean():
    image = torch.rand(1, 1, 200, 130)
    shown = samples.sample(task_of(TensorDataset(image.repeat(2, 1, 1, 1), torch.zeros(2))), "test", 0)
    assert np.frombuffer(shown.picture.pixels, np.uint8).mean() / 255 == pytest.approx(float(image.mean()), abs=0.01)


def test_what_a_data_set_raises_is_told_with_its_line():
    class Broken(Texts):
        def __getitem__(self, index):
            raise KeyError("no such file")

    with pytest.raises(TaskError, match="sample 1 of test"):
        samples.sample(task_of(Broken()), "test", 1)
