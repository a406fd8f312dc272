"""The public surface: a name that comes or goes is a decision, made here too."""

import ast
from pathlib import Path

import limbeck
from limbeck import techniques
from limbeck.core.technique import card_of
from limbeck.mechanics import terms
from limbeck.runtimes import ALL as RUNTIMES

ROOT = Path(limbeck.__file__).parent
TERMS = [
    "attention_maps",
    "attention_transfer",
    "channel_wise",
    "cka",
    "correlation_congruence",
    "cosine",
    "crd",
    "ctkd",
    "deep_supervision",
    "dist",
    "dkd",
    "ema_teacher",
    "ewc",
    "factor_transfer",
    "fsp",
    "hard_label",
    "hidden_states",
    "hint",
    "jsd",
    "kd",
    "l2_sp",
    "label_smoothing",
    "logit_mse",
    "margin_mse",
    "mgd",
    "minilm_relations",
    "mutual",
    "nkd",
    "nst",
    "overhaul",
    "pearson",
    "pkt",
    "retain",
    "review",
    "rkd",
    "seed",
    "similarity_preserving",
    "srd",
    "task_loss",
    "ttm",
    "vid",
    "vkd",
]


def test_public_names():
    assert limbeck.__all__ == (Path(__file__).parents[1] / "golden" / "public_names.txt").read_text().split()


def test_every_public_name_resolves():
    for name in limbeck.__all__:
        assert getattr(limbeck, name) is not None


def test_lists_are_sorted_and_complete():
    names = [card_of(f).name for f in techniques.ALL]
    assert names == sorted(names) == ["blocks", "distill", "finetune", "prune", "quantize", "simkd", "vocabulary"]
    assert [r.name for r in RUNTIMES] == sorted(r.name for r in RUNTIMES) == ["onnxruntime", "torch"]
    assert [t.__name__ for t in terms.ALL] == sorted(t.__name__ for t in terms.ALL) == TERMS


def test_every_decorated_function_stands_in_the_list():
    """Adding a technique is its file and one line; a file without the line would be dead."""
    decorated = set()
    for path in (ROOT / "techniques").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(d).startswith("technique(") for d in node.decorator_list):
                decorated.add(node.name)
    assert decorated == {card_of(f).name for f in techniques.ALL}


def test_every_technique_has_its_page():
    docs = ROOT.parents[1] / "docs" / "techniques"
    for function in techniques.ALL:
        assert (docs / f"{card_of(function).name}.md").exists()


def test_every_term_has_its_page():
    docs = ROOT.parents[1] / "docs" / "terms"
    listed = (docs / "index.md").read_text()
    for factory in terms.ALL:
        assert (docs / f"{factory.__name__}.md").exists() and f"({factory.__name__}.md)" in listed, factory.__name__


def test_every_term_checks_its_contract():
    tests = Path(__file__).parents[1] / "unit" / "mechanics" / "terms"
    for factory in terms.ALL:
        own = tests / f"test_{factory.__name__}.py"
        assert factory.__name__ in ("kd", "similarity_preserving", "task_loss") or "check_term" in own.read_text(), factory.__name__  # those three in test_objective.py
