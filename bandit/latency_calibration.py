"""Counts of logarithms on a grid, and the 95th percentile that they show.

The log-normal model is never quite right: latencies have two modes (a cache, reasoning) and heavier tails, and models that
look fast are chosen because they look fast. So values are counted on a grid. Counts
add, so the order of outcomes does not matter and a value can be taken back exactly. A value counts as spread evenly over one
step around it, which makes the percentile of a point mass the point and not an end of its bin.

>>> count_n = RATIOS.no_counts(models=1)[0]
>>> for _ in range(100):  # every latency is twice what was expected
...     RATIOS.count(count_n, math.log(2.0), weight=1.0)
>>> round(math.exp(RATIOS.percentile(count_n)), 2)
2.11
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pointsman.bandit.packed import Array

MISSES = 0.045
"""Share that may exceed the percentile: less than the promised 5 %, because the choice itself favours models that look fast."""


@dataclass(frozen=True, slots=True)
class Grid:
    """``edges`` edges from ``lowest`` on, ``step`` apart."""

    lowest: float
    step: float
    edges: int

    def no_counts(self, models: int) -> Array:
        """Counts of nothing yet, (k, n + 1): the weight between each edge and the one below it, and last, that above all."""
        return np.zeros((models, self.edges + 1))

    def count(self, count_n: Array, value: float, weight: float) -> None:
        """Count, in place, one value (-inf for the logarithm of 0) of a model, whose row ``count_n`` is; a negative weight
        takes it back.
        """
        place = min(max((value - self.lowest) / self.step + 0.5, 0.0), float(self.edges))
        whole = int(place)
        above = weight * (place - whole)
        count_n[whole] += weight - above
        if above:
            count_n[whole + 1] += above

    def percentile(self, count_n: Array, misses: float = MISSES) -> float:
        """The value that a share of ``misses`` exceeds, interpolated between edges; an end of the grid if it lies beyond."""
        above_n = count_n[:0:-1].cumsum()  # above the highest edge first
        allowed = misses * (float(above_n[-1]) + float(count_n[0]))
        edge = self.edges - int(above_n.searchsorted(allowed, side="right"))
        if edge in (0, self.edges):
            return self.lowest + self.step * min(edge, self.edges - 1)
        above = float(above_n[self.edges - edge])
        return self.lowest + self.step * (edge - 1 + (above - allowed) / float(count_n[edge]))


LATENCIES = Grid(math.log(1e-6), 0.08, 288)
"""For logarithms of seconds: from a microsecond to three hours."""
RATIOS = Grid(-1.0, 0.0625, 64)
"""For logarithms of what was had over what was expected: between exp(-1) and exp(3)."""
