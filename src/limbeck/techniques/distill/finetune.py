"""Go on training a candidate as it is, with a teacher's answers: after a cut, or to a new teacher."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from limbeck.core.candidate import Candidate
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import to_dict
from limbeck.core.plan import Training
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import captured, rebuild, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.teaching import Teaching, taught
from limbeck.mechanics.watch import watching


@dataclass(frozen=True, kw_only=True)
class Finetune(Teaching):
    """What the candidate learns next; 0 epochs leave it as it is."""

    training: Annotated[Training, "how long and how fast"] = field(default_factory=lambda: Training(epochs=5, learning_rate=1e-3))


@technique(
    version=1,
    needs={Fact.TORCH, Fact.FLOAT_WEIGHTS},
    data=Data.LABELS,
    paper="arXiv:1503.02531",
    recovers=False,
    pays=False,
    zero=lambda: Finetune(training=Training(epochs=0)),
    example=lambda: Finetune(training=Training(epochs=1)),
)
def finetune(candidate: Candidate, config: Finetune, context: Context) -> Outcome:
    """Train the candidate further under any objective and any teacher; its architecture stays."""
    if not (context.budget.train and config.training.epochs):
        return Outcome(candidate, {"history": []})
    task, form = context.task, candidate.torch_form
    model = rebuild(form, task)
    monitor = watching(context, lambda m: replace(candidate, form=replace(form, weights=captured(m))))
    claims = taught(model, config, candidate=candidate, context=context, monitor=monitor, note="fine-tuning")
    again = torch_form(model.eval(), form.blueprint, task, batch_of(task, "train", [0, 1]))
    return Outcome(replace(candidate, form=again), claims | {"training": to_dict(config.training)})
