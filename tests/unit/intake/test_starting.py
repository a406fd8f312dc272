"""What `limbeck init` settles and refuses, in process; and that what it writes means the same as what it was told."""

from __future__ import annotations

import ast
import csv
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck import LimbeckError, api
from limbeck.core.errors import ConfigError, MissingLibrary
from limbeck.intake.starting import csvfile, source, table
from limbeck.intake.starting.begin import CLASS_METRICS, VALUE_METRICS
from limbeck.intake.starting.family import part as family_part
from limbeck.intake.starting.family import student, teacher
from limbeck.intake.starting.parts import DataPart
from limbeck.intake.starting.questions import ALL, Interview, Question
from limbeck.intake.starting.runfile import settings as run_settings
from limbeck.intake.starting.runfile import usual_epochs
from limbeck.intake.starting.taskfile import task_source, trainer_source

sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
from materials import houses, images, own, reviews

OWN = {"model": "my_module.py:MyNet", "weights": "net.safetensors", "data": "my_data.py:splits"}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own(tmp_path_factory.mktemp("brought"))


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> str:
    """The message, after checking that nothing was written."""
    monkeypatch.chdir(folder)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(LimbeckError) as error:
        api.init(folder, answers)
    assert error.value.exit_code == 2
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    return str(error.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights": "other.safetensors"}, ("--weights", "don't fit")),
        ({"weights": "nowhere.pt"}, ("--weights", "no weights file")),
        ({"model": "my_module.py:Nobody"}, ("'Nobody'", "--model")),
        ({"model": "nowhere.py:MyNet"}, ("--model", "no file nowhere.py")),
        ({"model": "net.pt"}, ("--model", "no network that they belong to")),
        ({"data": "nowhere"}, ("--data", "file.py:name")),
        ({"data": "my_data.py:no_test"}, ("split 'test' is missing",)),
        ({"data": "my_data.py:tiny"}, ("split 'validation' has 3 samples",)),
        ({"data": "my_data.py:same"}, ("are the same data set",)),
        ({"data": "my_data.py:overlap"}, ("100 of 300 training samples also stand in validation",)),
        ({"data": "my_data.py:many"}, ("labels", "[0, 2)")),
        ({"data": "my_data.py:unseen"}, ("class '2' is in test but not in train",)),
        ({"data": "my_data.py:one"}, ("must give a dict",)),
        ({"metric": "mae"}, ("--metric mae", "judges values", "accuracy")),
        ({"metric": "acuracy"}, ("--metric", "must be one of")),
        ({"data": "my_data.py:values", "metric": "accuracy"}, ("--metric accuracy", "judges classes", "r2, mae, mse")),
        ({"data": "my_data.py:values", "kind": "classification"}, ("--kind classification", "floating-point")),
        ({"limit": ["latency_p50_ms=3", "latency_p90_ms=2", "retention=0.9"]}, ("--limit", "latency_p50_ms must be at most latency_p90_ms")),
        ({"limit": ["retention=97"]}, ("--limit", "retention must be in")),
        ({"limit": ["retention"]}, ("--limit", "name=number")),
        ({"limit": ["size_ratio=4"]}, ("--limit", "Add retention=0.97")),
        ({"slice": ["age"]}, ("--slice", "'age' must be a key")),
        ({"threads": "0"}, ("--threads 0", "whole number")),
        ({"epochs": "many"}, ("--epochs many", "whole number")),
        ({"shoe_size": "43"}, ("no question 'shoe_size'",)),
    ],
)
def test_what_contradicts_is_refused_with_its_flag(brought, monkeypatch, changed, words):
    message = refused(brought, monkeypatch, **(OWN | changed))
    assert all(word in message for word in words), message


def test_a_ratio_that_means_nothing_is_refused(tmp_path, monkeypatch):
    houses(tmp_path / "houses.csv")
    message = refused(tmp_path, monkeypatch, data="houses.csv", limit=["retention=0.97"])
    assert "--limit" in message and "means nothing for 'r2'" in message and "max_drop" in message
    assert "--train-teacher" in refused(tmp_path, monkeypatch, data="houses.csv", train_teacher="no")
    assert "these are no classes" in refused(tmp_path, monkeypatch, data="houses.csv", kind="classification")
    assert "isn't always a number (as 'Berlin')" in refused(tmp_path, monkeypatch, data="houses.csv", label="city", kind="regression")
    assert "no column 'size'" in refused(tmp_path, monkeypatch, data="houses.csv", slice=["size"])
    assert "a slice needs at most 20" in refused(tmp_path, monkeypatch, data="houses.csv", slice=["area"])


def test_whole_numbers_as_labels_are_asked_about(tmp_path, monkeypatch):
    rows = "".join(f"{i},{i * 7 % 13},{i % 5}\n" for i in range(300))
    (tmp_path / "t.csv").write_text(f"a,b,label\n{rows}")
    message = refused(tmp_path, monkeypatch, data="t.csv")
    assert message.startswith("--kind must be given") and "classification, regression" in message
    asked = []

    def ask(question: Question, problem: str) -> str:
        asked.append((question.key, problem))
        return {"data": "t.csv", "kind": "regression", "metric": "accuracy" if not problem else "r2"}.get(question.key) or str(question.default)

    made = api.init(tmp_path, {}, ask=ask)
    assert ("kind", "") in asked and [p for k, p in asked if k == "metric"][1].startswith("'accuracy' judges classes")
    assert {d["key"]: d["value"] for d in made["decided"]}["metric"] == "r2"


