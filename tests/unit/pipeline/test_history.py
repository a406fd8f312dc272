"""What became of a run: listed, followed, verified to the byte, brought back, compared, cleaned."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.core.errors import ConfigError, Interrupted, RunError
from limbeck.pipeline import difference, history, records
from limbeck.pipeline.follow import follow
from limbeck.pipeline.journal import Journal, read
from limbeck.pipeline.lock import locked, owner
from limbeck.pipeline.store import Store, canonical, write
from limbeck.pipeline.verify import file_hash, verify

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
from make_run import carried_out

ROOMS = ("journal.jsonl", "summary.json", "HEAD.json", "objects", "stages", "measurements", "artifacts")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run: distill → prune → quantize."""
    return carried_out(tmp_path_factory.mktemp("made"), "run").folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def evidence(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] in ROOMS)


def rewrite(path: Path, **changes) -> None:
    """A record changed and hashed again, as its own limbeck would have written it."""
    path.write_bytes(records.sealed({**json.loads(path.read_text()), **changes}, allow_nan=True))


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


# --- records and the lock


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.dictionaries(TEXT, st.integers() | st.floats() | TEXT | st.lists(st.booleans()), max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_comes_back_and_any_flipped_byte_is_found(tmp_path, data):
    path = tmp_path / "record.json"
    raw = records.record(data)
    path.write_bytes(raw)
    body = {k: v for k, v in data.items() if k != "sha256"} | {"version": 2}
    assert json.dumps(records.read_record(path), sort_keys=True) == json.dumps(body, sort_keys=True)
    rng = random.Random(len(raw))
    for _ in range(20):
        place = rng.randrange(len(raw))
        path.write_bytes(raw[:place] + bytes([raw[place] ^ rng.randrange(1, 256)]) + raw[place + 1 :])
        with pytest.raises(RunError):
            records.read_record(path)


def test_the_lock_names_a_live_holder_alone(tmp_path):
    assert owner(tmp_path) is None
    with locked(tmp_path):
        assert owner(tmp_path) == os.getpid()
    assert owner(tmp_path) is None, "a process that goes on after its run doesn't hold it"
    (tmp_path / "lock").write_text(str(os.getpid()))
    before_this_process = psutil.Process().create_time() - 60
    os.utime(tmp_path / "lock", (before_this_process, before_this_process))
    assert owner(tmp_path) is None, "the number was given to another process since"
    (tmp_path / "lock").write_text("no number")
    assert owner(tmp_path) is None
    code = "import os, sys; from pathlib import Path; from limbeck.pipeline.lock import locked\nwith locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / "lock").read_text().isdigit() and owner(tmp_path) is None, "a killed process holds nothing"


# --- runs and follow


def test_runs_are_listed_with_their_state(run, tmp_path):
    root = tmp_path
    for name in ("cut", "live", "broken"):
        shutil.copytree(run, root / name)
        (root / name / "summary.json").unlink()
    (root / "broken" / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes().replace(b"distill", b"distil1", 1))
    (root / "no run").mkdir()
    with locked(root / "live"):
        listed = {r["name"]: r for r in history.runs(root)}
    assert {k: v["state"] for k, v in listed.items()} == {"run": "PASS", "cut": "interrupted", "live": "under way", "broken": "damaged"}
    whole, summary = listed["run"], summary_of(run)
    assert (whole["stages_passed"], whole["stages"]) == (3, 3) and whole["last_event"] == read(run / "journal.jsonl")[-1]["time"]
    assert whole["metric"] == summary["final"]["metric"] and whole["retention"] == summary["retention"]["value"] and whole["ratios"] == summary["ratios"]
    assert whole["size_bytes"] == sum(f.stat().st_size for f in run.rglob("*") if f.is_file())
    assert "journal.jsonl, line" in listed["broken"]["error"] and listed["cut"]["metric"] is None
    with pytest.raises(ConfigError, match="there is no folder of runs"):
        history.runs(root / "nowhere")


def test_a_run_that_was_started_again_with_another_plan_has_no_verdict_yet(run):
    Journal(run / "journal.jsonl").record("run", plan={"stages": [{}]})
    (row,) = history.runs(run.parent)
    assert row["state"] == "interrupted" and row["metric"] is None
    assert "older than the journal" in " ".join(verify(run)["notes"]) and verify(run)["clean"]


def test_following_a_run_as_its_files_come(made, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = (made / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    events = follow(folder, poll_seconds=0.01)
    assert [next(events)["event"] for _ in range(3)] == ["run", "baseline", "interrupted"]
    with locked(folder):
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:3]))
        first = next(events)
        assert first["event"] == "twin" and first["time"].endswith("+00:00")
        checkpoint(folder / "checkpoints" / "0123456789abcdef-technique.safetensors", epoch=4, step=77, loss=0.5)
        assert {k: v for k, v in next(events).items() if k != "time"} == {"event": "training", "scope": "technique", "epoch": 5, "step": 77, "loss": 0.5}
        (record,) = [p for p in (made / "stages").glob("*.json") if '"distill"' in p.read_text()]
        write(folder / "stages" / record.name, record.read_bytes())
        assert {**next(events), "time": ""} == {"time": "", "event": "made", "stage": "distill", "seconds": json.loads(record.read_text())["seconds"]}
        (folder / "journal.jsonl").write_bytes(b"".join(lines))
        (folder / "summary.json").write_bytes((made / "summary.json").read_bytes())
        assert [e["event"] for e in events] == ["stage", "stage", "stage", "verdict"]


