"""A run as one file and back: the same bytes, and nothing placed that wasn't checked."""

import hashlib
import json
import os
import random
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from limbeck.core.errors import ConfigError, LimbeckError, RunError
from limbeck.pipeline.lock import locked
from limbeck.pipeline.transfer import MANIFEST, export_run, import_run
from limbeck.pipeline.verify import verify

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
from make_run import RUNS

OLD = sorted(RUNS.iterdir())[-1]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """The zip of a finished run."""
    folder = tmp_path_factory.mktemp("packed")
    shutil.copytree(OLD, folder / "run")
    export_run(folder / "run", folder / "run.zip")
    return folder / "run.zip"


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def remade(source: Path, target: Path, change) -> Path:
    """The zip again, its entries given to `change` as {name: bytes}, the list among them as a table."""
    with zipfile.ZipFile(source) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    manifest = json.loads(entries.pop(MANIFEST))
    change(manifest, entries)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def listed(data: bytes) -> dict:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def nothing_placed(root: Path) -> bool:
    return not root.exists() or not list(root.iterdir())


def test_a_run_comes_back_byte_for_byte_under_any_name(packed, tmp_path):
    done = import_run(packed, root=tmp_path / "runs", name="again")
    assert bytes_of(tmp_path / "runs" / "again") == bytes_of(packed.parent / "run") and done["folder"] == str(tmp_path / "runs" / "again")
    assert verify(tmp_path / "runs" / "again")["clean"] and import_run(packed, root=tmp_path / "runs")["run"] == "run"
    looks = [json.loads(line) for line in (tmp_path / "runs" / "looks.jsonl").read_text().splitlines()]
    assert [x["run"] for x in looks] == ["again", "run"] and looks[0]["fingerprint"] == json.loads((OLD / "summary.json").read_text())["environment"]["data"]["test"]


def test_the_same_run_gives_the_same_zip_whatever_its_files_times(packed, tmp_path):
    copy = Path(shutil.copytree(packed.parent / "run", tmp_path / "run"))
    for number, path in enumerate(sorted(copy.rglob("*"))):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    (copy / "cache").mkdir()
    (copy / "cache" / "answers.npy").write_bytes(b"made again where they are needed")
    (copy / "objects" / ".half.7.tmp").write_bytes(b"left by a killed process")
    export_run(copy, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert names == [MANIFEST, *sorted(names[1:])] and not [n for n in names if n.startswith(("artifacts/", "cache/", "lock"))], "an artifact's bytes are objects already"


def test_a_checkpoint_travels_so_that_an_interrupted_run_goes_on_elsewhere(packed, tmp_path):
    copy = Path(shutil.copytree(packed.parent / "run", tmp_path / "run"))
    (copy / "summary.json").unlink()
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "k-technique.safetensors").write_bytes(b"a checkpoint")
    export_run(copy, tmp_path / "cut.zip")
    import_run(tmp_path / "cut.zip", root=tmp_path / "runs")
    assert (tmp_path / "runs" / "run" / "checkpoints" / "k-technique.safetensors").read_bytes() == b"a checkpoint"


