"""The public verbs. The shells (command line, and what may follow) import this and nothing below it."""

from __future__ import annotations

from limbeck.api.catalogue import check_environment, doctor, runtimes, studies, techniques, terms
from limbeck.api.compressing import Run, advise, compress, init, repeat, run
from limbeck.api.judging import analyze, compare, evaluate
from limbeck.api.looking import diff, export_run, follow, gc, import_evidence, import_run, package, report, rollback, runs, status, verify

__all__ = [
    "Run",
    "advise",
    "analyze",
    "check_environment",
    "compare",
    "compress",
    "diff",
    "doctor",
    "evaluate",
    "export_run",
    "follow",
    "gc",
    "import_evidence",
    "import_run",
    "init",
    "package",
    "repeat",
    "report",
    "rollback",
    "run",
    "runs",
    "runtimes",
    "status",
    "studies",
    "techniques",
    "terms",
    "verify",
]
