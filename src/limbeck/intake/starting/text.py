"""A CSV or TSV file of texts with labels, read by words or by the model's own tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.intake.starting import slices
from limbeck.intake.starting.balance import ORDER, check_classes, check_sizes
from limbeck.intake.starting.csvfile import IMPORTS, READ, Table, constants, split_by
from limbeck.intake.starting.parts import DataPart
from limbeck.intake.starting.questions import CLASSES, Interview
from limbeck.intake.starting.source import literal, quoted

WORD = re.compile(r"\w+|[^\w\s]")
VOCABULARY = 8000  # words at most
SEEN = 2  # times a word stands in train before it is one of the vocabulary
LENGTHS = (16, 32, 64, 128, 256)
OWN_TOKENIZER = '''
def tokens(text: str) -> tuple[list[int], list[int]]:
    """Ids of words and punctuation, and which of them are real: 0 fills up, 1 is a word that isn't in the vocabulary."""
    ids = [WORDS.get(word, 1) for word in WORD.findall(text.lower())][:LENGTH]
    return ids + [0] * (LENGTH - len(ids)), [1] * len(ids) + [0] * (LENGTH - len(ids))
'''
MODEL_TOKENIZER = '''
def tokens(text: str) -> tuple[list[int], list[int]]:
    """Ids and mask, by the model's own tokenizer."""
    found = TOKENIZER(text, truncation=True, padding="max_length", max_length=LENGTH)
    return found["input_ids"], found["attention_mask"]
'''
CODE = Template('''
$split
$read
$tokens

class Texts(Dataset):
    """The texts of one split, as token ids."""

    def __init__(self, split: str):
        self.rows = read(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        ids, mask = tokens(row[TEXT])
        sample = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": CLASSES.index(row[LABEL])}
        return sample$codes
''')


def part(table: Table, folder: Path, interview: Interview, *, text: str, label: str, wanted: Mapping[str, Any]) -> DataPart:
    """The data of a text column and a label column.

    Args:
        wanted: what a transformers model says: `tokenizer` (source of its name), `lengths` (a function from texts to token
            counts), `limit` (positions it has), `vocabulary`, `classes`.
    Raises: ConfigError for splits or classes that can't carry a verdict, or labels that the model has no class for.
    """
    split = split_by(table, interview, (text,))
    where = [split.of(row) for row in table.rows]
    labels = {name: [row[label] for row, at in zip(table.rows, where, strict=True) if at == name] for name in ORDER}
    way = "Add rows, or say the splits in a column (--split-column)."
    check_sizes({name: len(of) for name, of in labels.items()}, interview, way)
    check_classes(labels, way)
    found = sorted(set(table.values[label]), key=natural)
    known = list(wanted.get("classes") or [])
    classes = interview.settle(CLASSES, lambda words: ordered(words, found, known), default="model" if known else "sorted")
    chosen = slices.slices_of(table, interview)
    train = [row[text] for row, at in zip(table.rows, where, strict=True) if at == "train"]
    counts = wanted["lengths"](train) if "lengths" in wanted else [len(WORD.findall(t.lower())) for t in train]
    usual = float(np.percentile(counts, 95))
    length = min(next((n for n in LENGTHS if n >= usual), LENGTHS[-1]), int(wanted.get("limit") or LENGTHS[-1]))
    lines = constants(table, folder) + f"TEXT, LABEL = {quoted(text)}, {quoted(label)}\nCLASSES = {literal(classes)}  # in the order of the model's outputs\n"
    lines += f"LENGTH = {length}  # tokens; 95 % of the training texts have at most {usual:.0f}\n" + slices.constant(chosen)
    reading = _reading(wanted, train)
    lines += reading.constants
    imports = (*IMPORTS, "from typing import Any", "import torch", "from torch.utils.data import Dataset", *reading.imports)
    more: list[tuple[str, str, str]] = []
    if chosen:
        imports += slices.IMPORTS
        more += [("inputs", 'lambda batch: ((), {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})', ""), slices.KEYWORD]
    more += [("preprocess", literal({"column": text, "length": length, **reading.recipe}, indent=4, taken=15), "")]
    source = CODE.substitute(
        split=split.source(table, "(TEXT,)"),
        read=READ,
        tokens=reading.code.rstrip("\n") + "\n" if not chosen else reading.code + "\n" + slices.CODE.format(where='"slices"'),
        codes=f' | {{"slices": {slices.CODES}}}' if chosen else "",
    )
    return DataPart(
        kind="class",
        shape="tokens",
        imports=tuple(i for i in imports if i != "import hashlib" or not split.column),
        constants=lines,
        code=source,
        splits={name: f'Texts("{name}")' for name in ORDER},
        count={name: len(of) for name, of in labels.items()},
        more=tuple(more),
        classes=tuple(classes),
        figures={"vocabulary": reading.vocabulary, "length": length},
        files=reading.files,
        shown={"file": str(table.path), "text": text, "label": label, "classes": classes, "slices": list(chosen), "length": length, "vocabulary": reading.vocabulary},
    )


@dataclass(frozen=True)
class Reading:
    """How texts become token ids: the source for it, as data for whoever deploys, and files that it needs."""

    code: str
    recipe: Mapping[str, Any]
    vocabulary: int
    constants: str = ""
    imports: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def _reading(wanted: Mapping[str, Any], train: list[str]) -> Reading:
    """By the model's own tokenizer, or by words of the training texts."""
    if "tokenizer" in wanted:
        return Reading(MODEL_TOKENIZER, {"tokenizer": str(wanted["name"])}, int(wanted["vocabulary"]))
    words = _vocabulary(train)
    constants = (
        'WORD = re.compile(r"\\w+|[^\\w\\s]")\nWORDS = {word: number for number, word in enumerate((HERE / "vocabulary.txt").read_text(encoding="utf-8").split(), start=2)}\n'
    )
    recipe = {"lowercase": True, "pattern": WORD.pattern, "vocabulary": "vocabulary.txt", "first_id": 2, "padding_id": 0, "unknown_id": 1}
    return Reading(OWN_TOKENIZER, recipe, len(words) + 2, constants, ("import re",), {"vocabulary.txt": "\n".join(words) + "\n"})


def _vocabulary(texts: list[str]) -> list[str]:
    counts = Counter(word for text in texts for word in WORD.findall(text.lower()))
    return sorted(w for w, n in counts.most_common(VOCABULARY) if n >= SEEN) or sorted(counts)


def natural(name: str) -> tuple[int, float, str]:
    """Whole numbers by their size, before words."""
    return (0, float(name), "") if name.isascii() and name.isdigit() else (1, 0.0, name)


def ordered(words: list[str], found: list[str], known: list[str]) -> list[str]:
    """The classes in the model's order. Raises ConfigError for a label that isn't one of them, or a class that is missing."""
    if words == ["sorted"]:
        words = found
    if words == ["model"]:
        words = known
        if set(found) - set(known) and all(f.isdigit() and int(f) < len(known) for f in found):
            return [str(i) for i in range(len(known))]
    unknown = [f for f in found if f not in words]
    if unknown or len(set(words)) != len(words) or (known and len(words) != len(known)):
        has = f"The model has {len(known)}: {', '.join(known)}. " if known else ""
        what = f"the label {unknown[0]!r} isn't among {', '.join(words)}" if unknown else f"{len(words)} classes are named: {', '.join(words)}"
        raise ConfigError(f"{what}. {has}Name every label of the file once, in the order of the model's outputs.")
    return words