def test_export_refuses_a_damaged_or_held_run_and_an_existing_file(packed, tmp_path):
    copy = Path(shutil.copytree(packed.parent / "run", tmp_path / "run"))
    with locked(copy), pytest.raises(RunError, match="held by process"):
        export_run(copy, tmp_path / "x.zip")
    (tmp_path / "mine.zip").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"mine.zip exists. Name another"):
        export_run(copy, tmp_path / "mine.zip")
    path = next(p for p in (copy / "objects").rglob("*") if p.is_file())
    path.write_bytes(b"flipped")
    with pytest.raises(RunError, match=rf"doesn't verify, so it isn't exported: .*objects/{path.parent.name}/{path.name}"):
        export_run(copy, tmp_path / "x.zip")
    with pytest.raises(ConfigError, match="there is no run folder"):
        export_run(tmp_path / "nowhere", tmp_path / "x.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.zip", "run"] and (tmp_path / "mine.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "objects/../../evil", "a//b", "a/./b", "a/", "C:/evil", "objects\\..\\evil", ".hidden/x", "lock", "cache/x", "objects/.x.tmp"],
)
def test_a_name_that_leaves_the_folder_is_refused(packed, tmp_path, name):
    def change(manifest, entries):
        entries[name] = b"x"
        manifest["files"][name] = listed(b"x")

    with pytest.raises(RunError, match=r"would leave the run folder|is no file that an exported run has"):
        import_run(remade(packed, tmp_path / "x.zip", change), root=tmp_path / "runs")
    assert nothing_placed(tmp_path / "runs") and [p.name for p in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("name", ["artifacts/../../evil", "/evil", "objects/aa/x", "summary.json"])
def test_an_artifact_that_would_be_laid_out_elsewhere_is_refused(packed, tmp_path, name):
    def change(manifest, entries):
        manifest["laid_out"][name] = next(iter(manifest["laid_out"].values()))

    with pytest.raises(RunError, match=r"would leave the run folder|is no artifact"):
        import_run(remade(packed, tmp_path / "x.zip", change), root=tmp_path / "runs")
    assert nothing_placed(tmp_path / "runs")


def raw_zip(path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def directory(raw: bytes | bytearray) -> int:
    """Where a zip's list of entries begins: its last record says it."""
    return int.from_bytes(raw[(end := raw.rindex(b"PK\x05\x06")) + 16 : end + 20], "little")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_folders_and_duplicates_are_refused(packed, tmp_path):
    link, folder = zipfile.ZipInfo("objects/link"), zipfile.ZipInfo("objects/pipe")
    link.external_attr, folder.external_attr = (stat.S_IFLNK | 0o777) << 16, (stat.S_IFIFO | 0o644) << 16
    cases = {
        "is a link": [(link, b"/etc/passwd")],
        "is no plain file": [(folder, b"")],
        "twice": [(zipfile.ZipInfo("summary.json"), b"{}"), (zipfile.ZipInfo("summary.json"), b"[]")],
        "case alone": [(zipfile.ZipInfo("summary.json"), b"{}"), (zipfile.ZipInfo("Summary.json"), b"[]")],
        "has no limbeck-run.json": [(zipfile.ZipInfo("summary.json"), b"{}")],
    }
    for message, entries in cases.items():
        with pytest.raises(RunError, match=message):
            import_run(raw_zip(tmp_path / "x.zip", entries), root=tmp_path / "runs")
    assert nothing_placed(tmp_path / "runs")


def test_a_bomb_is_refused_before_it_is_unpacked(packed, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "{}")
        archive.writestr("objects/aa/x", b"\0" * 50_000_000)
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(RunError, match=r"would unpack to 50,000,002 bytes; at most 1,000,000 are allowed"):
        import_run(tmp_path / "bomb.zip", root=tmp_path / "runs", limit_bytes=1_000_000)
    with pytest.raises(RunError, match="at most 1,000 are allowed"):
        import_run(packed, root=tmp_path / "runs", limit_bytes=1_000)
    assert nothing_placed(tmp_path / "runs")


def test_entries_that_overlap_are_refused(packed, tmp_path):
    """Two names for one stretch of the file, as a bomb of the better kind has: the central directory says the same place twice."""
    raw = bytearray(packed.read_bytes())
    at = raw.index(b"PK\x01\x02", directory(raw) + 1)  # the second entry
    raw[at + 20 : at + 24] = (len(raw) - 1).to_bytes(4, "little")  # its compressed size
    raw[at + 24 : at + 28] = (len(raw) - 1).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(raw)
    with pytest.raises(RunError, match="they overlap"):
        import_run(tmp_path / "x.zip", root=tmp_path / "runs")
    assert nothing_placed(tmp_path / "runs")


def other_bytes(manifest, entries):
    entries["summary.json"] = entries["summary.json"].replace(b"PASS", b"FAIL", 1)


def hashed_anew(manifest, entries):
    """Whoever changes the list too is found by the run's own hashes."""
    other_bytes(manifest, entries)
    manifest["files"]["summary.json"] = listed(entries["summary.json"])


def one_too_few(manifest, entries):
    entries.pop("summary.json")


def one_left_out(manifest, entries):
    entries.pop("journal.jsonl")
    manifest["files"].pop("journal.jsonl")


def object_gone(manifest, entries):
    name = next(f"objects/{s[:2]}/{s}" for s in manifest["laid_out"].values())
    entries.pop(name)
    manifest["files"].pop(name)


CHANGED = {
    other_bytes: "has other bytes than its list says",
    hashed_anew: r"doesn't verify: summary.json: .* was changed",
    one_too_few: "disagree on 'summary.json'",
    one_left_out: "is not a run folder: it has no journal",
    object_gone: "whose bytes .* it doesn't hold",
    lambda m, e: m.update(version=9): r"version is 9; this limbeck reads up to 1",
    lambda m, e: m.pop("files"): "is not a list of a run's files",
    lambda m, e: m.update(files={"x": {}}): "is not a list of a run's files",
    lambda m, e: m.update(run="../up"): "run.name must be letters",
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_was_changed_on_the_way_is_refused(packed, tmp_path, change):
    with pytest.raises(LimbeckError, match=CHANGED[change]):
        import_run(remade(packed, tmp_path / "x.zip", change), root=tmp_path / "runs")
    assert nothing_placed(tmp_path / "runs")


def test_any_flipped_byte_of_the_zip_is_refused_or_changes_nothing(packed, tmp_path, monkeypatch):
    """A zip has fields that say nothing of its content (times, attributes); whatever else is flipped, no other run comes out."""
    raw, expected, rng = packed.read_bytes(), bytes_of(packed.parent / "run"), random.Random(0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    refused, tail = 0, len(raw) - directory(raw)
    for number in range(60):
        place = rng.randrange(len(raw)) if number % 2 else len(raw) - 1 - rng.randrange(tail)
        (tmp_path / "x.zip").write_bytes(raw[:place] + bytes([raw[place] ^ rng.randrange(1, 256)]) + raw[place + 1 :])
        try:
            import_run(tmp_path / "x.zip", root=tmp_path / "runs", name="run")
        except LimbeckError:
            refused += 1
            assert not (tmp_path / "runs" / "run").exists()
        else:
            assert bytes_of(tmp_path / "runs" / "run") == expected
            shutil.rmtree(tmp_path / "runs" / "run")
        assert not list((tmp_path / "runs").glob(".import-*"))
    assert refused > 30


def test_a_name_that_is_taken_is_refused_and_the_run_there_stays(packed, tmp_path):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists. Import under another name with --name"):
        import_run(packed, root=tmp_path / "runs")
    assert bytes_of(tmp_path / "runs") == {"run/mine": hashlib.sha256(b"mine").hexdigest()}
    with pytest.raises(ConfigError, match="run.name must be letters"):
        import_run(packed, root=tmp_path / "runs", name="../run")
    with pytest.raises(ConfigError, match="there is no file"):
        import_run(tmp_path / "nowhere.zip", root=tmp_path / "runs")
    (tmp_path / "no.zip").write_bytes(b"PK no zip")
    with pytest.raises(RunError, match="is not a zip that `limbeck export` wrote"):
        import_run(tmp_path / "no.zip", root=tmp_path / "runs")
