"""Amounts: what cost, latency and output tokens come to, in natural units, whatever their distribution.

The regressions of ``bandit.posterior`` are of logarithms: they say how much dearer one context is than another, in ratios. The
level cannot come from them alone: exp(m + σ²/2), the mean of a log-normal law, explodes where a share of the calls costs
(nearly) nothing (caches, free tiers), where there are two modes (short and reasoning answers) and where tails are heavy. So the
amounts are summed as they are, and

    E[y | x] = exp(m·x + excess),   excess → log(mean of y) − mean of log y

which without features is the plain mean of what was reported (Duan, "Smearing estimate", JASA 1983, with the distribution of
all outcomes in the place of residuals). Where features explain a part of the variance V of log y and leave s² of it, the
excess is τ²·(log(mean of y) - mean of log y) with τ = s²/V, exact for Normal logarithms; and, the more they explain, s²/2
where that is less.

The 95th percentile of latency is likewise that of all latencies, narrowed by τ; with features it gives way to the percentile
of latencies over their ``references``: what was expected at their decisions, of which it is part, where the like had been
seen often. A reference does not change, whenever the outcome comes.

All of it is made of sums and counts, so that the order of outcomes does not matter and corrections are exact; what an outcome
adds depends on its value and its decision only.

>>> amounts = no_amounts(1)
>>> for dollars in (0.01, 0.01, 0.01, 0.0):
...     count_amount(amounts, 0, COST, dollars, references=(), weight=1.0)
>>> logs = [math.log(max(dollars, SMALLEST[COST])) for dollars in (0.01, 0.01, 0.01, 0.0)]
>>> calibrate(amounts, 0, COST, Moments(4.0, float(np.mean(logs)), float(np.var(logs)), None, 0.5))
>>> round(math.exp(np.mean(logs) + amounts.log_mean_kr[0, COST]), 4)  # after four calls the prior's share is small
0.0069
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from pointsman.bandit.latency_calibration import LATENCIES, MISSES, RATIOS
from pointsman.bandit.packed import Array
from pointsman.bandit.token_slope import SLOPE_PRECISION

QUALITY, COST, LATENCY, TOKENS = 0, 1, 2, 3
"""Indices of the responses: quality scaled to [0, 1], natural logarithms of dollars, of seconds, of output tokens."""
RESPONSES = 4
"""r, the number of responses."""
SMALLEST = {COST: 1e-7, LATENCY: 1e-4, TOKENS: 1.0}
"""Dollars, seconds and tokens as which nothing counts where logarithms are taken and little is known of a model."""
TINY = {COST: 1e-9, LATENCY: 1e-6, TOKENS: 0.1}
"""Smallest amounts whose logarithms are taken. The level is that of the amounts all the same."""
LOW = 0.5
"""Share of its reference under which an amount is not learned as its logarithm, but on that function's tangent."""
HIGH = 1024.0
"""Multiple of its reference that an amount counts as at most in the mean, unless that is next to nothing: one call
reported in the wrong unit is not to ban a model for good."""
UNKNOWN = 1 / 8
"""Largest variance xᵀΣx of a prediction, in units of the noise's, at which it is a reference: eight such calls were seen."""
CERTAIN = 3
"""Place, after those of dollars, seconds and tokens, of the reference in seconds that percentiles are held against."""
UNCERTAIN = 1 / 16
"""Largest variance of a prediction of the logarithm at which it is that reference."""
EXCESS_MASS = 0.25
"""Observations that the belief in an excess of 0 is worth: where all data have faded the prior is left."""
RATIO_MASS = 30.0
"""Latencies with references that the percentile of all latencies is worth, where there are features."""
SPREAD_MASS = 10.0
"""Latencies that the belief in the prior's log-normal spread is worth."""
LOG_NORMAL_P95 = float(ndtri(0.95))
"""Standard deviations of the logarithm between the mean and the 95th percentile of a log-normal law."""
PRIOR_SPREAD = LOG_NORMAL_P95 * 0.5
"""Distance of the 95th percentile from the mean, in logarithms, where nothing was observed: expected variances are 0.25."""
NOTHING = 1e-6
"""Share of ``SMALLEST`` under which the mean of the amounts is nothing, and no logarithm is taken of it."""
LARGEST_VARIANCE = 4.0
"""Largest variance of logarithms of which a log-normal mean is believed."""
VARIANCE_MASS, VARIANCE = 4.0, 8.0
"""Outcomes that the belief in a relative variance of ``VARIANCE`` is worth (log-normal with a standard deviation of 1.5): few
outcomes that are much alike, or the only one, prove no certainty."""
LARGEST_RELATIVE = 1e3
"""Largest relative variance of amounts that is reckoned with."""
LARGEST_POWER = 1e30
"""Largest power of an amount that is summed."""
MOST_MISSES = 0.5
"""Largest share of latencies that may exceed the lower bound of their 95th percentile."""
QUANTILES = tuple((i + 0.5) / 64 for i in range(64))
"""Places at which a law stands for its distribution."""
SUMS = ("sum_kr", "power_sum_kr", "latency_kn", "ratio_kn", "cross_kr")
"""The arrays of ``Amounts`` that are state: what snapshots store."""
DERIVED = ("log_mean_kr", "p95_k2", "slope_kr", "slope_precision_kr", "variance_kr", "log_variance_k")
"""Those that follow from the state."""
NEGLIGIBLE = 1e-9
"""Weight of data below which there are none."""


@dataclass(slots=True)
class Amounts:
    """Sums, counts and what they come to, for k models. Changed in place.

    ``sum_kr`` are weighted sums of amounts, ``power_sum_kr`` of their powers 3/2; ``latency_kn`` counts log latencies and
    ``ratio_kn`` logarithms of latencies over their references (``bandit.latency_calibration``; no columns before the first
    latency); ``cross_kr`` sums the logarithms times that of the input tokens (``bandit.token_slope``). What these come to with
    the regressions is derived when it is needed, for the models in ``stale`` (``bandit.posterior.settle``): ``log_mean_kr``,
    what is added to m·x before exp gives an expectation; ``p95_k2``, what is added to m·x to give the logarithm of the 95th
    percentile of latency: a constant, and a multiple of sqrt(1 + xᵀΣx); the effect of the tokens, ``slope_kr``, and its
    precision, ``slope_precision_kr``; and the variances, in units of xᵀΣx, of the logarithms of expectations, ``variance_kr``,
    and of the logarithm of latency itself, ``log_variance_k``.
    """

    sum_kr: Array
    power_sum_kr: Array
    latency_kn: Array
    ratio_kn: Array
    cross_kr: Array
    log_mean_kr: Array
    p95_k2: Array
    slope_kr: Array
    slope_precision_kr: Array
    variance_kr: Array
    log_variance_k: Array
    stale: set[int] = field(default_factory=set)


_ARRAYS = tuple(f for f in fields(Amounts) if f.name != "stale")


class Moments(NamedTuple):
    """What a regression says of a response of a model: the weight of what was observed, the mean and variance of its
    logarithms, the variance that features leave unexplained (``None`` without features), and b of the prior of the noise.
    """

    weight: float
    mean: float
    variance: float
    unexplained: float | None
    prior_b: float


def no_amounts(models: int, prior_b_r: Sequence[float] = (0.5,) * RESPONSES) -> Amounts:
    """Amounts of ``models`` models of which nothing was reported; ``prior_b_r`` are b of the priors of the noise, by response."""
    log_mean_kr = np.repeat([np.array(prior_b_r) / 4.0], models, axis=0)  # half of the expected variance
    log_mean_kr[:, QUALITY] = 0.0
    return Amounts(
        sum_kr=np.zeros((models, RESPONSES)),
        power_sum_kr=np.zeros((models, RESPONSES)),
        latency_kn=np.zeros((models, 0)),
        ratio_kn=np.zeros((models, 0)),
        cross_kr=np.zeros((models, RESPONSES)),
        log_mean_kr=log_mean_kr,
        p95_k2=np.repeat([[0.0, PRIOR_SPREAD]], models, axis=0),
        slope_kr=np.zeros((models, RESPONSES)),
        slope_precision_kr=np.full((models, RESPONSES), SLOPE_PRECISION),
        variance_kr=np.full((models, RESPONSES), VARIANCE),
        log_variance_k=np.full(models, math.log1p(VARIANCE)),
    )