def checkpoint(path: Path, *, epoch: int, step: int, loss: float) -> None:
    import torch

    from limbeck.pipeline.context import FileCheckpoint

    FileCheckpoint(path).save({"x": torch.zeros(3)}, {"position": {"epoch": epoch, "step": step, "history": [{"loss": loss}]}})


def test_following_ends_when_it_is_told_to(run):
    (run / "summary.json").unlink()
    asked = iter([False, True])
    events = follow(run, stop=lambda: next(asked), poll_seconds=0.2)
    with pytest.raises(Interrupted, match="the run itself was not touched"):
        list(events)


# --- verify


def test_one_flipped_byte_in_any_kept_file_is_found_and_named(run):
    """Every file of the run in turn; a journal's last line has nothing after it but the summary's journal_head."""
    assert verify(run)["clean"]
    rng = random.Random(0)
    for path in evidence(run):
        raw, name = path.read_bytes(), path.relative_to(run).as_posix()
        for _ in range(2):
            place, mask = rng.randrange(len(raw)), rng.randrange(1, 256)
            path.write_bytes(raw[:place] + bytes([raw[place] ^ mask]) + raw[place + 1 :])
            found = verify(run)
            assert found["exit_code"] == 3 and name in {p["file"] for p in found["problems"]}, (name, place, mask, found)
        path.write_bytes(raw)
    assert verify(run)["clean"]


@pytest.mark.parametrize("name", ["journal.jsonl", "summary.json", "HEAD.json"])
def test_many_flips_in_the_files_that_hold_the_verdict(run, name):
    raw, rng = (run / name).read_bytes(), random.Random(1)
    named = max(raw.rfind(b'sha256"'), 0)  # the name of the hash itself
    for place in [len(raw) - 1, len(raw) - 2, 0, named, *(rng.randrange(len(raw)) for _ in range(40))]:
        (run / name).write_bytes(raw[:place] + bytes([raw[place] ^ rng.randrange(1, 256)]) + raw[place + 1 :])
        assert name in {p["file"] for p in verify(run)["problems"]}, place


def test_what_is_missing_or_cut_is_named(run):
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    candidate = json.loads(lines[-2])["data"]["candidate"]
    Store(run).path(candidate).unlink()
    (run / summary_of(run)["final"]["artifact"]).unlink()
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    said = {p["file"]: p["what"] for p in verify(run)["problems"]}
    assert "is missing; journal.jsonl needs it" in said[f"objects/{candidate[:2]}/{candidate}"]
    assert "summary.json names it (final)" in said[summary_of(run)["final"]["artifact"]]
    assert "isn't the one that summary.json names" in said["journal.jsonl"]


def test_a_record_that_was_swapped_or_hashed_anew_is_named(run):
    first, second = sorted((run / "measurements").glob("rows-*.json"))[:2]
    (stage, *_) = sorted((run / "stages").glob("*.json"))
    first.write_bytes(second.read_bytes())
    rewrite(stage, key="0" * 64)
    export = next(iter((run / "measurements").glob("export-*.json")))
    data = Store(run).get_json(json.loads(export.read_text())["object"])
    rewrite(export, object=Store(run).put_json(data | {"artifact": {"runtime": "onnxruntime", "name": "m", "files": {"../../m": "0" * 64}}}))
    said = {p["file"]: p["what"] for p in verify(run)["problems"]}
    assert "record of another measurement" in said[f"measurements/{first.name}"] and "record of another key" in said[f"stages/{stage.name}"]
    assert "would leave the run folder" in said[f"measurements/{export.name}"]


