"""Whether splits can carry a verdict: none missing or too small, every class seen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.core.errors import ConfigError
from limbeck.intake.starting.questions import Interview

LEAST = 5  # samples in a split: an export needs as many
FEW = 100  # samples of test below which verdicts stay coarse
ORDER = ("train", "validation", "test")


def check_sizes(count: Mapping[str, int], interview: Interview, way: str) -> None:
    """Raises ConfigError for a split that is missing or too small. way: what the user can do about it."""
    for name in ORDER:
        if count.get(name, 0) < LEAST:
            raise ConfigError(f"split '{name}' has {count.get(name, 0)} samples, and needs at least {LEAST}. {way}")
    if count["test"] < FEW:
        interview.note(f"test has {count['test']} samples: a bound on what is kept stays coarse, and a verdict may be INCONCLUSIVE. More samples sharpen it.")


def check_classes(labels: Mapping[str, Sequence[str]], way: str) -> None:
    """Raises ConfigError for a class that isn't in train, or if there is only one."""
    seen = set(labels["train"])
    if len(seen) < 2:
        raise ConfigError(f"train must hold at least two classes, got {', '.join(sorted(seen)) or 'none'}. {way}")
    for name in ORDER[1:]:
        unseen = sorted(set(labels[name]) - seen)
        if unseen:
            raise ConfigError(f"class '{unseen[0]}' is in {name} but not in train: it can't be learned. {way}")