def more_amounts(amounts: Amounts, count: int, prior_b_r: Sequence[float]) -> Amounts:
    """The same amounts and, last, those of ``count`` more models (``no_amounts``)."""
    new = no_amounts(count, prior_b_r)
    if amounts.latency_kn.shape[1]:
        new.latency_kn, new.ratio_kn = LATENCIES.no_counts(count), RATIOS.no_counts(count)
    joined = {f.name: np.concatenate([getattr(amounts, f.name), getattr(new, f.name)]) for f in _ARRAYS}
    return Amounts(**joined, stale=set(amounts.stale))


def without_amounts(amounts: Amounts, model: int) -> Amounts:
    """The amounts of all models but number ``model``."""
    left = {f.name: np.delete(getattr(amounts, f.name), model, axis=0) for f in _ARRAYS}
    return Amounts(**left, stale={number - (number > model) for number in amounts.stale if number != model})


def log_amount(response: int, value: float, reference: float) -> float:
    """The logarithm of an amount as the regression learns it; ``reference`` is what was expected of it, 0 if unknown.

    Nothing has no logarithm, and next to nothing one that would outweigh all others: a few such calls would make the effects of
    features, and their noise, enormous. Below ``LOW`` of its reference the logarithm is replaced by its tangent there (as in
    regressions of the logarithm of the mean: McCullagh & Nelder, "Generalized Linear Models", 2.5).
    """
    nothing = math.log(SMALLEST[response])
    if value < LOW * reference:
        tangent = math.log(LOW * reference) + value / (LOW * reference) - 1.0
        return tangent if value > 0.0 else max(tangent, min(nothing, math.log(reference)))
    return math.log(max(value, TINY[response])) if value > 0.0 else nothing


def count_amount(
    amounts: Amounts, model: int, response: int, value: float, references: Sequence[float], weight: float
) -> None:
    """Count an amount in place; a negative weight takes it back. ``references`` are its decision's, empty if it has none."""
    reference = references[response - 1] if references else 0.0
    bounded = min(value, HIGH * reference) if reference > 10.0 * SMALLEST[response] else value
    amounts.sum_kr[model, response] += weight * bounded
    amounts.power_sum_kr[model, response] += weight * _power(bounded)
    if response == LATENCY:
        if not amounts.latency_kn.shape[1]:
            _start_counts(amounts)
        logarithm = math.log(value) if value > 0.0 else -math.inf
        LATENCIES.count(amounts.latency_kn[model], logarithm, weight)
        if references and references[CERTAIN] > 0.0:
            RATIOS.count(amounts.ratio_kn[model], logarithm - math.log(references[CERTAIN]), weight)


def _power(amount: float) -> float:
    """The amount's power 3/2, in single precision: sums of such numbers lose nothing when one is taken back."""
    return float(np.float32(min(amount * math.sqrt(amount), LARGEST_POWER)))


def _start_counts(amounts: Amounts) -> None:
    amounts.latency_kn = LATENCIES.no_counts(len(amounts.sum_kr))
    amounts.ratio_kn = RATIOS.no_counts(len(amounts.sum_kr))


def assume_log_normal(amounts: Amounts, model: int, response: int, moments: Moments) -> None:
    """Count, in place, what log-normal amounts with these moments come to: for a model of a state that kept no counts."""
    weight, mean, variance, *_ = moments
    if weight <= NEGLIGIBLE:
        return
    variance = min(variance, LARGEST_VARIANCE)
    amounts.sum_kr[model, response] = weight * math.exp(mean + 0.5 * variance)
    amounts.power_sum_kr[model, response] = weight * math.exp(1.5 * mean + 1.125 * variance)
    if response == LATENCY:
        if not amounts.latency_kn.shape[1]:
            _start_counts(amounts)
        for quantile in QUANTILES:
            value = mean + float(ndtri(quantile)) * math.sqrt(variance)
            LATENCIES.count(amounts.latency_kn[model], value, weight / len(QUANTILES))


def decay_amounts(amounts: Amounts, model: int, response: int, share: float) -> None:
    """Multiply the weight of all amounts of one response of a model by ``share``, in place."""
    amounts.sum_kr[model, response] *= share
    amounts.power_sum_kr[model, response] *= share
    amounts.cross_kr[model, response] *= share
    if response == LATENCY:
        amounts.latency_kn[model] *= share
        amounts.ratio_kn[model] *= share


