"""Twelve ways in which cost and latency are distributed, as amounts with a known mean and 95th percentile at each context.

>>> rng = np.random.default_rng(0)
>>> shape = SHAPES["5 % nothing"]
>>> amount_n = np.array([shape.draw(rng, 0.0, 0.0) for _ in range(20_000)])
>>> round(float(amount_n.mean()), 2), round(shape.mean(0.0, 0.0), 2), round(float((amount_n == 0.0).mean()), 2)
(1.07, 1.08, 0.05)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Shape:
    """A law of amounts at a context z in [-1, 1] and a time t in [0, 1]: ``parts`` gives the components of a mixture as (share,
    median, sd of the logarithm); ``tail`` the exponent of a Pareto law instead of log-normal ones. ``scale`` are the units.
    Where ``contexts`` is false no feature is declared.
    """

    parts: Callable[[float, float], list[tuple[float, float, float]]]
    contexts: bool = False
    scale: float = 1.0
    tail: float = 0.0

    def draw(self, rng: Rng, z: float, t: float) -> float:
        """One amount."""
        parts = self.parts(z, t)
        _, median, sd = parts[rng.choice(len(parts), p=[share for share, *_ in parts])]
        factor = rng.random() ** (-1.0 / self.tail) if self.tail else math.exp(sd * rng.normal())
        return self.scale * median * factor

    def mean(self, z: float, t: float) -> float:
        """The expected amount."""
        if self.tail:
            return self.scale * self.tail / (self.tail - 1.0)
        return self.scale * sum(share * median * math.exp(0.5 * sd * sd) for share, median, sd in self.parts(z, t))

    def p95(self, z: float, t: float) -> float:
        """The amount that 5 % exceed, by bisection."""
        if self.tail:
            return self.scale * 0.05 ** (-1.0 / self.tail)
        low, high = 1e-9, 1e9
        for _ in range(100):
            middle = math.sqrt(low * high)
            above = sum(
                share * norm.sf(math.log(middle / median) / max(sd, 1e-6))
                for share, median, sd in self.parts(z, t)
                if median > 0.0
            )
            low, high = (middle, high) if above > 0.05 else (low, middle)
        return self.scale * high


SHAPES = {
    "log-normal": Shape(lambda z, t: [(1.0, 1.0, 0.5)]),
    "constant": Shape(lambda z, t: [(1.0, 1.0, 0.0)]),
    "5 % nothing": Shape(lambda z, t: [(0.05, 0.0, 0.0), (0.95, 1.0, 0.5)]),
    "30 % nothing": Shape(lambda z, t: [(0.3, 0.0, 0.0), (0.7, 1.0, 0.2)]),
    "15 % cached, in 4 ms": Shape(lambda z, t: [(0.15, 0.004, 0.1), (0.85, 1.0, 0.0)]),
    "one in five thinks, 30-fold": Shape(lambda z, t: [(0.8, 1.0, 0.4), (0.2, 30.0, 0.4)]),
    "log-normal, sd 1.5": Shape(lambda z, t: [(1.0, 1.0, 1.5)]),
    "Pareto, exponent 2.5": Shape(lambda z, t: [(1.0, 1.0, 0.0)], tail=2.5),
    "a billionth of a dollar": Shape(lambda z, t: [(0.1, 0.0, 0.0), (0.9, 1.0, 0.5)], scale=1e-6),
    "thousandfold by context": Shape(lambda z, t: [(1.0, math.exp(3.45 * z), 0.5)], contexts=True),
    "cached by context": Shape(
        lambda z, t: [(0.4, 0.004, 0.1), (0.6, 1.0, 0.3)] if z > 0 else [(1.0, 1.0, 0.3)], contexts=True
    ),
    "rare and dear by context": Shape(lambda z, t: [(1.0, 300.0 if z > 0.95 else 1.0, 0.4)], contexts=True),
    "cached ever more": Shape(lambda z, t: [(0.6 * t, 0.004, 0.1), (1.0 - 0.6 * t, 1.0, 0.3)]),
}
"""By name; medians of 1 are a millidollar, a second, and so on."""