def test_a_candidate_of_a_later_limbeck_is_named_and_refused(run):
    head = json.loads((run / "HEAD.json").read_text())["onnxruntime"]
    store = Store(run)
    later = store.put_json({**store.get_json(head["candidate"]), "version": 2})
    rewrite(run / "HEAD.json", onnxruntime={**head, "candidate": later})
    (problem,) = verify(run)["problems"]
    assert problem["file"] == "HEAD.json" and "version is 2; this limbeck reads up to 1" in problem["what"]
    with pytest.raises(RunError, match="upgrade with pip install"):
        store.get_candidate(later, run / "scratch")


def test_a_stranger_is_noted_and_no_fault(run):
    (run / "notes.txt").write_text("mine")
    (run / "artifacts" / "other").mkdir()
    (run / "artifacts" / "other" / "x").write_text("x")
    found = verify(run)
    assert found["clean"] and found["notes"] == ["artifacts/other/x: no record names it", "notes.txt: not a file of limbeck's"]
    with pytest.raises(ConfigError, match="is not a run folder"):
        verify(run / "objects")


@pytest.mark.parametrize("room", ["stages", "measurements"])
def test_records_of_version_1_are_still_read_and_those_of_a_later_one_refused(run, room):
    journal = (run / "journal.jsonl").read_bytes()
    for path in (run / room).glob("*.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in data.items() if k not in ("sha256", "version")} | ({"version": 1} if room == "stages" else {}), indent=1))
    found = verify(run)
    assert found["clean"] and len(found["notes"]) == len(list((run / room).glob("*.json"))) and "before records carried their own hash" in found["notes"][0]
    carried_out(run.parent, "run")
    assert (run / "journal.jsonl").read_bytes() == journal, "its records were used"
    path = next(iter((run / room).glob("*.json")))
    rewrite(path, version=7)
    with pytest.raises(RunError, match=r"version is 7; this limbeck reads up to 2.*upgrade with pip install -U limbeck"):
        records.read_record(path)
    path.write_text(json.dumps({"version": 2}))
    with pytest.raises(RunError, match="has no hash of its own"):
        records.read_record(path)


def test_a_changed_record_stops_a_resume_with_its_name(run):
    path = next(iter((run / "stages").glob("*.json")))
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    with pytest.raises(RunError, match=f"{path.name} was changed"):
        carried_out(run.parent, "run")


# --- rollback


def test_rollback_brings_back_the_exact_bytes_of_every_stage(run, tmp_path):
    lines = {x["data"]["stage"]: x["data"] for x in read(run / "journal.jsonl") if x["event"] == "stage"}
    stages = {s["name"]: s for s in summary_of(run)["stages"]}
    kept = {name: (run / s["artifact"]).read_bytes() for name, s in stages.items()}
    shutil.rmtree(run / "artifacts")
    for number, name in enumerate(("distill", "quantize", "prune", "distill"), 1):
        back = history.rollback(run, name, out=tmp_path / f"{number}-{name}.onnx")
        (sha,) = back["files"].values()
        assert (run / back["artifact"]).read_bytes() == kept[name] == (tmp_path / f"{number}-{name}.onnx").read_bytes()
        assert file_hash(run / back["artifact"]) == sha and back["artifact"] == stages[name]["artifact"]
        head = json.loads((run / "HEAD.json").read_text())["onnxruntime"]
        assert head == {"stage": name, "candidate": lines[name]["candidate"], "artifact": back["artifact"]}
        last = read(run / "journal.jsonl")[-1]
        assert (last["event"], last["data"]["number"], last["data"]["to"], last["data"]["key"]) == ("rollback", number, name, lines[name]["key"])
    baseline = history.rollback(run, "baseline")
    assert baseline["key"] is None and baseline["artifact"] == summary_of(run)["baseline"]["artifact"]
    by_key = history.rollback(run, lines["prune"]["key"][:8])
    assert by_key["stage"] == "prune" and history.runs(run.parent)[0]["state"] == "PASS"


def test_a_run_that_was_rolled_back_verifies_and_goes_on(run):
    verdicts = summary_of(run)["contract"]
    history.rollback(run, "distill")
    shown = verify(run)
    assert shown["clean"], shown
    raw = (run / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(raw.replace(b'"number":1', b'"number":2'))
    assert "journal.jsonl" in {p["file"] for p in verify(run)["problems"]}, "the summary covers the rollback's line too"
    (run / "journal.jsonl").write_bytes(raw)
    result = carried_out(run.parent, "run")
    assert result.summary["contract"] == verdicts and json.loads((run / "HEAD.json").read_text())["onnxruntime"]["stage"] == "quantize"
    assert verify(run)["clean"] and (run / "journal.jsonl").read_bytes() == raw


def test_rollback_refuses_what_it_cannot_bring_back(run, tmp_path):
    before = (run / "journal.jsonl").read_bytes(), (run / "HEAD.json").read_bytes()
    with pytest.raises(ConfigError, match="the run has no such stage. Did you mean 'prune'"):
        history.rollback(run, "prunne")
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"mine.onnx exists and holds something else"):
        history.rollback(run, "prune", out=tmp_path / "mine.onnx")
    with locked(run), pytest.raises(RunError, match=f"held by process {os.getpid()}"):
        history.rollback(run, "prune")
    data = next(x["data"] for x in read(run / "journal.jsonl") if x["event"] == "stage" and x["data"]["stage"] == "prune")
    weights = Store(run).path(Store(run).get_json(data["candidate"])["form"]["weights"])
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(RunError, match="was changed"):
        history.rollback(run, "prune")
    assert before == ((run / "journal.jsonl").read_bytes(), (run / "HEAD.json").read_bytes()), "nothing moved"


def test_a_title_that_stands_for_several_candidates_is_settled_by_the_verdict_or_by_the_key(run):
    journal = Journal(run / "journal.jsonl")
    stages = [x["data"] for x in journal.lines if x["event"] == "stage"]
    journal.record("stage", **{**stages[0], "stage": "twice", "status": "FAIL"})
    journal.record("stage", **{**stages[1], "stage": "twice"})
    journal.record("stage broke", stage="odd", key="0" * 64, attempt=1, error="the loss is NaN", curve=[])
    assert history.rollback(run, "twice")["candidate"] == stages[1]["candidate"], "the one that passed"
    Journal(run / "journal.jsonl").record("stage", **{**stages[2], "stage": "twice"})
    with pytest.raises(ConfigError, match=rf"'twice' stands for 3 candidates.*{stages[0]['key'][:12]} \(try 1, FAIL\).*Name one by its key"):
        history.rollback(run, "twice")
    with pytest.raises(ConfigError, match=r"no candidate of stage 'odd'.*it broke \(the loss is NaN\)"):
        history.rollback(run, "odd")


# --- gc


def test_gc_shows_then_deletes_what_nothing_needs_and_no_more(run):
    store, keys = Store(run), [p.stem for p in sorted((run / "stages").glob("*.json"))]
    orphan, inner = store.put(b"an orphan"), store.put(b"named by an orphan")
    named = store.put(canonical({"weights": inner}))
    for path in (f"checkpoints/{keys[0][:16]}-technique.safetensors", "artifacts/0123456789abcdef/model.onnx", "objects/.half.77.tmp", "scratch/export/m"):
        write(run / path, b"left over")
    kept = [run / "checkpoints" / "fedcba9876543210-technique.safetensors", run / "notes.txt"]
    for path in kept:
        write(path, b"needed, or not ours")
    before = {p: p.read_bytes() for p in evidence(run)}
    shown = history.gc(run)
    listed = {f["file"] for f in shown["files"]}
    ours = {f"objects/{sha[:2]}/{sha}" for sha in (orphan, inner, named)} | {f"checkpoints/{keys[0][:16]}-technique.safetensors", "artifacts/0123456789abcdef/model.onnx"}
    assert listed >= ours | {"objects/.half.77.tmp", "scratch/export/m"} and all(f.startswith(("cache/", "scratch/")) or f in ours | {"objects/.half.77.tmp"} for f in listed)
    assert any(f.startswith("cache/") for f in listed) and all((run / f).exists() for f in listed) and not shown["deleted"]
    assert shown["size_bytes"] == sum((run / f).stat().st_size for f in listed)
    assert history.gc(run, delete=True)["files"] == shown["files"] and not any((run / f).exists() for f in listed)
    assert not (run / "cache").exists() and not (run / "artifacts" / "0123456789abcdef").exists() and all(p.exists() for p in kept)
    assert {p: p.read_bytes() for p in evidence(run)} == {p: raw for p, raw in before.items() if p.relative_to(run).as_posix() not in listed}
    assert verify(run)["clean"] and history.gc(run)["files"] == []
    journal = (run / "journal.jsonl").read_bytes()
    assert carried_out(run.parent, "run").summary["journal_head"] == summary_of(run)["journal_head"] and (run / "journal.jsonl").read_bytes() == journal


def test_gc_leaves_a_run_that_will_go_on_its_cache(run):
    (run / "summary.json").unlink()
    assert (run / "cache").exists() and not [f for f in history.gc(run)["files"] if f["file"].startswith("cache/")]


def test_gc_deletes_nothing_of_a_damaged_or_held_run(run):
    orphan = Store(run).path(Store(run).put(b"an orphan"))
    with locked(run), pytest.raises(RunError, match="held by process"):
        history.gc(run, delete=True)
    path = next(iter((run / "measurements").glob("export-*.json")))
    path.write_bytes(path.read_bytes().replace(b"export", b"exp0rt", 1))
    with pytest.raises(RunError, match="was changed"):
        history.gc(run, delete=True)
    assert orphan.exists()


# --- diff


def test_diff_says_what_changed_between_stages_and_runs(run, made, tmp_path):
    stages = difference.diff(f"{run}@distill", f"{run}@prune")
    assert stages["plan"] == stages["config"] == stages["environment"] == [] and [k["name"] for k in stages["edits"]["kinds"]] == ["reshape"]
    assert stages["edits"]["kinds"][0]["a"] == 0 < stages["edits"]["kinds"][0]["b"] == sum(m["b"] for m in stages["edits"]["modules"])
    rows = {r["name"]: r for r in stages["evidence"]}
    by_name = {s["name"]: s for s in summary_of(run)["stages"]}
    assert (rows["size_bytes"]["a"], rows["size_bytes"]["b"]) == tuple(by_name[n]["size_bytes"] for n in ("distill", "prune"))
    assert rows["parameters"]["ratio"] == by_name["prune"]["parameters"] / by_name["distill"]["parameters"] < 1
    assert rows["retention"]["b"] == by_name["prune"]["retention"]["value"] and rows["split"] == {"name": "split", "a": "validation", "b": "validation", "ratio": None}
    shutil.copytree(run, tmp_path / "other" / "shorter")
    other = carried_out(tmp_path / "other", "shorter", stages=1).folder  # from its records: a run that was started again with a shorter plan
    (row,) = history.runs(tmp_path / "other")
    assert (row["stages_passed"], row["stages"]) == (1, 1) and verify(other)["clean"]
    runs = difference.diff(str(run), str(other))
    assert {"stages[1]", "stages[2]"} == {c["what"] for c in runs["plan"]} and all(c["b"] is None for c in runs["plan"])
    assert runs["b"]["stage"] == "distill" and runs["a"]["stage"] == "quantize" and runs["config"] == []
    assert {k["name"] for k in runs["edits"]["kinds"]} == {"fold", "quantize", "reshape"} and all(k["b"] == 0 for k in runs["edits"]["kinds"])
    rows = {r["name"]: r for r in runs["evidence"]}
    assert rows["metric"]["b"] == summary_of(other)["final"]["metric"]["value"] and rows["split"]["a"] == "test" and rows["latency_p50_ms"]["a"] > 0
    assert any("not timed in turn" in n for n in runs["notes"])
    same = difference.diff(str(run), str(made))
    assert same["edits"]["equal"] is True and not any(same[k] for k in ("plan", "config", "verdicts", "environment", "notes"))


def test_diff_sees_config_verdicts_and_versions(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    data = summary_of(other)
    data["environment"]["versions"]["torch"] = "9.9"
    data["contract"][0]["status"] = "FAIL"
    (other / "summary.json").write_bytes(records.sealed(data))
    lines = read(other / "journal.jsonl")
    (other / "journal.jsonl").unlink()
    journal = Journal(other / "journal.jsonl")
    for line in lines:
        journal.record(line["event"], **(line["data"] | {"seed": 7} if line["event"] == "run" else line["data"]))
    (other / "summary.json").write_bytes(records.sealed(data | {"journal_head": journal.head}))
    found = difference.diff(str(run), str(other))
    assert found["config"] == [{"what": "seed", "a": 0, "b": 7}]
    assert found["verdicts"] == [{"what": data["contract"][0]["gate"], "a": "PASS", "b": "FAIL"}]
    assert [c["what"] for c in found["environment"]] == ["versions.torch"] and found["environment"][0]["b"] == "9.9"


MISNAMED = [("run@", "names no stage"), ("run@prunne", "Did you mean 'prune'"), ("rnu", "there is no run folder rnu. Did you mean 'run'"), ("objects", "is not a run folder")]


@pytest.mark.parametrize(("a", "message"), MISNAMED)
def test_diff_of_what_isnt_there_says_so(run, monkeypatch, a, message):
    monkeypatch.chdir(run.parent)
    Path("objects").mkdir()
    with pytest.raises(ConfigError, match=message):
        difference.diff(a, "run")


def test_plain_data_is_compared_place_by_place():
    a, b = {"x": [1, {"y": 2}], "same": 1}, {"x": [1, {"y": 3}, 4], "same": 1, "new": None}
    assert difference.changes(a, b) == [{"what": "x[1].y", "a": 2, "b": 3}, {"what": "x[2]", "a": None, "b": 4}]
