"""The commands that look back, as a user meets them: tables, JSON and exit codes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from make_run import RUNS
from project import PLAN, limbeck, summary, write_project

OLD = sorted(RUNS.iterdir())[-1]
COMMAND = [sys.executable, "-c", "from limbeck.cli.main import main; main()"]
QUICK = PLAN[: PLAN.index('[[stage]]\ntechnique = "prune"')].replace("epochs = 3", "epochs = 12")  # distillation alone


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of runs with one finished run in it."""
    shutil.copytree(OLD, tmp_path / "runs" / "one")
    return tmp_path


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *words], cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_is_followed_from_another_terminal(tmp_path):
    """Every event of the journal in order, what comes between, and the summary last; the run never meets the follower."""
    write_project(tmp_path, plan=QUICK, run="control = false")
    run = started("run", "--json", cwd=tmp_path)
    while not (tmp_path / "runs" / "run" / "journal.jsonl").exists() and run.poll() is None:
        os.sched_yield()
    follower = started("status", "runs/run", "--follow", "--json", cwd=tmp_path)
    shown, error = follower.communicate(timeout=120)
    assert follower.returncode == 0 and run.wait(timeout=60) == 0, error
    lines = [json.loads(line) for line in shown.splitlines()]
    journal = [json.loads(line) for line in (tmp_path / "runs" / "run" / "journal.jsonl").read_text().splitlines()]
    named = {x["event"] for x in journal}
    assert [x["event"] for x in lines if x["event"] in named] == [x["event"] for x in journal]
    assert {"measured", "made"} <= {x["event"] for x in lines} and lines[-1] == {"event": "summary", **summary(tmp_path)}
    listed = json.loads(limbeck("runs", "--json", cwd=tmp_path).stdout)
    assert [(r["name"], r["state"], r["stages_passed"], r["stages"]) for r in listed["runs"]] == [("run", "PASS", 1, 1)]


def test_following_a_run_that_stands_still_ends_on_ctrl_c(folder):
    (folder / "runs" / "one" / "summary.json").unlink()
    process = started("status", "runs/one", "--follow", cwd=folder)
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if "interrupted" in line:
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "the run itself was not touched" in " ".join(error.split()), error
    assert "no process holds this run" in said and " stage " in said and "stage=distill" in said
    assert "interrupted" in limbeck("runs", cwd=folder).stdout


def test_verify_exits_with_3_and_names_the_file(folder):
    clean = limbeck("verify", "runs/one", cwd=folder)
    assert clean.returncode == 0 and "holds" in clean.stdout
    path = next(p for p in (folder / "runs" / "one" / "objects").rglob("*") if p.is_file())
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    bad = limbeck("verify", "runs/one", cwd=folder)
    name = path.relative_to(folder / "runs" / "one").as_posix()
    assert bad.returncode == 3 and f"{name}: its bytes don't have the hash that is its name" in " ".join(bad.stdout.split())
    data = json.loads(limbeck("verify", "runs/one", "--json", cwd=folder).stdout)
    assert not data["clean"] and data["exit_code"] == 3 and name in {p["file"] for p in data["problems"]}


def test_rollback_writes_the_exact_artifact(folder):
    one = json.loads((OLD / "summary.json").read_text())
    first = one["stages"][0]
    done = limbeck("rollback", "runs/one", "--to", first["name"], "--out", "back.onnx", cwd=folder)
    sha = hashlib.sha256((OLD / first["artifact"]).read_bytes()).hexdigest()
    assert done.returncode == 0 and sha in done.stdout and hashlib.sha256((folder / "back.onnx").read_bytes()).hexdigest() == sha, done.stderr
    data = json.loads(limbeck("rollback", "runs/one", "--to", "baseline", "--json", cwd=folder).stdout)
    assert data["artifact"] == one["baseline"]["artifact"] and data["out"] == []
    assert limbeck("verify", "runs/one", cwd=folder).returncode == 0


def test_gc_is_dry_until_it_is_told(folder):
    left = folder / "runs" / "one" / "objects" / "ab" / ("ab" * 32)
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"left over")
    shown = limbeck("gc", "runs/one", cwd=folder)
    assert shown.returncode == 0 and left.exists() and "nothing deleted; --delete does it" in shown.stdout and "9 B" in shown.stdout
    data = json.loads(limbeck("gc", "runs/one", "--delete", "--json", cwd=folder).stdout)
    assert [f["size_bytes"] for f in data["files"]] == [9] and data["deleted"] and not left.exists()
    assert "every file is needed" in limbeck("gc", "runs/one", cwd=folder).stdout


def test_export_import_and_diff(folder):
    out = json.loads(limbeck("export", "runs/one", "one.zip", "--json", cwd=folder).stdout)
    assert hashlib.sha256((folder / "one.zip").read_bytes()).hexdigest() == out["sha256"]
    placed = limbeck("import", "one.zip", "--name", "two", cwd=folder)
    assert placed.returncode == 0 and "all as they were" in placed.stdout, placed.stderr
    same = limbeck("diff", "runs/one", "runs/two", cwd=folder)
    assert same.returncode == 0 and "no difference in: plan, config, verdicts, environment, edits" in " ".join(same.stdout.split())
    stages = [s["name"] for s in json.loads((OLD / "summary.json").read_text())["stages"]]
    found = limbeck("diff", f"runs/one@{stages[0]}", f"runs/two@{stages[-1]}", cwd=folder)
    assert "edits of the blueprint" in found.stdout and "size_bytes" in found.stdout
    data = json.loads(limbeck("diff", f"runs/one@{stages[0]}", f"runs/two@{stages[-1]}", "--json", cwd=folder).stdout)
    assert data["schema"] == 1 and data["a"]["stage"] == stages[0] and data["edits"]["equal"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs", "nowhere"], "there is no folder of runs nowhere"),
        (["status", "runs/on", "--follow"], "there is no run folder runs/on. Did you mean 'one'?"),
        (["rollback", "runs/one", "--to", "distil"], "no candidate of stage 'distil' in runs/one"),
        (["diff", "runs/one", "runs/one@"], "names no stage. Write it as runs/one@prune"),
        (["gc", "."], ". is not a run folder: it has no journal"),
        (["verify", "runs"], "runs is not a run folder"),
        (["export", "runs/one", "there.zip"], "there.zip exists. Name another"),
        (["import", "there.zip"], "there.zip is not a zip that `limbeck export` wrote"),
        (["import", "one.zip"], "there is no file one.zip"),
    ],
)
def test_a_wrong_word_gets_a_message_and_no_traceback(folder, words, message):
    (folder / "there.zip").write_bytes(b"no zip")
    done = limbeck(*words, cwd=folder)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr
