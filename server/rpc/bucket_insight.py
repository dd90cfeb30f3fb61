"""Insight into a bucket's models and budgets, as the contract's messages.

>>> from pointsman.bandit.catalog import Budget
>>> from pointsman.bandit.pacer import new_pacer
>>> budget = Budget(10.0, period_ns=86_400 * 10**9)
>>> insight = write_budget_insight(ActiveBudget(budget, new_pacer(0)), QualityRange(), now_ns=0)
>>> insight.spent_usd, insight.period_end.ToSeconds()
(0.0, 86400)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pointsman.bandit.amounts import LOG_NORMAL_P95
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.health import Health
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import ActiveBudget, remaining
from pointsman.bandit.posterior import LATENCY, QUALITY, Posteriors, noise, predict, settle
from pointsman.bandit.trials import feedback_is_missing, newcomers, quotas
from pointsman.server.codec.catalog import write_budget
from pointsman.server.names import model_name
from pointsman.v1 import insight_service_pb2 as rpc


def write_budget_insight(active: ActiveBudget, quality: QualityRange, now_ns: int) -> rpc.BudgetInsight:
    """A budget as it stands at ``now_ns``; its multiplier is in the units of ``quality``, the scale of the bucket in question."""
    budget, pacer = active.budget, active.pacer
    insight = rpc.BudgetInsight(
        budget=write_budget(budget),
        spent_usd=pacer.spent,
        reserved_usd=budget.amount - remaining(active, now_ns) if budget.hard else 0.0,
        multiplier=pacer.multiplier * quality.width,
        target_usd_per_request=pacer.target,
    )
    if budget.period_ns:
        now_ns = max(now_ns, pacer.last_ns)
        start_ns = now_ns - now_ns % budget.period_ns
        insight.period_start.FromNanoseconds(start_ns)
        insight.period_end.FromNanoseconds(start_ns + budget.period_ns)
        if start_ns != pacer.start_ns:  # nothing was decided in this period yet
            insight.spent_usd = 0.0
    return insight


def write_quality_floor(bucket: BucketState) -> rpc.QualityFloorInsight | None:
    """A bucket's floor on mean quality as it stands, in its units of quality; ``None`` without one."""
    pacer, quality, floor = bucket.quality_pacer, bucket.config.quality_range, bucket.objective.min_mean_quality
    if pacer is None or floor is None:
        return None
    return rpc.QualityFloorInsight(
        min_mean_quality=floor,
        decisions=pacer.decisions,
        judged=pacer.judged,
        mean_quality=quality.min + quality.width * pacer.total / pacer.decisions if pacer.decisions else None,
        optimism=quality.width * pacer.optimism,
        target=quality.min + quality.width * pacer.target,
        multiplier=quality.width * pacer.multiplier,
    )


def write_model_insights(bucket: BucketState, health: Mapping[str, Health], now_ns: int) -> list[rpc.ModelInsight]:
    """Insight into each model of a bucket at ``now_ns``, by id: traffic, outcomes, its posterior at the average context.

    ``health`` is that of the models across buckets, by id; a model that is not in it is healthy.
    """
    quality = bucket.config.quality_range
    average_d = bucket.context_d.copy()
    average_d[-1] = 1.0  # the intercept, also before the first decision
    mean_kr, variance_kr = predict(bucket.posteriors, average_d)
    noise_kr = noise(bucket.posteriors)
    decisions = max(int(bucket.decisions_k.sum()), 1)
    new_k, quota_k, missing_k = newcomers(bucket), quotas(bucket), feedback_is_missing(bucket)
    insights = []
    for k, id_ in sorted(enumerate(bucket.columns), key=lambda column: column[1]):
        model_health = health.get(id_, Health())
        insight = rpc.ModelInsight(
            model=model_name(id_),
            decisions=int(bucket.decisions_k[k]),
            traffic_share=float(bucket.decisions_k[k] / decisions),
            quality_posterior_mean=quality.min + quality.width * float(mean_kr[k, QUALITY]),
            quality_posterior_sd=quality.width * float(np.sqrt(variance_kr[k, QUALITY])),
            quality_noise_sd=quality.width * float(np.sqrt(noise_kr[k, QUALITY])),
            success_rate=model_health.success_rate(now_ns),
            circuit_open=model_health.open,
            newcomer=bool(new_k[k]),
            unjudged_decisions=max(int(bucket.decisions_k[k] - bucket.count_sk[Signal.QUALITY, k]), 0),
            feedback_missing=bool(missing_k[k]),
            draw_share=float(quota_k[k]),
            latency_p95_factor=_p95_factor(bucket.posteriors, k),
            prior_mass=float(bucket.posteriors.mass_k[k]),
        )
        insight.MergeFrom(_write_outcomes(bucket, k))
        insight.MergeFrom(_write_list_price(bucket, k))
        insights.append(insight)
    return insights


def _p95_factor(posteriors: Posteriors, k: int) -> float:
    """The 95th percentile of latency of model number ``k`` over that of its log-normal regression, at an average context."""
    constant, spread = settle(posteriors).p95_k2[k].tolist()
    return math.exp(constant + spread - LOG_NORMAL_P95 * math.sqrt(float(noise(posteriors)[k, LATENCY])))


def _write_outcomes(bucket: BucketState, k: int) -> rpc.ModelInsight:
    """Fill in counts, averages and sums of the reports on model number ``k``."""
    count_s, sum_s = bucket.count_sk[:, k], bucket.sum_sk[:, k]

    def average(signal: Signal) -> float | None:
        return float(sum_s[signal] / count_s[signal]) if count_s[signal] else None

    successes = round(sum_s[Signal.SUCCESS])
    return rpc.ModelInsight(
        quality_observations=int(count_s[Signal.QUALITY]),
        cost_observations=int(count_s[Signal.COST]),
        latency_observations=int(count_s[Signal.LATENCY]),
        mean_quality=average(Signal.QUALITY),
        mean_cost_usd=average(Signal.COST),
        mean_latency_seconds=average(Signal.LATENCY),
        spend_usd=float(sum_s[Signal.COST]),
        successes=successes,
        failures=int(count_s[Signal.SUCCESS]) - successes,
    )


WARN_FROM = 8
"""Calls held against list prices from which on there is a warning."""
WARN_FACTOR = 1.2
"""Factor by which paid and listed costs may differ before there is one."""


def _write_list_price(bucket: BucketState, k: int) -> rpc.ModelInsight:
    """Fill in what was paid for model number ``k`` against its list prices."""
    paid, listed, calls = bucket.paid_k7[k, :3].tolist()
    if listed <= 0.0:
        return rpc.ModelInsight()
    ratio, warning = paid / listed, ""
    if calls >= WARN_FROM and not 1.0 / WARN_FACTOR <= ratio <= WARN_FACTOR:
        warning = (
            f"calls cost {ratio:.3g} times what its list prices say, over {calls:.0f} calls: expected costs are corrected, "
            "and hard budgets reserve more if it is more; put the prices that are paid into the catalogue"
        )
        if not 1.0 / 500.0 < ratio < 500.0:
            warning += " (per million tokens, not per thousand)"
    return rpc.ModelInsight(list_price_ratio=ratio, list_price_calls=round(calls), list_price_warning=warning)
