"""A run shows itself: finished, refused, under way; and nothing that it holds becomes markup."""

import limbeck
from limbeck.core.plan import Gate, Plan, Stage
from limbeck.report.notebook import run_html
from limbeck.testing import small_task


def test_a_run_shows_its_verdict_limits_and_stages_and_leads_on(tmp_path):
    stages = (Stage(technique="quantize", config={"samples": 64}, gate=Gate(pays="bytes", shrink=1.05, retention=0.0)),)
    run = limbeck.compress(
        small_task(), limbeck.Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=tmp_path, timing_seconds=0.05, proof=limbeck.Proof(studies="none")
    )
    shown = run._repr_html_()
    assert all(text in shown for text in ("PASS", "size_ratio", "quantize", "baseline", f"{run.summary['final']['size_bytes']:,}"))
    again = limbeck.Run.open(tmp_path / "run")
    assert again.summary == run.summary and again._repr_html_() == shown and repr(again).endswith("PASS>") and again.exit_code == 0
    assert run.report().is_file() and run.verify()["clean"]
    package = run.package(tmp_path / "package")
    assert package.verify()["clean"] and "PASS" in package._repr_html_()


def test_a_refused_run_and_one_under_way_say_so_and_escape():
    refused = {"run": "<b>", "verdict": "REFUSED", "refusal": {"reason": "a < b", "fix": "<script>"}}
    assert "&lt;script&gt;" in run_html(refused) and "<script>" not in run_html(refused) and "a &lt; b" in run_html(refused)
    under_way = {"run": "r", "verdict": None, "events": [{"event": "baseline", "time": "2026-01-01"}]}
    assert "under way" in run_html(under_way) and "baseline" in run_html(under_way)
    assert "nothing yet" in run_html({"run": "r", "verdict": None, "events": []})


def test_a_stage_that_broke_stands_without_figures():
    model = {"metric": {"name": "accuracy", "value": 0.5}, "size_bytes": 10, "latency_ms": None}
    summary = {"run": "r", "verdict": "FAIL", "ratios": {"size": 1.0, "latency_p50": None}, "contract": [], "stages": [{"name": "prune", "verdict": "FAIL"}]}
    shown = run_html(summary | {"baseline": model, "final": model, "control": None})
    assert "prune" in shown and "1.0× smaller" in shown
