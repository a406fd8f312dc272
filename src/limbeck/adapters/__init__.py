"""Distillation in loops that aren't limbeck's: your own, the Hugging Face Trainer's (`adapters.huggingface`), Lightning's (`adapters.lightning`)."""

from __future__ import annotations

from limbeck.adapters.loop import Numbered, NumberedBatch, attach

__all__ = ["Numbered", "NumberedBatch", "attach"]
