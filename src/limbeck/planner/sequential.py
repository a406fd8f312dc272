"""The plan for who brings none: distill into a student of the task's if there is one, prune, quantize."""

from __future__ import annotations

import math

from limbeck.core.contract import Contract
from limbeck.core.plan import Plan, Recovery, Stage, Training
from limbeck.core.task import Task

INT8_SHRINKS = 4.0  # float32 to int8
GENTLE, STRONG = 0.25, 0.7  # between these a channel ratio is worth a stage and can usually be recovered


def sequential(task: Task, contract: Contract, *, epochs: int = 10) -> Plan:
    """Stages in the order in which each loses least: big to small in float, then to integers.

    The channel ratio follows from the bytes that quantization leaves to win: with s = size_ratio / 4 still to go and bytes
    quadratic in width, a fraction 1 − 1/√s of channels goes.
    """
    stages, reasons = [], []
    students = sorted(name for name in task.models if name != task.teacher)
    if students:
        stages.append(Stage(technique="distill", config={"student": students[0], "term": "logit_mse" if task.metric.target == "value" else "kd", "training": {"epochs": epochs}}))
        reasons.append(f"distill into '{students[0]}': a student of the task's own is there, and what it learns is learnt before anything is cut")
    else:
        needed = max((contract.size_ratio or INT8_SHRINKS) / INT8_SHRINKS, 1.0)
        ratio = min(max(1 - 1 / math.sqrt(needed), GENTLE), STRONG)
        recovery = Recovery(training=Training(epochs=max(epochs // 2, 1), learning_rate=1e-3))
        stages.append(Stage(technique="prune", config={"ratio": round(ratio, 2)}, recovery=recovery, on_fail="refine"))
        reasons.append(f"prune {ratio:.0%} of the channels: what int8 leaves to win of size_ratio {contract.size_ratio or 'none'}; refined to less if its gate says no")
    stages.append(Stage(technique="quantize"))
    reasons.append("quantize last: it makes weights that nothing after it could train")
    return Plan(stages=tuple(stages), reasons=tuple(reasons))
