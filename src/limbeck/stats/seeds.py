"""A difference over several seeds and the same samples: how far it may be chance, of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.core.metric import Rows

GROUPS = 50  # of samples that are left out in turn
Statistic = Callable[[Rows, Rows], float]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its two-sided interval, and the standard errors that it is made of: of seeds (None from a single one), of samples."""

    value: float
    low: float
    high: float
    seeds_error: float | None
    samples_error: float
    freedom: float


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation over seeds (n − 1); None from a single one."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None


def over_seeds(candidates: Sequence[Rows], baselines: Sequence[Rows], statistic: Statistic, *, units: str | None = None, confidence: float = 0.95) -> Spread:
    """The mean over seeds of `statistic(candidate, baseline)`, with an interval over samples and seeds.

    Seeds and samples are crossed: each seed's two models are judged on the same samples. Variance = that of the mean over seeds, and
    that of leaving out groups of samples in turn, of all seeds at once (the jackknife), added up. What seeds and samples do together is
    in both, so the interval is on the wide side. Student's t, its degrees of freedom by Satterthwaite. One seed: of samples alone.

    Args:
        candidates: One seed's rows each; all of the same samples, in the same order. baselines: as `candidates`, seed by seed.
        units: The column that names what samples belong to; then whole units are left out.
        confidence: Of both bounds together.
    Raises: ConfigError if there is no seed, seeds don't pair up, samples differ in number, or there are fewer than 2 units.
    Source: two-way clustered variance, Cameron, Gelbach & Miller 2011, JBES 29:238 (here without their third term); Satterthwaite 1946.
    """
    from scipy.stats import t

    if not candidates or len(candidates) != len(baselines):
        raise ConfigError(f"every seed needs its pair, got {len(candidates)} candidates and {len(baselines)} baselines. Judge both of each seed.")
    places = _groups(candidates, baselines, units)
    each = np.array([statistic(c, b) for c, b in zip(candidates, baselines, strict=True)])
    value, seeds = float(each.mean()), len(each)
    left = np.array([np.mean([statistic(_of(c, keep), _of(b, keep)) for c, b in zip(candidates, baselines, strict=True)]) for keep in places])
    count = len(left)
    of_samples = (count - 1) / count * float(((left - left.mean()) ** 2).sum())
    of_seeds = float(each.var(ddof=1)) / seeds if seeds > 1 else 0.0
    total = of_samples + of_seeds
    parts = of_samples**2 / (count - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = total**2 / parts if parts > 0 else float(count - 1)
    reach = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(total)
    return Spread(value, value - reach, value + reach, math.sqrt(of_seeds) if seeds > 1 else None, math.sqrt(of_samples), freedom)


def _groups(candidates: Sequence[Rows], baselines: Sequence[Rows], units: str | None) -> list[np.ndarray]:
    """For each group of units, the rows that are left when it is out: groups of (nearly) one size, drawn once and for all."""
    lengths = {len(next(iter(rows.values()))) for rows in (*candidates, *baselines)}
    if len(lengths) > 1:
        raise ConfigError(f"all seeds must be judged on the same samples, got {sorted(lengths)} rows. Judge them on one split.")
    length = lengths.pop()
    owner = np.arange(length) if units is None else np.unique(candidates[0][units], return_inverse=True)[1]
    total = int(owner.max()) + 1 if length else 0
    if total < 2:
        raise ConfigError(f"an interval over samples needs at least 2 units, got {total}. Add samples.")
    group = np.random.default_rng(0).permutation(total) % min(GROUPS, total)
    return [np.flatnonzero(group[owner] != g) for g in range(min(GROUPS, total))]


def _of(rows: Rows, places: np.ndarray) -> Rows:
    return {name: column[places] for name, column in rows.items()}
