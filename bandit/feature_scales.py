"""How a bucket's measured features, numbers and lengths of embeddings, are scaled when what was declared proves wrong.

A bucket keeps a *sample* of the contexts that it has decided on: every one at first, then, whenever ``SAMPLE`` rows are full,
every second, fourth, … of its whole life, so that it depends on the events alone. From time to time the sample is compared with
the declared scales (``fit``):

- a number whose declared center and scale suit it is encoded by them, clipped, as ever. Where units are wrong, the values far
  from the center, or tails heavy, it is encoded by its *normal score* among the sample: Φ⁻¹ of the share of sampled values
  below it (van der Waerden 1952; Conover, "Practical Nonparametric Statistics", 5.10), the same for every unit, and bounded;
- an embedding whose length is far from 1 is divided by the sample's median length.

A decision's event holds the features as they were scaled for it, and what was measured. So corrections are exact whatever was
fitted meanwhile; the fold learns the sample from the event.

>>> scales = new_scales(numbers=1, embeddings=0)
>>> for i in range(64):
...     count_context(scales, np.array([1e-3 * i]))  # declared a thousand times too large
>>> fit(scales)
>>> [round(score(scales, 0, 1e-3 * value), 2) for value in (0.0, 16.0, 31.5, 63.0, 1e9)]
[-2.42, -0.65, 0.0, 2.42, 2.42]
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pointsman.bandit.packed import Array

SAMPLE = 128
"""Most contexts in the sample: w, the rows."""
FIT_FROM = 4
"""Contexts from which on scales are fitted."""
UNSEEN = 1.0
"""Bound of encoded numbers and of embeddings' lengths before: wrong ones would weigh more than all that come later."""
NARROWEST, WIDEST = 0.5, 12.0
"""Least and most distance between the 5 % and 95 % quantiles of a number (in declared scales) that suits its declaration."""
FARTHEST = 3.0
"""Most distance of the median from the declared center (in declared scales) that suits a number's declaration."""
CLIP = 5.0
"""Encoded numbers are clipped to [-5, 5] where they are as declared: one wild value must not outweigh hundreds of others."""
MOST_CLIPPED = 0.02
"""Largest share of clipped values that suits a number's declaration."""
SHORTEST, LONGEST = 1.0 / 3.0, 3.0
"""Median lengths of an embedding (times its declared scale) that suit its declaration."""


@dataclass(slots=True)
class FeatureScales:
    """The sample and what was fitted to it; changed in place. m features are measured: the numbers, then the embeddings.

    ``sample_wm`` holds numbers in declared scales from the declared center, and lengths of embeddings times their declared
    scale; NaN where a request left the feature out; ``seen_1`` is how many contexts there were. ``sorted_mw`` holds the values
    that numbers are ranked among, ascending, of which there are ``ranked_m``; 0 where the declared scale suits. ``factor_e`` are
    what embeddings are multiplied by.
    """

    sample_wm: Array
    seen_1: npt.NDArray[np.int64]
    sorted_mw: Array
    ranked_m: npt.NDArray[np.int64]
    factor_e: Array

    @property
    def sampled(self) -> int:
        """Rows of the sample that are filled."""
        seen = int(self.seen_1[0])
        return -(-seen // _every(seen - 1)) if seen else 0

    @property
    def compared(self) -> bool:
        """Whether there were enough contexts to compare the declared scales with."""
        return int(self.seen_1[0]) >= FIT_FROM

    @property
    def fitted(self) -> bool:
        """Whether any feature is scaled otherwise than declared."""
        return bool(self.ranked_m.any()) or bool((self.factor_e != 1.0).any())


def new_scales(numbers: int, embeddings: int) -> FeatureScales:
    """Scales as declared, and an empty sample."""
    measured = numbers + embeddings
    return FeatureScales(
        sample_wm=np.full((SAMPLE, measured), np.nan),
        seen_1=np.zeros(1, dtype=np.int64),
        sorted_mw=np.zeros((numbers, SAMPLE)),
        ranked_m=np.zeros(numbers, dtype=np.int64),
        factor_e=np.ones(embeddings),
    )


def count_context(scales: FeatureScales, measured_m: Array) -> None:
    """Take a decision's context into account, in place."""
    seen = int(scales.seen_1[0])
    every = _every(seen)
    if seen % every == 0:
        if every > 1 and 2 * seen == SAMPLE * every:  # full: keep every second, and sample half as often from now on
            scales.sample_wm[: SAMPLE // 2] = scales.sample_wm[::2]
        scales.sample_wm[seen // every] = measured_m
    scales.seen_1[0] = seen + 1


def _every(number: int) -> int:
    """One of how many contexts is sampled when there were ``number`` before: a power of two such that the rows suffice."""
    return 1 << (number // SAMPLE).bit_length()


def fit(scales: FeatureScales) -> None:
    """Compare the sample with what was declared, in place, and scale by the sample where they disagree."""
    filled = scales.sampled
    numbers = len(scales.ranked_m)
    for m in range(numbers):
        values = present(scales, m)
        if len(values) >= FIT_FROM:
            suited = suits(values)
            scales.ranked_m[m] = 0 if suited else len(values)
            scales.sorted_mw[m] = 0.0
            scales.sorted_mw[m, : scales.ranked_m[m]] = values[: scales.ranked_m[m]]
    if filled >= FIT_FROM:
        for e in range(len(scales.factor_e)):
            lengths = present(scales, numbers + e)
            median = float(np.median(lengths)) if len(lengths) >= FIT_FROM else 1.0
            scales.factor_e[e] = 1.0 if SHORTEST <= median <= LONGEST or median == 0.0 else 1.0 / median


def present(scales: FeatureScales, m: int) -> Array:
    """The sampled values of measured feature ``m`` where requests had it, ascending."""
    column_w = scales.sample_wm[: scales.sampled, m]
    return np.sort(column_w[~np.isnan(column_w)])


def suits(values: Array) -> bool:
    """Whether a number with these values, ascending, in declared scales, can be encoded as declared.

    A constant does, and a flag that is rarely set, however little they vary: there is nothing to be gained.
    """
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    width, whole = high - low, float(values[-1] - values[0])
    if abs(median) > FARTHEST or float(np.mean(np.abs(values) > CLIP)) > MOST_CLIPPED:
        return False
    return whole == 0.0 or NARROWEST <= (width or whole) <= WIDEST


def score(scales: FeatureScales, m: int, value: float) -> float:
    """The normal score of ``value`` among those that number ``m`` is ranked among; within ±2.7."""
    count = int(scales.ranked_m[m])
    values = scales.sorted_mw[m, :count]
    rank = 0.5 * float(values.searchsorted(value, "left") + values.searchsorted(value, "right")) / count
    return float(ndtri(min(1.0 - 0.5 / count, max(0.5 / count, rank))))


def to_arrays(scales: FeatureScales) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name, in a fixed order."""
    return {f.name: getattr(scales, f.name) for f in fields(scales)}
