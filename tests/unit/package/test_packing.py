"""A run as a package: what is in it, that the same run gives the same bytes, and what is refused."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import limbeck
from limbeck import Package, api
from limbeck.core.errors import ConfigError, RunError, TaskError
from limbeck.intake.preprocess import preprocess_data
from limbeck.package.manifest import read_manifest
from limbeck.testing import small_task

sys.path.insert(0, str(Path(__file__).parent))
from conftest import PREPROCESS, carried_out

OLD = Path(__file__).parents[2] / "golden" / "runs" / "0.1.0"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_run_gives_the_same_bytes(kept, whole, tmp_path):
    again = api.package(kept, out=tmp_path / "elsewhere" / "quarters")
    assert bytes_of(again.folder) == bytes_of(whole.folder) and again.zip.read_bytes() == whole.zip.read_bytes()
    assert api.package(kept, out=tmp_path / "elsewhere" / "quarters").manifest == again.manifest  # what is there and equal is left


def test_also_after_its_command_ran_again(task, run, whole, tmp_path):
    carried_out(task, run.parent)
    assert api.package(run, out=tmp_path / "quarters").zip.read_bytes() == whole.zip.read_bytes()


def test_it_holds_what_it_says_and_no_path_of_this_machine(whole, kept):
    files = bytes_of(whole.folder)
    assert set(files) == {
        *("manifest.json", "preprocess.json", "predict.py", "MODEL_CARD.md", "sbom.cdx.json"),
        *("model/model.onnx", "baseline/model.onnx", "empty/model.onnx", "golden/inputs.npz", "golden/outputs.npz"),
    }
    assert json.loads(files["preprocess.json"]) == {"image": {"layout": "NCHW", "mean": [0.5], "size": [8, 8]}}
    summary, manifest = api.status(kept), whole.manifest
    assert files["model/model.onnx"] == (kept / summary["final"]["artifact"]).read_bytes()
    assert files["baseline/model.onnx"] == (kept / summary["baseline"]["artifact"]).read_bytes()
    assert manifest.lineage["teacher"] in (kept / "journal.jsonl").read_text() and manifest.lineage["journal_head"] == summary["journal_head"]
    assert manifest.lineage["data"] == summary["environment"]["data"] and manifest.lineage["seed"] == 0
    assert list(manifest.verdicts) == summary["contract"] and manifest.verdict == summary["verdict"] == "UNVERIFIED"
    assert [p.name for p in manifest.inputs] == ["image"] and manifest.inputs[0].shape == (None, 1, 8, 8) and manifest.outputs == ("logits",)
    for name, data in files.items():
        assert b"/work" not in data and str(kept).encode() not in data and b"/tmp" not in data, name


def test_the_card_is_made_of_records(whole, kept):
    card, summary = (whole.folder / "MODEL_CARD.md").read_text(), api.status(kept)
    assert f"accuracy {summary['final']['metric']['value']:.4f} on the test split" in card and f"at least {summary['retention']['low']:.4f}" in card
    for verdict in summary["contract"]:
        assert f"| {verdict['gate']} | {verdict['limit']:g} | {verdict['status']} |" in card
    assert "Its contract is not decided" in card and "Model().predict(image=…)" in card and whole.manifest.artifact.sha256 in card


def test_the_bill_of_materials_is_cyclonedx(whole):
    bill = json.loads((whole.folder / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"]) and "timestamp" not in bill["metadata"]
    refs = [c["bom-ref"] for c in bill["components"]]
    assert len(set(refs)) == len(refs) and bill["dependencies"] == [{"ref": "model", "dependsOn": refs}]
    libraries = {c["name"]: c for c in bill["components"] if c["type"] == "library"}
    version = whole.manifest.versions["onnxruntime"]
    assert set(libraries) == {"onnxruntime", "numpy"} and libraries["onnxruntime"]["purl"] == f"pkg:pypi/onnxruntime@{version}"
    (model,) = [c for c in bill["components"] if c["type"] == "file"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": whole.manifest.files["model/model.onnx"].sha256}] == bill["metadata"]["component"]["hashes"]


def test_a_stage_says_that_the_contract_was_not_judged_for_it(run, tmp_path):
    made = api.package(run, out=tmp_path / "stage", stage="quantize", baseline=False)
    assert made.manifest.verdict == "PASS" and made.manifest.baseline is None and not made.manifest.lineage["final"]
    assert {v["gate"] for v in made.manifest.verdicts} == {"retention", "pays"}
    assert "An intermediate model" in (made.folder / "MODEL_CARD.md").read_text() and made.verify()["clean"]
    teacher = api.package(run, out=tmp_path / "teacher", stage="baseline")
    assert teacher.manifest.verdict == "UNVERIFIED" and teacher.verify()["golden"]["holds"]  # its golden answers were asked when it was packed
    assert not np.array_equal(teacher.predict(image=np.ones((1, 1, 8, 8), np.float32))["logits"], made.predict(image=np.ones((1, 1, 8, 8), np.float32))["logits"])


def test_the_report_goes_along_if_there_is_one(run, tmp_path):
    assert "limbeck report" in api.package(run, out=tmp_path / "without").manifest.absent["report"]
    (run / "report.html").write_text("<!doctype html><title>r</title>")
    made = api.package(run, out=tmp_path / "with")
    assert (made.folder / "report.html").read_bytes() == (run / "report.html").read_bytes() and "report" not in made.manifest.absent


def test_a_run_of_an_earlier_limbeck_is_packaged_with_what_it_kept(tmp_path):
    made = api.package(shutil.copytree(OLD, tmp_path / "old"), out=tmp_path / "package")
    assert set(made.manifest.absent) == {"golden", "preprocess", "report"} and made.manifest.golden is None
    found = made.verify()
    assert found["clean"] and found["golden"] is None and "the package has none" in found["unchecked"][0]


def test_samples_of_the_data_can_stay_at_home(run, tmp_path):
    made = api.package(run, out=tmp_path / "p", samples=False)
    assert not (made.folder / "golden").exists() and made.manifest.absent["golden"] == "left out on request"
    found = made.verify()
    assert found["clean"] and "left out on request" in found["unchecked"][0]


def test_verify_misses_the_preprocessing_that_a_run_kept(run):
    sha = next(x["data"]["preprocess"] for x in map(json.loads, (run / "journal.jsonl").read_text().splitlines()) if x["event"] == "run")
    (run / "objects" / sha[:2] / sha).unlink()
    assert f"objects/{sha[:2]}/{sha}" in {p["file"] for p in api.verify(run)["problems"]}


def test_packaging_writes_nothing_into_the_run(run, tmp_path):
    before = bytes_of(run)
    api.package(run, out=tmp_path / "p")
    assert bytes_of(run) == before


def test_what_is_no_finished_run_or_no_free_place_is_refused(run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="taken exists and holds something else"):
        api.package(run, out=tmp_path / "taken")
    (tmp_path / "new.zip").write_text("mine")
    with pytest.raises(ConfigError, match="new.zip exists and holds something else"):
        api.package(run, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="no candidate of stage 'prune'"):
        api.package(run, stage="prune")
    (run / "summary.json").unlink()
    with pytest.raises(ConfigError, match="has no verdict to go with a package"):
        api.package(run)


def test_a_changed_run_is_not_packaged(run):
    path = next(p for p in (run / "objects").rglob("*") if p.is_file() and p.read_bytes() == (run / api.status(run)["final"]["artifact"]).read_bytes())
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(RunError, match="its bytes don't have its hash"):
        api.package(run, out=run.parent / "p")
    assert not (run.parent / "p").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mean": np.zeros(2)}, "preprocess.mean must be plain data .* got ndarray.*tolist"),
        ({"a": [1, {2: "x"}]}, r"preprocess.a\[1\] must have text as keys, got 2"),
        ({"a": float("nan")}, "preprocess.a must be a number that JSON can say, got nan"),
        ({"f": len}, "preprocess.f must be plain data .* got builtin_function_or_method"),
    ],
)
def test_preprocessing_that_json_cant_say_is_refused_before_the_run_starts(value, message, tmp_path):
    task = dataclasses.replace(small_task(), preprocess=value)
    with pytest.raises(TaskError, match=message):
        carried_out(task, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert preprocess_data(dataclasses.replace(task, preprocess=PREPROCESS))["image"]["mean"] == [0.5]


def test_the_object_shows_itself_and_predicts(whole):
    assert limbeck.Package is Package and "UNVERIFIED" in repr(whole)
    html = whole._repr_html_()
    assert html.count("<tr>") == 5 and "accuracy" in html and "smaller than the baseline" in html
    odd = Package(whole.folder, dataclasses.replace(whole.manifest, name="<script>x</script>"))
    assert "<script>" not in odd._repr_html_()
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    assert whole.predict(image=x)["logits"].shape == (3, 4)
    assert Package.open(whole.folder).manifest == whole.manifest == read_manifest((whole.folder / "manifest.json").read_bytes())


def test_a_changed_package_is_not_loaded(package):
    path = package.folder / "model" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RunError, match="model/model.onnx its bytes don't have their hash. A package that doesn't hold is not loaded"):
        package.predict(image=np.zeros((1, 1, 8, 8), np.float32))
    with pytest.raises(ConfigError, match="there is no package in"):
        Package.open(package.folder / "model")