def test_files_that_are_there_stay_without_force(tmp_path, monkeypatch):
    houses(tmp_path / "houses.csv")
    (tmp_path / "limbeck.toml").write_text("mine")
    assert "is there already" in refused(tmp_path, monkeypatch, data="houses.csv")
    made = api.init(tmp_path, {"data": "houses.csv", "limit": ["max_drop=0.05", "size_bytes=40 kB"]}, force=True)
    read = tomllib.loads((tmp_path / "limbeck.toml").read_text())
    assert read["contract"] == {"max_drop": 0.05, "size_bytes": "40 kB"} and made["written"] == ["limbeck.toml", "task.py", "train_teacher.py"]


def test_images_in_folders_by_split_and_what_is_wrong_with_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "by" / "train", count=40)
    assert "none for test" in refused(tmp_path, monkeypatch, data="by")
    images(tmp_path / "by" / "test", count=15)
    made = api.init(tmp_path, {"data": "by", "image_size": "16"})
    assert made["data"]["samples"]["test"] == 45 and made["data"]["samples"]["train"] + made["data"]["samples"]["validation"] == 120
    images(tmp_path / "by" / "val", count=12)
    assert api.init(tmp_path, {"data": "by", "image_size": "16"}, force=True)["data"]["samples"] == {"train": 120, "validation": 36, "test": 45}
    (tmp_path / "by" / "test" / "disc" / "again.png").write_bytes((tmp_path / "by" / "train" / "disc" / "3.png").read_bytes())
    assert "are the same image" in refused(tmp_path / "by", monkeypatch, data=str(tmp_path / "by"))
    (tmp_path / "by" / "test" / "disc" / "again.png").write_text("no image")
    images(tmp_path / "by" / "test", count=16, classes=("blot",))
    assert "class 'blot' is in test but not in train" in refused(tmp_path / "by", monkeypatch, data=str(tmp_path / "by"))


def test_pillow_is_named_where_it_is_missing(tmp_path, monkeypatch):
    images(tmp_path / "pictures", count=2)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingLibrary, match="pip install pillow"):
        api.init(tmp_path, {"data": str(tmp_path / "pictures")})


def test_a_name_of_timm_or_of_a_hub_that_cant_be_had(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingLibrary, match="pip install timm"):
        api.init(tmp_path, {"model": "timm:resnet18", "data": "x"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused(tmp_path, monkeypatch, model="nobody/no-such-model", data="x")
    assert message.startswith("--model nobody/no-such-model") and "save_pretrained" in message


def test_a_split_column_is_found_and_a_wrong_one_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = ("train", "train", "dev", "test")
    rows = "".join(f"{i},{i * i % 97},{splits[i % 4]},{'ab'[i % 2]}\n" for i in range(400))
    (tmp_path / "t.csv").write_text(f"x,z,split,label\n{rows}")
    assert api.init(tmp_path, {"data": "t.csv"})["data"]["samples"] == {"train": 200, "validation": 100, "test": 100}
    assert "must say train, validation or test, got 'a'" in refused_again(tmp_path, data="t.csv", split_column="label")


def test_words_are_read_as_the_model_needs_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reviews(tmp_path / "r.csv", rows=200)
    api.init(tmp_path, {"data": "r.csv"})
    words = (tmp_path / "vocabulary.txt").read_text().split()
    assert {"great", "awful"} <= set(words) and len(words) == len(set(words))
    assert "isn't among pos, good" in refused_again(tmp_path, data="r.csv", classes=["pos", "good"])


def refused_again(folder: Path, **answers: Any) -> str:
    with pytest.raises(ConfigError) as error:
        api.init(folder, answers, force=True)
    return str(error.value)


def test_every_question_has_its_consequence_and_its_flag():
    from typer.testing import CliRunner

    from limbeck.cli.main import app

    shown = CliRunner().invoke(app, ["init", "--help"], env={"COLUMNS": "200"}, terminal_width=200).output
    for question in ALL:
        assert question.consequence and question.text.endswith("?") and question.flag in shown, question.key
    assert not set(CLASS_METRICS) & set(VALUE_METRICS)


def test_sizes_follow_the_data():
    assert usual_epochs(100) == 60 and usual_epochs(1_000_000) == 5
    for shape, figures in (("image", {"channels": 3, "size": 32}), ("tokens", {"vocabulary": 500, "length": 32}), ("numbers", {"features": 9})):
        data = DataPart(kind="class", shape=shape, imports=(), splits={}, count={"train": 500}, classes=("a", "b"), figures=figures)  # type: ignore[arg-type]
        small = student(data)
        assert small is not None and small[0] == teacher(data)[0]


NAME = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), min_size=1, max_size=12).filter(
    lambda s: s.strip() and s.strip().lower() not in ("none", *csvfile.SPLITS)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAME, min_size=4, max_size=4, unique=True), classes=st.lists(NAME, min_size=2, max_size=3, unique=True))
