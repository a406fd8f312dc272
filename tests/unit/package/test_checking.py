"""`verify` of packages: one changed byte anywhere is found and its file is named; nothing is loaded before (oracle 30)."""

import io
import json
import random
import stat
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from limbeck import Package, api
from limbeck.core.errors import ConfigError
from limbeck.core.seal import sealed
from limbeck.package import checking
from limbeck.package.container import packed, unpacked


def to_blame(raw: bytes, changed: bytes, place: int) -> str | None:
    """Whose byte this is in a zip: a file's with its header before it (by the name that now stands there). None: the zip's own list, or a name's length."""
    start = 0
    for name, data in unpacked(raw, where="quarters.zip").files.items():
        body = start + 30 + len(name.encode())
        if place < start + 4:
            return "quarters.zip"  # the mark that a file begins here
        if place in (start + 26, start + 27):
            return None
        if place < body:
            return changed[start + 30 : body].decode(errors="backslashreplace")
        if place < body + len(data):
            return name
        start = body + len(data)
    return None


def flipped(raw: bytes, generator: random.Random, places: Sequence[int] | None = None) -> tuple[bytes, int]:
    """One byte (of these places) made another, and where."""
    place = generator.choice(places or range(len(raw)))
    return raw[:place] + bytes([raw[place] ^ generator.randrange(1, 256)]) + raw[place + 1 :], place


def headers(raw: bytes) -> list[int]:
    """The bytes of a zip that are no file's content."""
    found, start = [], 0
    for name, data in unpacked(raw, where="x").files.items():
        body = start + 30 + len(name.encode())
        found += range(start, body)
        start = body + len(data)
    return [*found, *range(start, len(raw))]


def flips_are_found(package: Package, count: int, seed: int) -> None:
    """Half of them in files of the folder (each as often as the others), half in the zip (every other one in what is no content), which has no side file to help."""
    generator, files = random.Random(seed), sorted(p for p in package.folder.rglob("*") if p.is_file())
    raw, side = package.zip.read_bytes(), package.zip.with_name(f"{package.zip.name}.sha256")
    side.unlink(missing_ok=True)
    for number in range(count // 2):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, generator)[0])
        found = api.verify(package.folder)
        assert found["exit_code"] == 3 and [p["file"] for p in found["problems"]] == [path.relative_to(package.folder).as_posix()], (path, found)
        path.write_bytes(whole)
    frame = headers(raw)
    for number in range(count // 2):
        changed, place = flipped(raw, generator, frame if number % 2 else None)
        package.zip.write_bytes(changed)
        found = api.verify(package.zip)
        (problem,), blamed = found["problems"], to_blame(raw, changed, place)
        assert found["exit_code"] == 3 and blamed in (problem["file"], None), (place, blamed, found)
    package.zip.write_bytes(raw)
    assert api.verify(package.folder)["clean"] and api.verify(package.zip)["clean"]


def test_200_packages_with_one_flipped_byte_are_all_caught(package):
    flips_are_found(package, 200, seed=1)


@pytest.mark.slow
def test_1000_packages_with_one_flipped_byte_are_all_caught(package):
    flips_are_found(package, 1000, seed=2)


def test_a_whole_package_holds_and_says_what_it_could_not_check(package):
    for path in (package.folder, package.zip):
        found = api.verify(path)
        assert found["clean"] and found["exit_code"] == 0 and found["checked"] == 10
        assert found["golden"] == {"samples": 8, "max_rel": 0.0, "exact": True, "holds": True, "runtime": f"onnxruntime {package.manifest.versions['onnxruntime']}"}
        assert found["unchecked"] == ["who made it: these hashes find damage, and are no signature"]


def test_a_manifest_that_means_the_same_in_other_bytes_is_changed(package):
    path = package.folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n ", b"\n\t", 1))
    assert [p["file"] for p in api.verify(package.folder)["problems"]] == ["manifest.json"]


def test_the_side_file_of_the_zip_is_checked_and_missed(package):
    side = package.zip.with_name("quarters.zip.sha256")
    side.write_bytes(side.read_bytes().replace(b"quarters", b"quarterz"))
    assert [p["file"] for p in api.verify(package.zip)["problems"]] == ["quarters.zip.sha256"]
    side.unlink()
    found = api.verify(package.zip)
    assert found["clean"] and "quarters.zip.sha256 isn't beside it" in found["unchecked"][0]


def test_extra_missing_and_linked_files_are_named(package):
    (package.folder / "__pycache__").mkdir()
    (package.folder / "__pycache__" / "predict.pyc").write_bytes(b"x")
    (package.folder / "preprocess.json").unlink()
    (package.folder / "link").symlink_to(package.folder / "predict.py")
    found = {p["file"]: p["what"] for p in api.verify(package.folder)["problems"]}
    assert found.keys() == {"__pycache__/predict.pyc", "preprocess.json", "link"}
    assert found["preprocess.json"] == "is missing" and "is a link" in found["link"] and "not part of the package" in found["__pycache__/predict.pyc"]
    (package.folder / "manifest.json").unlink()
    assert {p["file"] for p in api.verify(package.folder)["problems"]} >= {"manifest.json"}


def rewritten(package: Package, change) -> Path:
    """The manifest changed and sealed again: what a forger would do."""
    path = package.folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_bytes(sealed(data))
    return package.folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"].__setitem__("../../evil", d["files"]["predict.py"]), "would leave the folder"),
        (lambda d: d["files"].__setitem__("/etc/passwd", d["files"]["predict.py"]), "would leave the folder"),
        (lambda d: d["artifact"].__setitem__("path", "../model.onnx"), "the package has no file of"),
        (lambda d: d["artifact"].__setitem__("sha256", "0" * 64), "don't have the hash of that artifact"),
        (lambda d: d.__setitem__("schema", 9), "this limbeck reads up to 1"),
        (lambda d: d.pop("golden"), "can't be read"),
        (lambda d: d.__setitem__("files", []), "can't be read"),
        (lambda d: d.__setitem__("lineage", None), "lineage has the wrong kind"),
        (lambda d: d["files"]["predict.py"].__setitem__("sha256", 7), "no SHA-256"),
    ],
)
def test_a_forged_manifest_neither_crashes_verify_nor_leads_out_of_the_package(package, change, message):
    (problem,) = api.verify(rewritten(package, change))["problems"]
    assert problem["file"] == "manifest.json" and message in problem["what"]


