"""Samples whose answers are known: kept as .npz of one spelling, compared within tolerances that have a reason."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from limbeck.core.errors import RunError
from limbeck.package.container import packed

INPUTS, OUTPUTS = "golden/inputs.npz", "golden/outputs.npz"
Arrays = Mapping[str, np.ndarray]
FLOAT_REL = 1e-4  # of an output's largest magnitude: float sums in another order, some hundred additions deep
INT8_REL = 4 / 127  # four steps of an 8-bit output: kernels round at other places, and saturation without VNNI goes beyond it
INT8_EQUAL = 0.9  # share of whole-number outputs (classes) that stay
WHY_FLOAT = "float32: other CPUs and versions add in another order. max_rel is of an output's largest magnitude; whole numbers must be equal."
WHY_INT8 = (
    "int8: kernels of other CPUs round and, without VNNI, may saturate at other places; four 8-bit steps are allowed (max_rel is of an output's largest magnitude). "
    "A machine beyond that answers differently, and its accuracy must be measured anew."
)


def npz(samples: Sequence[Arrays]) -> bytes:
    """Arrays named `<sample>/<name>`; equal arrays give equal bytes, with any version of numpy."""
    return packed({f"{i}/{name}.npy": _npy(value) for i, arrays in enumerate(samples) for name, value in arrays.items()})


def _npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(value), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def samples_of(raw: bytes, *, where: str) -> list[dict[str, np.ndarray]]:
    """What `npz` wrote, by sample. Raises RunError."""
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            for key in file.files:
                number, _, name = key.partition("/")
                found.setdefault(int(number), {})[name] = file[key]
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise RunError(f"{where} holds no samples ({error}). Make the package again.") from error
    return [found[i] for i in sorted(found)]


def tolerances(outputs: Arrays, *, quantized: bool) -> dict[str, dict[str, float]]:
    """By output, what another machine may differ by: `max_rel` for floats, the share that must be `equal` for whole numbers."""
    return {n: {"max_rel": INT8_REL if quantized else FLOAT_REL} if v.dtype.kind == "f" else {"equal": INT8_EQUAL if quantized else 1.0} for n, v in outputs.items()}


def differences(expected: Sequence[Arrays], got: Sequence[Arrays], allowed: Mapping[str, Mapping[str, float]]) -> tuple[float, list[str]]:
    """How far answers are from the known ones over all samples: the largest relative difference, and what is beyond its tolerance."""
    worst, beyond = 0.0, []
    for name, limits in allowed.items():
        pairs = [(a.get(name), b.get(name)) for a, b in zip(expected, got, strict=True)]
        if any(a is None or b is None or a.shape != b.shape for a, b in pairs):
            beyond.append(f"output '{name}' is missing, or has another shape")
            continue
        known, new = (np.concatenate([np.ravel(p[side]).astype(np.float64) for p in pairs]) for side in (0, 1))  # type: ignore[arg-type]
        if "equal" in limits:
            share = float(np.mean(known == new)) if known.size else 1.0
            if share < limits["equal"]:
                beyond.append(f"output '{name}': {share:.1%} of its whole numbers are the known ones, at least {limits['equal']:.0%} must be")
            continue
        rel = relative(known, new)
        worst = max(worst, rel)
        if not rel <= limits["max_rel"]:
            beyond.append(f"output '{name}' differs by {rel:.3g} of its largest magnitude, at most {limits['max_rel']:.3g} is allowed")
    return worst, beyond


def relative(known: np.ndarray, new: np.ndarray) -> float:
    """The largest difference over the largest known magnitude; what isn't finite must be the same."""
    same = (known == new) | (np.isnan(known) & np.isnan(new))
    if same.all():
        return 0.0
    gap = float(np.max(np.abs(known[~same] - new[~same])))
    scale = float(np.max(np.abs(known[np.isfinite(known)]), initial=0.0))
    return gap / scale if scale and np.isfinite(gap) else float("inf")
