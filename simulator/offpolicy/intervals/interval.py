"""An interval, and the checks that all functions that compute one begin with.

>>> interval = Interval(0.2, 0.5, level=0.95)
>>> interval.covers(0.3), interval.covers(0.6)
(True, False)
>>> check_scores([1.0, 2.0])
array([1., 2.])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman.simulator.offpolicy.logs.log import Array


@dataclass(frozen=True, slots=True)
class Interval:
    """``low`` to ``high``, which covers the value with probability ``level`` (in (0, 1)); either end may be infinite."""

    low: float
    high: float
    level: float

    @property
    def width(self) -> float:
        """``high - low``."""
        return self.high - self.low

    def covers(self, value: float) -> bool:
        """Whether ``low <= value <= high``."""
        return self.low <= value <= self.high


def check_level(level: float) -> float:
    """Return ``level``.

    Raises:
        ValueError: it is not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level: {level} is not strictly between 0 and 1")
    return level


def check_scores(score_n: npt.ArrayLike, least: int = 1) -> Array:
    """Return ``score_n`` as float64 (n).

    Raises:
        ValueError: it is not one-dimensional, has fewer than ``least`` values, or one is not finite.
    """
    score_n = np.asarray(score_n, dtype=np.float64)
    if score_n.ndim != 1 or len(score_n) < least:
        raise ValueError(f"score_n: expected one dimension and at least {least} values, not shape {score_n.shape}")
    if not np.isfinite(score_n).all():
        raise ValueError(f"score_n: value {int(np.argmin(np.isfinite(score_n)))} is not a finite number")
    return score_n
