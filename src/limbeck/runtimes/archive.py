"""Is a .pt2 archive plain data? torch's own loader unpickles, loads shared objects and evaluates expressions that it finds."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.core.errors import ArtifactError

CODE = ("data/aotinductor/", "data/constants/custom_obj", "data/constants/opaque_obj", "data/weights/model.pt", "data/constants/model.pt")
OPERATOR = re.compile(
    r"torch\.ops\.(aten|quantized_decomposed|prims|higher_order)(\.[A-Za-z_]\w*){1,2}|torch\.sym_[a-z]+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|abs|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)|math\.(ceil|floor|sqrt|trunc)"
)
FORBIDDEN = re.compile(r"torch\.ops\.aten\.(from_file|save)\b")
SIZE_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge GreaterThan Gt Identity IntTrueDiv Integer
        IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not Or Pow PowByNatural PythonMod RShift Rational RoundDecimal
        RoundToInt StrictGreaterThan StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where""",
    )
)
SIZE_SYNTAX = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Load, ast.keyword, ast.Call, ast.Name, ast.Constant)


def check_plain(path: Path) -> None:
    """Raises ArtifactError unless an archive is one exported program that is tensors and JSON, with operators of torch's own.

    Refused: pickles (sample inputs of torch's own making too), compiled code, expressions of sizes that are more than
    arithmetic, and operators that aren't ATen's. Whether the numbers are those that were meant, only a hash can say.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            entries = {name.partition("/")[2]: name for name in names}
            if len(entries) != len(names):  # two readers could take different ones
                raise ArtifactError(f"{path} must hold each entry once, got {len(names)} entries of {len(entries)} names. Export it again.")
            for entry, name in entries.items():
                reason = _reason(entry, partial(archive.read, name))
                if reason:
                    raise ArtifactError(f"{path} must hold only tensors and JSON, got {reason}. Export it with limbeck, from a model that you trust.")
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise ArtifactError(f"{path} is not a .pt2 archive: {error}. Export it again.") from error
    if "models/model.json" not in entries:
        raise ArtifactError(f"{path} holds no exported program (models/model.json). Export it again.")


def _reason(entry: str, read: Callable[[], bytes]) -> str | None:
    """Why this entry isn't plain, or None."""
    if entry.startswith(CODE):
        return f"{entry}: code or a pickle"
    if entry.startswith("data/sample_inputs/") and read():
        return f"{entry}: a pickle of sample inputs"
    if entry.startswith("models/") or entry.endswith("_config.json"):
        return next((f"{entry}: {reason}" for reason in _odd(json.loads(read()))), None)
    return None


def _odd(data: Any) -> Iterator[str]:
    if isinstance(data, list):
        for item in data:
            yield from _odd(item)
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key == "use_pickle" and value:
            yield "a pickled tensor"
        elif key == "guards_code" and value:
            yield "guards, which are Python code"
        elif key == "expr_str" and not _is_size(str(value)):
            yield f"a size that isn't arithmetic: {value!r}"
        elif key == "target" and isinstance(value, str) and "inputs" in data and (not OPERATOR.fullmatch(value) or FORBIDDEN.match(value)):
            yield f"the operator {value!r}"
        else:
            yield from _odd(value)


def _is_size(text: str) -> bool:
    """Whether an expression is arithmetic on symbols; sympy would evaluate any Python."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, SIZE_SYNTAX):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in SIZE_FUNCTIONS):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"[a-z]+\d+", node.value):
            return False
    return True