def hostile(names: dict[str, bytes], *, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in names.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if link else stat.S_IFREG) << 16
            archive.writestr(info, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        hostile({"../../evil.py": b"x"}),
        hostile({"manifest.json": b"{}", "/abs": b"x"}),
        hostile({"predict.py": b"/etc/passwd"}, link=True),
        packed({"manifest.json": b"[" * 100_000}),
        packed({"a": b"no manifest"}),
        b"PK\3\4" + b"\0" * 40,
        b"",
    ],
)
def test_a_hostile_zip_is_refused_before_anything_is_unpacked(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "answers", lambda *_, **__: pytest.fail("it was loaded"))
    monkeypatch.setattr(checking.tempfile, "TemporaryDirectory", lambda **_: pytest.fail("it was unpacked"))
    path = tmp_path / "bad.zip"
    path.write_bytes(raw)
    found = api.verify(path)
    assert found["exit_code"] == 3 and found["problems"] and [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_nothing_is_loaded_before_the_hashes_hold(package, monkeypatch):
    monkeypatch.setattr(checking, "answers", lambda *_, **__: pytest.fail("it was loaded"))
    (package.folder / "preprocess.json").write_text("{}")
    assert api.verify(package.folder)["golden"] is None


def with_files(package: Package, **files: bytes) -> Path:
    """The package with other files, its manifest and all hashes made anew: damaged before it was packed."""
    from dataclasses import replace

    data = {n: (package.folder / n).read_bytes() for n in package.manifest.files} | {k.replace("__", "/").replace("_", "."): v for k, v in files.items()}
    manifest = package.manifest.of(data)
    manifest = replace(manifest, artifact=replace(manifest.artifact, sha256=manifest.files["model/model.onnx"].sha256))
    for name, raw in {**data, "manifest.json": manifest.to_bytes()}.items():
        (package.folder / name).write_bytes(raw)
    return package.folder


def test_a_model_that_answers_otherwise_is_found(package):
    folder = with_files(package, model__model_onnx=(package.folder / "baseline" / "model.onnx").read_bytes())
    (problem,) = api.verify(folder)["problems"]
    assert problem["file"] == "model/model.onnx" and "answers otherwise here" in problem["what"] and "VNNI" in problem["what"]


def test_a_model_that_doesnt_load_or_crashes_takes_nobody_with_it(package, monkeypatch):
    folder = with_files(package, model__model_onnx=b"not a model")
    (problem,) = api.verify(folder)["problems"]
    assert problem["file"] == "model/model.onnx" and "doesn't run here" in problem["what"]
    monkeypatch.setattr(sys, "executable", str(package.folder.parent / "crash.sh"))
    script = package.folder.parent / "crash.sh"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    (problem,) = api.verify(folder)["problems"]
    assert "brought its process down: SIGSEGV" in problem["what"]


def test_a_runtime_that_isnt_here_is_said_and_is_no_failure(package, monkeypatch):
    monkeypatch.setattr(checking, "ALL", ())
    found = api.verify(package.folder)
    assert found["clean"] and found["exit_code"] == 0 and found["golden"] is None
    assert found["unchecked"][0] == "golden outputs: the runtime onnxruntime isn't installed here (pip install onnxruntime)"


def test_runs_and_packages_are_told_apart(package, run, tmp_path):
    assert "package" in api.verify(package.folder) and "run" in api.verify(run)
    (run / "manifest.json").write_text("{}")
    assert "run" in api.verify(run)
    with pytest.raises(ConfigError, match="is not a run folder"):
        api.verify(tmp_path)
    with pytest.raises(ConfigError, match="is not a run folder"):
        api.verify(tmp_path / "nowhere.zip")