def calibrate(amounts: Amounts, model: int, response: int, moments: Moments) -> None:
    """Recompute, in place, what the sums of one response (not quality) of a model come to."""
    weight, mean, variance, unexplained, prior_b = moments
    total, observed = float(amounts.sum_kr[model, response]), max(weight, 0.0)
    log_mean, share = prior_b / (4.0 + observed), _unexplained_share(moments)
    if observed > NEGLIGIBLE:
        average = total / observed
        excess = math.log(average) - mean if average > NOTHING * SMALLEST[response] else 0.0
        if unexplained is not None:
            narrow = share * excess
            excess = share * narrow + (1.0 - share) * min(narrow, 0.5 * share * variance)
        log_mean += excess * observed / (observed + EXCESS_MASS)
    amounts.log_mean_kr[model, response] = log_mean
    amounts.variance_kr[model, response] = _relative_variance(amounts, model, response, moments)
    if response == LATENCY:
        logarithmic = min(variance if unexplained is None else unexplained, LARGEST_VARIANCE)
        amounts.log_variance_k[model] = _blended(logarithmic, math.log1p(VARIANCE), observed)
        amounts.p95_k2[model] = p95(amounts, model, moments)


def _relative_variance(amounts: Amounts, model: int, response: int, moments: Moments) -> float:
    """An element of ``variance_kr``.

    From the moment of order 3/2, which keeps its digits where an enormous amount is taken back, and not from the squares: exact
    for log-normal amounts, E[y^(3/2)] = E[y]^(3/2) exp(3/8 σ²), and too large for a few amounts that are most of the sum. Where
    features explain a part, at most what log-normal amounts with twice the unexplained variance have.
    """
    observed, total = max(moments.weight, 0.0), float(amounts.sum_kr[model, response])
    relative = 0.0
    if observed > NEGLIGIBLE and total / observed > NOTHING * SMALLEST[response]:
        ratio = float(amounts.power_sum_kr[model, response]) / observed / (total / observed) ** 1.5
        relative = min(max(ratio, 1.0) ** (8.0 / 3.0) - 1.0, LARGEST_RELATIVE)
    if moments.unexplained is not None:
        relative = min(relative, math.expm1(2.0 * min(moments.unexplained, LARGEST_VARIANCE)))
    return _blended(relative, VARIANCE, observed)


def _blended(variance: float, prior: float, observed: float) -> float:
    """A variance of what was observed, with that of the prior."""
    return (observed * variance + VARIANCE_MASS * prior) / (observed + VARIANCE_MASS)


def _unexplained_share(moments: Moments) -> float:
    """τ: the share of the variance of the logarithms that features leave."""
    if moments.unexplained is None or moments.variance <= NEGLIGIBLE or moments.weight <= NEGLIGIBLE:
        return 1.0
    return min(1.0, moments.unexplained / moments.variance)


def p95(amounts: Amounts, model: int, moments: Moments, z: float = 0.0) -> tuple[float, float]:
    """What ``p95_k2`` holds of a model; with ``z``, that many standard deviations of the share of latencies beyond it less."""
    counted = float(amounts.latency_kn[model].sum())
    if counted <= NEGLIGIBLE:
        return 0.0, PRIOR_SPREAD
    misses = min(MISSES + z * math.sqrt(MISSES * (1.0 - MISSES) / counted), MOST_MISSES)
    above = LATENCIES.percentile(amounts.latency_kn[model], misses) - moments.mean
    spread = (counted * above * math.sqrt(_unexplained_share(moments)) + SPREAD_MASS * PRIOR_SPREAD) / (
        counted + SPREAD_MASS
    )
    referred = float(amounts.ratio_kn[model].sum())
    if moments.unexplained is None or referred <= NEGLIGIBLE:
        return 0.0, spread
    trust = referred / (referred + RATIO_MASS)
    constant = trust * float(amounts.log_mean_kr[model, LATENCY])
    return constant, spread + trust * (RATIOS.percentile(amounts.ratio_kn[model], misses) - spread)
