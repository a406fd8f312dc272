"""`limbeck init` from each kind of source, as a new user walks it: init, train where there is no teacher, run, to a verdict."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from materials import bert, houses, images, own, reviews
from project import limbeck, summary

EASY = ("--epochs", "25", "--limit", "retention=0.85", "--limit", "size_ratio=4")
SHORT = ("[run]\n", "[run]\ntiming_seconds = 0.1\ncontrol = false\n")


def begin(folder: Path, *words: str, code: int = 0) -> dict:
    done = limbeck("init", "--json", *words, cwd=folder)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else {"error": done.stderr}


def ruff(folder: Path) -> None:
    """The written files keep the project's own rules, where ruff is there to say so (it comes with limbeck[dev])."""
    if importlib.util.find_spec("ruff") is None:
        return
    rules = "E,F,I,UP,B,C4,SIM,PIE,RUF,T20,BLE"
    ignored = "F722,RUF001,RUF002,RUF003,RUF043,SIM108,SIM117,UP037"
    words = ["check", "--isolated", "--line-length", "180", "--select", rules, "--ignore", ignored, "task.py", *(p.name for p in folder.glob("train_teacher.py"))]
    done = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + (folder / "task.py").read_text()


def train(folder: Path) -> float:
    """The teacher's best on validation, as the script says it."""
    done = subprocess.run([sys.executable, "train_teacher.py"], cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(re.findall(r"kept the best \(\w+(?: \w+)? ([\d.]+) on validation\)", done.stderr)[0])


def carry_out(folder: Path, *codes: int) -> dict:
    path = folder / "limbeck.toml"
    path.write_text(path.read_text().replace(*SHORT))
    done = limbeck("run", "--json", cwd=folder)
    assert done.returncode in codes, done.stderr
    return summary(folder, next((folder / "runs").glob("*/summary.json")).parent.name)


def test_a_table_from_init_to_a_pass(tmp_path):
    houses(tmp_path / "houses.csv")
    made = begin(tmp_path, "--data", "houses.csv", "--epochs", "30", "--slice", "city")
    assert made["written"] == ["limbeck.toml", "task.py", "train_teacher.py"] and made["next"] == ["python train_teacher.py", "limbeck run"]
    assert made["data"]["numeric"] == ["area", "rooms"] and made["data"]["categorical"] == ["city"]
    ruff(tmp_path)
    before = limbeck("run", cwd=tmp_path)
    assert before.returncode == 2 and "Train it first: python train_teacher.py" in " ".join(before.stderr.split())
    assert train(tmp_path) < 0.1  # the mean squared error, of a label with variance 1
    found = carry_out(tmp_path, 0)
    assert found["verdict"] == "PASS" and found["baseline"]["metric"]["value"] > 0.8 and found["ratios"]["size"] > 10


def test_an_own_module_from_init_to_a_verdict(tmp_path):
    own(tmp_path)
    made = begin(tmp_path, "--model", "my_module.py:MyNet", "--weights", "net.pt", "--data", "my_data.py:splits", *EASY)
    assert made["written"] == ["limbeck.toml", "task.py"] and made["next"] == ["limbeck run"] and made["teacher"]["validation"] > 0.9
    ruff(tmp_path)
    found = carry_out(tmp_path, 0, 4)
    assert found["stages"][0]["verdict"] == "PASS" and found["ratios"]["size"] > 4


@pytest.mark.slow
def test_an_onnx_file_teaches_and_is_the_baseline_byte_for_byte(tmp_path):
    own(tmp_path, onnx=True)
    (tmp_path / "my_module.py").unlink()
    begin(tmp_path, "--model", "net.onnx", "--data", "my_data.py:splits", *EASY)
    ruff(tmp_path)
    found = carry_out(tmp_path, 0, 4)
    run = next((tmp_path / "runs").glob("*/summary.json")).parent
    assert (run / found["baseline"]["artifact"]).read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert found["stages"][0]["verdict"] == "PASS" and found["ratios"]["size"] > 4
    text = (tmp_path / "limbeck.toml").read_text().replace('name = "', 'name = "x')
    (tmp_path / "bad.toml").write_text(text[: text.index("[[stage]]")].replace("# A small", "#") + '[[stage]]\ntechnique = "prune"\n')
    refused = limbeck("run", "bad.toml", cwd=tmp_path)
    assert refused.returncode == 5 and "needs 'float-weights'" in refused.stdout and "the teacher is a file" in " ".join(refused.stdout.split())
    assert limbeck("evaluate", "task.py:task", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_folder_of_images(tmp_path):
    images(tmp_path / "pictures", count=90)
    made = begin(tmp_path, "--data", "pictures", "--epochs", "6")
    assert made["data"]["classes"] == ["disc", "square", "stripes"] and made["data"]["channels"] == 3
    ruff(tmp_path)
    assert train(tmp_path) > 0.8
    assert carry_out(tmp_path, 0, 3, 4)["baseline"]["metric"]["value"] > 0.75


@pytest.mark.slow
def test_texts_in_a_csv_file(tmp_path):
    reviews(tmp_path / "reviews.csv")
    made = begin(tmp_path, "--data", "reviews.csv", "--slice", "country", "--epochs", "5")
    assert (made["data"]["text"], made["data"]["label"], made["data"]["slices"]) == ("review", "label", ["country"])
    assert "vocabulary.txt" in made["written"]
    ruff(tmp_path)
    assert train(tmp_path) > 0.95
    found = carry_out(tmp_path, 0, 4)
    assert found["final"]["metric"]["value"] > 0.9


@pytest.mark.slow
def test_a_transformers_folder(tmp_path):
    """Its weights are random, so the verdict is what it should be: a student better than its teacher is an anomaly."""
    reviews(tmp_path / "reviews.csv")
    bert(tmp_path / "bert", ["great", "fine", "lovely", "superb", "happy", "nice", "awful", "poor", "horrid", "sad", "nasty", "bad", "the", "film", "was"])
    made = begin(tmp_path, "--model", "bert", "--data", "reviews.csv", "--epochs", "2")
    assert made["data"]["classes"] == ["neg", "pos"] and "one answer for all" in " ".join(made["notes"])
    ruff(tmp_path)
    assert carry_out(tmp_path, 3, 4)["stages"][0]["verdict"] in ("ANOMALOUS", "PASS")


def test_without_a_terminal_nothing_is_asked_and_the_flag_is_named(tmp_path):
    assert "--data must be given" in begin(tmp_path, code=2)["error"]
    own(tmp_path)
    words = ("--model", "my_module.py:MyNet", "--data", "my_data.py:splits")
    assert "--weights must be given" in begin(tmp_path, *words, code=2)["error"]
    assert not (tmp_path / "task.py").exists() and not list(tmp_path.glob(".init-*"))


def test_on_a_terminal_questions_are_put_and_defaults_work(tmp_path):
    houses(tmp_path / "houses.csv", rows=200)
    said = talk(
        tmp_path, {"Which trained model?": "", "Which data": "houses.csv", "Judged by": "accuracy", "judges classes": "", "Which limits": "retention=0.9", "means nothing": ""}
    )
    assert "Which trained model?" in said and "r2" in said and "Write train_teacher.py?" in said
    assert "'accuracy' judges classes" in said and "Take r2, mae, mse" in said  # asked about, not passed on
    assert "retention is a ratio, which means nothing for 'r2'" in said
    assert (tmp_path / "task.py").exists() and "max_drop = 0.02" in (tmp_path / "limbeck.toml").read_text()


def test_ctrl_c_at_a_question_leaves_nothing(tmp_path):
    said = talk(tmp_path, {"Which trained model?": "\x03"}, code=130)
    assert "interrupted" in said and not list(tmp_path.iterdir())


def talk(folder: Path, answers: dict[str, str], code: int = 0) -> str:
    """`limbeck init` on a terminal of its own: an answer for what is asked, return for all else; what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(
            sys.executable, [sys.executable, "-c", "from limbeck.cli.main import main; main()", "init"], os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb", "COLUMNS": "300"}
        )
    shown, seen, left, end = "", 0, dict(answers), time.monotonic() + 120
    status = None
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        elif shown[seen:].rstrip(" ").endswith(":"):
            found = next((words for words in left if words in shown[seen:]), None)
            seen = len(shown)
            answer = left.pop(found) if found else ""
            os.write(terminal, (answer if answer == "\x03" else answer + "\n").encode())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code, shown
    assert not left, f"never asked: {left}\n{shown}"
    return shown
