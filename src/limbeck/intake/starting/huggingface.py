"""A classifier of the transformers library: a folder, or a name that its hub knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError
from limbeck.core.require import require
from limbeck.intake.starting.parts import ModelPart
from limbeck.intake.starting.questions import Interview
from limbeck.intake.starting.source import place, quoted

CODE = '''
def teacher() -> nn.Module:
    """The trained classifier; its weights come with it."""
    return AutoModelForSequenceClassification.from_pretrained(MODEL).eval()
'''


def part(name: str, folder: Path, interview: Interview) -> tuple[ModelPart, Mapping[str, Any]]:
    """The model, and what it wants of its data: tokenizer, positions, vocabulary, classes.

    Raises: MissingLibrary without transformers; ConfigError for a folder or name that can't be loaded, weights beside a folder that
        has its own, or a model without a trained classifier.
    """
    transformers = require("transformers")
    local = Path(name).is_dir()
    if interview.given.get("weights") not in (None, "none"):
        raise ConfigError("--weights: a transformers model brings its own weights. Leave it out, or save them into the model's folder.")
    config = _loaded(lambda: transformers.AutoConfig.from_pretrained(name), name)
    tokenizer = _loaded(lambda: transformers.AutoTokenizer.from_pretrained(name), name)
    heads = config.architectures or []
    if not any(h.endswith("ForSequenceClassification") for h in heads):
        raise ConfigError(
            f"it was saved as {', '.join(heads) or 'nothing known'}, so it has no trained classifier. Fine-tune one, as in AutoModelForSequenceClassification, and save that."
        )
    classes = [str(config.id2label[i]) for i in range(config.num_labels)] if config.num_labels > 1 else []

    def lengths(texts: list[str]) -> list[int]:
        return [len(tokenizer(t)["input_ids"]) for t in texts]

    model = place(Path(name), folder) if local else quoted(name)
    imports = ("from torch import nn", "from transformers import AutoModelForSequenceClassification, AutoTokenizer")
    made = ModelPart(factory="teacher", imports=imports, constants=f"MODEL = {model}\nTOKENIZER = AutoTokenizer.from_pretrained(MODEL)\n", code=CODE)
    limit = min(getattr(config, "max_position_embeddings", 512), tokenizer.model_max_length)
    wanted = {"tokenizer": True, "name": name, "lengths": lengths, "limit": limit, "vocabulary": max(len(tokenizer), config.vocab_size), "classes": classes}
    return made, wanted


def _loaded(load: Callable[[], Any], name: str) -> Any:
    """Raises ConfigError in one line for what the library says in a page: no such folder, no network, no tokenizer."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)  # its tries to reach the hub are no news; what came of them is said below
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        known = "It is a folder here." if Path(name).is_dir() else "There is no such folder here, and it can't be fetched under that name."
        raise ConfigError(f"{known} {reason} Save model and tokenizer into a folder with save_pretrained, and name that.") from error
    finally:
        log.setLevel(before)
