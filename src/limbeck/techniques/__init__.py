"""The techniques: the sorted list of ours, and what entry points of the group `limbeck.techniques` bring."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points

from limbeck.core.errors import ConfigError, near
from limbeck.core.technique import Card, Function, card_of
from limbeck.techniques.distill.finetune import finetune
from limbeck.techniques.distill.offline import distill
from limbeck.techniques.distill.simkd import simkd
from limbeck.techniques.prune.blocks import blocks
from limbeck.techniques.prune.channels import prune
from limbeck.techniques.prune.vocabulary import vocabulary
from limbeck.techniques.quantize.static_int8 import quantize

ALL: tuple[Function, ...] = (blocks, distill, finetune, prune, quantize, simkd, vocabulary)
GROUP = "limbeck.techniques"
log = logging.getLogger("limbeck.techniques")


def cards() -> dict[str, Card]:
    """Every technique by name, ours first. A third party's that fails to load, or takes a name that is taken, is reported and left out."""
    found = {card_of(function).name: card_of(function) for function in ALL}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            card = card_of(entry.load())
        except Exception as error:  # noqa: BLE001 - a plug-in's import may raise anything, and must not take the others along
            log.warning("technique '%s' (%s) failed to load: %r", entry.name, entry.value, error)
            continue
        if card.name in found:
            log.warning("technique '%s' (%s) takes a name that is taken; it is left out", card.name, entry.value)
        else:
            found[card.name] = card
    return found


def card(name: str) -> Card:
    """The card of this name. Raises ConfigError with near names."""
    known = cards()
    if name not in known:
        raise ConfigError(f"there is no technique '{name}'. {near(name, known)}")
    return known[name]
