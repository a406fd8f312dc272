"""When a term pulls, in shares of the training."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Window:
    """When a term pulls, in shares of the training: from `start` to `end`, its weight rising linearly over `warmup` after the start."""

    start: float = 0.0
    end: float = 1.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1 or not 0 <= self.warmup <= 1:
            raise ConfigError(
                f"a term's window must lie in [0, 1] and end after it starts, got start {self.start!r}, end {self.end!r}, warmup {self.warmup!r}. "
                "They are shares of the training: 0.5 is its middle."
            )

    def open(self, done: float) -> bool:
        """Whether the term pulls when `done` of the training lies behind."""
        return self.start <= done < self.end or done >= self.end == 1

    def share(self, done: float) -> float:
        """What the weight is multiplied with there."""
        return min((done - self.start) / self.warmup, 1.0) if self.warmup else 1.0


ALWAYS = Window()
