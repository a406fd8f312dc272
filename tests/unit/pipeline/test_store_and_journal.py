"""What a run keeps: whole or not at all, chained, and checked when it is read."""

import json

import pytest
import torch

from limbeck.core.candidate import Artifact, ArtifactForm, Candidate
from limbeck.core.errors import ConfigError, RunError
from limbeck.core.facts import Fact
from limbeck.mechanics.build import teacher_candidate
from limbeck.pipeline.folder import held
from limbeck.pipeline.journal import Journal, read
from limbeck.pipeline.looks import Looked, count_look
from limbeck.pipeline.store import Store, digest, remove_temporaries, write
from limbeck.testing import small_task


def test_objects_are_their_hashes_and_a_flipped_byte_is_found(tmp_path):
    store = Store(tmp_path)
    sha = store.put(b"twelve bytes")
    assert store.get(sha) == b"twelve bytes" and store.put(b"twelve bytes") == sha
    store.path(sha).write_bytes(b"twelve bytez")
    with pytest.raises(RunError, match=r"was changed: its bytes don't have its hash"):
        store.get(sha)
    store.path(sha).unlink()
    with pytest.raises(RunError, match="is missing"):
        store.get(sha)
    with pytest.raises(RunError, match="is not the name of an object"):
        store.path("../../etc/passwd")


def test_a_candidate_comes_back_bit_for_bit(tmp_path):
    store, candidate = Store(tmp_path), teacher_candidate(small_task())
    sha = store.put_candidate(candidate)
    again = store.get_candidate(sha, tmp_path / "x")
    assert again.facts == candidate.facts and again.torch_form.blueprint == candidate.torch_form.blueprint
    assert all(torch.equal(v, again.torch_form.weights[k]) for k, v in candidate.torch_form.weights.items())
    assert store.put_candidate(again) == sha


def test_a_candidate_that_is_only_an_artifact_comes_back_as_its_files(tmp_path):
    file = tmp_path / "in" / "third.onnx"
    file.parent.mkdir()
    file.write_bytes(b"not a real model, but bytes")
    store = Store(tmp_path)
    sha = store.put_candidate(Candidate(ArtifactForm(Artifact(file, "onnxruntime")), frozenset({Fact.QUANTIZED})))
    again = store.get_candidate(sha, tmp_path / "out")
    assert isinstance(again.form, ArtifactForm) and again.form.artifact.path == tmp_path / "out" / "third.onnx"
    assert again.form.artifact.path.read_bytes() == file.read_bytes()
    with pytest.raises(ConfigError, match="only an artifact"):
        _ = again.torch_form


def test_an_artifact_record_cannot_leave_the_run(tmp_path):
    store = Store(tmp_path)
    sha = store.put(b"x")
    for name in ("../out", "/out", "a/../../out"):
        with pytest.raises(RunError, match="would leave the run folder"):
            store.artifact({"runtime": "onnxruntime", "name": "out", "files": {name: sha}}, tmp_path / "artifacts")


def test_half_written_files_are_cleared_away(tmp_path):
    write(tmp_path / "a" / "good.json", b"{}")
    (tmp_path / "a" / ".bad.json.77.tmp").write_bytes(b"{")
    remove_temporaries(tmp_path)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["good.json"]


def test_an_event_is_written_once(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for _ in range(2):
        journal.record("stage", stage="prune", status="PASS")
    journal.record("stage", stage="quantize", status="PASS")
    head = journal.head
    again = Journal(path)
    again.record("stage", stage="prune", status="PASS")
    assert [x["data"]["stage"] for x in again.lines] == ["prune", "quantize"] and again.head == head


def test_a_line_that_was_cut_off_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        Journal(path).record("e", number=number)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    journal = Journal(path)
    assert len(journal.lines) == 2
    journal.record("e", number=2)
    assert [x["data"]["number"] for x in read(path)] == [0, 1, 2]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_is_named(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        Journal(path).record("e", number=number)
    lines = path.read_text().splitlines(keepends=True)
    lines[line] = lines[line].replace('"number":', '"numbre":')
    path.write_text("".join(lines))
    if line == 2:  # nothing follows it: only a kept head can tell
        assert json.loads(lines[2])["data"] == {"numbre": 2}
        return
    with pytest.raises(RunError, match=f"line {line + 2}: its hash doesn't follow"):
        read(path)


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    with held(tmp_path, "run"):
        with pytest.raises(RunError, match=r"held by process \d+. Wait until it ends"), held(tmp_path, "run"):
            pass
    with held(tmp_path, "run"):
        pass


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 101])
def test_a_run_name_cannot_leave_its_root(tmp_path, name):
    with pytest.raises(ConfigError, match=r"run.name must be letters"), held(tmp_path, name):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"), held(tmp_path / "file", "run"):
        pass


def test_looks_are_counted_by_data_and_a_resumed_run_looks_once(tmp_path):
    look = lambda data, run, artifact: count_look(tmp_path, Looked(fingerprint=data), run=run, artifact=artifact).number  # noqa: E731
    assert [look("d", "a", "1"), look("d", "a", "1"), look("d", "b", "1"), look("e", "a", "1"), look("d", "a", "2")] == [1, 1, 2, 1, 3]


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.5]}) == digest({"b": [1.5], "a": 1}) != digest({"a": 1, "b": [1.25]})
