"""Corruptions of samples, at five strengths each: what a model meets in the world and not in its test split.

A kind is a function (sample, strength, rng) → sample; `Task(shifts=…)` names them. What happens to a sample follows from (kind,
sample id, strength) and from nothing else. One file a modality: images, series, text as strings, text as token ids.
"""

from __future__ import annotations

from limbeck.mechanics.shifts.corruption import STRENGTHS, Corruption, Shift, corrupted
from limbeck.mechanics.shifts.derive import Kinds, kinds_of, why_no_kinds
from limbeck.mechanics.shifts.images import image_shifts
from limbeck.mechanics.shifts.series import series_shifts
from limbeck.mechanics.shifts.text import text_shifts
from limbeck.mechanics.shifts.tokens import token_shifts

__all__ = ["STRENGTHS", "Corruption", "Kinds", "Shift", "corrupted", "image_shifts", "kinds_of", "series_shifts", "text_shifts", "token_shifts", "why_no_kinds"]
