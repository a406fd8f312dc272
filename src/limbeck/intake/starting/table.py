"""A CSV or TSV file of numbers and categories, with a class or a value to predict."""

from __future__ import annotations

import statistics
from pathlib import Path
from string import Template
from typing import Any

from limbeck.core.errors import ConfigError, near
from limbeck.intake.starting import slices
from limbeck.intake.starting.balance import ORDER, check_classes, check_sizes
from limbeck.intake.starting.csvfile import IMPORTS, MISSING, READ, Table, as_number, constants, missing, split_by
from limbeck.intake.starting.parts import DataPart
from limbeck.intake.starting.questions import CLASSES, IGNORE, Interview
from limbeck.intake.starting.source import literal, number, quoted
from limbeck.intake.starting.text import natural, ordered

MOST_CATEGORIES = 50  # values of a column up to which each has a number of its own
CODE = Template('''
$split
$read

def features(row: dict[str, str]) -> list[float]:
    """A row as numbers: standardised, a missing one as the mean; one number for each category, all 0 for an unknown one."""
    numbers = [0.0 if row[name].strip().lower() in MISSING else (float(row[name]) - mean) / std for name, (mean, std) in NUMERIC.items()]
    return numbers + [float(row[name] == value) for name, values in CATEGORICAL.items() for value in values]

$has
class Rows(Dataset):
    """The rows of one split."""

    def __init__(self, split: str):
        self.rows = read(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[$kinds]:
        row = self.rows[index]
        return torch.tensor(features(row)), $codes$answer
''')


def part(table: Table, folder: Path, interview: Interview, *, label: str, kind: str) -> DataPart:
    """The data of a table; figures for standardising come from train alone.

    Raises: ConfigError for a label that is missing or no number, no usable column, or splits and classes that carry no verdict.
    """
    split = split_by(table, interview, tuple(name for name in table.columns if name != label))
    left = {label} | ({split.column} if split.column else set())
    ignored = interview.settle(IGNORE, lambda words: _known(words, table), default=_ids(table, left) or "none")
    if ignored:
        interview.note(f"left out: {', '.join(ignored)}.")
    columns = [name for name in table.columns if name not in left | set(ignored)]
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in ORDER}
    for line, row in enumerate(table.rows, start=2):
        if not row[label].strip() or (kind == "value" and as_number(row[label]) is None):
            raise ConfigError(
                f"{table.path.name}, row {line}: the label '{label}' must be {'a number' if kind == 'value' else 'there'}, got {row[label]!r}. Mend or delete the row."
            )
        rows[split.of(row)].append(row)
    way = "Add rows, or say the splits in a column (--split-column)."
    check_sizes({name: len(of) for name, of in rows.items()}, interview, way)
    classes = _classes(rows, label, interview, way) if kind == "class" else []
    numeric, categorical = _columns(table, columns, rows["train"], interview)
    chosen = slices.slices_of(table, interview)
    lines = constants(table, folder) + f"LABEL = {quoted(label)}\n"
    lines += f"NUMERIC = {literal(numeric)}  # column → mean and standard deviation in train\n" if numeric else "NUMERIC: dict[str, tuple[float, float]] = {}\n"
    lines += f"CATEGORICAL = {literal(categorical)}  # column → its values in train\n" if categorical else "CATEGORICAL: dict[str, list[str]] = {}\n"
    lines += f"MISSING = {literal(sorted(MISSING))}  # what stands for no number\n" + slices.constant(chosen)
    recipe: dict[str, str] = {"numeric": "NUMERIC", "categorical": "CATEGORICAL", "missing": "MISSING"}
    if kind == "value":
        values = [float(row[label]) for row in rows["train"]]
        mean, std = _spread(values)
        if std == 0:
            raise ConfigError(f"the label '{label}' is {values[0]:g} in all of train: there is nothing to predict. Name another (--label).")
        lines += f"TARGET = ({mean}, {std})  # mean and standard deviation of the label in train: answers are in units of it\n"
        recipe["target"] = "TARGET"
    else:
        lines += f"CLASSES = {literal(classes)}  # in the order of the model's outputs\n"
        recipe["classes"] = "CLASSES"
    imports = (*IMPORTS, "import torch", "from torch import Tensor", "from torch.utils.data import Dataset", *(slices.IMPORTS if chosen else ()))
    return DataPart(
        kind="class" if kind == "class" else "value",
        shape="numbers",
        imports=tuple(i for i in imports if i != "import hashlib" or not split.column),
        constants=lines,
        code=_source(table, split, kind, hashed=label, sliced=bool(chosen)),
        splits={name: f'Rows("{name}")' for name in ORDER},
        count={name: len(of) for name, of in rows.items()},
        more=(
            *([slices.KEYWORD] if chosen else []),
            ("preprocess", "{" + ", ".join(f'"{key}": {value}' for key, value in recipe.items()) + "}", "for whoever deploys"),
        ),
        classes=tuple(classes),
        figures={"features": len(numeric) + sum(map(len, categorical.values()))},
        shown={"file": str(table.path), "label": label, "numeric": list(numeric), "categorical": list(categorical), "classes": classes, "slices": list(chosen)},
    )