def test_odd_names_mean_the_same_in_what_is_written(tmp_path, names, classes):
    path = tmp_path / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(names)
        out.writerows([i, i * 7 % 11, classes[i % len(classes)], ("u", "v")[i % 2]] for i in range(120))
    found = csvfile.read(path)
    assert found.columns == tuple(names)
    interview = Interview({"classes": sorted(classes, key=lambda c: c), "ignore": [], "slice": [names[3]]})
    part = table.part(found, tmp_path, interview, label=names[2], kind="class")
    model = family_part(part, interview)
    text = task_source(part, model, name="t", metric="accuracy", folder=tmp_path)
    values = {n.targets[0].id: n.value for n in ast.parse(text).body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)}
    assert ast.literal_eval(values["LABEL"]) == names[2] and set(ast.literal_eval(values["CLASSES"])) == set(classes)
    assert set(ast.literal_eval(values["NUMERIC"])) == set(names[:2]) and ast.literal_eval(values["SLICES"]) == {names[3]: ["u", "v"]}
    ast.parse(trainer_source(part, model, epochs=3))
    toml = run_settings(part, model, {"retention": 0.9}, name=names[0], runtime="onnxruntime", threads=1, epochs=3, parameters=10**6)
    assert tomllib.loads(toml)["run"]["name"] == names[0]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_quoted_text_is_the_same_in_python_and_toml(text):
    assert ast.literal_eval(source.quoted(text)) == text
    assert tomllib.loads(f"x = {source.quoted(text)}")["x"] == text


def test_half_a_character_is_refused():
    with pytest.raises(ConfigError, match="isn't Unicode"):
        source.quoted("a\udcff")


def test_images_of_oddly_named_classes_still_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / 'it\'s "odd"', count=40, classes=('a "quote"', "new\nline", "ünïcode 🐈 \\n", "{curly} $x"), side=12)
    made = api.init(tmp_path, {"data": 'it\'s "odd"', "image_size": "12"})
    assert made["data"]["classes"] == sorted(('a "quote"', "new\nline", "ünïcode 🐈 \\n", "{curly} $x"))


def test_a_network_of_timm_gets_the_classes_of_the_folder(tmp_path, monkeypatch):
    """timm itself isn't installed here: what stands in for it has the four functions that are used, and gives real networks."""
    from safetensors.torch import save_file

    from limbeck import family

    stand_in = types.ModuleType("timm")
    vars(stand_in).update(
        is_model=lambda name: name == "tiny_net",
        list_models=lambda: ["tiny_net"],
        get_pretrained_cfg=lambda name: types.SimpleNamespace(input_size=(3, 16, 16)),
        create_model=lambda name, num_classes: family("resnet")(channels=3, classes=num_classes, widths=(4, 8), blocks=(1, 1)),
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "pictures", count=40)
    assert "Did you mean 'tiny_net'" in refused(tmp_path, monkeypatch, model="timm:tiny_nett", data="pictures")
    made = api.init(tmp_path, {"model": "timm:tiny_net", "data": "pictures", "weights": "none", "train_teacher": "yes"})
    assert made["next"][0] == "python train_teacher.py" and made["data"]["size"] == 16
    text = (tmp_path / "task.py").read_text()
    assert 'timm.create_model("tiny_net", num_classes=3)' in text and "[0.485, 0.456, 0.406]" in text
    save_file(stand_in.create_model("tiny_net", 3).state_dict(), tmp_path / "t.safetensors")
    assert api.init(tmp_path, {"model": "timm:tiny_net", "data": "pictures", "weights": "t.safetensors"}, force=True)["next"] == ["limbeck run"]
    save_file(stand_in.create_model("tiny_net", 4).state_dict(), tmp_path / "t.safetensors")
    assert "don't fit" in refused_again(tmp_path, model="timm:tiny_net", data="pictures", weights="t.safetensors")


def test_data_outside_the_folder_is_named_by_its_whole_path(tmp_path):
    houses(tmp_path / "houses.csv")
    api.init(tmp_path / "new", {"data": str(tmp_path / "houses.csv")})
    assert f'DATA = Path("{tmp_path / "houses.csv"}")' in (tmp_path / "new" / "task.py").read_text()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["limbeck.toml", "task.py", "train_teacher.py"]


def test_a_default_retention_is_one_that_so_many_samples_can_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    limits = []
    for rows in (200, 6000):
        lines = "".join(f"{i},{i * i % 97},{'ab'[i % 2]}\n" for i in range(rows))
        (tmp_path / "t.csv").write_text(f"x,z,label\n{lines}")
        made = api.init(tmp_path, {"data": "t.csv"}, force=True)
        limits.append(next(d["value"] for d in made["decided"] if d["key"] == "limit"))
    assert limits == ["retention=0.9, size_ratio=4", "retention=0.97, size_ratio=4"]
    made = api.init(tmp_path, {"data": "t.csv", "limit": ["retention=0.9999"]}, force=True)
    assert any("can't be PASS" in note for note in made["notes"])
