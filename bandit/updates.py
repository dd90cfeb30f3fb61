"""Learning and forgetting: what an answer, its correction, its retraction and time do to ``Posteriors``, in place.

- Only ``y`` enters η and b, so a correction y → y′ needs no downdate: Λ and Σ stay.
- Forgetting weighs an observation by the age of its *decision*, so that it does not matter when, or in which order, outcomes
  arrive: a design's ``log_decay_k`` says what a decision made now will count, and an outcome is learned with what is left of
  the log decay of its decision.
- A change detector watches the standardised residuals; after an alarm little of what was learned counts.

>>> from pointsman.bandit.posterior import QUALITY, Prior, add_models, empty, predict
>>> posteriors = add_models(empty(1), 1, [Prior(0.5, b=0.5)] * 4)
>>> observe_all(posteriors, 0, np.ones(1), [(QUALITY, 0.9)])
[]
>>> round(float(predict(posteriors, np.ones(1))[0][0, QUALITY]), 3)  # (0.1 · 0.5 + 1 · 0.9) / 1.1
0.864
>>> correct(posteriors, QUALITY, 0, np.ones(1), before=0.9, after=0.6)
>>> round(float(predict(posteriors, np.ones(1))[0][0, QUALITY]), 3)
0.591
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg.blas import dger, dspmv, dspr

from pointsman.bandit import shrinkage
from pointsman.bandit.amounts import decay_amounts
from pointsman.bandit.packed import Array, diagonal_indices
from pointsman.bandit.posterior import (
    DOWN,
    NONE,
    PRIOR_A,
    QUALITY,
    RESPONSES,
    SQUARE,
    UP,
    A,
    B,
    Design,
    Posteriors,
    by_design,
    prior_precision,
    refresh,
    reweigh,
)

REFRESH = 256
"""Observations of a cell between two factorisations: O(d³) every 256 costs less than one O(d²) step on average."""


def observe_all(
    posteriors: Posteriors,
    model: int,
    x_d: Array,
    answers: Sequence[tuple[int, float]],
    weight: float = 1.0,
    half_life: float = 0.0,
    decision_log_decays: Sequence[float] = (),
    token: float = 0.0,
) -> list[int]:
    """Learn in place the ``answers``, (response, y) pairs, that ``model`` gave at ``x_d`` at the same time. O(d²).

    ``half_life`` is the number of observations after which one counts half; 0 means never. ``log_decays`` (by response) are those
    of the decision (``clock``); the present ones by default; ``token`` is the logarithm of its input tokens
    (``bandit.token_slope``). Returns the responses that were found to have changed, and of
    which little is kept.
    """
    dim = x_d.size
    mean_dr, eta_dr = posteriors.mean_krd[model].T, posteriors.eta_krd[model].T
    fitted_r = x_d.dot(mean_dr).tolist()
    scalar_rs = posteriors.scalar_krs[model].tolist()
    changed: list[int] = []
    for number, together in by_design(posteriors, answers):
        design = posteriors.designs[number]
        count = int(design.count_k[model])
        share = weight
        if decision_log_decays:
            share *= math.exp(min(0.0, float(design.log_decay_k[model]) - decision_log_decays[together[0][0]]))
        cov_p = design.cov_kp[model]
        v_d = dspmv(dim, 1.0, cov_p, x_d)
        widening = 1.0 + share * float(x_d.dot(v_d))
        gain = share / widening
        push_r, pull_r = [0.0] * RESPONSES, [0.0] * RESPONSES
        for response, y in together:
            residual = y - fitted_r[response]
            push_r[response], pull_r[response] = gain * residual, share * y
            scalars = scalar_rs[response]
            if count >= WATCH_FROM and _watch(scalars, residual, widening):
                changed.append(response)
            scalars[A] += 0.5 * share
            scalars[B] += 0.5 * gain * residual * residual
            scalars[SQUARE] += share * y * y
            posteriors.scalar_krs[model, response] = scalars
            if response == QUALITY and posteriors.shrinkages is not None:
                shrinkage.learn(posteriors.shrinkages, model, x_d, y, share, widening)
                reweigh(posteriors, model)
        # in place, all of them: rows are contiguous doubles
        dger(1.0, v_d, push_r, a=mean_dr, overwrite_a=1)
        dger(1.0, x_d, pull_r, a=eta_dr, overwrite_a=1)
        if token or design.token_square_k[model]:
            _observe_token(posteriors, design, model, x_d, v_d, token, share, gain, together)
        dspr(dim, -gain, v_d, cov_p, overwrite_ap=1)
        dspr(dim, share, x_d, design.precision_kp[model], overwrite_ap=1)
        design.count_k[model] = count = count + 1
        interval = _every(half_life)
        if count % interval == 0:
            if half_life > 0.0:
                decay(posteriors, number, model, 2.0 ** (-interval / half_life))
            refresh(posteriors, number, model)
    for response in changed:
        cap_response_sample_size(posteriors, model, response)
    return changed


def _observe_token(
    posteriors: Posteriors,
    design: Design,
    model: int,
    x_d: Array,
    v_d: Array,
    token: float,
    share: float,
    gain: float,
    together: Sequence[tuple[int, float]],
) -> None:
    """Learn, in place, the logarithm of the input tokens of ``together``, answers of one design with weight ``share``."""
    design.token_mean_kd[model] += gain * (token - float(x_d.dot(design.token_mean_kd[model]))) * v_d
    design.token_eta_kd[model] += share * token * x_d
    design.token_square_k[model] += share * token * token
    for response, y in together:
        posteriors.amounts.cross_kr[model, response] += share * token * y


def _every(half_life: float) -> int:
    """Observations between two decays, or two factorisations of Λ."""
    return REFRESH if half_life == 0.0 else max(1, min(REFRESH, int(half_life / 8)))


def log_decay(posteriors: Posteriors, model: int, response: int) -> float:
    """Natural logarithm (<= 0) of the weight that forgetting has left of an observation made at the start."""
    number = int(posteriors.design_r[response])
    return (
        float(posteriors.idle_log_decay_1[0])
        if number == NONE
        else float(posteriors.designs[number].log_decay_k[model])
    )


def decay_all(posteriors: Posteriors, share: float) -> None:
    """Multiply the weight of all data by ``share``, in (0, 1], in place. O(k·d³)."""
    posteriors.idle_log_decay_1 += math.log(share)
    for design in range(len(posteriors.designs)):
        for model in range(posteriors.models):
            decay(posteriors, design, model, share)
            refresh(posteriors, design, model)


def decay(posteriors: Posteriors, design: int, model: int, share: float) -> None:
    """Multiply the weight of the data of one model in one design by ``share``, in place; ``refresh`` must follow.

    Stabilised forgetting: Λ, η and a move towards the prior, not towards nothing (Kulhavý & Zarrop 1993, "On a general
    concept of forgetting"); b follows from the sums. So the cell is the posterior of its observations with weights.
    """
    dim, shared = posteriors.dim, posteriors.designs[design]
    responses = posteriors.responses_of(design)
    diagonal_d = prior_precision(posteriors.ridge_d(responses[0]), float(posteriors.mass_k[model]))
    shared.precision_kp[model] *= share
    shared.precision_kp[model][diagonal_indices(dim)] += (1.0 - share) * diagonal_d
    shared.log_decay_k[model] += math.log(share)
    shared.token_eta_kd[model] *= share
    shared.token_square_k[model] *= share
    for response in responses:
        posteriors.eta_krd[model, response] *= share
        posteriors.eta_krd[model, response, -1] += (
            (1.0 - share) * diagonal_d[-1] * posteriors.prior_kr2[model, response, 0]
        )
        posteriors.a_kr[model, response] += (1.0 - share) * (PRIOR_A - posteriors.a_kr[model, response])
        posteriors.square_kr[model, response] *= share
        decay_amounts(posteriors.amounts, model, response, share)


CUSUM_ALLOWANCE = 0.25
"""Half of the shift, in standard deviations of a response, that the change detector is tuned to find."""
CUSUM_THRESHOLD = 25.0
"""Sum at which the change detector raises an alarm: about once in 10⁵ observations that are as predicted."""
WATCH_FROM = 30
"""Observations of a model after which the change detector starts."""
ESS_AFTER_ALARM = 10.0
"""Effective sample size of a model's data after an alarm."""


def _watch(scalars: list[float], residual: float, widening: float) -> bool:
    """Whether a response has changed: two one-sided CUSUMs (Page 1954) of the standardised residual, clipped at 3.

    ``scalars`` are the cell's, of which the sums are changed in place; ``widening`` is 1 + xᵀΣx: the predictive variance is
    that much times the noise's.
    """
    z = residual / math.sqrt(scalars[B] / (scalars[A] - 1.0) * widening)
    z = 3.0 if z > 3.0 else -3.0 if z < -3.0 else z
    scalars[UP] = max(0.0, scalars[UP] + z - CUSUM_ALLOWANCE)
    scalars[DOWN] = max(0.0, scalars[DOWN] - z - CUSUM_ALLOWANCE)
    return scalars[UP] > CUSUM_THRESHOLD or scalars[DOWN] > CUSUM_THRESHOLD


def cap_response_sample_size(
    posteriors: Posteriors, model: int, response: int, effective_size: float = ESS_AFTER_ALARM
) -> None:
    """Let what was learned of one response of a model count as at most ``effective_size`` observations, in place.

    The response gets a design of its own if it shares one, and its change detector starts again.
    """
    ((number, _),) = by_design(posteriors, ((response, 0.0),))  # it gets a design of its own
    cap_effective_sample_size(posteriors, number, model, effective_size)
    posteriors.alarm_kr2[model, response] = 0.0


def cap_effective_sample_size(posteriors: Posteriors, design: int, model: int, effective_size: float) -> None:
    """Let the data of one model in one design count as at most ``effective_size`` observations, in place."""
    mass = float(posteriors.designs[design].precision_kp[model, -1]) - float(posteriors.mass_k[model])
    if mass > effective_size:
        decay(posteriors, design, model, effective_size / mass)
        refresh(posteriors, design, model)


def allow_shift(posteriors: Posteriors, design: int, model: int, level_size: float) -> None:
    """Let the level of one model's data in one design count as ``level_size`` observations at most, in place, and the effects of
    features as before. O(d³).

    As if all its outcomes had been shifted by one unknown number δ ~ N(0, σ²/κ), κ = ``level_size``, for each response, which is
    integrated out: with l = Σwx (n its last) and s = Σwy, Λ loses llᵀ/(κ + n), η loses l·s/(κ + n), Σwy² loses s²/(κ + n).
    """
    dim, shared = posteriors.dim, posteriors.designs[design]
    sum_d = shared.precision_kp[model, -dim:].copy()
    sum_d[-1] -= posteriors.mass_k[model]
    if sum_d[-1] <= 0.0 or math.isinf(level_size):
        return
    share = 1.0 / (level_size + float(sum_d[-1]))
    dspr(dim, -share, sum_d, shared.precision_kp[model], overwrite_ap=1)
    tokens = float(shared.token_eta_kd[model, -1])
    shared.token_eta_kd[model] -= share * tokens * sum_d
    shared.token_square_k[model] -= share * tokens**2
    for response in np.flatnonzero(posteriors.design_r == design).tolist():
        cell = (model, response)
        total = float(posteriors.eta_krd[cell][-1] - posteriors.mass_k[model] * posteriors.prior_kr2[cell][0])
        posteriors.eta_krd[cell] -= share * total * sum_d
        posteriors.square_kr[cell] -= share * total**2
        posteriors.amounts.cross_kr[cell] -= share * total * tokens
    refresh(posteriors, design, model)


def correct(
    posteriors: Posteriors,
    response: int,
    model: int,
    x_d: Array,
    before: float,
    after: float,
    weight: float = 1.0,
    token: float = 0.0,
) -> None:
    """Learn in place that the answer at ``x_d``, observed as ``before`` with ``weight``, was ``after``. O(d²).

    The result is that of having observed ``after`` in the first place (up to rounding).
    """
    cell = (model, response)
    mean_d = posteriors.mean_krd[cell]
    cov_p = posteriors.designs[posteriors.design_r[response]].cov_kp[model]
    v_d = dspmv(x_d.size, 1.0, cov_p, x_d)
    shift = weight * (after - before)
    middle = before + after - 2.0 * float(mean_d.dot(x_d)) - shift * float(x_d.dot(v_d))
    posteriors.b_kr[cell] += 0.5 * shift * middle
    mean_d += shift * v_d
    posteriors.eta_krd[cell] += shift * x_d
    posteriors.square_kr[cell] += shift * (after + before)
    posteriors.amounts.cross_kr[cell] += shift * token
    if response == QUALITY and posteriors.shrinkages is not None:
        shrinkage.correct(posteriors.shrinkages, model, x_d, before, after, weight)
        reweigh(posteriors, model)


def retract_all(
    posteriors: Posteriors,
    model: int,
    x_d: Array,
    answers: Sequence[tuple[int, float, float]],
    half_life: float = 0.0,
    token: float = 0.0,
) -> None:
    """Take back, in place, that ``model`` answered at ``x_d``: (response, y, weight) triples, each observed before. O(d³).

    The result is that of never having observed them (up to rounding), but for what the change detector made of them. Where
    they made the others decay, that is undone.
    """
    weights = {response: weight for response, _, weight in answers}
    for number, together in by_design(posteriors, [(response, y) for response, y, _ in answers]):
        design, weight = posteriors.designs[number], weights[together[0][0]]
        for response, y in together:
            posteriors.a_kr[model, response] -= 0.5 * weight
            posteriors.square_kr[model, response] -= weight * y * y
            posteriors.eta_krd[model, response] -= weight * y * x_d
            posteriors.amounts.cross_kr[model, response] -= weight * y * token
        design.token_eta_kd[model] -= weight * token * x_d
        design.token_square_k[model] -= weight * token * token
        dspr(x_d.size, -weight, x_d, design.precision_kp[model], overwrite_ap=1)
        interval = _every(half_life)
        if half_life > 0.0 and design.count_k[model] % interval == 0:
            decay(posteriors, number, model, 2.0 ** (interval / half_life))
        design.count_k[model] -= 1
        refresh(posteriors, number, model)
