"""Augmentation that can be replayed: what happens to a sample follows from (seed, sample id, view id) and from nothing else.

So teacher and student see the same, and a teacher's answers can be cached by (sample id, view id). Draws are made in integers
(`draws`), one file an idea: what moves pixels, what is done to numbers, to time, to tokens, and how two samples are mixed.
"""

from __future__ import annotations

from limbeck.mechanics.views.mixing import Mixed
from limbeck.mechanics.views.recipe import Views
from limbeck.mechanics.views.viewer import View, Viewer, refuse

__all__ = ["Mixed", "View", "Viewer", "Views", "refuse"]
