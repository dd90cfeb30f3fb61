"""Predictions of quality, cost, latency and output tokens for each candidate at a context, in natural units.

>>> from pointsman.bandit.posterior import Prior, add_models, empty
>>> priors = [Prior(0.5, b=0.5), Prior(np.log(0.001), b=0.5), Prior(np.log(2.0), b=0.5), Prior(np.log(256.0), b=0.5)]
>>> predicted = predictions_batch(add_models(empty(1), 2, priors), np.ones((1, 1))).at(0)
>>> predicted.quality_k.tolist()
[0.5, 0.5]
>>> predicted.cost_k.round(5).tolist()  # dollars: exp(μ + σ²/2) with E[σ²] = 0.25, as nothing was reported
[0.00113, 0.00113]
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import Model
from pointsman.bandit.novelty import Novelty, believed_quality
from pointsman.bandit.packed import Array, QuadraticForms
from pointsman.bandit.posterior import (
    COST,
    LATENCY,
    NONE,
    QUALITY,
    TOKENS,
    Posteriors,
    predict_batch,
    settle,
)

Ints = npt.NDArray[np.int64]

_MAX_LOG = 40.0  # keeps exp() finite whatever was reported


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a bucket can choose from: its models in the order of its posteriors' columns, which of them are switched on, and,
    derived, which are switched off (0 or 1), which are free by list, the context windows (0: unlimited), the most output tokens
    (infinite if unlimited or unknown), and, unless no model has prices, the dollars per input token, per output token and per
    request (NaN for a model without prices).
    """

    models: tuple[Model, ...]
    available: tuple[bool, ...]
    names: tuple[str, ...] = field(init=False)
    unavailable_k: Ints = field(init=False)
    window_k: Ints = field(init=False)
    output_k: Array = field(init=False)
    prices_3k: Array | None = field(init=False)
    free_k: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(model.id for model in self.models))
        off = [int(not available) for available in self.available]
        object.__setattr__(self, "unavailable_k", np.array(off, dtype=np.int64))
        prices = [
            (p.input_per_million, p.output_per_million, p.per_request) if (p := m.prices) else None for m in self.models
        ]
        table = np.array([price or (np.nan, np.nan, np.nan) for price in prices]).T.reshape(3, -1) / [
            [1e6],
            [1e6],
            [1.0],
        ]
        object.__setattr__(self, "prices_3k", table if any(prices) else None)
        object.__setattr__(self, "free_k", (table == 0.0).all(axis=0))
        object.__setattr__(self, "window_k", np.array([m.context_window for m in self.models], dtype=np.int64))
        object.__setattr__(self, "output_k", np.array([m.max_output_tokens or np.inf for m in self.models]))


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for each of k models, (k) at one context or (b, k) at b contexts.

    Mean and standard deviation of quality, scaled to [0, 1]; expected dollars, expected seconds and their 95th percentile,
    expected output tokens. ``draw_sd_k`` are the standard deviations of draws of quality that are not wide, ``None`` in former
    decisions; ``novelty`` is how new the context is to each model, ``None`` where it is new to none; ``charged_k`` the dollars
    that budgets charge, ``None`` where these are the expected ones (``bandit.optimism``).
    """

    quality_k: Array
    quality_sd_k: Array
    cost_k: Array
    latency_k: Array
    latency_p95_k: Array
    tokens_k: Array
    draw_sd_k: Array | None = None
    novelty: Novelty | None = None
    charged_k: Array | None = None

    def take(self, models: npt.NDArray[np.intp]) -> Predictions:
        """Those of some of the models, of a batch."""
        return Predictions(
            self.quality_k[:, models],
            self.quality_sd_k[:, models],
            self.cost_k[:, models],
            self.latency_k[:, models],
            self.latency_p95_k[:, models],
            self.tokens_k[:, models],
            None if self.draw_sd_k is None else self.draw_sd_k[:, models],
            None if self.novelty is None else self.novelty.map(lambda array_bk: array_bk[:, models]),
            None if self.charged_k is None else self.charged_k[:, models],
        )

    def at(self, row: int) -> Predictions:
        """Those of one context of a batch."""
        return Predictions(
            self.quality_k[row],
            self.quality_sd_k[row],
            self.cost_k[row],
            self.latency_k[row],
            self.latency_p95_k[row],
            self.tokens_k[row],
            None if self.draw_sd_k is None else self.draw_sd_k[row],
            None
            if self.novelty is None or not self.novelty.share_k[row].any()
            else self.novelty.map(lambda array_bk: array_bk[row]),
            None if self.charged_k is None else self.charged_k[row],
        )

    def batch(self) -> Predictions:
        """Those of one context as a batch of one."""
        return Predictions(
            self.quality_k[None],
            self.quality_sd_k[None],
            self.cost_k[None],
            self.latency_k[None],
            self.latency_p95_k[None],
            self.tokens_k[None],
            None if self.draw_sd_k is None else self.draw_sd_k[None],
            None if self.novelty is None else self.novelty.map(lambda array_k: array_k[None]),
            None if self.charged_k is None else self.charged_k[None],
        )


def predictions_batch(posteriors: Posteriors, x_bd: Array) -> Predictions:
    """Predictions at b contexts, each (b, k). O(b·k·d²)."""
    return regress(posteriors, x_bd)[0]


def regress(posteriors: Posteriors, x_bd: Array, token_b: Array | None = None) -> tuple[Predictions, list[Array]]:
    """Predictions at b contexts, each (b, k), and xᵀΣx of cost, latency and tokens there, each (b, k). O(b·k·d²).

    ``token_b`` are the logarithms of the input tokens, NaN where unknown (``bandit.token_slope``): of those the variances then
    have their part.
    """
    forms = QuadraticForms(x_bd)
    mean_bkr, amount_3bk = predict_batch(posteriors, x_bd, (COST, LATENCY, TOKENS), forms)
    believed = believed_quality(posteriors, forms, mean_bkr[:, :, QUALITY])
    # The spread of θ is left out: a model of which little is known should look as its prior says, not dearer for being unknown.
    amounts = settle(posteriors)
    if token_b is not None and amounts.slope_kr.any():
        _add_token_effects(posteriors, x_bd, token_b, mean_bkr, amount_3bk)
    expected_bkr = mean_bkr[:, :, COST:] + amounts.log_mean_kr[:, COST:]
    np.minimum(expected_bkr, _MAX_LOG, out=expected_bkr)
    np.exp(expected_bkr, out=expected_bkr)
    p95_bk = mean_bkr[:, :, LATENCY] + amounts.p95_k2[:, 0] + amounts.p95_k2[:, 1] * np.sqrt(1.0 + amount_3bk[1])
    predicted = Predictions(
        quality_k=believed.mean_bk,
        quality_sd_k=believed.sd_bk,
        cost_k=expected_bkr[:, :, COST - 1],
        latency_k=expected_bkr[:, :, LATENCY - 1],
        latency_p95_k=np.exp(np.minimum(p95_bk, _MAX_LOG, out=p95_bk), out=p95_bk),
        tokens_k=expected_bkr[:, :, TOKENS - 1],
        draw_sd_k=believed.draw_sd_bk,
        novelty=believed.novelty if believed.novelty.share_k.any() else None,
    )
    return predicted, amount_3bk


def _add_token_effects(
    posteriors: Posteriors, x_bd: Array, token_b: Array, mean_bkr: Array, quadratic_3bk: list[Array]
) -> None:
    """Add to the means of amounts, and to xᵀΣx, in place, what the tokens tell beyond x."""
    amounts, beyond_by_design = posteriors.amounts, dict[int, Array]()
    for response, number in enumerate(posteriors.design_r.tolist()):
        if response == QUALITY or number == NONE:
            continue
        if number not in beyond_by_design:
            beyond_bk = token_b[:, None] - x_bd @ posteriors.designs[number].token_mean_kd.T
            beyond_by_design[number] = np.nan_to_num(beyond_bk)
        beyond_bk = beyond_by_design[number] * (amounts.slope_kr[:, response] != 0.0)
        mean_bkr[:, :, response] += amounts.slope_kr[:, response] * beyond_bk
        quadratic_3bk[response - 1] = (
            quadratic_3bk[response - 1] + beyond_bk**2 / amounts.slope_precision_kr[:, response]
        )


def priced(
    predicted: Predictions,
    candidates: Candidates,
    count_rk: Ints,
    input_b: Ints,
    max_output_b: Ints,
    ratio_k: Array | float = 1.0,
) -> Predictions:
    """``predicted`` (b, k) with the cost of models that have prices made from them.

    That is price_in·input tokens + price_out·E[output tokens] + price of the request: a price change acts at once, with
    nothing to relearn; times ``ratio_k``, what is paid over what the list says (``bandit.list_prices``). ``count_rk`` counts what
    was observed of each response (rows as in ``bandit.posterior``), ``input_b`` the input tokens and ``max_output_b`` the most
    output tokens allowed (-1 when unknown). Where input tokens matter and are unknown, or only dollars were ever reported, or all
    is free by list and something was paid, the cost stays that of the regression.
    """
    if candidates.prices_3k is None:
        return predicted
    in_k, out_k, request_k = candidates.prices_3k
    told_k = (count_rk[TOKENS] > 0) | (count_rk[COST] == 0) | (out_k == 0.0)
    if candidates.free_k.any():
        told_k &= ~candidates.free_k | (count_rk[COST] == 0)  # free by list, and something was paid
    known_bk = np.isfinite(in_k) & told_k & ((input_b[:, None] >= 0) | (in_k == 0.0))
    most_bk = np.minimum(np.where(max_output_b[:, None] >= 0, max_output_b[:, None], np.inf), candidates.output_k)
    tokens_bk = np.minimum(predicted.tokens_k, most_bk)
    cost_bk = (in_k * np.maximum(input_b, 0)[:, None] + out_k * tokens_bk + request_k) * ratio_k
    return replace(predicted, cost_k=np.where(known_bk, cost_bk, predicted.cost_k))


def max_costs(candidates: Candidates, input_b: Ints, max_output_b: Ints, ratio_k: Array | float = 1.0) -> Array:
    """The most that each model's call can cost, (b, k) dollars: its prices times the most tokens, times ``ratio_k`` (at least 1),
    what is paid over what the list says; infinite where unbounded.

    ``input_b`` are input tokens and ``max_output_b`` the most output tokens that requests allow, -1 when unknown: then
    the model's own limits count.
    """
    if candidates.prices_3k is None:
        return np.full((len(input_b), len(candidates.models)), np.inf)
    in_k, out_k, request_k = candidates.prices_3k
    window_k = np.where(candidates.window_k > 0, candidates.window_k, np.inf)
    input_bk = np.where(input_b[:, None] >= 0, input_b[:, None], window_k)
    output_bk = np.minimum(np.where(max_output_b[:, None] >= 0, max_output_b[:, None], np.inf), candidates.output_k)
    output_bk = np.minimum(output_bk, window_k)
    with np.errstate(invalid="ignore"):  # a price of nothing for tokens without end
        dollars_bk = np.where(in_k > 0.0, in_k * input_bk, 0.0) + np.where(out_k > 0.0, out_k * output_bk, 0.0)
    return np.asarray(np.where(np.isnan(in_k), np.inf, (dollars_bk + request_k) * ratio_k))