def _source(table: Table, split: Any, kind: str, *, hashed: str, sliced: bool) -> str:
    answer = "CLASSES.index(row[LABEL])" if kind == "class" else "torch.tensor((float(row[LABEL]) - TARGET[0]) / TARGET[1])"
    return CODE.substitute(
        split=split.source(table, "(name for name in row if name != LABEL)").replace("for name in (name for name in row if name != LABEL)", "for name in row if name != LABEL"),
        read=READ,
        has=slices.CODE.format(where="1") + "\n" if sliced else "",
        kinds=", ".join(["Tensor", *(["Tensor"] if sliced else []), "int" if kind == "class" else "Tensor"]),
        codes=f"{slices.CODES}, " if sliced else "",
        answer=answer,
    )


def _known(words: list[str], table: Table) -> list[str]:
    for name in words:
        if name not in table.columns:
            raise ConfigError(f"{table.path.name} has no column '{name}'. {near(name, table.columns)}")
    return words


def _ids(table: Table, left: set[str]) -> str:
    """Columns that only number or name the rows."""
    found = []
    for name in table.columns:
        distinct = len(set(table.values[name]))
        counted = [as_number(v) for v in table.values[name]]
        numbered = (
            all(c is not None and c == int(c) for c in counted) and distinct == len(table.rows) and name.strip().lower() in ("id", "index", "row", "no", "nr", "number", "key")
        )
        named = not table.numeric(name) and distinct > MOST_CATEGORIES and distinct > len(table.rows) / 2
        if name not in left and "," not in name and (numbered or named):
            found.append(name)
    return ",".join(found)


def _classes(rows: dict[str, list[dict[str, str]]], label: str, interview: Interview, way: str) -> list[str]:
    check_classes({name: [row[label] for row in of] for name, of in rows.items()}, way)
    found = sorted({row[label] for of in rows.values() for row in of}, key=natural)
    return interview.settle(CLASSES, lambda words: ordered(words, found, []), default="sorted")


def _columns(table: Table, columns: list[str], train: list[dict[str, str]], interview: Interview) -> tuple[dict[str, tuple[float, float]], dict[str, list[str]]]:
    numeric: dict[str, tuple[float, float]] = {}
    categorical: dict[str, list[str]] = {}
    for name in columns:
        if table.numeric(name):
            mean, std = _spread([float(row[name]) for row in train if not missing(row[name])])
            if std:
                numeric[name] = (mean, std)
                continue
        values = sorted({row[name] for row in train if not missing(row[name])})
        if 1 < len(values) <= MOST_CATEGORIES:
            categorical[name] = values
        else:
            interview.note(f"column '{name}' is left out: it has {len(values)} different values in train, and is no number that varies.")
    if not numeric and not categorical:
        raise ConfigError(f"{table.path.name} has no column to predict from beside the label. Name another label (--label), or add columns.")
    return numeric, categorical


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation; (0, 0) of nothing."""
    if not values:
        return 0.0, 0.0
    std = number(statistics.pstdev(values))
    return number(statistics.fmean(values)), std if std > 1e-12 else 0.0
