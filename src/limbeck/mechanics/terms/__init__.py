"""Terms of an objective: what a student is pulled towards. One term a file, one line in `ALL`.

An objective is a weighted sum: `0.1 * task_loss() + 0.9 * kd(temperature=4)`.
"""

from __future__ import annotations

from limbeck.mechanics.terms.kd import kd
from limbeck.mechanics.terms.logit_mse import logit_mse
from limbeck.mechanics.terms.similarity_preserving import similarity_preserving
from limbeck.mechanics.terms.task_loss import task_loss

ALL = (kd, logit_mse, similarity_preserving, task_loss)
